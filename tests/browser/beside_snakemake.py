"""The report beside that of Snakemake, for the same number of stages: size, time to make, time to first paint.

`python3 tests/browser/beside_snakemake.py [STAGES]` (600 unless given) after `make build`. It installs Snakemake from
the Python package index into a temporary environment. No test: it prints a table.

Both workflows have STAGES stages in pairs: one writes a number, the other copies it. Snakemake shows in its report only
what a rule marks, so both rules mark their file.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from test_report import ATFLOW, CHROMIUM, HERE, MANY, modules

SNAKEMAKE = "snakemake==9.27.1"

SNAKEFILE = """
N = range({pairs})
rule all:
    input: expand("double/{{n}}.txt", n=N)
rule number:
    output: report("number/{{n}}.txt", category="number")
    shell: "echo {{wildcards.n}} > {{output}}"
rule double:
    input: "number/{{n}}.txt"
    output: report("double/{{n}}.txt", category="double")
    shell: "cat {{input}} > {{output}}"
"""


def timed(command: list[str | Path], folder: Path) -> float:
    """Seconds that a command takes; its output is shown if it fails."""
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command}: {done.stdout}{done.stderr}")
    return time.monotonic() - started


def painted(report: Path) -> tuple[float, float]:
    """Medians of five openings: milliseconds to the first paint and to the end of loading."""
    environment = {**os.environ, "ATFLOW_BROWSER_MODULES": str(modules())}
    command = ["node", HERE / "paint.mjs", str(CHROMIUM), report]
    found = json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    paint, load = (statistics.median(times[name] for times in found) for name in ("paint", "load"))
    return paint, load


def main() -> None:
    stages = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        timed([sys.executable, "-m", "venv", folder / "venv"], folder)
        timed([folder / "venv/bin/pip", "install", "-q", SNAKEMAKE, "pygments"], folder)
        snakemake = folder / "venv/bin/snakemake"
        (folder / "Snakefile").write_text(SNAKEFILE.format(pairs=stages // 2))
        (folder / "p.yaml").write_text(MANY.format(numbers=list(range(stages // 2))))
        rows = []
        for tool, run, report, file in (
            ("atflow", [ATFLOW, "run", "p.yaml", "-q", "--no-report"], [ATFLOW, "report", "--out", "ours.html"], "ours.html"),
            (SNAKEMAKE, [snakemake, "-c2", "-q", "all"], [snakemake, "-q", "all", "--report", "theirs.html"], "theirs.html"),
        ):
            run_seconds = timed(run, folder)
            seconds = statistics.median(timed(report, folder) for _ in range(3))
            paint, load = painted(folder / file)
            rows.append((tool, run_seconds, (folder / file).stat().st_size, seconds, paint, load))
        print(f"{stages} stages, reports made three times and opened five times each (medians)")
        print(f"{'':18}{'run':>9}{'size':>12}{'made in':>10}{'first paint':>13}{'loaded':>9}")
        for tool, run_seconds, size, seconds, paint, load in rows:
            print(f"{tool:18}{run_seconds:7.1f} s{size:10,} B{seconds:8.2f} s{paint:10.0f} ms{load:6.0f} ms")


if __name__ == "__main__":
    main()
