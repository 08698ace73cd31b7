//! Devices that the workers of a run compute on: one for all of them, or one for each.

use std::path::Path;

/// Device name that stands for every GPU that this process may use.
const EVERY_GPU: &str = "cuda";

/// Most GPUs that one machine is taken to have.
const MOST: usize = 64;

/// Returns the devices that a device name stands for: itself, or `cuda:0`, `cuda:1`, … for `cuda`.
///
/// The numbers count within `CUDA_VISIBLE_DEVICES`, which a cluster's scheduler sets and workers inherit as it is.
pub(super) fn slots(device: &str) -> Vec<String> {
    if device != EVERY_GPU {
        return vec![device.to_owned()];
    }
    let count = match std::env::var("CUDA_VISIBLE_DEVICES") {
        Ok(visible) => count_visible(&visible),
        Err(_) => std::fs::read_dir(Path::new("/proc/driver/nvidia/gpus")).map_or(0, Iterator::count),
    };
    // Without any, the first worker says what is wrong.
    (0..count.clamp(1, MOST)).map(|number| format!("cuda:{number}")).collect()
}

/// Counts the GPUs of a list. As for CUDA, the list ends before the first entry that is no GPU, such as `-1`.
fn count_visible(list: &str) -> usize {
    let is_gpu = |entry: &&str| {
        let entry = entry.trim();
        entry.starts_with("GPU-") || entry.starts_with("MIG-") || entry.parse::<u32>().is_ok()
    };
    list.split(',').take_while(is_gpu).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_gpus_are_counted_as_cuda_counts_them() {
        for (list, count) in [
            ("0", 1),
            ("2,5", 2),
            (" 3 , 1", 2),
            ("GPU-8932f937-d72c,MIG-4a3b,7", 3),
            ("0,-1,1", 1),
            ("-1", 0),
            ("", 0),
            ("NoDevFiles", 0),
        ] {
            assert_eq!(count_visible(list), count, "{list}");
        }
        for device in ["auto", "cpu", "cuda:3"] {
            assert_eq!(slots(device), [device]);
        }
    }
}
