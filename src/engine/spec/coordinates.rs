//! Coordinates of an instance: labels on its own axes and on those of its inputs.
//!
//! A plan holds one set per instance, and most share their names and labels.

use std::sync::Arc;

/// Labels by axis name, `STAGE.AXIS`, sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coordinates(Vec<(Arc<str>, Arc<str>)>);

impl Coordinates {
    /// Returns the label on an axis.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.place(name).ok().map(|at| &*self.0[at].1)
    }

    /// Iterates over names and labels.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, label)| (&**name, &**label))
    }

    /// Returns the shared names and labels.
    pub(super) fn shared(&self) -> &[(Arc<str>, Arc<str>)] {
        &self.0
    }

    /// Adds a label on an axis; keeps the label that an axis already has.
    pub(super) fn add(&mut self, name: Arc<str>, label: Arc<str>) {
        if let Err(at) = self.place(&name) {
            self.0.insert(at, (name, label));
        }
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(name))
    }
}
