//! The types of tensors that safetensors files and libtorch share, and the tensor of a checkpoint that is no weight.

use safetensors::Dtype;
use tch::Kind;

/// Name of the tensor with the bytes of a TorchScript file. No tensor of a module has a slash in its name.
pub const PROGRAM: &str = "torchscript/program";

/// Every type that files and networks share.
const TYPES: [(Dtype, Kind); 10] = [
    (Dtype::F32, Kind::Float),
    (Dtype::F64, Kind::Double),
    (Dtype::F16, Kind::Half),
    (Dtype::BF16, Kind::BFloat16),
    (Dtype::I64, Kind::Int64),
    (Dtype::I32, Kind::Int),
    (Dtype::I16, Kind::Int16),
    (Dtype::I8, Kind::Int8),
    (Dtype::U8, Kind::Uint8),
    (Dtype::BOOL, Kind::Bool),
];

/// Returns libtorch's type for one of safetensors.
pub fn kind(of: Dtype) -> Option<Kind> {
    TYPES.iter().find(|(dtype, _)| *dtype == of).map(|(_, kind)| *kind)
}

/// Returns the type of safetensors for one of libtorch.
pub fn dtype(of: Kind) -> Option<Dtype> {
    TYPES.iter().find(|(_, kind)| *kind == of).map(|(dtype, _)| *dtype)
}
