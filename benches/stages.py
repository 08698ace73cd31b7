#!/usr/bin/env python3
"""Times runs of many trivial stages, and runs with nothing to do, beside other tools, in one go.

    python3 benches/stages.py --stages 10 100 1000 --tools atflow ninja snakemake dvc --csv stages.csv --svg stages.svg

Every stage writes one small file with a shell command. Each tool has a folder of its own under a temporary one. A first
run makes all stages; then the same command runs `--repeat` times with nothing to do, and the median counts. Tools take
turns, so that what else the machine does meets all of them. `ninja`, `snakemake` and `dvc` are used where they are
found (`pip install ninja snakemake dvc`); `--svg` needs matplotlib.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Past this many stages a tool takes minutes for each run.
MOST = {"snakemake": 1000, "dvc": 100}


def atflow(folder: Path, count: int) -> list[str]:
    numbers = ", ".join(str(n) for n in range(count))
    (folder / "p.yaml").write_text(
        "stages:\n  each:\n    kind: command\n"
        f"    matrix: {{n: [{numbers}]}}\n"
        "    with: {run: 'echo ${n} > ${out.o}', outputs: {o: o}}\n"
    )
    program = os.environ.get("ATFLOW", str(ROOT / "atflow"))
    return [program, "run", "p.yaml", "--quiet", "--no-report"]


def ninja(folder: Path, count: int) -> list[str]:
    builds = "".join(f"build o{n}: write\n  n = {n}\n" for n in range(count))
    (folder / "build.ninja").write_text("rule write\n  command = echo $n > $out\n" + builds)
    return ["ninja", "--quiet"]


def snakemake(folder: Path, count: int) -> list[str]:
    (folder / "Snakefile").write_text(
        f"rule all:\n    input: expand('o{{n}}', n=range({count}))\n"
        "rule each:\n    output: 'o{n}'\n    shell: 'echo {wildcards.n} > {output}'\n"
    )
    return ["snakemake", "--quiet", "all", "--cores", str(os.cpu_count())]


def dvc(folder: Path, count: int) -> list[str]:
    stages = "".join(f"  s{n}:\n    cmd: echo {n} > o{n}\n    outs: [o{n}]\n" for n in range(count))
    (folder / "dvc.yaml").write_text("stages:\n" + stages)
    subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=folder, check=True)
    return ["dvc", "repro", "--quiet"]


TOOLS = {"atflow": atflow, "ninja": ninja, "snakemake": snakemake, "dvc": dvc}


def version(tool: str) -> str:
    program = os.environ.get("ATFLOW", str(ROOT / "atflow")) if tool == "atflow" else tool
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return told.stdout.split()[-1]


def timed(command: list[str], folder: Path) -> float:
    started = time.perf_counter()
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if ended.returncode != 0:
        sys.exit(f"{' '.join(command)}: {ended.stderr[-2000:]}")
    return seconds


def draw(rows: list[dict], path: str) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "stages"
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for panel, what, title in zip(panels, ("nothing_to_do", "first_run"), ("nothing to do", "all stages run")):
        for tool in dict.fromkeys(row["tool"] for row in rows):
            mine = [row for row in rows if row["tool"] == tool]
            panel.plot([row["stages"] for row in mine], [row[what] for row in mine], marker="o", label=tool)
        panel.set(xscale="log", yscale="log", xlabel="stages", title=title)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("seconds")
    panels[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=TOOLS)
    parser.add_argument("--repeat", type=int, default=5, help="runs with nothing to do, of each tool [5]")
    parser.add_argument("--csv", help="write the numbers here")
    parser.add_argument("--svg", help="draw them here")
    args = parser.parse_args()
    here = [tool for tool in args.tools if tool == "atflow" or shutil.which(tool)]
    for tool in args.tools:
        print(f"{tool} {version(tool)}" if tool in here else f"{tool} is not here and is left out")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, median of {args.repeat}\n")
    rows = []
    for count in args.stages:
        with tempfile.TemporaryDirectory() as top:
            tools = [tool for tool in here if count <= MOST.get(tool, count)]
            commands, first, idle = {}, {}, {tool: [] for tool in tools}
            for tool in tools:
                folder = Path(top, tool)
                folder.mkdir()
                commands[tool] = TOOLS[tool](folder, count)
                first[tool] = timed(commands[tool], folder)
            # Files that changed a moment ago are looked at with more care, by git and by atflow.
            time.sleep(2.5)
            for tool in tools:
                timed(commands[tool], Path(top, tool))
            for _ in range(args.repeat):
                for tool in tools:
                    idle[tool].append(timed(commands[tool], Path(top, tool)))
            for tool in tools:
                row = {"tool": tool, "stages": count, "first_run": first[tool]}
                row["nothing_to_do"] = statistics.median(idle[tool])
                rows.append(row)
                a_stage = 1000 * row["first_run"] / count
                idle_ms = 1000 * row["nothing_to_do"]
                print(f"{tool:10} {count:7} stages  first run {row['first_run']:8.2f} s ({a_stage:7.2f} ms each)"
                      f"  nothing to do {idle_ms:8.1f} ms", flush=True)
    if args.csv:
        with open(args.csv, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows({key: round(v, 5) if isinstance(v, float) else v for key, v in row.items()} for row in rows)
    if args.svg:
        draw(rows, args.svg)


if __name__ == "__main__":
    main()
