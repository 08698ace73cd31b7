"""The report in a real browser: nothing leaves the page, it can be read by everybody, and it is small and quick.

Needs node 20 or newer and Chromium (Debian: nodejs, npm, chromium). Skipped with the reason where they are missing.
`python3 -m unittest tests/browser/test_report.py`; ATFLOW_SCREENSHOTS=DIR keeps pictures of every page.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from predictions_file import predictions  # noqa: E402

ROOT = HERE.parents[1]
ATFLOW = ROOT / "atflow"
CHROMIUM = os.environ.get("ATFLOW_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")

STORY = """pipeline: story
params: {eps: 8/255}
stages:
  attacked:
    kind: command
    matrix: {model: [standard, pgd]}
    with: {run: "cp $HOME/${model}-`echo ${eps} | tr / _` ${out.predictions}", outputs: {predictions: p}}
  robustness:
    kind: table
    needs: {results: attacked}
    with: {title: Robustness, rows: attacked.model, columns: [{label: PGD, where: {stage: attacked}}], compare: {to: standard}}
"""

MANY = """pipeline: many
stages:
  number: {{kind: command, matrix: {{n: {numbers}}}, with: {{run: "echo ${{n}} > ${{out.n}}", outputs: {{n: n}}}}}}
  double: {{kind: command, matrix: {{number: {{each: number}}}}, needs: {{number: "${{number}}"}}, with: {{run: "cat ${{in.number}} > ${{out.n}}", outputs: {{n: n}}}}}}
"""


def modules() -> Path:
    """The folder with playwright-core and axe-core, filled once for each version of the lock file."""
    lock = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()[:12]
    home = Path(os.environ.get("ATFLOW_HOME") or Path.home() / ".cache/atflow")
    folder = home / f"browser-{lock}"
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder / name)
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder, check=True)
        (folder / "complete").touch()
    return folder


def has_node() -> bool:
    """Whether node 20 or newer and npm are there."""
    if not (shutil.which("node") and shutil.which("npm")):
        return False
    version = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout
    return int(version.strip().lstrip("v").split(".")[0] or 0) >= 20


@unittest.skipUnless(CHROMIUM, "Chromium is missing (Debian: apt-get install chromium)")
@unittest.skipUnless(has_node(), "node 20 or newer is missing (Debian 13: apt-get install nodejs npm)")
class Report(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.modules = modules()

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.space = Path(folder.name)

    def atflow(self, *args: str) -> None:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.space)}
        done = subprocess.run([ATFLOW, *args], cwd=self.space, env=environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def check(self, report: Path, small: bool = False) -> dict:
        pictures = os.environ.get("ATFLOW_SCREENSHOTS")
        args = ["node", str(HERE / "check.mjs"), str(CHROMIUM), str(report)]
        if pictures:
            folder = Path(pictures) / self.id().rsplit(".", 1)[1]
            folder.mkdir(parents=True, exist_ok=True)
            args.append(str(folder))
        environment = {**os.environ, "ATFLOW_BROWSER_MODULES": str(self.modules), "ATFLOW_BROWSER_SMALL": "yes" if small else ""}
        done = subprocess.run(args, env=environment, capture_output=True, text=True, timeout=900)
        self.assertEqual(done.returncode, 0, done.stderr)
        found = json.loads(done.stdout)
        self.assertEqual(found["errors"], [])
        self.assertEqual(found["requests"], [])
        self.assertEqual(found["violations"], [], json.dumps(found["violations"], indent=1))
        self.assertEqual(found["unreachable"], [])
        return found

    def test_a_reader_finds_where_a_number_comes_from(self) -> None:
        (self.space / "p.yaml").write_text(STORY)
        for name, right in (("standard-8_255", 20), ("pgd-8_255", 150), ("standard-4_255", 60), ("pgd-4_255", 170)):
            (self.space / name).write_bytes(predictions(right))
        self.atflow("run", "p.yaml", "-q")
        self.atflow("run", "p.yaml", "-q", "--set", "eps=4/255")
        self.atflow("report", "--out", "report.html")
        found = self.check(self.space / "report.html")
        card = found["cards"]["cell"]
        for part in ("30.0", "[24.1, 36.7]", "60 of 200", "attacked/standard", "from the cell below", "pgd-"):
            self.assertIn(part, card)
        self.assertIn("atflow run p.yaml robustness --set eps=4/255", card)
        self.assertTrue(found["cards"]["closed"])
        self.assertEqual(found["cards"]["linked"], "standard / PGD")
        self.assertEqual(found["plain"]["tables"], 1)
        self.assertIn("30.0", found["plain"]["text"])
        self.assertEqual(found["plain"]["buttons"], 0)
        self.assertIn("robustness", found["cards"]["finder"])

    def test_hundreds_and_thousands_of_stages_fit(self) -> None:
        for count, most_bytes in ((600, 1_500_000), (5000, 12_000_000)):
            numbers = list(range(count // 2))
            (self.space / "p.yaml").write_text(MANY.format(numbers=numbers))
            self.atflow("run", "p.yaml", "-q")
            self.atflow("report", "--out", "report.html")
            report = self.space / "report.html"
            self.assertLess(report.stat().st_size, most_bytes)
            found = self.check(report, small=True)
            self.assertIn("0 found", found["cards"]["finder"])
            paint = sorted(times["paint"] for times in found["times"])[2]
            ready = sorted(times["ready"] for times in found["times"])[2]
            print(f"\n{count} stages: {report.stat().st_size:,} bytes, first paint {paint:.0f} ms, ready {ready:.0f} ms (medians of 5)")


if __name__ == "__main__":
    unittest.main()
