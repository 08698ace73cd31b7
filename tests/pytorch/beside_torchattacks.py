"""Attacks of atflow and of two libraries image by image, on a network of the quickstart.

    python tests/pytorch/beside_torchattacks.py pipelines/quickstart.yaml pgd 200
    python tests/pytorch/beside_torchattacks.py pipelines/quickstart.yaml pgd 100 authors
    python tests/pytorch/beside_torchattacks.py pipelines/quickstart.yaml standard 500 "until broken"
    python tests/pytorch/beside_torchattacks.py pipelines/quickstart.yaml pgd 50 "authors: AutoAttack" 20,3,500

Needs torch, torchattacks and pyautoattack, which is the code of AutoAttack's authors as a package. $ATFLOW names the
program [default: ./atflow]; $ATFLOW_CACHE a cache, in which the network is trained once. It prints a table for a page:
how many images are right after the attack of each, which images only one of both breaks, and the seconds of processor
time of each with one thread; those of atflow start programs and read files, too. Attacks draw their own
random numbers, so a few images differ. The fourth argument selects cases by a part of their name. The fifth has the
steps, targets and queries of the attacks of AutoAttack, for both sides [default: 100,9,5000, those of its authors].

APGD-T of torchattacks is left out in the L2 norm: it steps every image of a batch as far as the first one.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyautoattack
import torch
import torchattacks

ROOT = Path(__file__).resolve().parents[2]
ATFLOW = Path(os.environ.get("ATFLOW") or ROOT / "atflow").absolute()
os.environ.setdefault("ATFLOW_CACHE", str(Path("cache").absolute()))
EPS, L2 = 8 / 255, 1.0


def cases(model, budget=(100, 9, 5000)):
    """Name, the attack of atflow, and the other attack: a function of images and labels."""
    norms = (("Linf", "inf", "8/255", EPS), ("L2", "l2", L2, L2))
    yield "PGD-20, random start", {"attack": "pgd", "eps": "8/255", "step": "2/255", "steps": 20, "start": "random"}, torchattacks.PGD(model, EPS, 2 / 255, 20)
    yield "MI-FGSM, 10 steps", {"attack": "pgd", "eps": "8/255", "step": "2/255", "steps": 10, "momentum": 1}, torchattacks.MIFGSM(model, EPS, 2 / 255, 10)
    yield "PGD-20, L2", {"attack": "pgd", "norm": "l2", "eps": L2, "step": 0.2, "steps": 20, "direction": "gradient"}, torchattacks.PGDL2(model, L2, 0.2, 20, random_start=False)
    for name, norm, eps, radius in norms:
        yield f"APGD-CE, {name}", {"attack": "apgd", "norm": norm, "eps": eps, "steps": 50}, torchattacks.APGD(model, name, radius, steps=50)
        if name == "Linf":
            yield f"APGD-T, {name}", {"attack": "apgd", "norm": norm, "eps": eps, "steps": 50, "loss": "dlr_targeted", "targets": 9}, torchattacks.APGDT(model, name, radius, steps=50, n_classes=10)
        yield f"FAB-T, {name}", {"attack": "fab", "norm": norm, "eps": eps, "steps": 50, "targets": 9}, torchattacks.FAB(model, name, radius, steps=50, n_classes=10, multi_targeted=True)
        yield f"Square, {name}", {"attack": "square", "norm": norm, "eps": eps, "queries": 1000}, torchattacks.Square(model, name, radius, n_queries=1000)
    for steps in (20, 100):
        until = {"attack": "pgd", "steps": steps, "iterate": "worst_case"}
        yield f"until broken: PGD-{steps}, Linf", until | {"eps": "8/255", "step": "2/255"}, torchattacks.PGD(model, EPS, 2 / 255, steps, random_start=False)
        yield f"until broken: PGD-{steps}, L2", until | {"norm": "l2", "eps": L2, "step": 0.2, "direction": "gradient"}, torchattacks.PGDL2(model, L2, 0.2, steps, random_start=False)
    steps, targets, queries = budget
    for name, norm, eps, radius in norms:
        theirs = torchattacks.AutoAttack(model, name, radius, n_classes=10, seed=0)
        yield f"whole AutoAttack of torchattacks, {name}", {"attack": "autoattack", "norm": norm, "eps": eps}, theirs
    for name, norm, eps, radius in norms:
        whole = {"attack": "autoattack", "norm": norm, "eps": eps, "steps": steps, "targets": targets, "queries": queries}
        yield f"authors: AutoAttack, {name}", whole, Authors(model, name, radius, budget)
        for member, of_authors in MEMBERS.items():
            yield f"authors: {member}, {name}", whole | {"attacks": [member]}, Authors(model, name, radius, budget, of_authors)


# The names of AutoAttack's members, by atflow and by the authors.
MEMBERS = {"apgd_ce": "apgd-ce", "apgd_dlr": "apgd-dlr", "apgd_t": "apgd-t", "fab_t": "fab-t", "square": "square"}


class Authors:
    """AutoAttack by its authors, or one member of it with the same settings."""

    def __init__(self, model, norm, radius, budget, member=None):
        self.whole = whole = pyautoattack.AutoAttack(model, norm=norm, eps=radius, seed=0, version="standard")
        steps, targets, queries = budget
        whole.fab.n_iter = steps
        for apgd in (whole.apgd, whole.apgd_targeted):
            # What its constructor computes from the number of steps.
            apgd.n_iter = apgd.n_iter_orig = steps
            apgd.n_iter_2, apgd.n_iter_min, apgd.size_decr = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
        whole.apgd_targeted.n_target_classes = whole.fab.n_target_classes = targets
        whole.square.n_queries = queries
        if member:
            self.whole.attacks_to_run = [member]

    def __call__(self, images, labels):
        return self.whole.run_standard_evaluation(images, labels, batch_size=len(images))[0]


def read(path):
    data = bytearray(Path(path).read_bytes())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8 : 8 + length]))
    header.pop("__metadata__")
    types = {"U8": torch.uint8, "I32": torch.int32, "F32": torch.float32}
    part = lambda entry: data[8 + length + entry["data_offsets"][0] : 8 + length + entry["data_offsets"][1]]
    return {name: torch.frombuffer(part(entry), dtype=types[entry["dtype"]]).view(entry["shape"]) for name, entry in header.items()}


def atflow(*args):
    return subprocess.run([ATFLOW, *args], check=True, capture_output=True, text=True).stdout


def processor_time():
    """Seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def outputs(stage):
    return {name: output["path"] for name, output in json.loads(atflow("show", stage, "--json"))["outputs"].items()}


def main(pipeline, variant, count, chosen="", budget="100,9,5000"):
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    network = f"model/{variant}"
    atflow("run", pipeline, network, "-q", "--out", str(folder / "out"))
    atflow("export", pipeline, network, "-o", str(folder / "network"))
    sys.path.insert(0, str(folder / "network"))
    from modeling import load

    model = load(folder / "network")
    compared = [case for case in cases(model, [int(number) for number in budget.split(",")]) if chosen in case[0]]
    stages = {f"under-{at}": (name, attack) for at, (name, attack, _) in enumerate(compared)}
    text = json.dumps({
        "include": [str(Path(pipeline).absolute())],
        "stages": {stage: {"kind": "evaluate", "needs": {"model": network, "set": "fashion.test"}, "with": {"attack": attack, "limit": count}} for stage, (_, attack) in stages.items()},
    })
    (folder / "p.yaml").write_text("pipeline: beside\n" + text[1:-1].replace('"include":', "include:", 1).replace(', "stages":', "\nstages:", 1))
    print("| attack | right: atflow | the other | broken by atflow only | by the other only | seconds |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for stage, (name, _, theirs) in zip(stages, compared):
        began = processor_time()
        atflow("run", str(folder / "p.yaml"), stage, "-q", "--jobs", "1", "--out", str(folder / "out"))
        ours = processor_time() - began
        found = read(outputs(stage)["predictions"])
        data = read(outputs("fashion")["test"])
        images, labels = data["images"][:count].float() / 255, data["labels"][:count].long()
        began = time.process_time()
        adversarial = torch.cat([theirs(*part) for part in zip(images.split(100), labels.split(100))])
        seconds = time.process_time() - began
        with torch.no_grad():
            right = model(adversarial).argmax(1) == labels
        mine = found["predicted"].long() == labels
        print(f"| {name} | {mine.sum()} | {right.sum()} | {(~mine & right).sum()} | {(mine & ~right).sum()} | {ours:.0f} and {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
