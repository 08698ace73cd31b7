//! Stories of the shipped pipelines through both real programs, engine and worker, at the size of their smallest
//! profiles.

mod animals;
mod calibration;
mod corruptions;
mod fashion;
mod paper;
mod quickstart;
mod radii;
mod saliency;
mod search;
mod support;
mod transfer;
