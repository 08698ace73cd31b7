//! Saliency maps of several models on the same images of several sets.

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::{FormatError, i32s, read_metadata, tensor};

const ARTIFACT: &str = "file of saliency maps";
const FORMAT: &str = "saliency/2";

/// Saliency maps, as the output `maps` of a `saliency` stage has them.
#[derive(Debug, Clone, PartialEq)]
pub struct SaliencyMaps {
    /// Labels of the models.
    pub models: Vec<String>,
    /// Labels of the sets.
    pub sets: Vec<String>,
    /// The images' indices in their sets.
    pub images: Vec<usize>,
    /// Height and width of each map, in pixels.
    pub size: [usize; 2],
    /// Models × sets × images × height × width.
    values: Vec<f32>,
}

impl SaliencyMaps {
    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        #[derive(Deserialize)]
        struct Metadata {
            format: String,
            models: Vec<String>,
            sets: Vec<String>,
        }
        let Metadata { format, models, sets } = read_metadata(ARTIFACT, bytes)?;
        if format != FORMAT {
            let reason = format!("its format is `{format}`, this version reads `{FORMAT}`");
            return Err(FormatError::Metadata { artifact: ARTIFACT, reason });
        }
        let file = SafeTensors::deserialize(bytes)?;
        let unfit = |tensor| FormatError::Tensor { artifact: ARTIFACT, tensor };
        let images = i32s(tensor(ARTIFACT, &file, "images", Dtype::I32)?.data());
        let images: Result<Vec<usize>, _> = images.into_iter().map(usize::try_from).collect();
        let images = images.map_err(|_| unfit("images"))?;
        let maps = tensor(ARTIFACT, &file, "maps", Dtype::F32)?;
        let &[_, _, _, height, width] = maps.shape() else { return Err(unfit("maps")) };
        if maps.shape()[..3] != [models.len(), sets.len(), images.len()] {
            return Err(unfit("maps"));
        }
        let values = maps.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Ok(SaliencyMaps { models, sets, images, size: [height, width], values })
    }

    /// The map of a model of an image in a set, each by its place: row by row.
    ///
    /// # Panics
    /// If one of them is not there.
    pub fn map(&self, model: usize, set: usize, image: usize) -> &[f32] {
        assert!(set < self.sets.len() && image < self.images.len(), "there is no such map");
        let length = self.size[0] * self.size[1];
        let at = (model * self.sets.len() + set) * self.images.len() + image;
        &self.values[at * length..][..length]
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    fn written(format: &str, shape: Vec<usize>) -> Vec<u8> {
        let count: usize = shape.iter().product();
        let values: Vec<u8> = (0..count).flat_map(|value| (value as f32).to_le_bytes()).collect();
        let images: Vec<u8> = [7_i32, 3].iter().flat_map(|index| index.to_le_bytes()).collect();
        let tensors = [
            ("maps", TensorView::new(Dtype::F32, shape, &values).unwrap()),
            ("images", TensorView::new(Dtype::I32, vec![2], &images).unwrap()),
        ];
        let metadata = serde_json::json!({"format": format, "models": ["a"], "sets": ["x", "y"], "method": {}});
        super::super::write(tensors, &metadata).unwrap()
    }

    #[test]
    fn each_map_is_found_at_its_place() {
        let maps = SaliencyMaps::from_bytes(&written(FORMAT, vec![1, 2, 2, 1, 3])).unwrap();
        assert_eq!((maps.images.as_slice(), maps.size), (&[7, 3][..], [1, 3]));
        assert_eq!(maps.map(0, 1, 0), [6.0, 7.0, 8.0]);
    }

    #[test]
    fn other_files_are_refused() {
        let wrong = |format, shape| SaliencyMaps::from_bytes(&written(format, shape)).unwrap_err().to_string();
        assert!(wrong("saliency/1", vec![1, 2, 2, 1, 3]).contains("this version reads `saliency/2`"));
        assert!(wrong(FORMAT, vec![2, 2, 2, 1, 3]).contains("no tensor `maps`"));
    }
}
