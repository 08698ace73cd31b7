#!/usr/bin/env python3
"""Times attacks and saliency maps beside PyTorch, torchattacks and captum: the same networks, images and steps.

    python3 benches/kernels.py                      # needs torch, torchattacks and captum: $BENCH_PYTHON or this Python
    python3 benches/kernels.py --repeats 5          # medians of five rounds, in which all take turns

One thread. Times are seconds of a processor. Those of atflow are of a whole command: planning, loading libtorch (about
a second), reading, judging and storing included. Those of the libraries are of their calls, with images and network at hand.
Networks are trained on a few images: only their shapes matter here. `$ATFLOW` names another program than ./atflow.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

ROOT = Path(__file__).resolve().parent.parent
ATFLOW = str(Path(os.environ.get("ATFLOW", str(ROOT / "atflow"))).absolute())
PYTHON = os.environ.get("BENCH_PYTHON", sys.executable)

EPS, STEP, STEPS = 8 / 255, 2 / 255, 20
SAMPLES = 50
BATCH = 50
# Name, network, images attacked, images with maps.
NETWORKS = {
    "quickstart": ({"arch": "resnet", "width": 16, "blocks": [1, 1, 1], "mean": [0.286], "std": [0.353]}, 2000, 100),
    "resnet18": ({"arch": "resnet18", "stem": "cifar", "mean": [0.286], "std": [0.353]}, 200, 20),
}


def computes_bf16() -> bool:
    """Whether the processor computes in 16 bits. Others emulate it, and are not timed: that takes long."""
    flags = Path("/proc/cpuinfo").read_text().split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def pipeline() -> dict[str, Any]:
    """The networks, and a stage for each work with them."""
    stages: dict[str, Any] = {}
    for name, (net, attacked, drawn) in NETWORKS.items():
        stages[f"net-{name}"] = {
            "kind": "train",
            "needs": {"data": "fashion.train"},
            "with": {"net": net, "epochs": 1, "batch_size": 32, "optimizer": {"lr": 0.01}, "limit": 64},
        }
        attack = {"attack": "pgd", "eps": "8/255", "step": "2/255", "steps": STEPS}
        for bits in ("fp32", "bf16") if computes_bf16() else ("fp32",):
            stages[f"pgd-{name}-{bits}"] = {
                "kind": "evaluate",
                "allow": ["slow-search"],
                "needs": {"model": f"net-{name}", "set": "fashion.test"},
                "with": {"attack": attack, "search": bits, "batch_size": BATCH, "limit": attacked},
            }
        for method, settings in (("smoothgrad", {"samples": SAMPLES}), ("integrated_gradients", {"steps": SAMPLES})):
            stages[f"{method}-{name}"] = {
                "kind": "saliency",
                "needs": {"models": f"net-{name}", "set": "fashion.test"},
                "with": {"method": {"name": method, **settings}, "images": {"first": drawn}, "show": 1},
            }
    return stages


def atflow(*args: str) -> str:
    return subprocess.run([ATFLOW, *args], check=True, stdout=subprocess.PIPE, text=True).stdout


def of_children() -> float:
    """Seconds of a processor that ended children took, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def network(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"modeling_{folder.name}", folder / "modeling.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(folder).eval()


def eager(model: Any, images: Any, labels: Any) -> Any:
    """PGD as people write it: the gradient of the loss with respect to the image only."""
    import torch

    attacked = images.clone()
    for _ in range(STEPS):
        attacked.requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(model(attacked), labels)
        (gradient,) = torch.autograd.grad(loss, attacked)
        attacked = attacked.detach() + STEP * gradient.sign()
        attacked = images + (attacked - images).clamp(-EPS, EPS)
        attacked = attacked.clamp(0, 1)
    with torch.no_grad():
        return model(attacked).argmax(1)


def library_calls(name: str, folder: Path, images: Any, labels: Any) -> dict[str, tuple[str, Callable[[], Any]]]:
    """What each library does, by the name of the work and of the library."""
    import captum.attr
    import torch
    import torchattacks

    _, attacked, drawn = NETWORKS[name]
    model, channels_last = network(folder), network(folder).to(memory_format=torch.channels_last)
    for parameter in [*model.parameters(), *channels_last.parameters()]:
        parameter.requires_grad_(False)
    x, y = images[:attacked], labels[:attacked]
    batches = lambda attack: [attack(*part) for part in zip(x.split(BATCH), y.split(BATCH))]
    last = lambda a, b: eager(channels_last, a.contiguous(memory_format=torch.channels_last), b)
    pgd = torchattacks.PGD(model, EPS, STEP, STEPS, random_start=False)
    log_p = lambda batch: torch.log_softmax(model(batch), 1)
    maps, targets = images[:drawn], labels[:drawn]
    smooth = captum.attr.NoiseTunnel(captum.attr.Saliency(log_p))
    integrated = captum.attr.IntegratedGradients(log_p)
    return {
        "PyTorch": ("pgd", lambda: batches(lambda a, b: eager(model, a, b))),
        "PyTorch, channels last": ("pgd", lambda: batches(last)),
        "torchattacks": ("pgd", lambda: batches(lambda a, b: model(pgd(a, b)).argmax(1))),
        "captum, SmoothGrad": (
            "smoothgrad",
            lambda: [
                smooth.attribute(a[None], target=int(b), nt_samples=SAMPLES, stdevs=0.15, nt_type="smoothgrad", abs=False)
                for a, b in zip(maps, targets)
            ],
        ),
        "captum, integrated gradients": (
            "integrated_gradients",
            lambda: [
                integrated.attribute(a[None], target=int(b), n_steps=SAMPLES, method="riemann_middle")
                for a, b in zip(maps, targets)
            ],
        ),
    }


def read_images(path: str) -> tuple[Any, Any]:
    import torch

    data = bytearray(Path(path).read_bytes())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8 : 8 + length]))
    types = {"U8": torch.uint8, "I32": torch.int32}

    def tensor(entry: dict[str, Any]) -> Any:
        begin, end = entry["data_offsets"]
        part = data[8 + length + begin : 8 + length + end]
        return torch.frombuffer(part, dtype=types[entry["dtype"]]).view(entry["shape"])

    return tensor(header["images"]).float() / 255, tensor(header["labels"]).long()


def measure(repeats: int) -> None:
    import torch

    torch.set_num_threads(1)
    seconds: dict[tuple[str, str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["ATFLOW_CACHE"] = str(folder / "cache")
        text = {"include": [str(ROOT / "pipelines/quickstart.yaml")], "stages": pipeline()}
        lines = [f"{key}: {json.dumps(value)}" for key, value in {"pipeline": "kernels", "numerics": "native", **text}.items()]
        file = folder / "kernels.yaml"
        file.write_text("\n".join(lines))
        run = lambda *args: atflow("run", str(file), *args, "--jobs", "1", "-q", "--no-report", "--out", str(folder / "out"))
        run(*(f"net-{network}" for network in NETWORKS))
        shown = lambda stage: json.loads(atflow("show", stage, "--json"))
        images, labels = read_images(shown("fashion")["outputs"]["test"]["path"])
        calls = {}
        for network in NETWORKS:
            atflow("export", str(file), f"net-{network}", "-o", str(folder / network))
            calls[network] = library_calls(network, folder / network, images, labels)
        stages = [stage for stage in text["stages"] if not stage.startswith("net-")]
        for _ in range(repeats):
            for network in NETWORKS:
                for library, (work, call) in calls[network].items():
                    began = time.process_time()
                    call()
                    seconds.setdefault((network, work, library), []).append(time.process_time() - began)
                for stage in (stage for stage in stages if network in stage):
                    began = of_children()
                    run(stage, "--force", stage)
                    took = of_children() - began
                    bits = ", search in 16 bits" if stage.endswith("bf16") else ""
                    key = (network, stage.split("-")[0], f"atflow{bits}")
                    seconds.setdefault(key, []).append(took)
    print(f"torch {torch.__version__}, one thread, median of {repeats}\n")
    print("| network | work | | seconds | times as fast as the first |")
    print("| --- | --- | --- | ---: | ---: |")
    for network in NETWORKS:
        for work in ("pgd", "smoothgrad", "integrated_gradients"):
            rows = {library: statistics.median(times) for (of, at, library), times in seconds.items() if (of, at) == (network, work)}
            first = next(iter(rows.values()))
            for library, median in rows.items():
                print(f"| {network} | {work} | {library} | {median:.2f} | {first / median:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if PYTHON != sys.executable and not os.environ.get("BENCH_CHILD"):
        environment = {**os.environ, "BENCH_CHILD": "1"}
        sys.exit(subprocess.run([PYTHON, __file__, *sys.argv[1:]], env=environment).returncode)
    measure(options.repeats)


if __name__ == "__main__":
    main()
