//! Image sets and checkpoints of jobs: read from the cache's blobs, verified, loaded onto the device, and kept for
//! later jobs.
//!
//! Data stay bytes as stored; each batch is converted to its view, as floats. Knows nothing about their use in a stage.

mod augment;

use std::io::Read;
use std::rc::Rc;

use atflow::digest::{Digest, ReadError, read_verified, verify};
use atflow::formats::{ImageHead, ImageReader, ImageSet, Sizes, View, centre};
use atflow::protocol::Input;
use atflow::stage_kinds::Augmentation;
use tch::{Device, Kind, TchError, Tensor};

use crate::checkpoint::{self, Checkpoint, CheckpointError};
use crate::error::StageError;
use crate::resize::Resize;
use crate::rng::Rng;
pub use augment::augment;

/// Bytes of a file held in host memory at once while loading onto a device.
const PIECE: usize = 32 << 20;

/// An image set on a device.
#[derive(Debug)]
pub struct DeviceSet {
    /// Pixels as stored, U8: N × C × H × W if all images have one size, else the images one after the other.
    stored: Tensor,
    /// Start of each image, if images have individual sizes.
    starts: Vec<i64>,
    sizes: Sizes,
    view: Option<View>,
    /// Converts stored images to viewed ones, if the view resizes.
    resize: Option<Resize>,
    /// Labels, I64, N.
    labels: Tensor,
    /// The same labels, in host memory.
    pub host_labels: Vec<i32>,
    /// In a cue-conflict set: the class of each image's texture.
    pub texture: Option<Vec<i32>>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// C, H, W of the images as viewed.
    pub shape: [i64; 3],
}

/// Why a set could not be loaded onto a device.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read to its end.
    #[error("it cannot be read")]
    Io(#[from] std::io::Error),
    /// An error from libtorch.
    #[error("libtorch failed")]
    Torch(#[from] TchError),
}

impl DeviceSet {
    /// Loads a set onto a device.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn new(set: ImageSet, device: Device) -> Result<Self, TchError> {
        let count = set.pixels.len() as i64;
        let stored = Tensor::f_from_data_size(&set.pixels, &[count], Kind::Uint8)?.f_to_device(device)?;
        DeviceSet::of(set.head(), stored)
    }

    /// Loads a set onto a device in pieces, so host memory never holds all of it.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load<R: Read>(mut reader: ImageReader<R>, device: Device) -> Result<Self, LoadError> {
        let total = reader.head.stored_bytes();
        let stored = Tensor::f_empty([total as i64], (Kind::Uint8, device))?;
        let mut piece = vec![0; PIECE.min(total)];
        let mut at = 0;
        while at < total {
            let piece = &mut piece[..PIECE.min(total - at)];
            reader.read_exact(piece)?;
            let length = piece.len() as i64;
            stored.f_narrow(0, at as i64, length)?.f_copy_(&Tensor::f_from_data_size(
                piece,
                &[length],
                Kind::Uint8,
            )?)?;
            at += piece.len();
        }
        Ok(DeviceSet::of(reader.head, stored)?)
    }

    fn of(head: ImageHead, stored: Tensor) -> Result<Self, TchError> {
        let device = stored.device();
        let (count, channels) = (head.len() as i64, head.channels as i64);
        let [height, width] = head.seen().map(|side| side as i64);
        let mut starts = Vec::new();
        let stored = match &head.sizes {
            Sizes::One([height, width]) => stored.f_view([count, channels, *height as i64, *width as i64])?,
            Sizes::Each(sizes) => {
                let mut start = 0;
                for [height, width] in sizes {
                    starts.push(start);
                    start += channels * (height * width) as i64;
                }
                stored
            }
        };
        let resize = match (head.view, &head.sizes) {
            (Some(View::Resize(to)), Sizes::One(from)) => Some(Resize::new(*from, to, device)?),
            _ => None,
        };
        let labels: Vec<i64> = head.labels.iter().map(|&label| i64::from(label)).collect();
        Ok(DeviceSet {
            stored,
            starts,
            sizes: head.sizes,
            view: head.view,
            resize,
            labels: Tensor::f_from_slice(&labels)?.f_to_device(device)?,
            host_labels: head.labels,
            texture: head.texture,
            classes: head.classes,
            shape: [channels, height, width],
        })
    }

    /// Returns the device.
    pub fn device(&self) -> Device {
        self.labels.device()
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.host_labels.len()
    }

    /// Returns whether the set has no images.
    pub fn is_empty(&self) -> bool {
        self.host_labels.is_empty()
    }

    /// Returns the number of channels.
    pub fn channels(&self) -> usize {
        self.shape[0] as usize
    }

    /// Returns the bytes of one image as viewed: C × H × W.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn pixels(&self, index: usize) -> Result<Vec<u8>, TchError> {
        let image = self.seen(&[index as u64])?.f_to_device(Device::Cpu)?.f_contiguous()?;
        Vec::try_from(image.f_view(-1)?)
    }

    /// Returns the file head for a set of only the images at `indices`, in that order.
    pub fn head_of(&self, indices: &[usize]) -> ImageHead {
        let of = |list: &[i32]| indices.iter().map(|&index| list[index]).collect();
        let sizes = match &self.sizes {
            Sizes::One(size) => Sizes::One(*size),
            Sizes::Each(sizes) => Sizes::Each(indices.iter().map(|&index| sizes[index]).collect()),
        };
        ImageHead {
            labels: of(&self.host_labels),
            texture: self.texture.as_deref().map(of),
            classes: self.classes.clone(),
            channels: self.channels(),
            sizes,
            view: self.view,
        }
    }

    /// Returns the bytes of one image as stored, C × H × W, with its height and width.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn stored(&self, index: usize) -> Result<(Vec<u8>, [usize; 2]), TchError> {
        let (image, size) = match &self.sizes {
            Sizes::One(size) => (self.stored.f_select(0, index as i64)?, *size),
            Sizes::Each(sizes) => {
                let [height, width] = sizes[index];
                let length = self.channels() * height * width;
                (self.stored.f_narrow(0, self.starts[index], length as i64)?, sizes[index])
            }
        };
        Ok((Vec::try_from(image.f_to_device(Device::Cpu)?.f_contiguous()?.f_view(-1)?)?, size))
    }

    /// Returns the images at `indices` as viewed, U8, N × C × H × W.
    ///
    /// Every image in a stage comes from here, except random crops.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn seen(&self, indices: &[u64]) -> Result<Tensor, TchError> {
        match self.view {
            Some(View::CenterCrop(side)) => {
                self.windows(indices, side, |_, size| size.map(|length| centre(length, side)))
            }
            _ => self.whole(indices),
        }
    }

    /// Returns the images at `indices`, uncropped, resized if the view says so; for images of one size only.
    fn whole(&self, indices: &[u64]) -> Result<Tensor, TchError> {
        let indices: Vec<i64> = indices.iter().map(|&index| index as i64).collect();
        let indices = Tensor::f_from_slice(&indices)?.f_to_device(self.stored.device())?;
        let images = self.stored.f_index_select(0, &indices)?;
        match &self.resize {
            Some(resize) => resize.apply(&images),
            None => Ok(images),
        }
    }

    /// Crops squares from the images at `indices`.
    ///
    /// `corner` returns the upper left corner of each, given its index and the image's height and width.
    fn windows(
        &self,
        indices: &[u64],
        side: usize,
        corner: impl Fn(u64, [usize; 2]) -> [usize; 2],
    ) -> Result<Tensor, TchError> {
        let resized = match &self.resize {
            Some(_) => Some(self.whole(indices)?),
            None => None,
        };
        let cut = |(position, &index): (usize, &u64)| {
            let [height, width] = self.whole_size(index as usize);
            let image = match (&resized, self.starts.get(index as usize)) {
                (Some(images), _) => images.f_select(0, position as i64)?,
                (None, None) => self.stored.f_select(0, index as i64)?,
                (None, Some(&start)) => {
                    let size = [self.shape[0], height as i64, width as i64];
                    self.stored.f_narrow(0, start, size.iter().product())?.f_view(size)?
                }
            };
            let ([top, left], side) = (corner(index, [height, width]).map(|at| at as i64), side as i64);
            image.f_narrow(1, top, side)?.f_narrow(2, left, side)
        };
        let windows = indices.iter().enumerate().map(cut).collect::<Result<Vec<Tensor>, TchError>>()?;
        Tensor::f_stack(&windows, 0)
    }

    /// Returns the height and width of an image before cropping.
    fn whole_size(&self, index: usize) -> [usize; 2] {
        match (self.view, &self.sizes) {
            (Some(View::Resize(size)), _) => size,
            (_, Sizes::One(size)) => *size,
            (_, Sizes::Each(sizes)) => sizes[index],
        }
    }

    fn labels(&self, indices: &[u64]) -> Result<Tensor, TchError> {
        let indices: Vec<i64> = indices.iter().map(|&index| index as i64).collect();
        self.labels.f_index_select(0, &Tensor::f_from_slice(&indices)?.f_to_device(self.labels.device())?)
    }

    /// Returns the images at `indices` as viewed, f32 in [0, 1], N × C × H × W, and their labels.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn batch(&self, indices: &[u64]) -> Result<(Tensor, Tensor), TchError> {
        Ok((unit(&self.seen(indices)?)?, self.labels(indices)?))
    }

    /// Returns a training batch with random augmentation, drawn by (epoch, image).
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn training_batch(
        &self,
        indices: &[u64],
        augmentation: &Augmentation,
        rng: Rng,
        epoch: u64,
    ) -> Result<(Tensor, Tensor), TchError> {
        let images = match augmentation.random_crop as usize {
            0 => self.seen(indices)?,
            side => self.windows(indices, side, |index, size| {
                let mut stream = rng.stream("random crop", &[epoch, index]);
                size.map(|length| stream.below((length.saturating_sub(side) + 1) as u64) as usize)
            })?,
        };
        let images = augment(unit(&images)?, augmentation, rng, epoch, indices)?;
        Ok((images, self.labels(indices)?))
    }

    /// Checks that the augmentation is possible for these images.
    ///
    /// # Errors
    /// [`StageError::Setting`].
    pub fn check_augmentation(&self, augmentation: &Augmentation) -> Result<(), StageError> {
        let side = augmentation.random_crop as usize;
        if side == 0 {
            return Ok(());
        }
        if augmentation.pad_crop > 0 {
            let problem = "cuts out of padded images, `random_crop` out of images as they are: only one can be had";
            return Err(StageError::setting("augmentation.pad_crop", problem));
        }
        match (0..self.len()).map(|index| self.whole_size(index)).find(|size| size.iter().any(|&length| length < side))
        {
            Some([height, width]) => {
                let problem = format!("takes {side} × {side} pixels, and an image has {height} × {width}");
                Err(StageError::setting("augmentation.random_crop", problem))
            }
            None => Ok(()),
        }
    }
}

/// Converts bytes to numbers in [0, 1].
fn unit(images: &Tensor) -> Result<Tensor, TchError> {
    images.f_to_kind(Kind::Float)?.f_div_scalar_(255.0)
}

/// Recently used image sets and checkpoints, by the digest of their files.
pub struct Library {
    device: Device,
    /// Whether TorchScript networks in checkpoints may run.
    scripts: bool,
    sets: RecentlyUsed<DeviceSet>,
    checkpoints: RecentlyUsed<Checkpoint>,
}

impl Library {
    /// Creates an empty library for a device; `scripts` allows checkpoints with TorchScript networks.
    pub fn new(device: Device, scripts: bool) -> Self {
        // Room for a training and a test set, a table's usual transformed sets, and every model of a paper.
        Library { device, scripts, sets: RecentlyUsed::new(16, 2 << 30), checkpoints: RecentlyUsed::new(16, 1 << 30) }
    }

    /// Returns the image set of an input.
    ///
    /// # Errors
    /// [`StageError::Read`], [`StageError::ImageSet`] or [`StageError::Torch`].
    pub fn set(&mut self, input: &Input) -> Result<Rc<DeviceSet>, StageError> {
        let device = self.device;
        self.sets.get(input, || {
            verify(&input.path, input.digest).map_err(|source| read_failed(input, source))?;
            let reader = ImageReader::open(&input.path)
                .map_err(|source| StageError::ImageSet { slot: input.slot.clone(), source })?;
            DeviceSet::load(reader, device).map_err(|error| match error {
                LoadError::Torch(error) => error.into(),
                LoadError::Io(source) => {
                    read_failed(input, ReadError::Io { path: input.path.display().to_string(), source })
                }
            })
        })
    }

    /// Returns the checkpoint of an input; callers must not change its weights.
    ///
    /// # Errors
    /// [`StageError::Read`], [`StageError::Checkpoint`] or [`StageError::Torch`].
    pub fn checkpoint(&mut self, input: &Input) -> Result<Rc<Checkpoint>, StageError> {
        let (device, scripts) = (self.device, self.scripts);
        self.checkpoints.get(input, || {
            let bytes = read(input)?;
            let checkpoint = match scripts || !checkpoint::has_script(&bytes) {
                true => Checkpoint::from_bytes(&bytes, device),
                false => Err(CheckpointError::Forbidden),
            };
            checkpoint.map_err(|source| StageError::Checkpoint { slot: input.slot.clone(), source })
        })
    }
}

/// Reads an input without caching its bytes.
///
/// # Errors
/// [`StageError::Read`].
pub fn read(input: &Input) -> Result<Vec<u8>, StageError> {
    read_verified(&input.path, input.digest).map_err(|source| read_failed(input, source))
}

fn read_failed(input: &Input, source: ReadError) -> StageError {
    StageError::Read { slot: input.slot.clone(), digest: input.digest, source: Box::new(source) }
}

/// The most recently used values, the last used at the end; limited by count and by total file size.
struct RecentlyUsed<T> {
    most: usize,
    most_bytes: usize,
    kept: Vec<(Digest, usize, Rc<T>)>,
}

impl<T> RecentlyUsed<T> {
    fn new(most: usize, most_bytes: usize) -> Self {
        RecentlyUsed { most, most_bytes, kept: Vec::new() }
    }

    fn get(&mut self, input: &Input, make: impl FnOnce() -> Result<T, StageError>) -> Result<Rc<T>, StageError> {
        let entry = match self.kept.iter().position(|(digest, ..)| *digest == input.digest) {
            Some(at) => self.kept.remove(at),
            None => {
                let path = || input.path.display().to_string();
                let length = std::fs::metadata(&input.path)
                    .map_err(|source| read_failed(input, ReadError::Io { path: path(), source }))?
                    .len() as usize;
                // Free space before the new value takes its own.
                let size = |kept: &[(Digest, usize, Rc<T>)]| kept.iter().map(|(_, size, _)| size).sum::<usize>();
                while !self.kept.is_empty()
                    && (self.kept.len() >= self.most || size(&self.kept) + length > self.most_bytes)
                {
                    self.kept.remove(0);
                }
                (input.digest, length, Rc::new(make()?))
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

    #[test]
    fn the_least_recently_used_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut recent: RecentlyUsed<usize> = RecentlyUsed::new(2, 100);
        let mut made = Vec::new();
        let inputs = ["a", "bb", "ccc"].map(|text| {
            let path = folder.path().join(text);
            std::fs::write(&path, text).unwrap();
            Input { slot: "set".into(), label: String::new(), path, digest: Digest::of(text.as_bytes()) }
        });
        for at in [0, 1, 0, 2, 0, 1] {
            let value = recent
                .get(&inputs[at], || {
                    made.push(at);
                    Ok(at + 1)
                })
                .unwrap();
            assert_eq!(*value, at + 1);
        }
        assert_eq!(made, [0, 1, 2, 1]);
    }
}
