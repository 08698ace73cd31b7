//! Image sets: pixels as bytes, labels, and the names of the classes.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::{FormatError, i32_bytes, i32s, optional_i32s, read_metadata, tensor, write};

const ARTIFACT: &str = "image set";
const FORMAT: &str = "images/1";

/// Images of one size with their labels.
///
/// File: tensors `images`, U8 of shape N × C × H × W, 0 black to 255 white, and `labels`, I32 of shape N, in a cue-conflict set `texture`, I32 of shape N;
/// metadata
/// `{"format": "images/1", "classes": […]}`.
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

#[derive(Serialize, Deserialize)]
struct Metadata {
    format: String,
    classes: Vec<String>,
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

    /// The set as a file.
    ///
    /// # Errors
    /// [`FormatError::Safetensors`] if `shape` does not fit `pixels` and `labels`.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        let (labels, texture) = (i32_bytes(&self.labels), self.texture.as_deref().map(i32_bytes));
        let mut tensors = vec![
            ("images", TensorView::new(Dtype::U8, self.shape.to_vec(), &self.pixels)?),
            ("labels", TensorView::new(Dtype::I32, vec![self.shape[0]], &labels)?),
        ];
        if let Some(texture) = &texture {
            tensors.push(("texture", TensorView::new(Dtype::I32, vec![self.shape[0]], texture)?));
        }
        write(tensors, &Metadata { format: FORMAT.to_owned(), classes: self.classes.clone() })
    }

    /// Reads a set from a file's bytes.
    ///
    /// # Errors
    /// Any [`FormatError`]: other bytes, another version, labels that are no class.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let metadata: Metadata = read_metadata(ARTIFACT, bytes)?;
        if metadata.format != FORMAT {
            let reason = format!("its format is `{}`, this version reads `{FORMAT}`", metadata.format);
            return Err(FormatError::Metadata { artifact: ARTIFACT, reason });
        }
        let file = SafeTensors::deserialize(bytes)?;
        let images = tensor(ARTIFACT, &file, "images", Dtype::U8)?;
        let labels = tensor(ARTIFACT, &file, "labels", Dtype::I32)?;
        let shape: [usize; 4] =
            images.shape().try_into().map_err(|_| FormatError::Tensor { artifact: ARTIFACT, tensor: "images" })?;
        let labels_fit = labels.shape() == [shape[0]];
        let labels = i32s(labels.data());
        let known = |&label: &i32| usize::try_from(label).is_ok_and(|label| label < metadata.classes.len());
        if !labels_fit || !labels.iter().all(known) {
            return Err(FormatError::Tensor { artifact: ARTIFACT, tensor: "labels" });
        }
        let texture = optional_i32s(ARTIFACT, &file, "texture")?;
        if texture.as_ref().is_some_and(|texture| texture.len() != labels.len() || !texture.iter().all(known)) {
            return Err(FormatError::Tensor { artifact: ARTIFACT, tensor: "texture" });
        }
        Ok(ImageSet { pixels: images.data().to_vec(), shape, labels, texture, classes: metadata.classes })
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
        let textured = ImageSet { texture: Some(vec![0, 2]), ..two() };
        assert!(matches!(
            ImageSet::from_bytes(&textured.to_bytes().unwrap()),
            Err(FormatError::Tensor { tensor: "texture", .. })
        ));
        let mut set = two();
        set.labels[0] = 2;
        assert!(matches!(
            ImageSet::from_bytes(&set.to_bytes().unwrap()),
            Err(FormatError::Tensor { tensor: "labels", .. })
        ));
        let bytes = two().to_bytes().unwrap();
        assert!(ImageSet::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert!(ImageSet::from_bytes(b"{}").is_err());
    }
}
