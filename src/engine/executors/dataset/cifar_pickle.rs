//! What the pickles of CIFAR-10's Python archive may name: NumPy's arrays of bytes.

use crate::pickle::{self, Family, Node, Pickle, PickleError, Ref, Values};

/// A batch of CIFAR-10, as a family of pickles.
struct Cifar;

#[derive(Clone, Copy)]
enum Global {
    /// `numpy.core.multiarray._reconstruct`: an empty array, whose state follows.
    Reconstruct,
    /// `numpy.dtype`; it is not looked at, the number of bytes tells.
    Dtype,
    /// `numpy.ndarray`, the type that is reconstructed.
    Array,
}

/// An array of bytes: its lengths along its dimensions, and its elements once its state is there.
struct Array {
    shape: Vec<i64>,
    elements: Option<Ref>,
}

/// NumPy's arrays have at most so many dimensions.
const MAX_DIMENSIONS: usize = 64;

impl Family for Cifar {
    type Global = Global;
    type Object = Array;
    const NAME: &'static str = "batches of CIFAR-10";

    fn find(module: &str, name: &str) -> Option<Global> {
        match (module, name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Some(Global::Reconstruct),
            ("numpy", "dtype") => Some(Global::Dtype),
            ("numpy", "ndarray") => Some(Global::Array),
            _ => None,
        }
    }

    fn call<'a>(_: &Values<'a, Self>, global: Global, _: &[Ref]) -> Option<Node<'a, Self>> {
        match global {
            Global::Reconstruct => Some(Node::Object(Array { shape: Vec::new(), elements: None })),
            Global::Dtype => Some(Node::Other),
            Global::Array => None,
        }
    }

    /// The state of an array: (version, shape, type, whether columns come first, elements).
    fn build<'a>(values: &Values<'a, Self>, target: &Node<'a, Self>, state: Ref) -> Option<Option<Node<'a, Self>>> {
        match (target, values.items(state)) {
            (Node::Object(_), Some(&[_, shape, _, _, elements])) => {
                let shape = values.integers(shape, MAX_DIMENSIONS)?;
                Some(Some(Node::Object(Array { shape, elements: Some(elements) })))
            }
            // A type.
            (Node::Other, _) => Some(None),
            _ => None,
        }
    }

    fn weight(array: &Array) -> usize {
        array.shape.len()
    }
}

/// Labels, and pixels with the shape of their array, of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PickledBatch<'a> {
    pub(super) labels: Vec<u8>,
    pub(super) shape: Vec<i64>,
    pub(super) pixels: &'a [u8],
}

/// Reads a batch. None if it is a pickle without a list of `labels` and an array `data`; a label that is no byte is
/// 255.
pub(super) fn read(bytes: &[u8]) -> Result<Option<PickledBatch<'_>>, PickleError> {
    Ok(batch(&pickle::read::<Cifar>(bytes)?))
}

fn batch<'a>(pickle: &Pickle<'a, Cifar>) -> Option<PickledBatch<'a>> {
    let values = &pickle.values;
    let entry = |name| values.entry(pickle.root, name);
    let Node::Object(Array { shape, elements: Some(elements) }) = values.node(entry("data")?) else { return None };
    let (Node::Text(pixels) | Node::Bytes(pixels)) = values.node(*elements) else { return None };
    let label = |&at: &Ref| match values.node(at) {
        Node::Int(label) => u8::try_from(*label).unwrap_or(u8::MAX),
        _ => u8::MAX,
    };
    let labels = values.items(entry("labels")?)?.iter().map(label).collect();
    Some(PickledBatch { labels, shape: shape.clone(), pixels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_called_and_no_bytes_make_it_panic() {
        // pickle.dumps of an object whose __reduce__ is (os.system, ('true',)), protocol 2.
        let hostile = b"\x80\x02cposix\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03.";
        assert_eq!(read(hostile), Err(PickleError::Global { name: "posix.system".into(), family: Cifar::NAME }));
        for end in 0..hostile.len() {
            assert!(read(&hostile[..end]).is_err());
        }
        assert_eq!(read(b"\x80\x02i"), Err(PickleError::Opcode { opcode: b'i', at: 2, family: Cifar::NAME }));
        assert_eq!(read(b"e."), Err(PickleError::Damaged { at: 1 }));
        assert_eq!(read(b"\x80\x02K\x07."), Ok(None));
    }

    #[test]
    fn a_pickle_cannot_make_more_than_its_budget() {
        // One long tuple, remembered, and then put into a list again and again by its number, or called to be copied.
        let many = |opcodes: &[u8]| [b"\x80\x02(".as_slice(), &opcodes.repeat(5 << 20), b"t."].concat();
        for opcodes in [b"N".as_slice(), b"]", b"(", b"N\x94", b"K\x00"] {
            assert_eq!(read(&many(opcodes)), Err(PickleError::TooMany), "{opcodes:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_an_error_at_worst(bytes in proptest::collection::vec(proptest::sample::select(b"\x80\x02(}]K\x01q\x00h\x00tue.b\x85Rcnumpy\ndtype\n".to_vec()), 0..60)) {
            let _ = read(&bytes);
        }
    }
}
