//! With which instruction sets the results of a run were computed, as far as their bytes may depend on it.

use std::collections::BTreeMap;

use crate::cache::Manifest;
use crate::numerics::Numerics;
use crate::protocol::is_gpu;

/// Counts results of a run by the instruction set of their processor.
///
/// Counts results under `numerics: native` that a CPU computed. `portable` gives the same bytes on all processors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct InstructionSets(BTreeMap<String, usize>);

impl InstructionSets {
    /// Counts a result.
    pub(super) fn add(&mut self, manifest: &Manifest) {
        let made = &manifest.made;
        if manifest.record.numerics != Some(Numerics::Native) || is_gpu(&made.device) {
            return;
        }
        if let Some(arithmetic) = &made.arithmetic {
            *self.0.entry(arithmetic.isa.clone()).or_default() += 1;
        }
    }

    /// Says that there are several; `None` if there are not.
    pub(super) fn warning(&self) -> Option<String> {
        if self.0.len() < 2 {
            return None;
        }
        let counts: Vec<String> = self.0.iter().map(|(isa, count)| format!("{count} with {isa}")).collect();
        let counts = counts.join(", ");
        Some(format!(
            "results of this run under `numerics: native` were computed with different instruction sets ({counts}): \
             their bytes may depend on the machine"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(numerics: Option<&str>, device: &str, isa: Option<&str>) -> Manifest {
        let digest = crate::digest::Digest::of(b"");
        let mut record = serde_json::json!({"format": 1, "kind": "evaluate", "version": 1, "params": {}, "inputs": {}});
        if let Some(numerics) = numerics {
            record["numerics"] = numerics.into();
        }
        let mut made = serde_json::json!({
            "stage": "a", "pipeline": "p", "at": "", "seconds": 1.0, "host": "h", "device": device, "threads": 1,
            "atflow": "0", "summary": "", "log": {"digest": digest, "size": 0},
        });
        if let Some(isa) = isa {
            made["arithmetic"] = serde_json::json!({"isa": isa, "aten": "", "onednn": "", "mkl": "", "libc": ""});
        }
        let text = serde_json::json!({"format": 1, "record": record, "outputs": {}, "made": made}).to_string();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn only_native_results_of_processors_are_told_apart() {
        let mut sets = InstructionSets::default();
        let native = Some("native");
        for (numerics, device, isa) in [
            (native, "cpu", Some("avx2")),
            (native, "cpu", Some("avx2")),
            // Its bytes are the same everywhere.
            (Some("portable"), "cpu", Some("avx512")),
            (native, "cuda:0", Some("avx512")),
            (None, "engine", None),
        ] {
            sets.add(&manifest(numerics, device, isa));
            assert_eq!(sets.warning(), None, "{numerics:?} {device} {isa:?}");
        }
        sets.add(&manifest(native, "cpu", Some("avx512")));
        let warning = sets.warning().unwrap();
        assert!(warning.contains("(2 with avx2, 1 with avx512)"), "{warning}");
    }
}
