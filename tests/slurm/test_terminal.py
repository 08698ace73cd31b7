"""Ctrl-C in a terminal, while agents work: the command asks whether the run goes on without it.

`python3 -m unittest discover -s tests/slurm`. Needs no Slurm. Skipped where there is no atflow; $ATFLOW_BINARY names the
program [default: ./atflow].
"""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ATFLOW = Path(os.environ.get("ATFLOW_BINARY") or ROOT / "atflow").absolute()

PIPELINE = """pipeline: story
stages:
  slow: {kind: command, with: {run: "touch $HOME/begun; while ! test -e $HOME/go; do sleep 0.1; done; echo 1 >${out.n}", outputs: {n: n}}}
"""

# The example of docs/cluster.md.
CLUSTER = """executor: command
submit: "nohup {agent} >{logs}/$$.txt 2>&1 & echo $!"
list: "ps -eo pid="
cancel: "kill {job}"
classes: {all: {match: {}, time: 10 min, idle: 3 s}}
"""
QUESTION = "Leave it (Enter), or cancel it (c)?"


class Terminal:
    """A program on a pseudo-terminal of its own, as in a window."""

    def __init__(self, command: list[str], folder: Path, env: dict[str, str]) -> None:
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(command[0], command, env)
        self.seen = ""

    def read(self, seconds: float) -> bool:
        """Reads what is there; false at the end."""
        if not select.select([self.end], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.end, 65536)
        except OSError:  # Linux: the other side is closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def wait_for(self, words: str) -> None:
        until = time.monotonic() + 60
        while words not in self.seen:
            if not self.read(0.1) or time.monotonic() > until:
                raise AssertionError(f"`{words}` is not in {self.seen}")

    def type(self, keys: str) -> None:
        os.write(self.end, keys.encode())

    def code(self) -> int:
        """Waits for its end; gives its exit code."""
        until = time.monotonic() + 60
        while self.read(0.1):
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"it does not end: {self.seen}")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        """Closes the window."""
        os.close(self.end)


@unittest.skipUnless(ATFLOW.is_file(), f"there is no {ATFLOW}: make build")
class CtrlC(unittest.TestCase):
    def setUp(self) -> None:
        self.space = Path(tempfile.mkdtemp(prefix="atflow-terminal"))
        self.addCleanup(shutil.rmtree, self.space, ignore_errors=True)
        # Whatever a story leaves ends.
        self.addCleanup((self.space / "go").touch)
        (self.space / "p.yaml").write_text(PIPELINE)
        (self.space / "cluster.yaml").write_text(CLUSTER)
        env = {"PATH": os.environ["PATH"], "HOME": str(self.space), "TERM": "xterm", "ATFLOW_CLUSTER_PACE": "0.03"}
        command = [str(ATFLOW), "run", "p.yaml", "--no-report", "--executor", "command"]
        self.terminal = Terminal(command, self.space, env)
        self.wait_until((self.space / "begun").exists)
        self.terminal.type("\x03")
        self.terminal.wait_for(QUESTION)

    def wait_until(self, what) -> None:
        until = time.monotonic() + 60
        while not what():
            self.terminal.read(0.1)
            self.assertLess(time.monotonic(), until, self.terminal.seen)

    def results(self) -> int:
        return len(list((self.space / "cache/actions").rglob("*.json")))

    def last_words(self) -> list[str]:
        notes = (self.space / "cache/cluster").glob("*/exit/*.json")
        return [json.loads(note.read_text())["reason"] for note in notes]

    def assert_goes_on(self) -> None:
        """The terminal is closed, and the agents finish the run nevertheless."""
        self.terminal.close()
        time.sleep(0.5)
        self.assertEqual((self.results(), self.last_words()), (0, []))
        (self.space / "go").touch()
        until = time.monotonic() + 60
        while not self.last_words():
            self.assertLess(time.monotonic(), until)
            time.sleep(0.1)
        self.assertEqual((self.results(), self.last_words()), (1, ["finished"]))

    def test_enter_leaves_the_run_to_its_agents(self) -> None:
        self.terminal.type("\r")
        self.assertEqual(self.terminal.code(), 0, self.terminal.seen)
        self.assertIn("goes on without this command (1 agent)", self.terminal.seen)
        self.assert_goes_on()

    def test_c_cancels_the_run(self) -> None:
        self.terminal.type("c\r")
        self.assertEqual(self.terminal.code(), 130, self.terminal.seen)
        self.terminal.close()
        until = time.monotonic() + 60
        while not self.last_words():
            self.assertLess(time.monotonic(), until)
            time.sleep(0.1)
        self.assertNotIn("finished", self.last_words())
        self.assertEqual(self.results(), 0)
        [ended] = (self.space / "cache/cluster").glob("*/ended.json")
        self.assertEqual(json.loads(ended.read_text())["outcome"], "interrupted")

    def test_ctrl_c_again_leaves_the_run_to_its_agents(self) -> None:
        self.terminal.type("\x03")
        self.assertEqual(self.terminal.code(), 0, self.terminal.seen)
        self.assertIn("goes on without this command", self.terminal.seen)
        self.assert_goes_on()


if __name__ == "__main__":
    unittest.main()
