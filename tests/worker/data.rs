//! Image sets as a worker sees them: stored small and seen large, or of many sizes and seen through windows.

use std::collections::BTreeSet;

use atflow::formats::{ImageReader, ImageSet, ImageWriter, Layout, View, centre};
use atflow::resample::{Filter, Interleaved};
use atflow::stage_kinds::Augmentation;
use atflow_worker::data::DeviceSet;
use atflow_worker::rng::Rng;
use tch::{Device, Tensor};

/// A channel of an image whose pixels tell where they are.
fn pixels(index: usize, [height, width]: [usize; 2]) -> Vec<u8> {
    let pixel = |c: usize, y: usize, x: usize| (index * 90 + c * 40 + y * 11 + x * 3 + (x * y) % 7 * 9) as u8;
    (0..3).flat_map(|c| (0..height).flat_map(move |y| (0..width).map(move |x| pixel(c, y, x)))).collect()
}

fn load(size: Option<[usize; 2]>, view: Option<View>, sizes: &[[usize; 2]]) -> DeviceSet {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set");
    let classes = (0..sizes.len()).map(|class| class.to_string()).collect();
    let layout = Layout { classes, channels: 3, size, view, most: sizes.len() };
    let mut writer = ImageWriter::create(&path, layout).unwrap();
    for (index, &size) in sizes.iter().enumerate() {
        writer.push(&pixels(index, size), size, index as i32).unwrap();
    }
    writer.finish().unwrap();
    DeviceSet::load(ImageReader::open(&path).unwrap(), Device::Cpu).unwrap()
}

fn bytes(images: &Tensor) -> Vec<u8> {
    Vec::try_from(images.flatten(0, -1)).unwrap()
}

/// The window of a set's image, from its planes.
fn window(index: usize, size: [usize; 2], [top, left]: [usize; 2], side: usize) -> Vec<u8> {
    let (all, [height, width]) = (pixels(index, size), size);
    let row = |c: usize, y: usize| &all[(c * height + top + y) * width + left..][..side];
    (0..3).flat_map(|c| (0..side).flat_map(move |y| row(c, y))).copied().collect()
}

#[test]
fn a_set_that_is_seen_large_has_the_pixels_of_one_that_was_resized_before() {
    // To the bit; that those are Pillow's is tested beside the function that resizes.
    for (from, to) in [([6, 9], [21, 30]), ([64, 64], [224, 224]), ([40, 31], [17, 31]), ([5, 5], [5, 12])] {
        let set = load(Some(from), Some(View::Resize(to)), &[from; 3]);
        assert_eq!(set.shape, [3, to[0] as i64, to[1] as i64]);
        let expected = |index: usize| -> Vec<u8> {
            let planes = pixels(index, from);
            let size = from[0] * from[1];
            let plane = |c: usize| Interleaved::<1> {
                pixels: planes[c * size..][..size].to_vec(),
                height: from[0],
                width: from[1],
            };
            (0..3).flat_map(|c| plane(c).resized(to, Filter::Bilinear).pixels).collect()
        };
        assert_eq!(bytes(&set.seen(&[2, 0]).unwrap()), [expected(2), expected(0)].concat(), "{from:?} to {to:?}");
        assert_eq!(set.pixels(1).unwrap(), expected(1));
        let (images, labels) = set.batch(&[1]).unwrap();
        assert_eq!(labels, Tensor::from_slice(&[1i64]));
        let shown: Vec<f32> = expected(1).iter().map(|&byte| f32::from(byte) / 255.0).collect();
        assert_eq!(Vec::<f32>::try_from(images.flatten(0, -1)).unwrap(), shown);
    }
}

const SIZES: [[usize; 2]; 3] = [[9, 14], [12, 9], [10, 10]];

#[test]
fn images_of_many_sizes_are_seen_through_their_middle() {
    let set = load(None, Some(View::CenterCrop(8)), &SIZES);
    assert_eq!((set.len(), set.shape), (3, [3, 8, 8]));
    let middle = |index: usize| window(index, SIZES[index], SIZES[index].map(|length| centre(length, 8)), 8);
    assert_eq!(bytes(&set.seen(&[1, 2, 0]).unwrap()), [middle(1), middle(2), middle(0)].concat());
}

#[test]
fn a_training_cuts_windows_of_the_whole_image_by_epoch_and_image_only() {
    let set = load(None, Some(View::CenterCrop(8)), &SIZES);
    let augmentation = Augmentation { random_crop: 8, ..Augmentation::default() };
    set.check_augmentation(&augmentation).unwrap();
    let cut = |epoch: u64, indices: &[u64]| {
        let (images, _) = set.training_batch(indices, &augmentation, Rng::new(3), epoch).unwrap();
        assert_eq!(images.size(), [indices.len() as i64, 3, 8, 8]);
        (images * 255.0).round().to_kind(tch::Kind::Uint8)
    };
    let mut corners = BTreeSet::new();
    for epoch in 0..60 {
        let found = bytes(&cut(epoch, &[2, 0]).get(1));
        let places = (0..=1).flat_map(|y| (0..=6).map(move |x| [y, x]));
        let corner = places.into_iter().find(|&corner| window(0, SIZES[0], corner, 8) == found);
        corners.insert(corner.expect("a window of the whole image"));
        assert_eq!(found, bytes(&cut(epoch, &[0]).get(0)), "its batch does not matter");
    }
    assert_eq!(corners.len(), 14, "every window comes: {corners:?}");
}

#[test]
fn windows_that_do_not_fit_are_refused_before_a_training_starts() {
    let set = load(None, Some(View::CenterCrop(8)), &SIZES);
    let refused = |augmentation: Augmentation| set.check_augmentation(&augmentation).unwrap_err().to_string();
    let message = refused(Augmentation { random_crop: 10, ..Augmentation::default() });
    assert!(message.contains("takes 10 × 10 pixels, and an image has 9 × 14"), "{message}");
    let message = refused(Augmentation { random_crop: 8, pad_crop: 2, ..Augmentation::default() });
    assert!(message.contains("only one can be had"), "{message}");
    // Images of one size can be cut, too, and from the size in which they are seen.
    let set = load(Some([6, 6]), Some(View::Resize([12, 12])), &[[6, 6]; 2]);
    let augmentation = Augmentation { random_crop: 9, flip: true, ..Augmentation::default() };
    set.check_augmentation(&augmentation).unwrap();
    let (images, _) = set.training_batch(&[1], &augmentation, Rng::new(1), 1).unwrap();
    assert_eq!(images.size(), [1, 3, 9, 9]);
}

#[test]
fn a_set_in_memory_and_one_from_a_file_are_the_same() {
    let planes = [pixels(0, [4, 5]), pixels(1, [4, 5])].concat();
    let classes = vec!["a".to_owned(), "b".to_owned()];
    let set = ImageSet { pixels: planes, shape: [2, 3, 4, 5], labels: vec![0, 1], texture: Some(vec![1, 0]), classes };
    let file = set.to_bytes().unwrap();
    let read = DeviceSet::load(ImageReader::new(&file[..], file.len() as u64).unwrap(), Device::Cpu).unwrap();
    let memory = DeviceSet::new(set, Device::Cpu).unwrap();
    assert_eq!(read.batch(&[1, 0]).unwrap(), memory.batch(&[1, 0]).unwrap());
    assert_eq!((read.texture, read.host_labels), (Some(vec![1, 0]), vec![0, 1]));
}
