//! Single images of a set as they are seen, for pictures that people look at: of a set of gigabytes no more is read
//! than these.

use std::io::{self, Read, Seek, SeekFrom};

use super::{ImageReader, View, centre};
use crate::resample::{Filter, Interleaved};

/// An image as it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// C × H × W bytes.
    pub pixels: Vec<u8>,
    /// H and W.
    pub size: [usize; 2],
}

impl<R: Read + Seek> ImageReader<R> {
    /// The images at `indices` as they are seen: resized, or cut to their middle, where the set says so. Works as long
    /// as nothing was read of the pixels.
    ///
    /// # Errors
    /// What reading gives; [`io::ErrorKind::InvalidInput`] if there is no image of such an index.
    pub fn seen(&mut self, indices: &[usize]) -> io::Result<Vec<Seen>> {
        let start = self.pixels.stream_position()?;
        let mut images = Vec::with_capacity(indices.len());
        for &index in indices {
            if index >= self.head.len() {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            }
            let (before, [height, width]) = (self.head.bytes_before(index), self.head.size(index));
            let mut stored = vec![0; self.head.channels * height * width];
            self.pixels.seek(SeekFrom::Start(start + before as u64))?;
            self.pixels.read_exact(&mut stored)?;
            let planes = stored.chunks_exact(height * width);
            let seen = planes.flat_map(|plane| self.plane(plane.to_vec(), [height, width]));
            images.push(Seen { pixels: seen.collect(), size: self.head.seen() });
        }
        self.pixels.seek(SeekFrom::Start(start))?;
        Ok(images)
    }

    /// One colour of an image as it is seen.
    fn plane(&self, pixels: Vec<u8>, [height, width]: [usize; 2]) -> Vec<u8> {
        let stored = Interleaved::<1> { pixels, height, width };
        match self.head.view {
            None => stored.pixels,
            Some(View::Resize(size)) => stored.resized(size, Filter::Bilinear).pixels,
            Some(View::CenterCrop(side)) => {
                stored.window([centre(height, side), centre(width, side)], [side, side]).pixels
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{layout, written};
    use super::*;

    fn seen(bytes: &[u8], indices: &[usize]) -> Vec<Seen> {
        ImageReader::new(io::Cursor::new(bytes), bytes.len() as u64).unwrap().seen(indices).unwrap()
    }

    #[test]
    fn the_middle_of_images_of_many_sizes() {
        let wide: Vec<u8> = (0..30).collect();
        let bytes = written(layout(None, Some(View::CenterCrop(2)), 2), &[(&[7; 12], [2, 2], 0), (&wide, [2, 5], 1)]);
        let images = seen(&bytes, &[1, 0, 1]);
        // Columns 2 and 3 of 5, in both rows, of each colour: the room of 3 is halved to the even number.
        assert_eq!(images[0].pixels, [2, 3, 7, 8, 12, 13, 17, 18, 22, 23, 27, 28]);
        assert_eq!((images[0].size, &images[1].pixels[..]), ([2, 2], &[7; 12][..]));
        assert_eq!(images[2], images[0]);
    }

    #[test]
    fn resized_as_pillow_does_it() {
        // numpy.asarray(Image.fromarray(numpy.array([[0, 100], [200, 40]], "uint8")).resize((4, 4), Image.BILINEAR))
        let plane = [0, 100, 200, 40];
        let large = [0, 25, 75, 100, 50, 59, 76, 85, 150, 126, 79, 55, 200, 160, 80, 40];
        let bytes = written(layout(Some([2, 2]), Some(View::Resize([4, 4])), 1), &[(&plane.repeat(3), [2, 2], 0)]);
        assert_eq!(seen(&bytes, &[0])[0], Seen { pixels: large.repeat(3), size: [4, 4] });
    }

    #[test]
    fn an_image_that_is_not_there_is_an_error() {
        let bytes = written(layout(Some([2, 2]), None, 1), &[(&[1; 12], [2, 2], 0)]);
        let mut reader = ImageReader::new(io::Cursor::new(&bytes), bytes.len() as u64).unwrap();
        assert!(reader.seen(&[1]).is_err());
    }
}
