//! Examples at the end of the help of each command. A test parses every one of them.

pub(super) const INIT: &str = "Examples:
  atflow init demo                      a commented pipeline for Fashion-MNIST
  atflow init mine --images photos/     one for a folder with a folder for each class
  atflow init mine --images photos.zip  one for such an archive";

pub(super) const RUN: &str = "Examples:
  atflow run p.yaml                          all stages that are stale
  atflow run p.yaml robustness 'tested/*/8'  a table, and some instances of a stage
  atflow run p.yaml --set eps=2/255,4/255    both values of a parameter
  atflow run p.yaml --from predictions       tables anew, compared with the published ones
  atflow run p.yaml --remote s3://lab/cache --share-work  on each of several machines";

pub(super) const AGENT: &str = "Examples:
  atflow agent --run 4f0c21aa --class gpu                 until nothing is left to do
  atflow agent --run 4f0c21aa --class cpu --seconds 3600  in a job of one hour";

pub(super) const PLAN: &str = "Examples:
  atflow plan p.yaml                  what is stale, why, and what it costs
  atflow plan p.yaml --set eps=4/255  the same with another parameter
  atflow plan p.yaml --save p.plan    for `atflow run --plan p.plan`";

pub(super) const SHOW: &str = "Examples:
  atflow show model/pgd                    what made it, from what, and where it is
  atflow show robustness --json            the same for programs, with paths
  atflow show results/demo/robustness.tex  what a file of results is";

pub(super) const WHY: &str = "Examples:
  atflow why p.yaml attacked/pgd                  what changed, and where it is written
  atflow why p.yaml attacked/pgd --set eps=4/255  what another ε would change";

pub(super) const LOG: &str = "Examples:
  atflow log model/pgd     what the stage printed
  atflow log -f model/pgd  the same while it runs";

pub(super) const STATUS: &str = "Examples:
  atflow status                     what runs now, from any terminal
  atflow status --cache /lab/cache  what runs with a shared cache, on any host";

pub(super) const RUNS: &str = "Examples:
  atflow runs         when, by whom, and what changed
  atflow runs last-1  one run, with its stages";

pub(super) const DIFF: &str = "Examples:
  atflow diff                             the last run and the one before with other results
  atflow diff last-2 last                 any two
  atflow diff --format html -o diff.html  one page, with pictures side by side";

pub(super) const CANCEL: &str = "Examples:
  atflow cancel                              the only run that there is
  atflow cancel 1f0c2b3a --cache /lab/cache  one of several";

pub(super) const TABLE: &str = "Examples:
  atflow table robustness               as the last run made it
  atflow table robustness --format tex  for a paper
  atflow table p.yaml robustness        as the pipeline has it now";

pub(super) const REPORT: &str = "Examples:
  atflow report                      on the last run
  atflow report p.yaml --run last-1  on an earlier one
  atflow report --crate crate/       also as an RO-Crate";

pub(super) const BUNDLE: &str = "Examples:
  atflow bundle p.yaml -o p.tar.zst --with predictions  tables can be made again from it
  atflow bundle check p.tar.zst                         every file against its digest
  atflow bundle unpack p.tar.zst -o p/                  into a new folder";

pub(super) const DATA: &str = "Examples:
  atflow data p.yaml                      Parquet files of metrics, images, epochs, stages
  atflow data p.yaml tested --format csv  one stage, as CSV";

pub(super) const EXPORT: &str = "Examples:
  atflow export model/pgd  from the last run, into export/
  atflow export p.yaml model/pgd -o pgd --license mit";

pub(super) const PUSH: &str = "Examples:
  atflow push p.yaml --remote s3://lab/cache
  atflow push p.yaml robustness --remote s3://lab/cache --sign lab.key";

pub(super) const PULL: &str = "Examples:
  atflow pull p.yaml --remote https://lab.example/cache
  atflow pull p.yaml robustness --remote s3://lab/cache --trust lab.key.pub";

pub(super) const GRAPH: &str = "Examples:
  atflow graph p.yaml > p.svg           a box for each stage
  atflow graph p.yaml --all > p.svg     a box for each instance
  atflow graph p.yaml --format mermaid  for a page in Markdown";

pub(super) const VERIFY: &str = "Examples:
  atflow verify                      every file of the cache against its digest
  atflow verify --repair             put damaged files aside
  atflow verify p.yaml attacked/pgd  rerun, and compare byte for byte
  atflow verify p.yaml attacked --remote s3://lab/cache --share 10%";

pub(super) const GC: &str = "Examples:
  atflow gc p.yaml        what no result of the pipeline or recent run uses
  atflow gc p.yaml --yes  delete it";

pub(super) const DOCTOR: &str = "Examples:
  atflow doctor          compiler, libtorch, devices, cache
  atflow doctor --bench  also measures this machine, for the prices of plans
  atflow doctor --json   the same for programs";

pub(super) const KEYGEN: &str = "Examples:
  atflow keygen lab.key             lab.key stays secret, lab.key.pub is for readers
  atflow keygen lab.key --password  protected by a password";

pub(super) const SCHEMA: &str = "Examples:
  atflow schema > pipeline.schema.json  for editors
  atflow schema cluster > cluster.schema.json
  atflow schema run                     of a line of `atflow run --json`";

pub(super) const MAN: &str = "Examples:
  atflow man ~/.local/share/man/man1  then: man atflow-run";
