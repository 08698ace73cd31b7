//! What stands before the pixels of an image set: labels, classes, sizes, and how the images are to be seen.

use std::collections::HashMap;
use std::io::Read;

use safetensors::Dtype;
use safetensors::tensor::{Metadata as Header, TensorInfo};
use serde::{Deserialize, Serialize};

use super::{ARTIFACT, FORMAT, FORMAT_SEEN};
use crate::formats::{FormatError, METADATA_KEY, i32_bytes, i32s};

/// The longest header that is read: that of 10,000 classes with long names has 1 MB.
const MAX_HEADER: u64 = 64 << 20;

/// How the images of a set are seen, where that is not how they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// Resized to this height and width, bilinearly, as Pillow does it ([`crate::resample`]).
    Resize([usize; 2]),
    /// The square of this side in their middle ([`centre`]). A training that crops at random takes its windows from the
    /// whole image.
    CenterCrop(usize),
}

/// Height and width of the stored images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sizes {
    /// All have the same.
    One([usize; 2]),
    /// Each has its own; such a set has the view [`View::CenterCrop`].
    Each(Vec<[usize; 2]>),
}

/// An image set without its pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageHead {
    /// The class of each image, an index into `classes`.
    pub labels: Vec<i32>,
    /// In a cue-conflict set: the class whose texture each image wears.
    pub texture: Option<Vec<i32>>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Colours of a pixel.
    pub channels: usize,
    /// Heights and widths as stored.
    pub sizes: Sizes,
    /// How the images are seen; nothing where they are seen as stored.
    pub view: Option<View>,
}

/// The JSON under [`METADATA_KEY`].
#[derive(Serialize, Deserialize)]
pub(super) struct Metadata {
    pub(super) format: String,
    pub(super) classes: Vec<String>,
    /// Of a set whose images have sizes of their own; others have it in the shape of `images`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) channels: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) view: Option<View>,
}

/// Where a window of `side` pixels starts that lies in the middle of `length`, as torchvision's `CenterCrop` rounds it:
/// halves to the even number.
pub fn centre(length: usize, side: usize) -> usize {
    let room = length.saturating_sub(side);
    let half = room / 2;
    if room.is_multiple_of(2) || half.is_multiple_of(2) { half } else { half + 1 }
}

impl ImageHead {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Height and width of an image as it is stored.
    pub fn size(&self, index: usize) -> [usize; 2] {
        match &self.sizes {
            Sizes::One(size) => *size,
            Sizes::Each(sizes) => sizes[index],
        }
    }

    /// Height and width of every image as it is seen.
    pub fn seen(&self) -> [usize; 2] {
        match (self.view, &self.sizes) {
            (Some(View::Resize(size)), _) => size,
            (Some(View::CenterCrop(side)), _) => [side, side],
            (None, Sizes::One(size)) => *size,
            // Refused when such a set is written or read.
            (None, Sizes::Each(_)) => [0, 0],
        }
    }

    /// Bytes of all stored images.
    pub fn stored_bytes(&self) -> usize {
        self.bytes_before(self.len())
    }

    /// Bytes of the stored images before that at `index`.
    pub(super) fn bytes_before(&self, index: usize) -> usize {
        let pixels: usize = match &self.sizes {
            Sizes::One([height, width]) => index * height * width,
            Sizes::Each(sizes) => sizes.iter().take(index).map(|[height, width]| height * width).sum(),
        };
        self.channels * pixels
    }

    /// The format that a file of such a set names: one whose readers need not know of views wherever that is enough.
    fn format(&self) -> &'static str {
        if self.view.is_none() && matches!(self.sizes, Sizes::One(_)) { FORMAT } else { FORMAT_SEEN }
    }

    /// Why a set cannot be as this head says; nothing if it can.
    pub(super) fn wrong(&self) -> Option<String> {
        let known = |&label: &i32| usize::try_from(label).is_ok_and(|label| label < self.classes.len());
        let lists = [Some(&self.labels), self.texture.as_ref()];
        if lists.iter().flatten().any(|list| list.len() != self.len() || !list.iter().all(known)) {
            return Some("a label is none of its classes, or is missing".to_owned());
        }
        let smallest = match &self.sizes {
            Sizes::One(size) => *size,
            Sizes::Each(sizes) if sizes.len() != self.len() => return Some("sizes are missing".to_owned()),
            Sizes::Each(_) if !matches!(self.view, Some(View::CenterCrop(_))) => {
                return Some("its images have sizes of their own and no view that makes them one".to_owned());
            }
            Sizes::Each(sizes) => {
                let least = |axis: usize| sizes.iter().map(|size| size[axis]).min().unwrap_or(usize::MAX);
                [least(0), least(1)]
            }
        };
        match self.view {
            Some(View::Resize(size)) if size.contains(&0) => {
                Some("its images are seen without a height or width".into())
            }
            Some(View::CenterCrop(side))
                if side == 0 || (!self.is_empty() && smallest.iter().any(|&length| length < side)) =>
            {
                Some(format!("its images are seen through a window of {side} × {side}, and one is smaller"))
            }
            _ => None,
        }
    }

    /// The bytes that stand before the pixels, `room` of them or, without that, as few as can be.
    pub(super) fn encode(&self, room: Option<u64>) -> Result<Vec<u8>, FormatError> {
        let invalid = |reason: String| FormatError::Metadata { artifact: ARTIFACT, reason };
        if let Some(reason) = self.wrong() {
            return Err(invalid(reason));
        }
        let count = self.len();
        let mut tensors: Vec<(&str, Dtype, Vec<usize>, Vec<u8>)> =
            vec![("labels", Dtype::I32, vec![count], i32_bytes(&self.labels))];
        let channels = match &self.sizes {
            Sizes::One(_) => None,
            Sizes::Each(sizes) => {
                let flat: Vec<i32> = sizes.iter().flatten().map(|&length| length as i32).collect();
                tensors.push(("sizes", Dtype::I32, vec![count, 2], i32_bytes(&flat)));
                Some(self.channels)
            }
        };
        if let Some(texture) = &self.texture {
            tensors.push(("texture", Dtype::I32, vec![count], i32_bytes(texture)));
        }
        // As safetensors orders them: wide types first, equal ones by name. Pixels come last and can be written while
        // they are made.
        let small: Vec<u8> = tensors.iter().flat_map(|(.., bytes)| bytes.iter().copied()).collect();
        let mut infos = Vec::new();
        let mut offset = 0;
        for (name, dtype, shape, bytes) in &tensors {
            let data_offsets = (offset, offset + bytes.len());
            infos.push(((*name).to_owned(), TensorInfo { dtype: *dtype, shape: shape.clone(), data_offsets }));
            offset = data_offsets.1;
        }
        let bytes = self.stored_bytes();
        let (name, shape) = match self.sizes {
            Sizes::One([height, width]) => ("images", vec![count, self.channels, height, width]),
            Sizes::Each(_) => ("pixels", vec![bytes]),
        };
        let data_offsets = (offset, offset + bytes);
        infos.push((name.to_owned(), TensorInfo { dtype: Dtype::U8, shape, data_offsets }));
        let json =
            Metadata { format: self.format().to_owned(), classes: self.classes.clone(), channels, view: self.view };
        let json = serde_json::to_string(&json).map_err(|error| invalid(error.to_string()))?;
        let header = Header::new(Some(HashMap::from([(METADATA_KEY.to_owned(), json)])), infos)?;
        let mut header = serde_json::to_vec(&header).map_err(|error| invalid(error.to_string()))?;
        let length = match room {
            None => header.len().next_multiple_of(8),
            Some(room) => (room as usize).saturating_sub(8 + small.len()),
        };
        if length < header.len() {
            return Err(invalid(format!("its header has {} bytes and there is room for {length}", header.len())));
        }
        header.resize(length, b' ');
        Ok([(length as u64).to_le_bytes().as_slice(), &header, &small].concat())
    }

    /// Reads all that stands before the pixels of a file of `length` bytes; the pixels come next.
    pub(super) fn decode(from: &mut impl Read, length: u64) -> Result<Self, FormatError> {
        let invalid = |reason: String| FormatError::Metadata { artifact: ARTIFACT, reason };
        let cut = |error: std::io::Error| invalid(format!("it ends too early or cannot be read: {error}"));
        let mut size = [0; 8];
        from.read_exact(&mut size).map_err(cut)?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER.min(length.saturating_sub(8)) {
            return Err(invalid(format!("its header claims {size} bytes, the whole file has {length}")));
        }
        let mut header = vec![0; size as usize];
        from.read_exact(&mut header).map_err(cut)?;
        let header: Header = serde_json::from_slice(&header).map_err(|error| invalid(error.to_string()))?;
        let text = header.metadata().as_ref().and_then(|map| map.get(METADATA_KEY));
        let text = text.ok_or_else(|| invalid(format!("no `{METADATA_KEY}` entry")))?;
        let metadata: Metadata = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
        if ![FORMAT, FORMAT_SEEN].contains(&metadata.format.as_str()) {
            let reason =
                format!("its format is `{}`, this version reads `{FORMAT}` and `{FORMAT_SEEN}`", metadata.format);
            return Err(invalid(reason));
        }
        let missing = |tensor: &'static str| FormatError::Tensor { artifact: ARTIFACT, tensor };
        let ragged = header.info("sizes").is_some();
        let pixels = if ragged { "pixels" } else { "images" };
        let pixels_info = header.info(pixels).ok_or_else(|| missing(pixels))?;
        let start = pixels_info.data_offsets.0;
        let whole = pixels_info.data_offsets.1 as u64 + 8 + size == length;
        if pixels_info.dtype != Dtype::U8 || !whole || start as u64 > MAX_HEADER * 16 {
            return Err(missing(pixels));
        }
        let mut small = vec![0; start];
        from.read_exact(&mut small).map_err(cut)?;
        let numbers = |name: &'static str, columns: Option<usize>| -> Result<Option<Vec<i32>>, FormatError> {
            let Some(info) = header.info(name) else { return Ok(None) };
            let bytes = small.get(info.data_offsets.0..info.data_offsets.1).ok_or_else(|| missing(name))?;
            let fits = match (&info.shape[..], columns) {
                ([_], None) => true,
                ([_, found], Some(columns)) => *found == columns,
                _ => false,
            };
            if info.dtype == Dtype::I32 && fits { Ok(Some(i32s(bytes))) } else { Err(missing(name)) }
        };
        let labels = numbers("labels", None)?.ok_or_else(|| missing("labels"))?;
        let texture = numbers("texture", None)?;
        let (channels, sizes) = match (numbers("sizes", Some(2))?, &pixels_info.shape[..]) {
            (Some(flat), [_]) => {
                let side = |length: i32| usize::try_from(length).map_err(|_| missing("sizes"));
                let size = |pair: &[i32]| Ok::<_, FormatError>([side(pair[0])?, side(pair[1])?]);
                let sizes = flat.chunks_exact(2).map(size).collect::<Result<Vec<_>, _>>()?;
                let channels = metadata.channels.ok_or_else(|| invalid("it does not say its channels".to_owned()))?;
                (channels, Sizes::Each(sizes))
            }
            (None, &[count, channels, height, width]) if count == labels.len() => {
                (channels, Sizes::One([height, width]))
            }
            (None, [..]) => return Err(missing(if labels.is_empty() { pixels } else { "labels" })),
            _ => return Err(missing(pixels)),
        };
        let head = ImageHead { labels, texture, classes: metadata.classes, channels, sizes, view: metadata.view };
        if let Some(reason) = head.wrong() {
            return Err(invalid(reason));
        }
        if head.stored_bytes() as u64 + start as u64 + 8 + size != length {
            return Err(missing(pixels));
        }
        Ok(head)
    }
}
