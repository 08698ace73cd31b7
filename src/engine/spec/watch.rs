//! Which parameters a substitution reads, out of those that somebody asks about.

use std::cell::RefCell;
use std::collections::BTreeSet;

/// Parameters to watch, and those that were read since the last [`Watch::take`].
#[derive(Debug, Default)]
pub(super) struct Watch {
    names: Vec<String>,
    /// Positions in `names`.
    read: RefCell<BTreeSet<usize>>,
}

impl Watch {
    /// Watches the parameters of these names; `net.width` is a value in the mapping `net`.
    pub(super) fn new(names: Vec<String>) -> Self {
        Watch { names, read: RefCell::default() }
    }

    /// Notes that `${name}` was replaced by a parameter.
    pub(super) fn read(&self, name: &str) {
        let watched = self.names.iter().enumerate().filter(|(_, watched)| is_part(watched, name));
        self.read.borrow_mut().extend(watched.map(|(position, _)| position));
    }

    /// Returns the positions of the parameters read, and forgets them.
    pub(super) fn take(&self) -> BTreeSet<usize> {
        self.read.take()
    }
}

/// Returns whether a reference to `name` reads a parameter: itself, a mapping around it, or a value in it.
pub(super) fn is_part(parameter: &str, name: &str) -> bool {
    let is_in = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
    parameter == name || is_in(parameter, name) || is_in(name, parameter)
}
