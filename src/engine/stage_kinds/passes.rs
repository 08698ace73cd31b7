//! Passes of a network over an image, by what they compute: the unit in which stages count their work.

use std::iter::Sum;
use std::ops::Add;

use serde::{Deserialize, Serialize};

/// What a pass of a network over a batch of images computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// The logits.
    Forward,
    /// The logits, and the gradient of the images: a step of an attack, or a saliency map.
    Gradient,
    /// The logits, the gradient of the weights, and a step of the optimiser.
    Update,
}

impl Pass {
    /// All of them, the cheapest first.
    pub const ALL: [Pass; 3] = [Pass::Forward, Pass::Gradient, Pass::Update];

    /// How many passes forward it takes as long as, by a rule of thumb: the gradient of one side of each layer costs as
    /// much as the layer.
    const fn in_forward(self) -> f64 {
        match self {
            Pass::Forward => 1.0,
            Pass::Gradient => 2.0,
            Pass::Update => 3.0,
        }
    }
}

/// Numbers of passes over one image.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Passes {
    /// Of [`Pass::Forward`].
    pub forward: f64,
    /// Of [`Pass::Gradient`].
    pub gradient: f64,
    /// Of [`Pass::Update`].
    pub update: f64,
}

impl Passes {
    /// So many passes forward and no others.
    pub const fn forward(count: f64) -> Self {
        Passes { forward: count, gradient: 0.0, update: 0.0 }
    }

    /// So many gradients of the image and no other passes.
    pub const fn gradient(count: f64) -> Self {
        Passes { forward: 0.0, gradient: count, update: 0.0 }
    }

    /// So many updates of the weights and no other passes.
    pub const fn update(count: f64) -> Self {
        Passes { forward: 0.0, gradient: 0.0, update: count }
    }

    /// The number of one sort.
    pub const fn of(self, pass: Pass) -> f64 {
        match pass {
            Pass::Forward => self.forward,
            Pass::Gradient => self.gradient,
            Pass::Update => self.update,
        }
    }

    /// The same, so many times.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Passes { forward: self.forward * factor, gradient: self.gradient * factor, update: self.update * factor }
    }

    /// About how many passes forward take as long.
    pub fn in_forward(self) -> f64 {
        Pass::ALL.into_iter().map(|pass| self.of(pass) * pass.in_forward()).sum()
    }
}

impl Add for Passes {
    type Output = Passes;

    fn add(self, other: Passes) -> Passes {
        Passes {
            forward: self.forward + other.forward,
            gradient: self.gradient + other.gradient,
            update: self.update + other.update,
        }
    }
}

impl Sum for Passes {
    fn sum<I: Iterator<Item = Passes>>(passes: I) -> Passes {
        passes.fold(Passes::default(), Add::add)
    }
}
