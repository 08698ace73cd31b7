//! The instances that there are at one point of a sweep, by the names that they would have in a run of that point
//! alone.

use std::collections::HashMap;

use super::instance::InstanceId;

/// Instances by name and by stage.
#[derive(Debug, Default)]
pub(super) struct View {
    by_name: HashMap<String, InstanceId>,
    by_stage: HashMap<String, Vec<InstanceId>>,
}

impl View {
    /// Returns the instance of a name.
    pub(super) fn named(&self, name: &str) -> Option<InstanceId> {
        self.by_name.get(name).copied()
    }

    /// Returns the instances of a stage; `None` if it is not expanded yet.
    pub(super) fn of_stage(&self, stage: &str) -> Option<&[InstanceId]> {
        self.by_stage.get(stage).map(Vec::as_slice)
    }

    /// Adds the instances of a stage; returns the names that two of them have.
    pub(super) fn add(&mut self, stage: &str, named: &[(String, InstanceId)]) -> Vec<String> {
        self.by_stage.insert(stage.to_owned(), named.iter().map(|(_, id)| *id).collect());
        let mut is_taken = |name: &String, id| self.by_name.insert(name.clone(), id).is_some();
        named.iter().filter(|(name, id)| is_taken(name, *id)).map(|(name, _)| name.clone()).collect()
    }
}
