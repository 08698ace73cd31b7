//! Measured rates of this machine: how many images a second pass a network, and how fast files are written.
//!
//! They are only a hint for prices of plans: whoever doubts them deletes the folder `rates` of the cache, or measures
//! again. Knows neither how they are measured nor what a stage costs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Cache, CacheError};
use crate::fsio;
use crate::host;
use crate::numerics::Numerics;
use crate::stage_kinds::{NetSize, Pass, Precision};

/// Value of `format` that this version writes and reads.
const FORMAT: &str = "rates/1";

/// Number of entries to keep, the newest: a machine has few processors, devices and versions of libtorch.
const KEPT: usize = 8;

/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Rates of one machine with one device and one libtorch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineRates {
    /// The processor.
    pub processor: String,
    /// The device: `cpu`, `cuda:0`, …
    pub device: String,
    /// The device's model.
    pub device_name: String,
    /// The version of libtorch.
    pub libtorch: String,
    /// How arithmetic on the CPU was held.
    pub numerics: Numerics,
    /// When they were measured.
    pub measured: String,
    /// Rates of passes.
    pub passes: Vec<PassRate>,
    /// Rates of the cache's file system, and of hashing.
    pub files: FileRates,
}

/// How fast images pass a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PassRate {
    /// What a pass computes.
    pub pass: Pass,
    /// What it computes in.
    pub precision: Precision,
    /// CPU threads.
    pub threads: usize,
    /// The network, for people.
    pub network: String,
    /// Multiply-adds of a pass forward over one image.
    pub multiply_adds: f64,
    /// Values of the feature maps of one image.
    pub activations: f64,
    /// Images a second.
    pub images_per_second: f64,
}

impl PassRate {
    /// Values of feature maps for each multiply-add: what the time for a multiply-add depends on most.
    fn spread(&self) -> f64 {
        self.activations / self.multiply_adds
    }

    /// Seconds for each multiply-add of a pass forward.
    fn seconds(&self) -> f64 {
        1.0 / (self.images_per_second * self.multiply_adds)
    }
}

/// How fast files are written and read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FileRates {
    /// Bytes a second written and synced.
    pub write: f64,
    /// Seconds until a small new file is on the disk.
    pub sync: f64,
    /// Bytes a second read.
    pub read: f64,
    /// Bytes a second hashed.
    pub hash: f64,
}

impl MachineRates {
    /// Returns the seconds that one image takes in a pass of a network of some size, with so many threads. `None`
    /// without a rate of that sort.
    ///
    /// Between two measured networks, the time for a multiply-add is interpolated by the values of feature maps that
    /// each gives: a network of few channels waits for memory, one of many computes. Beyond them it stays.
    pub fn seconds_per_image(&self, pass: Pass, precision: Precision, size: NetSize, threads: usize) -> Option<f64> {
        let mut known: Vec<&PassRate> = self.of(pass, precision).filter(|rate| rate.threads == 1).collect();
        known.sort_by(|a, b| a.spread().total_cmp(&b.spread()));
        let (first, last) = (known.first()?, known.last()?);
        let spread = (size.activations / size.multiply_adds).clamp(first.spread(), last.spread());
        let after = known.iter().position(|rate| rate.spread() >= spread)?;
        let (low, high) = (known[after.saturating_sub(1)], known[after]);
        let width = high.spread() - low.spread();
        let share = if width > 0.0 { (spread - low.spread()) / width } else { 0.0 };
        let seconds = low.seconds() + share * (high.seconds() - low.seconds());
        Some(seconds * size.multiply_adds / self.speedup(threads))
    }

    /// Returns how many times as fast a stage is with so many threads as with one.
    fn speedup(&self, threads: usize) -> f64 {
        let faster = self.passes.iter().filter(|rate| rate.threads > 1).find_map(|many| {
            let is_same = |one: &&PassRate| one.threads == 1 && one.network == many.network;
            let one = self.of(many.pass, many.precision).find(is_same)?;
            Some((many.threads, many.images_per_second / one.images_per_second))
        });
        let Some((most, speedup)) = faster.filter(|(_, speedup)| *speedup > 1.0) else { return 1.0 };
        let share = (threads.clamp(1, most) - 1) as f64 / (most - 1) as f64;
        1.0 + share * (speedup - 1.0)
    }

    fn of(&self, pass: Pass, precision: Precision) -> impl Iterator<Item = &PassRate> {
        self.passes.iter().filter(move |rate| (rate.pass, rate.precision) == (pass, precision))
    }

    /// Whether measuring again replaces these rates.
    fn is_of_same(&self, other: &MachineRates) -> bool {
        let key = |rates: &MachineRates| {
            let MachineRates { processor, device, device_name, libtorch, numerics, .. } = rates;
            [processor, device, device_name, libtorch, &numerics.name().to_owned()].map(String::clone)
        };
        key(self) == key(other)
    }

    /// Whether every number is one to compute with: a file may hold anything.
    fn is_sound(&self) -> bool {
        let is_positive = |value: f64| value.is_finite() && value > 0.0;
        let of_pass = |rate: &PassRate| {
            [rate.multiply_adds, rate.activations, rate.images_per_second].into_iter().all(is_positive)
        };
        let FileRates { write, sync, read, hash } = self.files;
        self.passes.iter().all(of_pass) && [write, sync, read, hash].into_iter().all(is_positive)
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: String,
    /// The newest first.
    rates: Vec<MachineRates>,
}

impl Cache {
    /// Returns the newest rates of this machine for the device that stages run on by default: a GPU where there is one.
    pub fn rates(&self) -> Option<MachineRates> {
        let processor = host::cpu_name();
        let own = self.all_rates().into_iter().filter(|rates| rates.processor == processor && rates.is_sound());
        let (gpu, cpu): (Vec<_>, Vec<_>) = own.partition(|rates| rates.device != "cpu");
        gpu.into_iter().find(|_| host::has_gpu()).or_else(|| cpu.into_iter().next())
    }

    /// Keeps rates of this machine in place of older ones of the same device and libtorch.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn keep_rates(&self, rates: MachineRates) -> Result<(), CacheError> {
        let mut all = self.all_rates();
        all.retain(|known| !known.is_of_same(&rates));
        all.insert(0, rates);
        all.truncate(KEPT);
        let text = serde_json::to_string(&Stored { format: FORMAT.to_owned(), rates: all }).unwrap_or_default();
        let path = self.rates_path();
        fsio::create_dir(fsio::folder_of(&path))?;
        fsio::write_atomic(&path, &self.tmp(), text.as_bytes())?;
        Ok(())
    }

    /// Returns all rates that are kept of this host, the newest first.
    fn all_rates(&self) -> Vec<MachineRates> {
        let bytes = fsio::read_regular(&self.rates_path(), MAX_FILE).ok();
        let stored = bytes.and_then(|bytes| serde_json::from_slice::<Stored>(&bytes).ok());
        stored.filter(|stored| stored.format == FORMAT).map(|stored| stored.rates).unwrap_or_default()
    }

    fn rates_path(&self) -> PathBuf {
        // As for source digests: machines that share the cache have a file each.
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        self.root.join("rates").join(format!("{host}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(multiply_adds: f64, activations: f64, images_per_second: f64) -> PassRate {
        PassRate {
            pass: Pass::Forward,
            precision: Precision::Fp32,
            threads: 1,
            network: format!("{multiply_adds}"),
            multiply_adds,
            activations,
            images_per_second,
        }
    }

    fn machine(passes: Vec<PassRate>) -> MachineRates {
        MachineRates {
            processor: host::cpu_name(),
            device: "cpu".to_owned(),
            device_name: host::cpu_name(),
            libtorch: "2.11.0".to_owned(),
            numerics: Numerics::Portable,
            measured: "2026-11-29T12:00:00Z".to_owned(),
            passes,
            files: FileRates { write: 1e9, sync: 0.001, read: 2e9, hash: 3e9 },
        }
    }

    fn size(multiply_adds: f64, activations: f64) -> NetSize {
        NetSize { multiply_adds, activations, parameters: 1.0 }
    }

    #[test]
    fn the_time_of_a_network_lies_between_those_of_its_neighbours() {
        // 1 ns for each multiply-add where each gives a hundredth of a value, and 4 ns where it gives a tenth.
        let rates = machine(vec![rate(1e6, 1e4, 1e3), rate(1e6, 1e5, 250.0)]);
        let seconds = |size| rates.seconds_per_image(Pass::Forward, Precision::Fp32, size, 1).unwrap();
        let is_near = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-9;
        assert!(is_near(seconds(size(1e6, 1e4)), 1e-3));
        assert!(is_near(seconds(size(2e6, 2e4)), 2e-3), "twice the multiply-adds of the same sort");
        assert!(is_near(seconds(size(1e6, 5.5e4)), 2.5e-3), "half way");
        assert!(is_near(seconds(size(1e6, 9e5)), 4e-3), "never beyond what was measured");
        assert!(is_near(seconds(size(1e6, 1.0)), 1e-3));
        let other = |pass, precision| rates.seconds_per_image(pass, precision, size(1e6, 1e4), 1);
        assert_eq!(other(Pass::Update, Precision::Fp32), None, "nothing of the sort was measured");
        assert_eq!(other(Pass::Forward, Precision::Bf16), None);
    }

    #[test]
    fn threads_help_as_far_as_was_measured() {
        let many = PassRate { threads: 5, ..rate(1e6, 1e4, 3e3) };
        let rates = machine(vec![rate(1e6, 1e4, 1e3), many]);
        let seconds =
            |threads| rates.seconds_per_image(Pass::Forward, Precision::Fp32, size(1e6, 1e4), threads).unwrap();
        for (threads, times) in [(1, 1.0), (3, 2.0), (5, 3.0), (64, 3.0)] {
            assert!((1e-3 / seconds(threads) - times).abs() < 1e-9, "{threads} threads");
        }
    }

    #[test]
    fn rates_are_kept_by_processor_device_and_libtorch() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        assert_eq!(cache.rates(), None);
        let old = machine(vec![rate(1.0, 1.0, 1.0)]);
        let new = machine(vec![rate(1.0, 1.0, 2.0)]);
        let other = MachineRates { libtorch: "2.12.0".to_owned(), ..old.clone() };
        let elsewhere = MachineRates { processor: "another".to_owned(), ..old.clone() };
        let broken = MachineRates { libtorch: "0".to_owned(), passes: vec![rate(0.0, 1.0, 1.0)], ..old.clone() };
        for rates in [old, other.clone(), new.clone(), elsewhere, broken] {
            cache.keep_rates(rates).unwrap();
        }
        assert_eq!(cache.all_rates().len(), 4, "the old ones are replaced");
        assert_eq!(cache.rates(), Some(new), "the newest of this processor that can be computed with");
        std::fs::write(cache.rates_path(), "{").unwrap();
        assert_eq!(cache.rates(), None, "a file that is none is no hint");
    }
}
