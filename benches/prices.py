#!/usr/bin/env python3
"""Prices of a plan before its first run, beside what the run took.

    python3 benches/prices.py [--pipeline FILE.yaml] [--atflow PROGRAM] [OPTIONS of plan and run …]

Measures the machine into an empty cache (`doctor --bench`), plans, and runs one stage of the pipeline after the other,
one instance at once. Processor time is that of the whole command: it starts atflow and a worker, about a second.
The pipeline is the quickstart unless another one is named.
"""

import argparse
import json
import resource
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def lines(*command):
    run = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def processor_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pipeline", default=ROOT / "pipelines/quickstart.yaml")
    parser.add_argument("--atflow", default=ROOT / "atflow")
    args, others = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = ["--cache", Path(folder) / "cache"]
        how = [*cache, "--jobs", "1", "--json", *others]
        rates = lines(args.atflow, "doctor", *cache, "--bench", "--json")[0]["rates"]
        print(f"{rates['device_name']}, libtorch {rates['libtorch']}, {rates['measured']}")
        for rate in rates["passes"]:
            print(
                f"  {rate['pass']:9}{rate['precision']:5} {rate['threads']} threads  {rate['network']:14}"
                f"{rate['images_per_second']:10.1f} images/s"
                f"{rate['images_per_second'] * rate['multiply_adds'] / 1e9:8.2f} · 10⁹ multiply-adds/s"
            )
        plan = lines(args.atflow, "plan", args.pipeline, *how)[0]
        prices = {stage["name"]: stage.get("seconds") for stage in plan["stages"]}
        print("stage                 n    priced  processor  of priced    wall")
        for stage in dict.fromkeys(name.split("/")[0] for name in prices):
            before = processor_seconds()
            laid_out = ["--out", Path(folder) / "results", "--no-report"]
            events = lines(args.atflow, "run", args.pipeline, stage, *how, *laid_out)
            used = processor_seconds() - before
            ended = [event for event in events if event["event"] == "stage_finished" and event["status"] == "ran"]
            price = sum(prices[event["stage"]] or 0.0 for event in ended)
            wall = sum(event["seconds"] for event in ended)
            ratio = f"{used / price:11.2f}" if price else " " * 11
            print(f"{stage:18}{len(ended):5}{price:10.2f}{used:11.2f}{ratio}{wall:8.2f}", flush=True)


if __name__ == "__main__":
    main()
