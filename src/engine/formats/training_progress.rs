//! Header of the file in which a training keeps its progress. The worker reads and writes the rest.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::METADATA_KEY;
use crate::regular::open_regular;

/// Name of the file in the folder of a training.
pub const TRAINING_PROGRESS_FILE: &str = "training.safetensors";

/// Version of the format, in the metadata.
pub const TRAINING_PROGRESS_FORMAT: &str = "training/1";

/// Largest header that is read: a few hundred tensors and epochs.
const LARGEST_HEADER: u64 = 64 << 20;

/// What the header of a progress file tells. It does not notice damaged tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingProgress {
    /// What determines the path of the training up to here, as the worker wrote it.
    pub of: Value,
    /// Number of finished epochs.
    pub epochs: u32,
}

impl TrainingProgress {
    /// Reads the progress of a training, given its folder. `None` without progress, and for a file that cannot be read.
    pub fn read(folder: &Path) -> Option<Self> {
        #[derive(Deserialize)]
        struct Metadata {
            format: String,
            #[serde(default)]
            of: Value,
            epochs: Vec<IgnoredAny>,
        }
        let mut file = open_regular(&folder.join(TRAINING_PROGRESS_FILE)).ok()?;
        let mut length = [0; 8];
        file.read_exact(&mut length).ok()?;
        let length = u64::from_le_bytes(length);
        if length > LARGEST_HEADER {
            return None;
        }
        let mut header = Vec::new();
        file.take(length).read_to_end(&mut header).ok()?;
        let header: Value = serde_json::from_slice(&header).ok()?;
        let metadata: Metadata = serde_json::from_str(header["__metadata__"][METADATA_KEY].as_str()?).ok()?;
        let epochs = metadata.epochs.len().try_into().ok()?;
        (metadata.format == TRAINING_PROGRESS_FORMAT).then_some(TrainingProgress { of: metadata.of, epochs })
    }
}

/// Returns the number of finished epochs in the progress of a training, given its folder; as
/// [`TrainingProgress::read`].
pub fn finished_epochs(folder: &Path) -> Option<u32> {
    TrainingProgress::read(folder).map(|found| found.epochs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::write;
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;
    use serde_json::json;

    #[test]
    fn the_header_tells_the_epochs_and_anything_else_tells_none() {
        let dir = tempfile::tempdir().unwrap();
        let count = |bytes: &[u8]| {
            std::fs::write(dir.path().join(TRAINING_PROGRESS_FILE), bytes).unwrap();
            finished_epochs(dir.path())
        };
        assert_eq!(finished_epochs(dir.path()), None);
        let file = |metadata: serde_json::Value| {
            let data = [0; 400];
            let tensor = TensorView::new(Dtype::F32, vec![100], &data).unwrap();
            write([("network/a", tensor)], &metadata).unwrap()
        };
        let good = file(json!({"format": "training/1", "of": {}, "epochs": [{"epoch": 1}, {"epoch": 2}]}));
        assert_eq!(count(&good), Some(2));
        assert_eq!(count(&good[..good.len() - 300]), Some(2), "the worker checks the rest");
        for bad in [&good[..100], &good[..4], &[0xff; 64], &file(json!({"format": "training/9", "epochs": []}))] {
            assert_eq!(count(bad), None);
        }
    }
}
