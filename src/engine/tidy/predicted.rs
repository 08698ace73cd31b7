//! Which stages hold predictions, and the predictions themselves.

use std::collections::HashMap;
use std::rc::Rc;

use crate::cache::{Blob, Cache};
use crate::digest::Digest;
use crate::formats::Predictions;
use crate::graph::Graph;
use crate::spec::{InstanceId, PerInstance};
use crate::stage_kinds::StageKind;

/// The output that holds them.
pub(super) const OUTPUT: &str = "predictions";

/// Marks the instances with predictions: evaluations, and what tables and figures read as such.
pub(super) fn holders(graph: &Graph) -> PerInstance<bool> {
    let is_evaluation =
        |id: &InstanceId| matches!(graph.instance(*id).kind, StageKind::Evaluate | StageKind::WorstCase);
    let evaluations = graph.ids().filter(is_evaluation);
    graph.marking(evaluations.chain(cells(graph).flat_map(|(_, inputs)| inputs.into_values())))
}

/// Returns, for each result that a table or figure sets beside the model's predictions of the untransformed images,
/// those predictions.
pub(super) fn references(graph: &Graph) -> HashMap<InstanceId, InstanceId> {
    let mut references = HashMap::new();
    for (_, inputs) in cells(graph) {
        if let (Some(value), Some(reference)) = (inputs.get("value"), inputs.get("reference")) {
            references.insert(*value, *reference);
        }
    }
    references
}

/// Returns the inputs of each cell of each table and each point of each figure, by slot.
fn cells(graph: &Graph) -> impl Iterator<Item = ((InstanceId, &str), HashMap<&str, InstanceId>)> {
    graph.ids().flat_map(|id| {
        let instance = graph.instance(id);
        let is_assembled = matches!(instance.kind, StageKind::Table | StageKind::Figure);
        let mut cells: HashMap<(InstanceId, &str), HashMap<&str, InstanceId>> = HashMap::new();
        for need in instance.needs.iter().filter(|need| is_assembled && need.output == OUTPUT) {
            cells.entry((id, &need.label)).or_default().insert(&need.slot, need.from);
        }
        cells
    })
}

/// Reads predictions. Keeps those read last as a reference: the results of one model share them.
pub(super) struct Reader<'a> {
    cache: &'a Cache,
    reference: Option<(Digest, Rc<Predictions>)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(cache: &'a Cache) -> Self {
        Reader { cache, reference: None }
    }

    /// Whether a file is there.
    pub(super) fn has(&self, blob: Blob) -> bool {
        self.cache.has(blob)
    }

    /// Reads a file and checks its bytes.
    pub(super) fn bytes(&self, blob: Blob) -> Result<Vec<u8>, String> {
        self.cache.read(blob.digest).map_err(|error| error.to_string())
    }

    pub(super) fn predictions(&self, blob: Blob) -> Result<Predictions, String> {
        Predictions::from_bytes(&self.bytes(blob)?).map_err(|error| error.to_string())
    }

    /// Reads predictions that others are compared with; nothing if they are not there.
    pub(super) fn reference(&mut self, blob: Blob) -> Option<Rc<Predictions>> {
        match &self.reference {
            Some((digest, known)) if *digest == blob.digest => Some(known.clone()),
            _ => {
                let read = Rc::new(self.predictions(blob).ok()?);
                self.reference = Some((blob.digest, read.clone()));
                Some(read)
            }
        }
    }
}
