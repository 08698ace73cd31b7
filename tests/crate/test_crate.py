"""A run as an RO-Crate, read by programs of others: the community's validator, runcrate, and SPARQL.

Needs Python 3.10 or newer and, once, the package index. Skipped with the reason where Python is older or cannot make
virtual environments. `python3 -m unittest tests/crate/test_crate.py`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ATFLOW = Path(os.environ.get("ATFLOW_BINARY") or ROOT / "atflow")
sys.path.insert(0, str(HERE.parent))

from predictions_file import predictions  # noqa: E402
from virtual_environment import programs  # noqa: E402

PROFILE = "provenance-run-crate"

# A pipeline of two files: sources, parameters, several instances, and files that people look at.
STORY = """pipeline: story
include: models.yaml
params: {eps: 8/255, rows: [standard, pgd], repeats: 2}
stages:
  attacked:
    kind: command
    matrix: {model: "${rows}"}
    needs: {list: listed}
    with:
      run: "cp $HOME/${model} ${out.predictions} # ${eps} ${repeats}"
      outputs: {predictions: p}
  robustness:
    kind: table
    needs: {results: attacked}
    with: {title: Robustness, rows: attacked.model, columns: [{label: PGD, where: {stage: attacked}}]}
"""

MODELS = """stages:
  listed: {kind: command, with: {run: "cp ${file.names.txt} ${out.list}", files: [names.txt], outputs: {list: list}}}
"""

FAILING = """
  broken: {kind: command, needs: {list: listed}, with: {run: "echo https://user:secret@host/x; exit 3", outputs: {n: n}}}
"""

# What a crate does not have although the profiles recommend it, with the reason. The names are the validator's checks.
NOT_FOLLOWED = {
    "Application url": "atflow has no home page, and neither has a stage",
    "SoftwareApplication id": "a stage is a part of its pipeline file, so its id is relative",
    "Root Data Entity: `author` property": "nobody is named as the author of a crate that a program wrote",
    "Root Data Entity: `publisher` property": "a crate is published later, by whoever does that",
}


def tools() -> Path:
    """The programs of a virtual environment with the validator and its contexts."""

    def add_contexts(folder: Path) -> None:
        subprocess.run([folder / "bin/python", HERE / "contexts.py", folder / "contexts.sqlite"], check=True)

    return programs("crate", HERE / "requirements.txt", HERE / "contexts.py", then=add_contexts)


@unittest.skipIf(sys.version_info < (3, 10), "Python 3.10 or newer is missing")
@unittest.skipUnless(importlib.util.find_spec("ensurepip"), "Python cannot make virtual environments (Debian: apt-get install python3-venv)")
class Crate(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.programs = tools()

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.space = Path(folder.name)
        (self.space / "exp").mkdir()
        (self.space / "home").mkdir()
        (self.space / "exp/names.txt").write_text("standard pgd\n")
        (self.space / "exp/p.yaml").write_text(STORY)
        (self.space / "exp/models.yaml").write_text(MODELS)
        for name, right in (("standard", 20), ("pgd", 150)):
            (self.space / "home" / name).write_bytes(predictions(right))

    def atflow(self, *args: str, code: int = 0) -> None:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.space / "home"), "USER": "ann"}
        done = subprocess.run([ATFLOW, *args], cwd=self.space, env=environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, code, done.stderr)

    def validate(self, crate: Path, severity: str) -> tuple[bool, set[str], int]:
        """Whether a crate is valid, the checks that it fails, and the number of those that it passes."""
        result = self.space / f"{crate.name}-{severity}.json"
        command = [
            self.programs / "rocrate-validator", "-y", "validate", "--offline",
            "--cache-path", self.programs.parent / "contexts.sqlite",
            "-p", PROFILE, "-l", severity, "--output-format", "json", "--output-file", result, crate,
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.space)
        self.assertTrue(result.exists(), done.stdout + done.stderr)
        found = json.loads(result.read_text())
        failed = {issue["check"]["name"] for issue in found["issues"]}
        return found["passed"], failed, found["statistics"]["total_passed_checks"]

    def python(self, script: str, *args: Path) -> str:
        done = subprocess.run([self.programs / "python", HERE / script, *args], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_the_communitys_programs_read_a_crate(self) -> None:
        self.atflow("run", "exp/p.yaml", "-q")
        self.atflow("report", "--crate", "crate", "--license", "CC-BY-4.0")
        crate = self.space / "crate"
        self.assertEqual(self.validate(crate, "REQUIRED"), (True, set(), 85))
        _, failed, _ = self.validate(crate, "RECOMMENDED")
        self.assertEqual(failed, set(NOT_FOLLOWED))

        answers = json.loads(self.python("questions.py", crate))
        # No stage runs in a container.
        self.assertEqual(answers.pop("1 which container images did the run use"), 0)
        self.assertEqual([name for name, count in answers.items() if count == 0], [])

        done = subprocess.run([self.programs / "runcrate", "report", crate], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        for part in ("action: #run", "pipeline/p.yaml", "action: #action/attacked/pgd", "results/robustness.csv", "eps"):
            self.assertIn(part, done.stdout)

    def test_a_failed_run_is_a_valid_crate_that_says_so(self) -> None:
        (self.space / "exp/p.yaml").write_text(STORY + FAILING)
        self.atflow("run", "exp/p.yaml", "-q", "--keep-going", code=1)
        self.atflow("report", "--crate", "crate")
        crate = self.space / "crate"
        self.assertEqual(self.validate(crate, "REQUIRED"), (True, set(), 85))
        _, failed, _ = self.validate(crate, "RECOMMENDED")
        self.assertEqual(failed, {*NOT_FOLLOWED, "Action result"})
        text = (crate / "ro-crate-metadata.json").read_text()
        entities = {entity["@id"]: entity for entity in json.loads(text)["@graph"]}
        for action in ("#run", "#engine-run", "#action/broken", "#control/broken"):
            self.assertEqual(entities[action]["actionStatus"], "http://schema.org/FailedActionStatus", action)
        self.assertIn("error", entities["#action/broken"])
        self.assertNotIn("error", entities["#action/listed"])
        self.assertNotIn("secret", text)


if __name__ == "__main__":
    unittest.main()
