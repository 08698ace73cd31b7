//! Ends the programs of `command` stages when the engine is killed and can no longer do it itself. A small process beside the engine is told of every
//! program and hears, by the end of its input, that the engine is gone, however that came. Knows process groups and nothing of stages.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// A shell, because programs of stages need one anyway and a second program of ours would have to be found. It is in a group of its own and deaf to what
/// ends a terminal's programs, so that nothing short of SIGKILL to itself keeps it from its duty.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
groups=
while read -r what group; do
    rest=
    for other in $groups; do [ "$other" = "$group" ] || rest="$rest $other"; done
    groups=$rest
    [ "$what" = + ] && groups="$groups $group"
done
for group in $groups; do kill -KILL "-$group" 2>/dev/null; done
"#;

/// The process that ends what the engine leaves behind; started with the first program, and gone when this is dropped.
#[derive(Debug, Default)]
pub struct Guard(Mutex<Option<Child>>);

impl Guard {
    /// From now on this group of processes does not outlive the engine. The moment between a program's start and this call is all that is not covered.
    pub(super) fn watch(&self, group: u32) {
        self.tell('+', group);
    }

    /// The group has ended; another may get its number.
    pub(super) fn forget(&self, group: u32) {
        self.tell('-', group);
    }

    fn tell(&self, what: char, group: u32) {
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if child.is_none() {
            // Without a guard everything works but this; where no shell can be started, the stages tell it.
            *child = start().ok();
        }
        if let Some(stdin) = child.as_mut().and_then(|child| child.stdin.as_mut()) {
            _ = stdin.write_all(format!("{what} {group}\n").as_bytes());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The end of its input is its end.
            drop(child.stdin.take());
            _ = child.wait();
        }
    }
}

fn start() -> io::Result<Child> {
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // Not in the folder of a stage, nor in one that somebody wants to unmount.
    command.current_dir("/").process_group(0).spawn()
}
