"""A Slurm of two nodes on the loopback interface, a pipeline, and what a run on them left: for the stories beside.

Skipped with the reason where there is no root, no Slurm or no atflow. $ATFLOW_BINARY names the program
[default: ./atflow].
"""

from __future__ import annotations

import collections
import json
import os
import random
import shutil
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ATFLOW = Path(os.environ.get("ATFLOW_BINARY") or ROOT / "atflow").absolute()
SLURM = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "munged")

# `tries` has a line for each time that a stage was run. `sleep` makes it long enough to be disturbed.
PIPELINE = """pipeline: story
stages:
  part:
    kind: command
    matrix: {n: [NUMBERS]}
    with: {run: "echo part/${n} >>$HOME/tries; sleep SLEEP; echo ${n} >${out.text}", outputs: {text: part.txt}}
  joined:
    kind: command
    matrix: {n: [NUMBERS]}
    needs: {of: "part/${n}"}
    with: {run: "echo joined/${n} >>$HOME/tries; cp ${in.of} ${out.text}", outputs: {text: joined.txt}}
"""

CLUSTER = """executor: slurm
classes:
  first: {match: {stage: part}, time: 5 min, memory: 200M, max_agents: AGENTS, idle: 5 s}
  rest: {match: {}, time: 5 min, memory: 200M, max_agents: 2, idle: 5 s}
"""


def reason() -> str | None:
    if os.getuid() != 0:
        return "a Slurm of its own needs root"
    missing = [name for name in SLURM if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} missing: on Debian, apt-get install slurm-wlm munge"
    if not ATFLOW.is_file():
        return f"there is no {ATFLOW}: make build"
    return None


@unittest.skipIf(reason(), reason())
class OnSlurm(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        # Short: the path of a socket has at most 107 characters.
        cls.folder = Path(tempfile.mkdtemp(prefix="atslurm", dir="/tmp"))
        started = subprocess.run([HERE / "start.sh", cls.folder], capture_output=True, text=True, timeout=60)
        if started.returncode:
            cls.tearDownClass()
            raise unittest.SkipTest(f"Slurm does not start: {started.stderr.strip()[-500:]}")

    @classmethod
    def tearDownClass(cls) -> None:
        subprocess.run([HERE / "start.sh", cls.folder, "stop"], capture_output=True, timeout=60)
        shutil.rmtree(cls.folder, ignore_errors=True)

    def setUp(self) -> None:
        self.space = Path(tempfile.mkdtemp(prefix="atflow-slurm"))
        self.addCleanup(shutil.rmtree, self.space, ignore_errors=True)
        self.addCleanup(self.scancel_all)
        # How much the agents of each class had begun when one of them was last killed.
        self.begun = collections.Counter()
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.space),
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            # Minutes become seconds.
            "ATFLOW_CLUSTER_PACE": "0.03",
        }

    def scancel_all(self) -> None:
        subprocess.run(["scancel", "--me"], env=self.env, capture_output=True, timeout=30)

    def write(self, numbers: int = 6, sleep: float = 0.3, agents: int = 3, pipeline: str = PIPELINE) -> None:
        text = pipeline.replace("NUMBERS", ", ".join(str(n) for n in range(numbers))).replace("SLEEP", str(sleep))
        (self.space / "p.yaml").write_text(text)
        (self.space / "cluster.yaml").write_text(CLUSTER.replace("AGENTS", str(agents)))

    def start(self, *args: str, **env: str) -> subprocess.Popen:
        command = [ATFLOW, *args]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.space, env={**self.env, **env}, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )

    def run_atflow(self, *args: str, timeout: float = 90, **env: str) -> tuple[int, str]:
        started = self.start(*args, **env)
        out, err = started.communicate(timeout=timeout)
        return started.returncode, out + err

    def on_slurm(self, *args: str, **kwargs) -> tuple[int, str]:
        return self.run_atflow("run", "p.yaml", "--no-report", "--executor", "slurm", *args, **kwargs)

    def tries(self) -> list[str]:
        file = self.space / "tries"
        return sorted(file.read_text().split()) if file.exists() else []

    def an_agent(self) -> dict | None:
        """The note of an agent that may be killed: one of a class that began something since it was last given here.

        Three submissions in a row that end before they do anything end the run.
        """
        begun = collections.Counter("first" if line.startswith("part/") else "rest" for line in self.tries())
        agents = []
        for path in (self.space / "cache/cluster").glob("*/agents/*.json"):
            note = json.loads(path.read_text())
            try:
                command = Path(f"/proc/{note['pid']}/cmdline").read_bytes()
            except OSError:
                continue
            is_ours = str(self.space).encode() in command and b"\0agent\0" in command
            if is_ours and begun[note["class"]] >= self.begun[note["class"]] + 4:
                agents.append(note)
        if not agents:
            return None
        note = random.choice(agents)
        self.begun[note["class"]] = begun[note["class"]]
        return note

    def lines(self, name: str) -> list[dict]:
        files = (self.space / "cache/cluster").glob(f"*/{name}")
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def endings(self) -> list[str]:
        return [line["ending"] for line in self.lines("decisions.jsonl")]

    def results(self, cache: str) -> dict[str, list[str]]:
        """The digests of the outputs of every key."""
        found = {}
        for file in (self.space / cache / "actions").rglob("*.json"):
            outputs = json.loads(file.read_text())["outputs"]
            found[file.stem] = sorted(f"{name} {blob['digest']}" for name, blob in outputs.items())
        return found

    def squeue(self, *options: str) -> list[str]:
        said = subprocess.run(["squeue", "--me", "-h", *options], env=self.env, capture_output=True, text=True, timeout=30)
        return said.stdout.split()

    def wait_for(self, what, timeout: float = 60) -> None:
        until = time.monotonic() + timeout
        while not what():
            self.assertLess(time.monotonic(), until, f"it did not come to that; tries: {self.tries()}")
            time.sleep(0.1)

    def assert_whole(self, numbers: int = 6) -> None:
        """What a run here makes is there, and nothing else."""
        code, said = self.run_atflow("run", "p.yaml", "--no-report", "--cache", "own", "--quiet")
        self.assertEqual(code, 0, said)
        self.assertEqual(self.results("cache"), self.results("own"))
        self.assertEqual(len(self.results("cache")), 2 * numbers)

    def fake(self, name: str, script: str) -> dict[str, str]:
        """A program of the site that is found before the real one."""
        folder = self.space / "fake"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
        return {"PATH": f"{folder}:{self.env['PATH']}"}
