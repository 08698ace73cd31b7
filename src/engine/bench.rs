//! Measures what this machine does in a second: passes of networks by a worker, writing, reading and hashing of files.
//! Gives rates; what they are for is said elsewhere.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Instant;

use crate::cache::{Cache, CacheError, FileRates, MachineRates, PassRate};
use crate::digest::Digest;
use crate::fsio::{self, Context};
use crate::host;
use crate::numerics::Numerics;
use crate::protocol::{Event, Failure, Measurement, PROTOCOL_VERSION, Request, is_gpu};
use crate::random::Rng;
use crate::stage_kinds::{Net, Pass, Precision};

/// Seconds of each measurement of a pass, so that all of them take less than half a minute.
const SECONDS: f64 = 1.6;

/// Bytes of the large file, and of the blocks that it is written in.
const FILE_BYTES: usize = 64 << 20;
const BLOCK_BYTES: usize = 1 << 20;

/// Small files that are written and synced, and the bytes of each.
const SMALL_FILES: usize = 16;
const SMALL_BYTES: usize = 2000;

/// Classes of the measured networks: those of [`crate::protocol::Measurement`].
const CLASSES: u32 = 10;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The worker cannot be started.
    #[error("the worker {program} cannot be started")]
    Start {
        /// The program.
        program: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The worker ended, or said what is no answer.
    #[error("the worker ended while it measured {what}")]
    Ended {
        /// What was measured.
        what: String,
    },
    /// The worker cannot compute.
    #[error("{0}")]
    Unusable(String),
    /// The worker could not measure something.
    #[error("the worker could not measure {what}: {}", failure.message)]
    Failed {
        /// What was measured.
        what: String,
        /// What it said.
        failure: Box<Failure>,
    },
    /// The cache cannot be written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// How far a bench is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchProgress {
    /// Measurements that are done.
    pub done: usize,
    /// Measurements in all.
    pub total: usize,
    /// What is measured now.
    pub what: String,
}

/// Measures this machine with the device that a worker chooses by itself, and keeps the rates in the cache.
///
/// # Errors
/// [`BenchError`].
pub fn bench(program: &Path, cache: &Cache, tell: &mut dyn FnMut(BenchProgress)) -> Result<MachineRates, BenchError> {
    let numerics = Numerics::default();
    let mut worker = Worker::start(program, numerics)?;
    let Greeting { libtorch, device, device_name } = worker.greeting()?;
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = measurements(is_gpu(&device), all);
    let total = wanted.len() + 1;
    let mut passes = Vec::with_capacity(wanted.len());
    for (done, Wanted { network, what, measurement }) in wanted.into_iter().enumerate() {
        tell(BenchProgress { done, total, what: format!("{what}, {network}") });
        // Every network that is measured is built in, so its size is known.
        let Some(size) = measurement.net.size(measurement.shape, CLASSES) else { continue };
        let (images, seconds) = worker.measure(&measurement, &what)?;
        let Measurement { pass, precision, threads, .. } = measurement;
        passes.push(PassRate {
            pass,
            precision,
            threads,
            network: network.to_owned(),
            multiply_adds: size.multiply_adds,
            activations: size.activations,
            images_per_second: images as f64 / seconds,
        });
    }
    drop(worker);
    tell(BenchProgress { done: total - 1, total, what: "files".to_owned() });
    let rates = MachineRates {
        processor: host::cpu_name(),
        device,
        device_name,
        libtorch,
        numerics,
        measured: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        passes,
        files: file_rates(cache)?,
    };
    cache.keep_rates(rates.clone())?;
    Ok(rates)
}

/// One thing to measure.
struct Wanted {
    network: &'static str,
    what: String,
    measurement: Measurement,
}

/// A network that is measured.
struct Subject {
    name: &'static str,
    net: Net,
    shape: [u32; 3],
    /// Images at once: in trainings, and in other passes.
    batches: [u32; 2],
}

impl Subject {
    fn new(name: &'static str, width: u32, groups: usize, shape: [u32; 3], batches: [u32; 2]) -> Self {
        let (mean, std) = (Vec::new(), Vec::new());
        let net = Net::Resnet { width, blocks: vec![1; groups], mean, std, standardise: false, smooth: None };
        Subject { name, net, shape, batches }
    }

    fn wanted(&self, id: usize, (pass, precision): (Pass, Precision), threads: usize, is_gpu: bool) -> Wanted {
        let what = match pass {
            Pass::Update => "training",
            Pass::Gradient => "attack",
            Pass::Forward => "evaluation",
        };
        let bits = if precision == Precision::Fp32 { "32 bits" } else { "16 bits" };
        let by = if threads > 1 { format!(", {threads} threads") } else { String::new() };
        let batch_size = self.batches[usize::from(pass != Pass::Update)];
        // A processor that emulates 16 bits takes seconds for a batch of the usual size.
        let batch_size = if is_gpu || precision == Precision::Fp32 { batch_size } else { batch_size.div_ceil(8) };
        let (id, net, shape, seconds) = (id as u64, self.net.clone(), self.shape, SECONDS);
        let measurement = Measurement { id, pass, precision, net, shape, batch_size, threads, seconds };
        Wanted { network: self.name, what: format!("{what} in {bits}{by}"), measurement }
    }
}

/// Everything that is measured: each sort of pass of a network with few channels and of one with many, and how much
/// threads help.
fn measurements(is_gpu: bool, all_threads: usize) -> Vec<Wanted> {
    // The network of the quickstart in its batches, and one with the channels of a ResNet-18.
    let few = Subject::new("few channels", 16, 3, [1, 28, 28], [64, 256]);
    let many = Subject::new("many channels", 64, 4, [3, 32, 32], if is_gpu { [128, 256] } else { [8, 8] });
    let mut wanted = Vec::new();
    for subject in [&few, &many] {
        for what in [
            (Pass::Forward, Precision::Fp32),
            (Pass::Gradient, Precision::Fp32),
            (Pass::Gradient, Precision::Bf16),
            (Pass::Update, Precision::Fp32),
            (Pass::Update, Precision::Bf16),
        ] {
            wanted.push(subject.wanted(wanted.len(), what, 1, is_gpu));
        }
    }
    if all_threads > 1 && !is_gpu {
        wanted.push(many.wanted(wanted.len(), (Pass::Update, Precision::Fp32), all_threads, is_gpu));
    }
    wanted
}

/// A worker that measures; dropping it ends it.
struct Worker {
    child: Child,
    requests: ChildStdin,
    events: BufReader<ChildStdout>,
}

/// What a worker says of itself.
struct Greeting {
    libtorch: String,
    device: String,
    device_name: String,
}

impl Worker {
    fn start(program: &Path, numerics: Numerics) -> Result<Self, BenchError> {
        let failed = |source| BenchError::Start { program: program.display().to_string(), source };
        let mut child = numerics.worker(program, "auto").stderr(Stdio::null()).spawn().map_err(failed)?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(requests), Some(events)) => Ok(Worker { child, requests, events: BufReader::new(events) }),
            _ => Err(failed(io::Error::from(io::ErrorKind::BrokenPipe))),
        }
    }

    fn greeting(&mut self) -> Result<Greeting, BenchError> {
        match self.next_event() {
            Some(Event::Hello { protocol: PROTOCOL_VERSION, libtorch, device, device_name, .. }) => {
                Ok(Greeting { libtorch, device, device_name })
            }
            Some(Event::Unusable { message }) => Err(BenchError::Unusable(message)),
            Some(Event::Hello { protocol, .. }) => {
                let message = format!("the worker speaks protocol {protocol}, atflow speaks {PROTOCOL_VERSION}");
                Err(BenchError::Unusable(message))
            }
            _ => Err(BenchError::Ended { what: "nothing yet".to_owned() }),
        }
    }

    /// Returns how many images passed, and in how many seconds.
    fn measure(&mut self, measurement: &Measurement, what: &str) -> Result<(u64, f64), BenchError> {
        let ended = || BenchError::Ended { what: what.to_owned() };
        let mut line = serde_json::to_string(&Request::Measure(measurement.clone())).unwrap_or_default();
        line.push('\n');
        self.requests.write_all(line.as_bytes()).and_then(|()| self.requests.flush()).map_err(|_| ended())?;
        while let Some(event) = self.next_event() {
            match event {
                Event::Measured { id, images, seconds } if id == measurement.id && images > 0 && seconds > 0.0 => {
                    return Ok((images, seconds));
                }
                Event::Failed { failure, .. } => {
                    return Err(BenchError::Failed { what: what.to_owned(), failure: Box::new(failure) });
                }
                _ => {}
            }
        }
        Err(ended())
    }

    /// Returns the next event; a library may print what is none.
    fn next_event(&mut self) -> Option<Event> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.events.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Ok(event) = serde_json::from_str(&line) {
                return Some(event);
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has said what was asked, or never will.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Measures the cache's file system, in a folder that is removed again.
fn file_rates(cache: &Cache) -> Result<FileRates, CacheError> {
    let folder = cache.scratch()?;
    let path = folder.path().join("bench");
    // Noise, because some file systems compress.
    let mut stream = Rng::new(0).stream("bench", &[]);
    let block: Vec<u8> = (0..BLOCK_BYTES / 8).flat_map(|_| stream.bits().to_le_bytes()).collect();
    let started = Instant::now();
    let mut file = File::create(&path).on("write", &path)?;
    for _ in 0..FILE_BYTES / BLOCK_BYTES {
        file.write_all(&block).on("write", &path)?;
    }
    file.sync_all().on("write", &path)?;
    let write = per_second(started);
    let started = Instant::now();
    for index in 0..SMALL_FILES {
        let path = folder.path().join(index.to_string());
        fs::write(&path, &block[..SMALL_BYTES]).on("write", &path)?;
        fsio::sync(&path)?;
    }
    let sync = started.elapsed().as_secs_f64() / SMALL_FILES as f64;
    forget(&file);
    let started = Instant::now();
    let mut file = File::open(&path).on("read", &path)?;
    let mut room = vec![0; BLOCK_BYTES];
    while file.read(&mut room).on("read", &path)? > 0 {}
    let read = per_second(started);
    let started = Instant::now();
    Digest::of_file(&path).on("read", &path)?;
    Ok(FileRates { write, sync, read, hash: per_second(started) })
}

/// Bytes of the large file a second.
fn per_second(started: Instant) -> f64 {
    FILE_BYTES as f64 / started.elapsed().as_secs_f64().max(1e-9)
}

/// Asks the system to read a file from the disk next time. It may decline.
fn forget(file: &File) {
    #[cfg(target_os = "linux")]
    {
        _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    }
    #[cfg(not(target_os = "linux"))]
    {
        _ = file;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_measured_for_networks_of_few_and_of_many_channels() {
        let wanted = measurements(false, 4);
        assert_eq!(wanted.len(), 11);
        let spread = |wanted: &Wanted| {
            let size = wanted.measurement.net.size(wanted.measurement.shape, CLASSES).unwrap();
            size.activations / size.multiply_adds
        };
        // 9 · 64 · 512 multiply-adds make many more of each value than 9 · 16 · 16.
        assert!(spread(&wanted[0]) > 3.0 * spread(&wanted[9]));
        let seconds: f64 = wanted.iter().map(|wanted| wanted.measurement.seconds).sum();
        assert!(seconds < 30.0, "half a minute: {seconds}");
        assert_eq!(measurements(false, 1).len(), 10, "one processor has no other threads");
        assert_eq!(measurements(true, 16).len(), 10, "nor do they matter beside a GPU");
    }

    #[test]
    fn files_are_measured_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let FileRates { write, sync, read, hash } = file_rates(&cache).unwrap();
        assert!([write, sync, read, hash].iter().all(|rate| rate.is_finite() && *rate > 0.0));
        assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    }
}
