//! Tests of the worker: numbers against PyTorch, properties that no number may break, and its conversation with the
//! engine through the real binary.

mod attacks;
mod carlini_wagner;
mod corruptions;
mod data;
mod ensembles;
mod fourier_map;
mod losses;
mod malt;
mod measure;
mod networks;
mod parity;
mod portable;
mod pretrained;
mod properties;
mod published;
mod radii;
mod recipes;
mod resume;
mod saliency;
mod search;
mod stories;
mod support;
mod torchscript;
mod training;
mod transfer;
mod transforms;
mod weights;
