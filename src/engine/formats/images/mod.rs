//! Image sets: pixels as bytes, labels, and the names of the classes. Those of one size that are seen as they are
//! stored fit into an [`ImageSet`]; all are written and read piece by piece in [`stream`](ImageWriter).

mod head;
mod stream;
mod view;

use std::io::Read;

pub use head::{ImageHead, Sizes, View, centre};
pub use stream::{ImageReader, ImageWriter, Layout, WriteError};
pub use view::Seen;

use super::FormatError;

const ARTIFACT: &str = "image set";
/// Images of one size, seen as they are stored.
const FORMAT: &str = "images/1";
/// Images that are seen through a view, and perhaps have sizes of their own.
const FORMAT_SEEN: &str = "images/2";

/// Images of one size with their labels, in memory.
///
/// File: tensors `images`, U8 of shape N × C × H × W, 0 black to 255 white, and `labels`, I32 of shape N, in a
/// cue-conflict set `texture`, I32 of shape N; metadata `{"format": "images/1", "classes": […]}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSet {
    /// Pixels, N × C × H × W in that order.
    pub pixels: Vec<u8>,
    /// N, C, H, W.
    pub shape: [usize; 4],
    /// The class of each image, an index into `classes`.
    pub labels: Vec<i32>,
    /// In a cue-conflict set: the class whose texture each image wears, an index into `classes` as its label is.
    pub texture: Option<Vec<i32>>,
    /// Names of the classes.
    pub classes: Vec<String>,
}

impl ImageSet {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The set without its pixels.
    pub fn head(&self) -> ImageHead {
        let [_, channels, height, width] = self.shape;
        ImageHead {
            labels: self.labels.clone(),
            texture: self.texture.clone(),
            classes: self.classes.clone(),
            channels,
            sizes: Sizes::One([height, width]),
            view: None,
        }
    }

    /// The set as a file.
    ///
    /// # Errors
    /// [`FormatError`] if `shape`, `pixels` and `labels` do not fit each other, or a label is no class.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        let head = self.head();
        if self.shape[0] != self.len() || head.stored_bytes() != self.pixels.len() {
            return Err(FormatError::Tensor { artifact: ARTIFACT, tensor: "images" });
        }
        Ok([head.encode(None)?, self.pixels.clone()].concat())
    }

    /// Reads a set from a file's bytes.
    ///
    /// # Errors
    /// Any [`FormatError`]: other bytes, another version, labels that are no class, images that are not seen as they
    /// are stored.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = ImageReader::new(bytes, bytes.len() as u64)?;
        let mut pixels = Vec::new();
        let invalid = |reason: String| FormatError::Metadata { artifact: ARTIFACT, reason };
        reader.read_to_end(&mut pixels).map_err(|error| invalid(error.to_string()))?;
        let ImageHead { labels, texture, classes, channels, sizes, view } = reader.head;
        match (sizes, view) {
            (Sizes::One([height, width]), None) => {
                Ok(ImageSet { pixels, shape: [labels.len(), channels, height, width], labels, texture, classes })
            }
            _ => Err(invalid("its images are not seen as they are stored, which this stage cannot read".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> ImageSet {
        ImageSet {
            pixels: (0..2 * 3 * 2 * 2).collect(),
            shape: [2, 3, 2, 2],
            labels: vec![1, 0],
            texture: Some(vec![0, 0]),
            classes: vec!["cat".into(), "dog".into()],
        }
    }

    #[test]
    fn a_set_survives_a_round_trip_and_has_one_encoding() {
        let bytes = two().to_bytes().unwrap();
        assert_eq!(ImageSet::from_bytes(&bytes).unwrap(), two());
        assert_eq!(two().to_bytes().unwrap(), bytes);
    }

    #[test]
    fn labels_outside_the_classes_and_cut_files_are_refused() {
        assert!(ImageSet { texture: Some(vec![0, 2]), ..two() }.to_bytes().is_err());
        assert!(ImageSet { labels: vec![2, 0], ..two() }.to_bytes().is_err());
        assert!(ImageSet { shape: [2, 3, 2, 3], ..two() }.to_bytes().is_err());
        // The same lies in a file: the last label's lowest byte.
        let mut bytes = ImageSet { texture: None, ..two() }.to_bytes().unwrap();
        let at = bytes.len() - 24 - 4;
        bytes[at] = 2;
        assert!(matches!(ImageSet::from_bytes(&bytes), Err(FormatError::Metadata { .. })));
        let bytes = two().to_bytes().unwrap();
        assert!(ImageSet::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert!(ImageSet::from_bytes(b"{}").is_err());
    }

    /// Keys hang on these bytes.
    #[test]
    fn the_bytes_are_those_of_safetensors() {
        use safetensors::tensor::TensorView;
        use safetensors::{Dtype, SafeTensors};
        let set = two();
        let (labels, texture) = (crate::formats::i32_bytes(&set.labels), crate::formats::i32_bytes(&[0, 0]));
        let tensors = [
            ("images", TensorView::new(Dtype::U8, set.shape.to_vec(), &set.pixels).unwrap()),
            ("labels", TensorView::new(Dtype::I32, vec![2], &labels).unwrap()),
            ("texture", TensorView::new(Dtype::I32, vec![2], &texture).unwrap()),
        ];
        let metadata = serde_json::json!({"format": "images/1", "classes": ["cat", "dog"]});
        #[derive(serde::Serialize)]
        struct Ordered<'a> {
            format: &'a serde_json::Value,
            classes: &'a serde_json::Value,
        }
        let metadata = Ordered { format: &metadata["format"], classes: &metadata["classes"] };
        assert_eq!(crate::formats::write(tensors, &metadata).unwrap(), set.to_bytes().unwrap());
        SafeTensors::deserialize(&set.to_bytes().unwrap()).unwrap();
    }

    pub(super) fn written(layout: Layout, images: &[(&[u8], [usize; 2], i32)]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set");
        let mut writer = ImageWriter::create(&path, layout).unwrap();
        for (pixels, size, label) in images {
            writer.push(pixels, *size, *label).unwrap();
        }
        assert_eq!(writer.finish().unwrap(), images.len());
        std::fs::read(path).unwrap()
    }

    pub(super) fn layout(size: Option<[usize; 2]>, view: Option<View>, most: usize) -> Layout {
        Layout { classes: vec!["cat".into(), "dog".into()], channels: 3, size, view, most }
    }

    #[test]
    fn a_set_written_image_by_image_is_the_same_file() {
        let set = ImageSet { texture: None, ..two() };
        let images: [(&[u8], [usize; 2], i32); 2] = [(&set.pixels[..12], [2, 2], 1), (&set.pixels[12..], [2, 2], 0)];
        assert_eq!(written(layout(Some([2, 2]), None, 2), &images), set.to_bytes().unwrap());
        // One that was planned for more is another file with the same content, for every reader of safetensors.
        let bytes = written(layout(Some([2, 2]), None, 9), &images);
        assert_eq!(ImageSet::from_bytes(&bytes).unwrap(), set);
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("images").unwrap().data(), set.pixels);
    }

    #[test]
    fn images_of_many_sizes_lie_one_after_the_other() {
        let (small, wide): (Vec<u8>, Vec<u8>) = ((0..12).collect(), (0..30).collect());
        let images: [(&[u8], [usize; 2], i32); 2] = [(&small, [2, 2], 1), (&wide, [2, 5], 0)];
        let bytes = written(layout(None, Some(View::CenterCrop(2)), 3), &images);
        safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut reader = ImageReader::new(&bytes[..], bytes.len() as u64).unwrap();
        assert_eq!((reader.head.seen(), reader.head.size(1), reader.head.channels), ([2, 2], [2, 5], 3));
        let mut pixels = Vec::new();
        reader.read_to_end(&mut pixels).unwrap();
        assert_eq!(pixels, [small, wide].concat());
        assert!(ImageSet::from_bytes(&bytes).unwrap_err().to_string().contains("not seen as they are stored"));
    }

    #[test]
    fn a_set_that_cannot_be_seen_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set");
        assert!(ImageWriter::create(&path, layout(None, None, 1)).is_err(), "sizes of their own and no window");
        let mut writer = ImageWriter::create(&path, layout(None, Some(View::CenterCrop(3)), 1)).unwrap();
        writer.push(&[0; 12], [2, 2], 0).unwrap();
        assert!(writer.finish().unwrap_err().to_string().contains("3 × 3, and one is smaller"));
        let mut writer = ImageWriter::create(&path, layout(Some([2, 2]), None, 1)).unwrap();
        assert!(writer.push(&[0; 27], [3, 3], 0).is_err());
    }

    #[test]
    fn windows_lie_in_the_middle_as_torchvision_rounds() {
        // int(round((length - side) / 2)) in Python.
        let starts =
            [(4, 4), (5, 4), (6, 4), (7, 4), (8, 4), (9, 4), (11, 4)].map(|(length, side)| centre(length, side));
        assert_eq!(starts, [0, 0, 1, 2, 2, 2, 4]);
    }
}
