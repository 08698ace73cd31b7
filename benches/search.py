#!/usr/bin/env python3
"""Compares attacks that search in 16 bits with the same attacks in 32, image by image and second by second.

    python3 benches/search.py                       # runs pipelines/search.yaml, one stage at a time
    python3 benches/search.py -- --profile smoke    # the same in small: numbers mean nothing

Times are those that the stages took; run it on an idle machine. `$ATFLOW` names another program than ./atflow. What
follows `--` is passed to `atflow run` and `atflow data`.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ATFLOW = os.environ.get("ATFLOW", str(ROOT / "atflow"))
PIPELINE = str(ROOT / "pipelines" / "search.yaml")


def atflow(*args: str) -> str:
    return subprocess.run([ATFLOW, *args], check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    more = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    subprocess.run([ATFLOW, "run", PIPELINE, "agreement", "--jobs", "1", *more], check=True, stdout=subprocess.DEVNULL)
    correct: dict[tuple[str, str, str], dict[int, bool]] = defaultdict(dict)
    names = {}
    with tempfile.TemporaryDirectory() as folder:
        atflow("data", PIPELINE, "searched", "--format", "csv", "--out", folder, *more)
        with open(Path(folder, "images.csv"), newline="") as file:
            for row in csv.DictReader(file):
                if row["stage"] == "searched":
                    key = (row["model.variant"], row["searched.attack"], row["searched.bits"])
                    correct[key][int(row["index"])] = row["correct"] == "true"
                    names[key] = row["name"]
    seconds = {key: json.loads(atflow("show", name, "--json"))["made"]["seconds"] for key, name in names.items()}
    print("| network | attack | n | right, 32 bits | right, 16 bits | same verdict | seconds, 32 | 16 | times as fast |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for model, attack, bits in sorted(correct):
        if bits != "32":
            continue
        exact, halved = correct[model, attack, "32"], correct[model, attack, "16"]
        n, same = len(exact), sum(exact[index] == halved[index] for index in exact)
        slow, fast = seconds[model, attack, "32"], seconds[model, attack, "16"]
        print(
            f"| {model} | {attack} | {n:,} | {100 * sum(exact.values()) / n:.2f} | {100 * sum(halved.values()) / n:.2f} "
            f"| {100 * same / n:.2f} % | {slow:.1f} | {fast:.1f} | {slow / fast:.2f} |"
        )


if __name__ == "__main__":
    main()
