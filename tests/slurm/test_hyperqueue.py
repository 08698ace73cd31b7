"""Runs whose agents HyperQueue starts, through the script and the cluster file of `docs/cluster.md`.

`python3 -m unittest discover -s tests/slurm`. $ATFLOW_HYPERQUEUE names a Python with the package `hyperqueue`
[default: this one]; $ATFLOW_BINARY names atflow [default: ./atflow]. Skipped with a reason where one is missing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ATFLOW = Path(os.environ.get("ATFLOW_BINARY") or ROOT / "atflow").absolute()
PYTHON = os.environ.get("ATFLOW_HYPERQUEUE") or sys.executable

# A server with one worker, until its standard input ends.
SERVER = """import sys
from hyperqueue import LocalCluster
from hyperqueue.cluster import WorkerConfig
with LocalCluster(sys.argv[1], WorkerConfig(cores=2)):
    print("ready", flush=True)
    sys.stdin.read()
"""

PIPELINE = """pipeline: story
stages:
  part:
    kind: command
    matrix: {n: [1, 2, 3, 4]}
    with: {run: "echo ${n} >>$HOME/tries; sleep SLEEP; echo ${n} >${out.text}", outputs: {text: part.txt}}
  joined: {kind: command, needs: {of: part/1}, with: {run: "cp ${in.of} ${out.text}", outputs: {text: joined.txt}}}
"""


def reason() -> str | None:
    if not ATFLOW.is_file():
        return f"there is no {ATFLOW}: make build"
    try:
        found = subprocess.run([PYTHON, "-c", "import hyperqueue"], capture_output=True, timeout=60)
    except OSError as error:
        return f"{PYTHON}: {error}"
    return f"{PYTHON} has no package hyperqueue: pip install hyperqueue" if found.returncode else None


@unittest.skipIf(reason(), reason())
class OnHyperQueue(unittest.TestCase):
    def setUp(self) -> None:
        self.space = Path(tempfile.mkdtemp(prefix="atflow-hq"))
        self.addCleanup(shutil.rmtree, self.space, ignore_errors=True)
        document = (ROOT / "docs/cluster.md").read_text()
        [script] = re.findall(r"```python\n(.*?)```", document, re.S)
        [cluster] = [text for text in re.findall(r"```yaml\n(.*?)```", document, re.S) if "hq_submit.py" in text]
        (self.space / "hq_submit.py").write_text(script)
        (self.space / "cluster.yaml").write_text(cluster)
        self.write(0.2)
        server = self.space / ".hq-server"
        self.server = subprocess.Popen(
            [PYTHON, "-c", SERVER, server], env=self.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(self.stop)
        for line in self.server.stdout:
            if line == "ready\n":
                return
        self.fail("HyperQueue does not start")

    def stop(self) -> None:
        self.server.stdin.close()
        self.server.wait(timeout=60)
        self.server.stdout.close()

    def env(self) -> dict[str, str]:
        # The script is started by the `python3` that has the package.
        path = f"{Path(PYTHON).parent}:{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.space), "ATFLOW_CLUSTER_PACE": "0.03"}

    def write(self, sleep: float) -> None:
        (self.space / "p.yaml").write_text(PIPELINE.replace("SLEEP", str(sleep)))

    def run_atflow(self, *args: str) -> tuple[int, str]:
        said = subprocess.run([ATFLOW, *args], cwd=self.space, env=self.env(), capture_output=True, text=True, timeout=90)
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

    def test_its_agents_make_what_a_run_here_makes(self) -> None:
        code, said = self.run_there()
        self.assertEqual(code, 0, said)
        self.assertIn("5 ran", said)
        self.assertEqual(self.run_atflow("run", "p.yaml", "--no-report", "--cache", "own")[0], 0)
        self.assertEqual(self.results("cache"), self.results("own"))
        logs = list((self.space / "cache/cluster").glob("*/logs/*"))
        self.assertTrue(any("finished" in log.read_text() for log in logs), logs)

    def test_a_run_on_it_is_cancelled(self) -> None:
        self.write(30)
        code, said = self.run_there("--detach")
        self.assertEqual(code, 0, said)
        self.wait_for((self.space / "tries").exists)
        code, said = self.run_atflow("cancel")
        self.assertEqual(code, 0, said)
        exits = self.space / "cache/cluster"
        self.wait_for(lambda: list(exits.glob("*/exit/*.json")))
        self.assertEqual(self.results("cache"), {})


if __name__ == "__main__":
    unittest.main()
