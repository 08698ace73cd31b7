"""Python reads the tables of `atflow data`, and the code of docs/notebook.md runs.

`test_notebook.py` runs it with the libraries. Skipped with the reason where atflow, a library, or a complete cache of
the quickstart is missing. $ATFLOW names the program [default: ./atflow], $ATFLOW_CACHE the cache [default: cache/].
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from predictions_file import predictions  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
ATFLOW = Path(os.environ.get("ATFLOW") or ROOT / "atflow").absolute()
CACHE = Path(os.environ.get("ATFLOW_CACHE") or ROOT / "cache").absolute()
QUICKSTART = ROOT / "pipelines/quickstart.yaml"

STORY = """pipeline: story
params: {radii: [2/255, 8/255]}
stages:
  attacked:
    kind: command
    matrix: {model: [standard, pgd], eps: "${radii}"}
    with: {run: "cp $HOME/${model} ${out.predictions} # ${eps}", outputs: {predictions: p}}
  robustness:
    kind: table
    needs: {results: attacked}
    with: {title: Robustness, rows: attacked.model, columns: attacked.eps}
"""


def missing(*libraries: str) -> str:
    """Those of some libraries that are not there, with the command that installs them."""
    names = [name for name in libraries if importlib.util.find_spec(name) is None]
    return f"missing: pip install {' '.join(names)}" if names else ""


def lacks_quickstart() -> str:
    """Why the cache cannot serve docs/notebook.md."""
    if not (CACHE / "VERSION").exists():
        return f"{CACHE} is no cache: make quickstart"
    command = [ATFLOW, "plan", QUICKSTART, "--cache", CACHE, "--json"]
    plan = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    stale = [stage["name"] for stage in plan["stages"] if stage["state"] != "fresh"]
    return f"{CACHE} lacks {stale[0]} and more: make quickstart" if stale else ""


@unittest.skipUnless(ATFLOW.exists(), f"{ATFLOW} is missing: make build")
class Readers(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.space = Path(folder.name)
        (self.space / "p.yaml").write_text(STORY)
        for name, right in (("standard", 60), ("pgd", 150)):
            (self.space / name).write_bytes(predictions(right))
        self.atflow("run", "p.yaml", "-q")
        self.atflow("data", "p.yaml", "--format", "csv,parquet")
        self.data = self.space / "results/story/data"

    def atflow(self, *args: str) -> None:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.space)}
        done = subprocess.run([ATFLOW, *args], cwd=self.space, env=environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    @unittest.skipIf(missing("pandas", "pyarrow"), missing("pandas", "pyarrow"))
    def test_pandas_reads_numbers_as_numbers(self) -> None:
        import pandas

        metrics = pandas.read_parquet(self.data / "metrics.parquet")
        accuracy = metrics[metrics.metric == "accuracy"]
        table = accuracy.pivot(index="attacked.model", columns="attacked.eps_written", values="value")
        self.assertEqual(table.loc["pgd", "8/255"], 0.75)
        self.assertEqual(table.loc["standard", "2/255"], 0.3)
        self.assertEqual(sorted(accuracy["attacked.eps"].unique()), [2 / 255, 8 / 255])
        images = pandas.read_parquet(self.data / "images.parquet")
        self.assertEqual(images.dtypes[["index", "correct", "loss"]].astype(str).to_list(), ["int64", "bool", "float32"])
        self.assertEqual(images.groupby("attacked.model").correct.sum().to_dict(), {"pgd": 300, "standard": 120})
        self.assertEqual(images.attack.isna().sum(), len(images))
        stages = pandas.read_parquet(self.data / "stages.parquet")
        self.assertEqual((str(stages.made.dt.tz), set(stages.state)), ("UTC", {"fresh"}))
        # CSV has the same values.
        from_csv = pandas.read_csv(self.data / "images.csv")
        columns = ["name", "attacked.eps", "index", "label", "predicted", "correct"]
        pandas.testing.assert_frame_equal(from_csv[columns], images[columns], check_dtype=False)

    @unittest.skipIf(missing("polars"), missing("polars"))
    def test_polars_reads_the_same(self) -> None:
        import polars

        images = polars.scan_parquet(self.data / "images.parquet").group_by("attacked.model").agg(polars.col("correct").sum())
        self.assertEqual(dict(images.collect().iter_rows()), {"pgd": 300, "standard": 120})
        metrics = polars.read_parquet(self.data / "metrics.parquet")
        self.assertEqual(metrics.schema["attacked.eps"], polars.Float64)
        self.assertEqual(metrics.schema["seed"], polars.UInt64)
        self.assertEqual(polars.read_csv(self.data / "metrics.csv").height, metrics.height)


LIBRARIES = missing("pandas", "pyarrow", "safetensors", "matplotlib", "polars")


@unittest.skipUnless(ATFLOW.exists(), f"{ATFLOW} is missing: make build")
@unittest.skipIf(LIBRARIES, LIBRARIES)
class Notebook(unittest.TestCase):
    def test_the_code_of_the_page_runs(self) -> None:
        reason = lacks_quickstart()
        if reason:
            self.skipTest(reason)
        page = (ROOT / "docs/notebook.md").read_text(encoding="utf-8")
        blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        if missing("torch"):
            blocks = [block for block in blocks if "torch" not in block]
            print(f"\nthe code with checkpoints was left out: {missing('torch')}")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        space = Path(folder.name)
        (space / "atflow").symlink_to(ATFLOW)
        (space / "pipelines").symlink_to(ROOT / "pipelines")
        script = "import matplotlib\nmatplotlib.use('Agg')\n" + "\n".join(blocks)
        environment = {**os.environ, "ATFLOW_CACHE": str(CACHE)}
        done = subprocess.run([sys.executable, "-c", script], cwd=space, env=environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        for part in ("'metrics':", "8/255", "0.786", "seen as"):
            self.assertIn(part, done.stdout)
        self.assertTrue((space / "saturation.png").exists())
        if not missing("torch"):
            self.assertIn("\n1.0\n", done.stdout)


if __name__ == "__main__":
    unittest.main()
