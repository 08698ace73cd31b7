//! State dicts as a family of pickles: the globals they may name, and tensors rebuilt as views of storages.
//!
//! Tensors are not checked here. Knows nothing about the files around a pickle.

use atflow::pickle::{Family, Node, Ref, Values};
use tch::Kind;

/// The pickles that `torch.save` writes for tensors by name.
pub(super) struct StateDict;

/// A pickle of this family.
pub(super) type Pickle<'a> = atflow::pickle::Pickle<'a, StateDict>;

/// Maximum number of dimensions of a PyTorch tensor.
const MAX_DIMENSIONS: usize = 64;

/// Globals that a pickle may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    Size,
    /// `torch._utils._rebuild_tensor` and its second version.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter` and the class itself; they stand for the tensor inside.
    Parameter,
    Storage(Kind),
    /// NumPy numbers, program arguments, devices, types: data often saved beside weights. Nothing is called; each value
    /// is ignored.
    Plain,
    DefaultDict,
}

/// A storage, with its name in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage {
    pub(super) key: Ref,
    pub(super) kind: Kind,
    pub(super) count: i64,
}

/// A tensor as a view of a storage, not yet checked.
#[derive(Debug, Clone)]
pub(super) struct StorageView {
    pub(super) storage: Storage,
    pub(super) offset: i64,
    pub(super) size: Vec<i64>,
    pub(super) stride: Vec<i64>,
}

/// Results of calls.
#[derive(Debug, Clone)]
pub(super) enum Object {
    Storage(Storage),
    Tensor(StorageView),
}

impl Family for StateDict {
    type Global = Global;
    type Object = Object;
    const NAME: &'static str = "state dicts";

    fn find(module: &str, name: &str) -> Option<Global> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch", "Size") => Global::Size,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") | ("torch.nn.parameter", "Parameter") => Global::Parameter,
            ("collections", "defaultdict") => Global::DefaultDict,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar")
            | ("numpy", "dtype")
            | ("_codecs", "encode")
            | ("argparse", "Namespace")
            | ("builtins" | "__builtin__", "dict" | "list" | "set" | "int" | "float" | "bool" | "str")
            | (
                "torch",
                "device" | "float16" | "float32" | "float64" | "bfloat16" | "int64" | "int32" | "uint8" | "bool",
            ) => Global::Plain,
            ("torch" | "torch.storage", _) => Global::Storage(match name.strip_suffix("Storage")? {
                "Float" => Kind::Float,
                "Double" => Kind::Double,
                "Half" => Kind::Half,
                "BFloat16" => Kind::BFloat16,
                "Long" => Kind::Int64,
                "Int" => Kind::Int,
                "Short" => Kind::Int16,
                "Char" => Kind::Int8,
                "Byte" => Kind::Uint8,
                "Bool" => Kind::Bool,
                _ => return None,
            }),
            _ => return None,
        })
    }

    fn call<'a>(values: &Values<'a, Self>, global: Global, arguments: &[Ref]) -> Option<Node<'a, Self>> {
        let first = arguments.first().copied();
        match global {
            Global::OrderedDict => match first {
                None => Some(Node::Dict(Vec::new())),
                // Python 2: a list of pairs.
                Some(pairs) => values.pairs(pairs).map(Node::Dict),
            },
            Global::Size => match values.node(first?) {
                Node::Tuple(sides) if sides.len() <= MAX_DIMENSIONS => Some(Node::Tuple(sides.clone())),
                _ => None,
            },
            Global::Parameter => match values.node(first?) {
                Node::Object(Object::Tensor(view)) => Some(Node::Object(Object::Tensor(view.clone()))),
                _ => None,
            },
            Global::RebuildTensor => {
                let &[storage, offset, size, stride, ..] = arguments else { return None };
                let (Node::Object(Object::Storage(storage)), Node::Int(offset)) =
                    (values.node(storage), values.node(offset))
                else {
                    return None;
                };
                let (size, stride) = (values.integers(size, MAX_DIMENSIONS)?, values.integers(stride, MAX_DIMENSIONS)?);
                Some(Node::Object(Object::Tensor(StorageView { storage: *storage, offset: *offset, size, stride })))
            }
            Global::Plain => Some(Node::Other),
            Global::DefaultDict => Some(Node::Dict(Vec::new())),
            Global::Storage(_) => None,
        }
    }

    /// Accepts the state of an ordered dictionary or an old parameter: hooks and versions, but no weights.
    fn build<'a>(_: &Values<'a, Self>, target: &Node<'a, Self>, _: Ref) -> Option<Option<Node<'a, Self>>> {
        matches!(target, Node::Dict(_) | Node::Object(Object::Tensor(_)) | Node::Other).then_some(None)
    }

    /// Reads `("storage", type, key, place, count)`, with a trailing None in old files.
    fn outside<'a>(values: &Values<'a, Self>, identity: Ref) -> Option<Node<'a, Self>> {
        let Node::Tuple(items) = values.node(identity) else { return None };
        let (&[word, kind, key, place, count], last) = items.split_first_chunk()?;
        let is_last = |last: &[Ref]| match last {
            [] => true,
            [last] => matches!(values.node(*last), Node::Other),
            _ => false,
        };
        match (values.node(word), values.node(kind), values.node(key), values.node(place), values.node(count)) {
            (
                Node::Text(b"storage"),
                Node::Global(Global::Storage(kind)),
                Node::Text(_),
                Node::Text(_),
                Node::Int(count),
            ) if is_last(last) => Some(Node::Object(Object::Storage(Storage { key, kind: *kind, count: *count }))),
            _ => None,
        }
    }

    fn weight(object: &Object) -> usize {
        match object {
            Object::Storage(_) => 0,
            Object::Tensor(view) => view.size.len() + view.stride.len(),
        }
    }
}
