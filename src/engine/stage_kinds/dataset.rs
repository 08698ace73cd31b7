//! Data sets as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::source::{FolderPath, Source};
use crate::number::Real;
use crate::resample::Filter;

/// Fetches a data set, checks it against its digests, and decodes it.
///
/// Outputs: `train` and `test`, image sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "format", rename_all = "snake_case", deny_unknown_fields)]
#[allow(clippy::large_enum_variant, reason = "a pipeline has a few data sets, each read once")]
pub enum DatasetParams {
    /// The IDX files of MNIST and its relatives, plain or gzip-compressed.
    Idx {
        /// Training images and labels.
        train: IdxFiles,
        /// Test images and labels.
        test: IdxFiles,
        /// Names of the classes, in the order of their labels; at least one.
        #[schemars(length(min = 1))]
        classes: Vec<String>,
    },
    /// A file of NumPy with several arrays, as `numpy.savez` writes it and MedMNIST and Keras publish it. Images are
    /// unsigned bytes or floats from 0 to 1, N × height × width or N × height × width × 1 or 3; labels are whole
    /// numbers from 0, N or N × 1.
    Npz {
        /// The `.npz` file.
        archive: Source,
        /// The names of the training arrays; `train_images` and `train_labels`, or `x_train` and `y_train`, if not
        /// given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        train: Option<ArrayNames>,
        /// The names of the test arrays; `test_images` and `test_labels`, `x_test` and `y_test`, or `val_images` and
        /// `val_labels`, if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        test: Option<ArrayNames>,
        /// Names of the classes, in the order of their labels; their numbers if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1))]
        classes: Option<Vec<String>>,
        /// Only the first so many images of each class, in training and in test set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1))]
        limit_per_class: Option<u32>,
    },
    /// Arrays of NumPy in files of their own, as `numpy.save` writes them; otherwise as the format `npz`.
    Npy {
        /// Training images and labels.
        train: ArrayFiles,
        /// Test images and labels.
        test: ArrayFiles,
        /// Names of the classes, in the order of their labels; their numbers if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1))]
        classes: Option<Vec<String>>,
        /// Only the first so many images of each class, in training and in test set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1))]
        limit_per_class: Option<u32>,
    },
    /// Parquet files of the Hugging Face hub, plain or compressed by Snappy or zstd: a column of encoded images
    /// (`struct {bytes, path}`; JPEG, PNG, BMP or WebP) and one of class numbers. The names of the classes are in their
    /// metadata.
    Parquet {
        /// The files of the training set, in their order.
        #[schemars(length(min = 1))]
        train: Vec<Source>,
        /// The files of the test set, in their order.
        #[schemars(length(min = 1))]
        test: Vec<Source>,
        /// The column of the images; the only column of encoded images if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<String>,
        /// The column of the class numbers.
        #[serde(default = "label")]
        label: String,
        /// Names of the classes, in the order of their labels; those of the metadata if not given, or else their
        /// numbers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1))]
        classes: Option<Vec<String>>,
        /// The shorter side that images are resized to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 4096))]
        resize: Option<u32>,
        /// How they are resized.
        #[serde(default)]
        filter: Filter,
        /// The side of the square in their middle that is cut out in the end. Needed where images have different sizes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 4096))]
        center_crop: Option<u32>,
        /// Only the first so many images of each class, in training and in test set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1))]
        limit_per_class: Option<u32>,
        /// What becomes of images that cannot be decoded.
        #[serde(default)]
        broken: Broken,
    },
    /// CIFAR-10 (Krizhevsky 2009): 60,000 colour images of 32 × 32, of which 10,000 are for testing. Either the binary
    /// or the Python archive of its authors.
    Cifar10 {
        /// `cifar-10-binary.tar.gz` or `cifar-10-python.tar.gz`.
        archive: Source,
        /// Only the first so many images of each class, in training and in test set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1))]
        limit_per_class: Option<u32>,
    },
    /// Tiny ImageNet (Stanford CS231n): 64 × 64 pixels, 500 training images for each of 200 classes. The test set is
    /// the 10,000 images of its `val`, because labels of its `test` were never published.
    TinyImagenet {
        /// `tiny-imagenet-200.zip`.
        archive: Source,
        /// Images are seen in this height and width, resized bilinearly; they are stored as they are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 4096))]
        resize: Option<u32>,
        /// Only the first so many images of each class, in training and in test set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1))]
        limit_per_class: Option<u32>,
        /// What becomes of images that cannot be decoded.
        #[serde(default)]
        broken: Broken,
    },
    /// Caltech-256 (Griffin et al. 2007): 257 classes, `clutter` among them, that have no division into training and
    /// test set: one is drawn. Training images keep their whole after they were resized, so that a training can crop
    /// them at random; without that, and in the test set, their centre is seen.
    Caltech256 {
        /// `256_ObjectCategories.tar`.
        archive: Source,
        /// The share of each class that is for testing, 0 to 1; cut off to whole images.
        #[serde(default = "fifth")]
        #[schemars(extend("minimum" = 0, "maximum" = 1))]
        test_share: Real,
        /// The seed of the division.
        #[serde(default)]
        seed: u64,
        /// The shorter side that images are resized to, bilinearly.
        #[serde(default = "side_256")]
        #[schemars(range(min = 1, max = 4096))]
        resize: u32,
        /// The side of the square in their middle that is seen.
        #[serde(default = "side_224")]
        #[schemars(range(min = 1, max = 4096))]
        center_crop: u32,
        /// Only the first so many images of each class, before they are divided.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1))]
        limit_per_class: Option<u32>,
        /// What becomes of images that cannot be decoded.
        #[serde(default)]
        broken: Broken,
    },
    /// JPEG, PNG, BMP and WebP files in a folder on disk, or in an archive (zip or tar, the latter plain or compressed
    /// by gzip, xz, bzip2, zstd or lzip), with a folder for each class or none. Folders that wrap all classes are
    /// unwrapped. Either `folder` or `archive` holds all images, or `train` and `test` have a place each.
    ImageFolder {
        /// A folder on disk with all images, relative to the pipeline file. Its `train` and its `test` (or `val`) are
        /// found; with `test_share` it is divided.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>")]
        folder: Option<FolderPath>,
        /// An archive with all images, in place of `folder`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        archive: Option<Source>,
        /// Where the training images are, or with `test_share` all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        train: Option<Folder>,
        /// Where the test images are; nothing if they are drawn from `train`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        test: Option<Folder>,
        /// Without `test`: the share of each class that is for testing, 0 to 1; cut off to whole images.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("minimum" = 0, "maximum" = 1))]
        test_share: Option<Real>,
        /// The seed of the division and of `pick`.
        #[serde(default)]
        seed: u64,
        /// What a class is.
        #[serde(default)]
        classes: Classes,
        /// Leave out images with a side shorter than this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1))]
        min_side: Option<u32>,
        /// First of all cut the largest square out of the middle, its corner rounded down.
        #[serde(default)]
        square: bool,
        /// The shorter side that images are resized to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 4096))]
        resize: Option<u32>,
        /// How they are resized.
        #[serde(default)]
        filter: Filter,
        /// The side of the square in their middle that is cut out in the end. Needed where images have different sizes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 4096))]
        center_crop: Option<u32>,
        /// Training images keep their whole, so that a training can crop them at random; otherwise the square of
        /// `center_crop` is seen.
        #[serde(default)]
        whole: bool,
        /// Only so many images in all, drawn at random among those that are large enough, before they are divided.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1))]
        pick: Option<u32>,
        /// Only the first so many images of each class, before they are divided.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1))]
        limit_per_class: Option<u32>,
        /// What becomes of images that cannot be decoded.
        #[serde(default)]
        broken: Broken,
    },
}

/// A file of images and the file of their labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdxFiles {
    /// Images: unsigned bytes, count × rows × columns.
    pub images: Source,
    /// Labels: unsigned bytes, one for each image.
    pub labels: Source,
}

/// Names of an array of images and of that of their labels, without `.npy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArrayNames {
    /// The images.
    pub images: String,
    /// Their labels.
    pub labels: String,
}

/// A `.npy` file of images and that of their labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArrayFiles {
    /// The images.
    pub images: Source,
    /// Their labels.
    pub labels: Source,
}

/// A step on the way to a source within parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A key of a mapping.
    Key(&'static str),
    /// A place in a list, from 0.
    Index(usize),
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Way::Key(name) => f.write_str(name),
            Way::Index(index) => index.fmt(f),
        }
    }
}

/// A folder on disk or in an archive: exactly one of `folder` and `archive`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Folder {
    /// The folder on disk, relative to the pipeline file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub folder: Option<FolderPath>,
    /// The archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Source>,
    /// The folder within it, such as `images/train`; without it the whole. Folders that wrap all files may be left
    /// out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub root: String,
}

/// What a class of an archive of images is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Classes {
    /// A folder: classes have the names of folders, in alphabetical order, and images stand in them
    /// at any depth. At least two; none without an image.
    #[default]
    Folders,
    /// There are none: all images are of one class, `image`.
    None,
}

/// What becomes of images that cannot be decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Broken {
    /// The stage fails and names them.
    #[default]
    Fail,
    /// They are left out, named in the log, and counted.
    Skip,
}

fn label() -> String {
    "label".to_owned()
}

fn fifth() -> Real {
    Real::new(0.2)
}

fn side_256() -> u32 {
    256
}

fn side_224() -> u32 {
    224
}

impl DatasetParams {
    /// The sources, each with the way that leads to it.
    pub fn sources(&mut self) -> Vec<(Vec<Way>, &mut Source)> {
        use Way::{Index, Key};
        match self {
            DatasetParams::Idx {
                train: IdxFiles { images: train_images, labels: train_labels },
                test: IdxFiles { images: test_images, labels: test_labels },
                ..
            }
            | DatasetParams::Npy {
                train: ArrayFiles { images: train_images, labels: train_labels },
                test: ArrayFiles { images: test_images, labels: test_labels },
                ..
            } => vec![
                (vec![Key("train"), Key("images")], train_images),
                (vec![Key("train"), Key("labels")], train_labels),
                (vec![Key("test"), Key("images")], test_images),
                (vec![Key("test"), Key("labels")], test_labels),
            ],
            DatasetParams::Cifar10 { archive, .. }
            | DatasetParams::TinyImagenet { archive, .. }
            | DatasetParams::Caltech256 { archive, .. }
            | DatasetParams::Npz { archive, .. } => vec![(vec![Key("archive")], archive)],
            DatasetParams::Parquet { train, test, .. } => {
                let parts = [("train", train), ("test", test)].into_iter();
                parts
                    .flat_map(|(part, shards)| {
                        shards.iter_mut().enumerate().map(move |(at, shard)| (vec![Key(part), Index(at)], shard))
                    })
                    .collect()
            }
            DatasetParams::ImageFolder { folder, archive, train, test, .. } => {
                let mut sources = Vec::new();
                sources.extend(folder.as_mut().map(|folder| (vec![Key("folder")], folder.source())));
                sources.extend(archive.as_mut().map(|archive| (vec![Key("archive")], archive)));
                for (part, place) in [("train", train), ("test", test)] {
                    let Some(Folder { folder, archive, .. }) = place else { continue };
                    sources.extend(folder.as_mut().map(|folder| (vec![Key(part), Key("folder")], folder.source())));
                    sources.extend(archive.as_mut().map(|archive| (vec![Key(part), Key("archive")], archive)));
                }
                sources
            }
        }
    }
}
