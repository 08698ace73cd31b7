#!/usr/bin/env python3
"""Prices of a plan before its first run, beside what the run took.

    python3 benches/prices.py [PIPELINE.yaml] [--jobs N] [--atflow PROGRAM] [ARGUMENTS of plan and run …]

Measures the machine into an empty cache (`doctor --bench`), plans, runs, and compares the seconds of each kind of
stage. The pipeline is the quickstart unless another one is named.
"""

import argparse
import json
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def lines(*command):
    run = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pipeline", nargs="?", default=ROOT / "pipelines/quickstart.yaml")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--atflow", default=ROOT / "atflow")
    args, others = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = ["--cache", Path(folder) / "cache"]
        what = [args.pipeline, *cache, "--jobs", args.jobs, *others]
        rates = lines(args.atflow, "doctor", *cache, "--bench", "--json")[0]["rates"]
        print(f"{rates['device_name']}, libtorch {rates['libtorch']}, {rates['measured']}, {args.jobs} at once")
        for rate in rates["passes"]:
            print(
                f"  {rate['pass']:9}{rate['precision']:5} {rate['threads']} threads  {rate['network']:14}"
                f"{rate['images_per_second']:10.1f} images/s"
                f"{rate['images_per_second'] * rate['multiply_adds'] / 1e9:8.2f} · 10⁹ multiply-adds/s"
            )
        plan = lines(args.atflow, "plan", *what, "--json")[0]
        events = lines(args.atflow, "run", *what, "--out", Path(folder) / "results", "--no-report", "--json")
    took = {event["stage"]: event["seconds"] for event in events if event["event"] == "stage_finished"}
    kinds = defaultdict(lambda: [0, 0.0, 0.0, []])
    unpriced = 0
    for stage in plan["stages"]:
        name, price = stage["name"], stage.get("seconds")
        if price is None or name not in took:
            unpriced += 1
            continue
        group = kinds[stage["kind"]]
        group[0] += 1
        group[1] += price
        group[2] += took[name]
        group[3].append(took[name] / price)
    print("kind            n   priced       took   took/priced   least   most")
    for kind, (count, price, seconds, ratios) in sorted(kinds.items(), key=lambda item: -item[1][2]):
        print(
            f"{kind:12}{count:5}{price:9.2f}{seconds:11.2f}{seconds / price:14.2f}"
            f"{min(ratios):8.2f}{max(ratios):7.2f}"
        )
    total = events[-1]["seconds"]
    print(f"run: {plan['price']['wall']:.1f} s planned, {total:.1f} s taken; {unpriced} stages without a price")


if __name__ == "__main__":
    main()
