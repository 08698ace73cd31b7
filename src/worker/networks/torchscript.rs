//! Networks from TorchScript files: layers and first weights come from the file.
//!
//! Only logits are known of such a network. Its tensors have the names that they have in PyTorch's `state_dict`.

use std::collections::HashSet;

use tch::{Device, Kind, TchError, Tensor};

use super::layers::Normalisation;
use super::state::{Entry, Role, State};
use super::{Frozen, Mode, Network};
use crate::error::StageError;
use crate::file_types;
use crate::script::Script;

/// Why no feature maps and no other types can be had.
const ONLY_LOGITS: &str = "a TorchScript network gives logits alone, no feature maps";
const ONLY_FLOATS: &str = "a TorchScript network computes in the types of its own weights";

/// The network.
#[derive(Debug)]
pub(super) struct Torchscript {
    program: Vec<u8>,
    script: Script,
    state: State,
    normalisation: Normalisation,
}

impl Torchscript {
    /// Loads the network from a file's bytes.
    ///
    /// # Errors
    /// [`StageError::Script`] if it cannot be loaded, or has tensors that no checkpoint can hold.
    pub(super) fn new(program: Vec<u8>, normalisation: Normalisation, device: Device) -> Result<Self, StageError> {
        let script = Script::load(&program, device).map_err(|error| {
            let why = brief(&error);
            StageError::Script(format!("cannot be loaded: {why}; save it with `torch.jit.script(model).save(FILE)`"))
        })?;
        let mut entries = parameters(script.parameters()?)?;
        for (name, tensor) in script.buffers()? {
            check(&name, &tensor, "buffer", file_types::dtype(tensor.kind()).is_some())?;
            entries.push(Entry { name, role: Role::Buffer, tensor });
        }
        Ok(Torchscript { program, script, state: State::of(entries, device), normalisation })
    }
}

/// Returns the parameters as entries.
///
/// Those that need no gradient, and all but the first of several names for one tensor, are kept and not learned.
fn parameters(named: Vec<(String, Tensor)>) -> Result<Vec<Entry>, StageError> {
    let mut seen = HashSet::new();
    let entry = |(name, tensor): (String, Tensor)| {
        check(&name, &tensor, "parameter", tensor.kind() == Kind::Float)?;
        let is_first = seen.insert(tensor.data_ptr() as usize);
        let role = if is_first && tensor.requires_grad() { Role::Parameter } else { Role::Buffer };
        Ok(Entry { name, role, tensor })
    };
    named.into_iter().map(entry).collect()
}

fn check(name: &str, tensor: &Tensor, role: &str, fits: bool) -> Result<(), StageError> {
    let kind = tensor.kind();
    match fits {
        true => Ok(()),
        false => {
            Err(StageError::Script(format!("has the {role} `{name}` of type {kind:?}; convert it with `.float()`")))
        }
    }
}

impl Network for Torchscript {
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.normalisation.forward(images)
    }

    fn classify(&self, normalised: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        self.script.set_training(mode == Mode::Train)?;
        self.script.forward(&normalised.f_contiguous()?)
    }

    fn freeze_as(&self, kind: Kind) -> Result<Box<dyn Frozen>, TchError> {
        if kind != Kind::Float {
            return Err(TchError::Torch(ONLY_FLOATS.to_owned()));
        }
        let _guard = tch::no_grad_guard();
        let script = self.script.copy()?;
        script.set_training(false)?;
        Ok(Box::new(FrozenScript { script, normalisation: self.normalisation.share() }))
    }

    fn state(&self) -> &State {
        &self.state
    }

    fn program(&self) -> Option<&[u8]> {
        Some(&self.program)
    }
}

/// A copy of the network in evaluation mode.
#[derive(Debug)]
struct FrozenScript {
    script: Script,
    normalisation: Normalisation,
}

impl Frozen for FrozenScript {
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.normalisation.forward(images)
    }

    fn features(&self, _: &Tensor) -> Result<Tensor, TchError> {
        Err(TchError::Torch(ONLY_LOGITS.to_owned()))
    }

    fn head(&self, _: &Tensor) -> Result<Tensor, TchError> {
        Err(TchError::Torch(ONLY_LOGITS.to_owned()))
    }

    fn classify(&self, normalised: &Tensor) -> Result<Tensor, TchError> {
        self.script.forward(&normalised.f_contiguous()?)
    }
}

/// Returns one line of libtorch's message about a script: what went wrong, and the author's line where it did.
pub(super) fn brief(error: &TchError) -> String {
    let text = match error {
        TchError::Torch(text) => text.clone(),
        other => other.to_string(),
    };
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let what = lines().filter_map(|line| line.split_once("Error: ")).next_back().map(|(_, what)| what);
    let place = lines().rfind(|line| line.starts_with("File \""));
    let what = what.or_else(|| lines().next()).unwrap_or("no reason given").trim_end_matches('.');
    place.map_or_else(|| what.to_owned(), |place| format!("{what} ({})", place.trim_end_matches(':')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_message_the_reason_and_the_authors_line_are_left() {
        let text = "The following operation failed in the TorchScript interpreter.\n\
            Traceback of TorchScript, serialized code (most recent call last):\n\
            \x20 File \"code/__torch__.py\", line 9, in forward\n    return torch.linear(x)\n           ~~~ <--- HERE\n\n\
            Traceback of TorchScript, original code (most recent call last):\n\
            \x20 File \"net.py\", line 12, in forward\n    return self.fc(x)\nRuntimeError: shapes cannot be multiplied\n";
        let found = brief(&TchError::Torch(text.to_owned()));
        assert_eq!(found, "shapes cannot be multiplied (File \"net.py\", line 12, in forward)");
        assert_eq!(brief(&TchError::Torch("no zip archive.\n".to_owned())), "no zip archive");
    }
}
