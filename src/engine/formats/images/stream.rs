//! Image sets that need not fit into memory: written image by image, read head first and then in pieces.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::{ARTIFACT, ImageHead, Sizes, View};
use crate::formats::FormatError;

/// Writes an image set image by image; memory holds one image at a time, and the labels.
///
/// Pixels come last in the file. Room for what stands before them is made at once, for as many images as are planned;
/// if fewer come, the header is filled up with spaces, which readers pass over.
pub struct ImageWriter {
    file: BufWriter<File>,
    head: ImageHead,
    room: u64,
}

/// What is known of a set before its first image.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Colours of a pixel.
    pub channels: usize,
    /// The size of all images, or nothing where each has its own.
    pub size: Option<[usize; 2]>,
    /// How the images are to be seen.
    pub view: Option<View>,
    /// The most images that come.
    pub most: usize,
}

/// Why an image set could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file cannot be written.
    #[error("the file cannot be written: {0}")]
    Io(#[from] io::Error),
    /// The set is none that a file could hold.
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl ImageWriter {
    /// Starts a file.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn create(path: &Path, layout: Layout) -> Result<Self, WriteError> {
        let Layout { classes, channels, size, view, most } = layout;
        // The longest head that can come of it: as many images as there can be, of a size whose numbers are as long as
        // numbers get.
        let sizes = match size {
            Some(size) => Sizes::One(size),
            None => Sizes::Each(vec![[LONGEST, LONGEST]; most]),
        };
        let planned = ImageHead { labels: vec![0; most], texture: None, classes, channels, sizes, view };
        let room = planned.encode(None)?.len() as u64;
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.seek(SeekFrom::Start(room))?;
        let sizes = size.map_or_else(|| Sizes::Each(Vec::with_capacity(most)), Sizes::One);
        let head = ImageHead { labels: Vec::with_capacity(most), sizes, ..planned };
        Ok(ImageWriter { file, head, room })
    }

    /// Starts a file of a set of which everything but the pixels is known; labels and sizes are pushed with the images
    /// all the same.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn with_head(path: &Path, head: ImageHead) -> Result<Self, WriteError> {
        let room = head.encode(None)?.len() as u64;
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.seek(SeekFrom::Start(room))?;
        let sizes = match head.sizes {
            Sizes::One(size) => Sizes::One(size),
            Sizes::Each(sizes) => Sizes::Each(Vec::with_capacity(sizes.len())),
        };
        let head = ImageHead { labels: Vec::with_capacity(head.labels.len()), sizes, ..head };
        Ok(ImageWriter { file, head, room })
    }

    /// Adds an image: C × H × W bytes, its height and width, and its class.
    ///
    /// # Errors
    /// [`WriteError::Io`]; [`WriteError::Format`] if it has another size than the set.
    pub fn push(&mut self, pixels: &[u8], size: [usize; 2], label: i32) -> Result<(), WriteError> {
        let fits = match &mut self.head.sizes {
            Sizes::One(one) => *one == size,
            Sizes::Each(sizes) => {
                sizes.push(size);
                true
            }
        };
        if !fits || pixels.len() != self.head.channels * size[0] * size[1] {
            let reason = format!("an image of {} × {} does not fit into it", size[0], size[1]);
            return Err(FormatError::Metadata { artifact: ARTIFACT, reason }.into());
        }
        self.head.labels.push(label);
        self.file.write_all(pixels)?;
        Ok(())
    }

    /// Completes the file, and gives the number of its images.
    ///
    /// # Errors
    /// [`WriteError`]; the file is then of no use.
    pub fn finish(mut self) -> Result<usize, WriteError> {
        let head = self.head.encode(Some(self.room))?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&head)?;
        self.file.flush()?;
        Ok(self.head.len())
    }
}

/// A side that no image has, but few have longer numbers.
const LONGEST: usize = 1 << 16;

/// Reads an image set: its head at once, its pixels in pieces through [`Read`].
pub struct ImageReader<R> {
    /// All but the pixels.
    pub head: ImageHead,
    pub(super) pixels: R,
}

impl ImageReader<BufReader<File>> {
    /// Opens a file, whose digest somebody has checked.
    ///
    /// # Errors
    /// [`FormatError`]: it cannot be read, or is no image set.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let unreadable = |error: io::Error| FormatError::Metadata { artifact: ARTIFACT, reason: error.to_string() };
        let file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        ImageReader::new(BufReader::with_capacity(1 << 20, file), length)
    }
}

impl<R: Read> ImageReader<R> {
    /// Reads the head of a set whose file has `length` bytes.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn new(mut from: R, length: u64) -> Result<Self, FormatError> {
        let head = ImageHead::decode(&mut from, length)?;
        Ok(ImageReader { head, pixels: from })
    }
}

impl<R: Read> Read for ImageReader<R> {
    /// The pixels of the images as they are stored, one image after the other, each C × H × W.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.pixels.read(buffer)
    }
}
