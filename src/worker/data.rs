//! Image sets and checkpoints as jobs use them: read from the cache's blobs, checked, put on the device, and kept there for the next jobs.
//! Data stay bytes, and become floats batch by batch. Knows nothing of what a stage does with them.

use std::rc::Rc;

use atflow::digest::{Digest, ReadError, read_verified};
use atflow::formats::ImageSet;
use atflow::kinds::Augmentation;
use atflow::protocol::Input;
use tch::{Device, Kind, TchError, Tensor};

use crate::checkpoint::Checkpoint;
use crate::error::StageError;
use crate::rng::Rng;

/// An image set on a device.
#[derive(Debug)]
pub struct DeviceSet {
    /// Pixels, U8, N × C × H × W.
    images: Tensor,
    /// Labels, I64, N.
    labels: Tensor,
    /// The same labels, in ordinary memory.
    pub host_labels: Vec<i32>,
    /// In a cue-conflict set: the class whose texture each image wears.
    pub texture: Option<Vec<i32>>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// C, H, W.
    pub shape: [i64; 3],
}

impl DeviceSet {
    /// Puts a set on a device.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn new(set: ImageSet, device: Device) -> Result<Self, TchError> {
        let [count, channels, height, width] = set.shape.map(|side| side as i64);
        let labels: Vec<i64> = set.labels.iter().map(|&label| i64::from(label)).collect();
        Ok(DeviceSet {
            images: Tensor::f_from_data_size(&set.pixels, &[count, channels, height, width], Kind::Uint8)?
                .f_to_device(device)?,
            labels: Tensor::f_from_slice(&labels)?.f_to_device(device)?,
            host_labels: set.labels,
            texture: set.texture,
            classes: set.classes,
            shape: [channels, height, width],
        })
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        self.labels.device()
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.host_labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.host_labels.is_empty()
    }

    /// Channels of the images.
    pub fn channels(&self) -> usize {
        self.shape[0] as usize
    }

    /// The bytes of one image: C × H × W.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn pixels(&self, index: usize) -> Result<Vec<u8>, TchError> {
        let image = self.images.f_select(0, index as i64)?.f_to_device(Device::Cpu)?.f_contiguous()?;
        Vec::try_from(image.f_view(-1)?)
    }

    /// The images at `indices`, f32 in [0, 1], N × C × H × W, and their labels.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn batch(&self, indices: &[u64]) -> Result<(Tensor, Tensor), TchError> {
        let indices: Vec<i64> = indices.iter().map(|&index| index as i64).collect();
        let indices = Tensor::f_from_slice(&indices)?.f_to_device(self.images.device())?;
        let images = self.images.f_index_select(0, &indices)?.f_to_kind(Kind::Float)?.f_div_scalar_(255.0)?;
        Ok((images, self.labels.f_index_select(0, &indices)?))
    }
}

/// Changes training images at random, each by draws named by (epoch, image).
///
/// # Errors
/// What libtorch says.
pub fn augment(
    images: Tensor,
    augmentation: &Augmentation,
    rng: Rng,
    epoch: u64,
    indices: &[u64],
) -> Result<Tensor, TchError> {
    let pad = i64::from(augmentation.pad_crop);
    if !augmentation.flip && pad == 0 {
        return Ok(images);
    }
    // A pixel of the result is one of the padded image: where each comes from is computed for the whole batch at once, so that
    // neither the CPU nor a GPU sees images one by one.
    let (count, channels, height, width) = images.size4()?;
    let device = images.device();
    let mut draws: [Vec<i64>; 3] = Default::default();
    for &index in indices {
        let mut stream = rng.stream("augmentation", &[epoch, index]);
        let (flip, down, right) = (stream.below(2), stream.below(2 * pad as u64 + 1), stream.below(2 * pad as u64 + 1));
        let flip = if augmentation.flip { flip } else { 0 };
        for (list, draw) in draws.iter_mut().zip([flip, down, right]) {
            list.push(draw as i64);
        }
    }
    let column = |list: &[i64]| Tensor::f_from_slice(list)?.f_view([count, 1, 1])?.f_to_device(device);
    let (flip, down, right) = (column(&draws[0])?, column(&draws[1])?, column(&draws[2])?);
    let x = Tensor::f_arange(width, (Kind::Int64, device))?.f_view([1, 1, width])?;
    let y = Tensor::f_arange(height, (Kind::Int64, device))?.f_view([1, height, 1])?;
    // x of the flipped image: x without a flip, width − 1 − x with one.
    let flipped = x.f_add(&flip.f_mul(&x.f_mul_scalar(-2)?.f_add_scalar(width - 1)?)?)?;
    let source = y.f_add(&down)?.f_mul_scalar(width + 2 * pad)?.f_add(&flipped.f_add(&right)?)?;
    let source = source.f_view([count, 1, height * width])?.f_expand([count, channels, height * width], false)?;
    images
        .f_constant_pad_nd([pad, pad, pad, pad])?
        .f_view([count, channels, -1])?
        .f_gather(2, &source, false)?
        .f_view([count, channels, height, width])
}

/// The last few image sets and checkpoints, by the digest of their files.
pub struct Library {
    device: Device,
    sets: Recent<DeviceSet>,
    checkpoints: Recent<Checkpoint>,
}

impl Library {
    /// An empty library for a device.
    pub fn new(device: Device) -> Self {
        // A training and a test set, and the transformed ones that a table usually has; every model of a paper.
        Library { device, sets: Recent::new(16, 2 << 30), checkpoints: Recent::new(16, 1 << 30) }
    }

    /// The image set of an input.
    ///
    /// # Errors
    /// [`StageError::Read`], [`StageError::ImageSet`] or [`StageError::Torch`].
    pub fn set(&mut self, input: &Input) -> Result<Rc<DeviceSet>, StageError> {
        let device = self.device;
        self.sets.get(input, |bytes| {
            let set = ImageSet::from_bytes(bytes)
                .map_err(|source| StageError::ImageSet { slot: input.slot.clone(), source })?;
            Ok(DeviceSet::new(set, device)?)
        })
    }

    /// The checkpoint of an input; whoever gets it must leave its weights alone.
    ///
    /// # Errors
    /// [`StageError::Read`], [`StageError::Checkpoint`] or [`StageError::Torch`].
    pub fn checkpoint(&mut self, input: &Input) -> Result<Rc<Checkpoint>, StageError> {
        let device = self.device;
        self.checkpoints.get(input, |bytes| {
            Checkpoint::from_bytes(bytes, device)
                .map_err(|source| StageError::Checkpoint { slot: input.slot.clone(), source })
        })
    }
}

/// Reads an input whose bytes are not kept.
///
/// # Errors
/// [`StageError::Read`].
pub fn read(input: &Input) -> Result<Vec<u8>, StageError> {
    let failed = |source: ReadError| StageError::Read { slot: input.slot.clone(), source };
    read_verified(&input.path, input.digest).map_err(failed)
}

/// The most recently used values, the last used at the end; bounded by their number and by the sizes of their files.
struct Recent<T> {
    most: usize,
    most_bytes: usize,
    kept: Vec<(Digest, usize, Rc<T>)>,
}

impl<T> Recent<T> {
    fn new(most: usize, most_bytes: usize) -> Self {
        Recent { most, most_bytes, kept: Vec::new() }
    }

    fn get(&mut self, input: &Input, make: impl FnOnce(&[u8]) -> Result<T, StageError>) -> Result<Rc<T>, StageError> {
        let entry = match self.kept.iter().position(|(digest, ..)| *digest == input.digest) {
            Some(at) => self.kept.remove(at),
            None => {
                let bytes = read(input)?;
                // Room is made before the new value takes its own.
                let size = |kept: &[(Digest, usize, Rc<T>)]| kept.iter().map(|(_, size, _)| size).sum::<usize>();
                while !self.kept.is_empty()
                    && (self.kept.len() >= self.most || size(&self.kept) + bytes.len() > self.most_bytes)
                {
                    self.kept.remove(0);
                }
                (input.digest, bytes.len(), Rc::new(make(&bytes)?))
            }
        };
        let value = Rc::clone(&entry.2);
        self.kept.push(entry);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Tensor {
        Tensor::arange(2 * 2 * 4 * 5, (Kind::Float, Device::Cpu)).view([2, 2, 4, 5]) + 1
    }

    #[test]
    fn a_flip_mirrors_and_nothing_else() {
        let augmentation = Augmentation { flip: true, pad_crop: 0 };
        let mirrored = images().flip([3]);
        let mut seen = [0, 0];
        for epoch in 0..20 {
            let out = augment(images(), &augmentation, Rng::new(1), epoch, &[0, 1]).unwrap();
            for index in 0..2 {
                let flipped = out.get(index) == mirrored.get(index);
                assert!(flipped || out.get(index) == images().get(index));
                seen[usize::from(flipped)] += 1;
            }
        }
        assert!(seen[0] > 8 && seen[1] > 8, "{seen:?}");
    }

    #[test]
    fn a_crop_is_a_window_of_the_padded_image_and_depends_on_the_image_only() {
        let augmentation = Augmentation { flip: false, pad_crop: 2 };
        let padded = images().constant_pad_nd([2, 2, 2, 2]);
        let crop = |epoch, indices: &[u64]| augment(images(), &augmentation, Rng::new(5), epoch, indices).unwrap();
        let mut windows = std::collections::BTreeSet::new();
        for epoch in 0..40 {
            let first = crop(epoch, &[0, 1]).get(0);
            let places = (0..5).flat_map(|y| (0..5).map(move |x| (y, x)));
            let place = places.into_iter().find(|&(y, x)| padded.get(0).narrow(1, y, 4).narrow(2, x, 5) == first);
            windows.insert(place.expect("a window of the padded image"));
        }
        assert!(windows.len() > 12, "{windows:?}");
        // The second picture of the batch, were it image 0, would be cut as image 0 is.
        let rows_kept = |t: Tensor| t.ne(0.0).any_dim(0, false);
        assert_eq!(rows_kept(crop(3, &[7, 0]).get(1)), rows_kept(crop(3, &[0, 7]).get(0)));
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut recent: Recent<usize> = Recent::new(2, 100);
        let mut made = Vec::new();
        let inputs = ["a", "bb", "ccc"].map(|text| {
            let path = folder.path().join(text);
            std::fs::write(&path, text).unwrap();
            Input { slot: "set".into(), label: String::new(), path, digest: Digest::of(text.as_bytes()) }
        });
        for at in [0, 1, 0, 2, 0, 1] {
            let value = recent
                .get(&inputs[at], |bytes| {
                    made.push(at);
                    Ok(bytes.len())
                })
                .unwrap();
            assert_eq!(*value, at + 1);
        }
        assert_eq!(made, [0, 1, 2, 1]);
    }
}
