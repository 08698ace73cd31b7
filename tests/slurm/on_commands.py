"""A small pipeline whose agents are started by commands, and what a run of it left: for the stories beside.

$ATFLOW_BINARY names the program [default: ./atflow].
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from on_slurm import ATFLOW

PIPELINE = """pipeline: story
stages:
  part:
    kind: command
    matrix: {n: [1, 2, 3, 4]}
    with: {run: "echo ${n} >>$HOME/tries; sleep SLEEP; echo ${n} >${out.text}", outputs: {text: part.txt}}
  joined: {kind: command, needs: {of: part/1}, with: {run: "cp ${in.of} ${out.text}", outputs: {text: joined.txt}}}
"""


class OnCommands(unittest.TestCase):
    def setUp(self) -> None:
        self.space = Path(tempfile.mkdtemp(prefix="atflow-command"))
        self.addCleanup(shutil.rmtree, self.space, ignore_errors=True)
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.space), "ATFLOW_CLUSTER_PACE": "0.03"}
        self.write(0.2)

    def write(self, sleep: float) -> None:
        (self.space / "p.yaml").write_text(PIPELINE.replace("SLEEP", str(sleep)))

    def run_atflow(self, *args: str) -> tuple[int, str]:
        said = subprocess.run([ATFLOW, *args], cwd=self.space, env=self.env, capture_output=True, text=True, timeout=90)
        return said.returncode, said.stdout + said.stderr

    def run_there(self, *args: str) -> tuple[int, str]:
        return self.run_atflow("run", "p.yaml", "--no-report", "--executor", "command", *args)

    def results(self, cache: str) -> dict[str, dict]:
        files = (self.space / cache / "actions").rglob("*.json")
        return {file.stem: json.loads(file.read_text())["outputs"] for file in files}

    def wait_for(self, what) -> None:
        until = time.monotonic() + 60
        while not what():
            self.assertLess(time.monotonic(), until)
            time.sleep(0.1)
