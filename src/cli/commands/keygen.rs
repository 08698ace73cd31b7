//! `atflow keygen`: a pair of keys to sign results with, in files that the `minisign` tool reads, too.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use atflow::signing::{PublicKey, new_keys};

use crate::args::KeygenArgs;
use crate::report::{CliError, Exit, eprint};
use crate::ui;

/// The variable that holds a key's password where nobody can be asked.
const PASSWORD: &str = "ATFLOW_SIGN_PASSWORD";

pub(crate) fn run(args: &KeygenArgs) -> Result<Exit, CliError> {
    let mut name = args.file.clone().into_os_string();
    name.push(".pub");
    let public_file = PathBuf::from(name);
    for file in [&args.file, &public_file] {
        if file.exists() {
            let message = format!("{} is there already: a key is not overwritten", file.display());
            return Err(CliError::environment(message).help("name another file, or move that one away"));
        }
    }
    let password = match args.password {
        true => Some(password(true).ok_or_else(|| {
            CliError::environment("no password was given").help(format!("give it in {PASSWORD}, or run on a terminal"))
        })?),
        false => None,
    };
    let (secret, public) = new_keys(password)?;
    write(&args.file, &secret, 0o600)?;
    write(&public_file, &public, 0o644)?;
    let key = PublicKey::named(&public_file.display().to_string())?;
    eprint(&format!(
        "secret key in {}: keep it to yourself, `atflow push --sign` signs with it\n\
         public key in {}: others give it to --trust\n",
        args.file.display(),
        public_file.display()
    ));
    ui::print(&format!("{key}\n"))?;
    Ok(Exit::Done)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), CliError> {
    // A file that came into being meanwhile stays.
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
        CliError::environment(format!("cannot write {}: {error}", path.display()))
            .help("check the folder and its permissions")
    })
}

/// The password of a key: from the environment, or asked for on the terminal, twice for a new one. Nothing if there is
/// neither.
pub(crate) fn password(is_new: bool) -> Option<String> {
    if let Some(password) = std::env::var(PASSWORD).ok().filter(|password| !password.is_empty()) {
        return Some(password);
    }
    let terminal = console::Term::stderr();
    if !terminal.is_term() {
        return None;
    }
    let ask = |what: &str| {
        eprint(what);
        terminal.read_secure_line().ok().filter(|password| !password.is_empty())
    };
    let password = ask("password of the key: ")?;
    if is_new && ask("once more: ")? != password {
        eprint("the two are not the same\n");
        return None;
    }
    Some(password)
}
