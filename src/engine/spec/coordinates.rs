//! Where an instance stands: labels on axes, its own and those of what it is made from. A plan holds as many of these
//! as it has instances, and most share their names and labels.

use std::sync::Arc;

/// Labels by the names of their axes, `STAGE.AXIS`, in the order of the names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coordinates(Vec<(Arc<str>, Arc<str>)>);

impl Coordinates {
    /// The label on an axis.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.place(name).ok().map(|at| &*self.0[at].1)
    }

    /// Names and labels.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, label)| (&**name, &**label))
    }

    /// Names and labels as they are shared.
    pub(super) fn shared(&self) -> &[(Arc<str>, Arc<str>)] {
        &self.0
    }

    /// Adds a label on an axis that has none yet.
    pub(super) fn add(&mut self, name: Arc<str>, label: Arc<str>) {
        if let Err(at) = self.place(&name) {
            self.0.insert(at, (name, label));
        }
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(name))
    }
}
