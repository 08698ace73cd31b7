"""Runs whose agents HyperQueue starts, through the script and the cluster file of `docs/cluster.md`.

`python3 -m unittest discover -s tests/slurm`. $ATFLOW_HYPERQUEUE names a Python with the package `hyperqueue`
[default: this one]; $ATFLOW_BINARY names atflow [default: ./atflow]. Skipped with a reason where one is missing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

from on_commands import OnCommands
from on_slurm import ATFLOW, ROOT

PYTHON = os.environ.get("ATFLOW_HYPERQUEUE") or sys.executable

# A server with one worker, until its standard input ends.
SERVER = """import sys
from hyperqueue import LocalCluster
from hyperqueue.cluster import WorkerConfig
with LocalCluster(sys.argv[1], WorkerConfig(cores=2)):
    print("ready", flush=True)
    sys.stdin.read()
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
class OnHyperQueue(OnCommands):
    def setUp(self) -> None:
        super().setUp()
        # The script is started by the `python3` that has the package.
        self.env["PATH"] = f"{Path(PYTHON).parent}:{self.env['PATH']}"
        document = (ROOT / "docs/cluster.md").read_text()
        [script] = re.findall(r"```python\n(.*?)```", document, re.S)
        [cluster] = [text for text in re.findall(r"```yaml\n(.*?)```", document, re.S) if "hq_submit.py" in text]
        (self.space / "hq_submit.py").write_text(script)
        (self.space / "cluster.yaml").write_text(cluster)
        server = self.space / ".hq-server"
        self.server = subprocess.Popen(
            [PYTHON, "-c", SERVER, server], env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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
