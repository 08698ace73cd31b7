//! Every error a user sees: its words, its place in a file, and the exit code. The engine gives facts; sentences are
//! made here.

use std::path::Path;
use std::process::ExitCode;

use atflow::cache::CacheError;
use atflow::cache::remote::RemoteError;
use atflow::external_inputs::causes;
use atflow::fetch::FetchError;
use atflow::plain::plain;
use atflow::protocol::{Failure, FailureCode};
use atflow::scheduler::{RunError, WorkerError};
use atflow::signing::KeyError;
use atflow::spec::{Place, Problem, Problems, Warning};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, Severity, SourceCode};

use crate::again::with_cache;
use crate::excerpt::Excerpt;
use crate::ui;

/// How the program ends. The numbers are fixed: scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    StageFailed = 1,
    Wrong = 2,
    Differs = 3,
    /// An agent cannot use the cache from its machine: `EX_TEMPFAIL`.
    Storage = 75,
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// An error on its way to the user.
#[derive(Debug)]
pub(crate) struct CliError {
    diagnostics: Vec<Shown>,
    exit: Exit,
}

impl CliError {
    /// Something about this machine is wrong.
    pub(crate) fn environment(message: impl Into<String>) -> Self {
        Shown {
            message: message.into(),
            causes: Vec::new(),
            help: None,
            source: None,
            span: None,
            label: String::new(),
            at: None,
            is_warning: false,
        }
        .into()
    }

    /// The same with advice.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        if let Some(first) = self.diagnostics.first_mut() {
            first.help = Some(help.into());
        }
        self
    }

    /// The same with another exit code.
    #[must_use]
    pub(crate) fn exits(self, exit: Exit) -> Self {
        CliError { exit, ..self }
    }

    /// The same with what led to it, outermost first.
    #[must_use]
    pub(crate) fn because(mut self, causes: Vec<String>) -> Self {
        if let Some(first) = self.diagnostics.first_mut() {
            first.causes = causes;
        }
        self
    }

    /// The error in one line, without advice.
    pub(crate) fn words(&self) -> String {
        let line = |shown: &Shown| [std::slice::from_ref(&shown.message), &shown.causes].concat().join(": ");
        self.diagnostics.iter().map(line).collect::<Vec<_>>().join("; ")
    }

    /// Prints the error to standard error and gives the exit code.
    pub(crate) fn show(&self) -> ExitCode {
        for shown in &self.diagnostics {
            eprint_drawn(&render(shown));
        }
        self.exit.into()
    }

    /// Prints the error to standard output, for a program that reads there.
    pub(crate) fn print_json(&self) {
        let problem = |shown: &Shown| {
            serde_json::json!({
                "message": shown.message, "causes": shown.causes, "help": shown.help, "at": shown.at,
            })
        };
        let problems: Vec<_> = self.diagnostics.iter().map(problem).collect();
        // It is told on standard error as well.
        _ = ui::print_data(&format!("{}\n", serde_json::json!({ "error": self.words(), "problems": problems })));
    }
}

impl From<Shown> for CliError {
    fn from(shown: Shown) -> Self {
        CliError { diagnostics: vec![shown], exit: Exit::Wrong }
    }
}

impl From<Problems> for CliError {
    fn from(problems: Problems) -> Self {
        CliError { diagnostics: problems.0.into_iter().map(Shown::from).collect(), exit: Exit::Wrong }
    }
}

/// Whether a remote cache is on a cache server of Bazel's.
fn is_cache_server(name: &str) -> bool {
    name.starts_with("bazel-") || name.starts_with("reapi")
}

impl From<CacheError> for CliError {
    fn from(error: CacheError) -> Self {
        let help = match &error {
            CacheError::Format { .. } => "use another folder with --cache, or the version of atflow that made this one",
            CacheError::Remote(RemoteError::Fetch(FetchError::Refused { status, .. }))
                if ![401, 403].contains(status) =>
            {
                "what the server takes is up to it: it may be full, or take no file of this size"
            }
            CacheError::Remote(RemoteError::Fetch(FetchError::Refused { .. })) => {
                "check that the server takes files from you: its user and password stand in the address, bazel-https://user:password@…"
            }
            CacheError::Remote(RemoteError::NoActionResult { .. }) => {
                "check the address: bazel-http://HOST:PORT names the server itself, below which /ac/ and /cas/ lie"
            }
            CacheError::Remote(RemoteError::NoCache { name }) if is_cache_server(name.secret()) => {
                "check the address; `atflow push` makes a cache there"
            }
            CacheError::Remote(RemoteError::NoLeases { .. }) => {
                "work is shared through a bucket, --remote s3://… (gs://…, az://…); runs and agents with one cache folder share it anyway"
            }
            CacheError::Remote(RemoteError::NotBuilt { .. }) => {
                "build it without `--no-default-features`, or use bazel-http:// if the server speaks that"
            }
            CacheError::Remote(RemoteError::Store { name, .. } | RemoteError::Denied { name, .. })
                if name.secret().starts_with("reapi") =>
            {
                "check the address, reapi://HOST:PORT/INSTANCE; credentials stand in it (reapis://user:password@…) or in ATFLOW_REMOTE_HEADER=NAME=VALUE"
            }
            CacheError::Remote(RemoteError::Fetch(_)) => {
                "try again later, or leave --remote out; what was fetched is kept"
            }
            CacheError::Remote(RemoteError::Denied { .. } | RemoteError::Store { .. }) => {
                "credentials and endpoint come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL, \
                 AWS_SKIP_SIGNATURE=true for a public bucket; GOOGLE_…; AZURE_…"
            }
            CacheError::Read(_) | CacheError::Remote(RemoteError::Corrupt(_)) => {
                "`atflow verify --repair` puts corrupt files of the cache aside; a run makes them again"
            }
            CacheError::Remote(_) => "check the address: it names the folder that holds VERSION, objects/ and actions/",
            CacheError::NoOutput { .. } => {
                "it was changed by hand or by another program: remove it, and run the pipeline again"
            }
            CacheError::NoCache { .. } => {
                "name the cache with --cache, else $ATFLOW_CACHE, else it is cache/ in the folder you are in; `atflow run` makes one"
            }
            CacheError::ReadOnly { .. } => {
                "reading works: `atflow plan`, `show` and `table`; to run, use a cache of your own with --cache"
            }
            CacheError::File(error) if error.source.kind() == std::io::ErrorKind::StorageFull => {
                "free some space and run again: nothing that was finished is lost"
            }
            CacheError::File(_) => "check the folder and its permissions, or use another one with --cache",
        };
        let mut chain = causes(&error);
        // The file error stands for itself: its sentence names the operation and the path.
        let message = chain.remove(0);
        CliError::environment(message).because(chain).help(help)
    }
}

impl From<KeyError> for CliError {
    fn from(error: KeyError) -> Self {
        let help = match &error {
            KeyError::File(_) => "check the path and its permissions",
            KeyError::NoKey { .. } => "give the line of the key that begins with RW, or the file that holds it",
            KeyError::Other { .. } => "`atflow keygen FILE`, or `minisign -G -W`, makes a pair of keys",
            KeyError::WrongHalf { expected: "secret", .. } => {
                "sign with the file that has no `.pub` in its name; the public key is for those who check"
            }
            KeyError::WrongHalf { .. } => "trust the file that ends in `.pub`; the secret key stays with who signs",
            KeyError::NoPassword { .. } => "give its password in ATFLOW_SIGN_PASSWORD, or run on a terminal",
            KeyError::Locked { .. } => "check the password, and that the file is whole",
            KeyError::Failed { .. } => "make another pair of keys: `atflow keygen FILE`",
        };
        let mut chain = causes(&error);
        let message = chain.remove(0);
        chain.retain(|cause| *cause != message);
        CliError::environment(message).because(chain).help(help)
    }
}

impl From<RunError> for CliError {
    fn from(error: RunError) -> Self {
        let help = match &error {
            RunError::Cache(_) => match error {
                RunError::Cache(error) => return error.into(),
                RunError::Worker(_) | RunError::Storage { .. } => None,
            },
            RunError::Worker(WorkerError::Start { .. }) => {
                Some("the worker is built with `make build` and lies beside atflow; $ATFLOW_WORKER names another one")
            }
            RunError::Worker(WorkerError::Protocol { .. }) => {
                Some("build both programs from the same source: `make build`")
            }
            RunError::Worker(WorkerError::Died { .. }) => {
                Some("run the program by hand to see why: atflow-worker --version")
            }
            RunError::Worker(WorkerError::Killed { .. }) => Some(
                "most likely the machine is short of memory, and the system or a batch system killed it: free some, ask \
                 for more, or start fewer workers with --jobs; what was finished is kept",
            ),
            RunError::Worker(WorkerError::Unusable(_)) => None,
            RunError::Storage { .. } => {
                Some("free some space, or look at the file system of this machine; what was finished is kept")
            }
        };
        let mut chain = causes(&error);
        let message = chain.remove(0);
        // `transparent` errors name themselves twice.
        chain.retain(|cause| *cause != message);
        if let RunError::Storage { causes, .. } = &error {
            chain.clone_from(causes);
        }
        let shown = CliError::environment(message).because(chain);
        match help {
            Some(help) => shown.help(help),
            None => shown,
        }
    }
}

/// Prints the warnings of a pipeline to standard error.
pub(crate) fn warn(warnings: &[Warning]) {
    for warning in warnings {
        eprint_drawn(&render(&Shown { is_warning: true, ..warning.problem.clone().into() }));
    }
}

/// Returns the warnings of a pipeline for programs.
pub(crate) fn warnings_json(warnings: &[Warning]) -> serde_json::Value {
    let warning = |Warning { lint, problem }: &Warning| {
        let at = problem.place.as_ref().map(ToString::to_string);
        serde_json::json!({ "name": lint.name(), "message": problem.message, "help": problem.help, "at": at })
    };
    warnings.iter().map(warning).collect()
}

/// What is shown of a failed stage, whose log is in this cache. Its texts may come from any program.
pub(crate) fn stage_failure(stage: &str, failure: &Failure, cache: &Path) -> String {
    let help = match failure.code {
        FailureCode::Barred => "go deeper with --from, or name a --remote that has its result".to_owned(),
        FailureCode::Invalid => "correct the pipeline; the rest of its results are kept".to_owned(),
        _ => {
            let command = with_cache(&["log", stage], cache);
            format!("`{command}` shows all that it said; what was finished is kept")
        }
    };
    render(&Shown {
        message: format!("{stage} failed: {}", failure.message),
        causes: failure.causes.clone(),
        help: Some(help),
        source: None,
        span: None,
        label: String::new(),
        at: None,
        is_warning: false,
    })
}

/// A diagnostic with the source it is about.
#[derive(Debug)]
struct Shown {
    message: String,
    causes: Vec<String>,
    help: Option<String>,
    source: Option<Excerpt>,
    span: Option<std::ops::Range<usize>>,
    label: String,
    /// File, line and column.
    at: Option<String>,
    is_warning: bool,
}

impl From<Problem> for Shown {
    fn from(problem: Problem) -> Self {
        let shown = |place: &Place| Excerpt::new(place.file.name(), &place.file.text, place.span());
        let (source, span) = problem.place.as_ref().map(shown).unzip();
        let at = problem.place.as_ref().map(ToString::to_string);
        let Problem { message, help, label, .. } = problem;
        Shown { message, causes: Vec::new(), help, source, span, label, at, is_warning: false }
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&plain(&self.message))?;
        self.causes.iter().try_for_each(|cause| write!(f, "\n{}", plain(cause)))
    }
}

impl std::error::Error for Shown {}

impl Diagnostic for Shown {
    fn severity(&self) -> Option<Severity> {
        Some(if self.is_warning { Severity::Warning } else { Severity::Error })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(plain(help)) as Box<dyn std::fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.clone()?;
        let label = (!self.label.is_empty()).then(|| plain(&self.label).into_owned());
        Some(Box::new(std::iter::once(LabeledSpan::new(label, span.start, span.len()))))
    }
}

fn render(diagnostic: &dyn Diagnostic) -> String {
    // Colour and line drawing only where somebody sees them; a log gets plain ASCII.
    let is_terminal = console::user_attended_stderr();
    let theme = match (is_terminal, console::colors_enabled_stderr()) {
        (true, true) => GraphicalTheme::unicode(),
        (true, false) => GraphicalTheme::unicode_nocolor(),
        (false, _) => GraphicalTheme::none(),
    };
    let width = if is_terminal { usize::from(console::Term::stderr().size().1).clamp(40, 120) } else { 120 };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(width).with_links(false).without_cause_chain();
    let mut out = String::new();
    if handler.render_report(&mut out, diagnostic).is_err() {
        out = format!("{diagnostic}\n");
    }
    out
}

/// Prints words to standard error. What others wrote into them does nothing to a terminal.
pub(crate) fn eprint(text: &str) {
    eprint_drawn(&plain(text));
}

/// Prints what was drawn here, colours and all; if even standard error is closed there is nobody to tell.
pub(crate) fn eprint_drawn(text: &str) {
    use std::io::Write;
    _ = std::io::stderr().lock().write_all(text.as_bytes());
}
