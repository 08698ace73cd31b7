//! Where an instance stands on a sweep.

use std::sync::Arc;

use serde_yaml::Value;

/// The value of a swept parameter at which an instance stands.
#[derive(Debug, Clone)]
pub(super) struct SweepStand {
    /// The parameter's position in the sweep.
    pub param: usize,
    pub name: Arc<str>,
    pub label: Arc<str>,
    pub value: Arc<Value>,
    /// Whether the instance's name has the value.
    pub is_named: bool,
}
