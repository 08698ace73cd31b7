"""PyTorch loads what `atflow export` writes, and an attack of torchattacks takes part in a pipeline.

`python3 -m unittest discover -s tests/pytorch`. Skipped with the reason where atflow, PyTorch or torchattacks is missing.
$ATFLOW names the program [default: ./atflow], $ATFLOW_PYTORCH a Python with the libraries [default: this one].
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ATFLOW = Path(os.environ.get("ATFLOW") or ROOT / "atflow").absolute()
PYTHON = os.environ.get("ATFLOW_PYTORCH") or sys.executable
DATA = ROOT / "pipelines/data/fashion-mnist"

STORY = f"""pipeline: story
stages:
  fashion:
    kind: dataset
    with:
      format: idx
      train: {{images: {{path: {DATA}/t10k-images-idx3-ubyte.gz}}, labels: {{path: {DATA}/t10k-labels-idx1-ubyte.gz}}}}
      test: {{images: {{path: {DATA}/t10k-images-idx3-ubyte.gz}}, labels: {{path: {DATA}/t10k-labels-idx1-ubyte.gz}}}}
      classes: [a, b, c, d, e, f, g, h, i, j]
  model:
    kind: train
    matrix:
      net:
        small: {{arch: resnet, width: 4, blocks: [1, 2], mean: [0.286], std: [0.353]}}
        standardised: {{arch: resnet, width: 4, blocks: [1], standardise: true}}
        cifar18: {{arch: resnet18, stem: cifar, width: 4}}
        imagenet34: {{arch: resnet34, stem: imagenet, width: 4}}
        imagenet50: {{arch: resnet50, stem: imagenet, width: 4, classes: 12}}
        wide: {{arch: wideresnet, depth: 16, widen: 1}}
        rice: {{arch: preact_resnet18, width: 4}}
        wong: {{arch: preact_resnet18, width: 4, build: wong}}
        kuangliu: {{arch: preact_resnet18, width: 4, build: kuangliu}}
        deepmind: {{arch: dm_wide_resnet, depth: 10, widen: 1}}
        deepmindrelu: {{arch: dm_wide_resnet, depth: 10, widen: 1, activation: relu}}
        vit: {{arch: vit, side: 28, patch: 7, dim: 24, depth: 2}}
        convnext: {{arch: convnext, patch: 2, width: 8, blocks: [1, 2]}}
        convnextpatch: {{arch: convnext, patch: 1, width: 8, blocks: [1, 1]}}
    needs: {{data: fashion.train}}
    with: {{net: "${{net}}", epochs: 1, batch_size: 32, optimizer: {{lr: 0.05}}, limit: 128}}
  tested: {{kind: evaluate, matrix: {{model: {{each: model}}}}, needs: {{set: fashion.test}}, with: {{limit: 100}}}}
  attacked:
    kind: evaluate
    matrix: {{model: {{each: model}}}}
    needs: {{set: fashion.test}}
    with: {{attack: {{attack: fgsm, eps: 8/255}}, limit: 50}}
"""

# A network with batch statistics, a counter and a buffer of bytes.
SCRIPT = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Linear(8 * 14 * 14, 10)
        self.register_buffer("order", torch.arange(10, dtype=torch.uint8))

    def forward(self, x):
        return self.fc(torch.relu(self.norm(self.conv(x))).flatten(1))[:, self.order.long()]

torch.manual_seed(0)
torch.jit.script(Net()).save("net.pt")
"""

OWN = STORY.split("  model:")[0] + """
  net: {kind: file, with: {source: {path: net.pt}}}
  model:
    kind: train
    needs: {data: fashion.train, network: net}
    with: {net: {arch: torchscript, mean: [0.286], std: [0.353]}, epochs: 1, batch_size: 32, optimizer: {lr: 0.05}, limit: 128}
  tested: {kind: evaluate, needs: {model: model, set: fashion.test}, with: {limit: 100}}
"""

# Prints for an exported network, a set and predictions how often the predictions differ, and by how much the losses do.
COMPARE = """
import json, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
from modeling import load

def read(path):
    data = bytearray(Path(path).read_bytes())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8 : 8 + length]))
    header.pop("__metadata__")
    types = {"U8": torch.uint8, "I32": torch.int32, "F32": torch.float32}
    part = lambda entry: data[8 + length + entry["data_offsets"][0] : 8 + length + entry["data_offsets"][1]]
    return {name: torch.frombuffer(part(entry), dtype=types[entry["dtype"]]).view(entry["shape"]) for name, entry in header.items()}

images, predictions = read(sys.argv[2]), read(sys.argv[3])
n = len(predictions["labels"])
with torch.no_grad():
    logits = load(sys.argv[1])(images["images"][:n].float() / 255)
losses = torch.nn.functional.cross_entropy(logits, images["labels"][:n].long(), reduction="none")
print(json.dumps([int((logits.argmax(1) != predictions["predicted"]).sum()), float((losses - predictions["loss"]).abs().max())]))
"""


def lacks(*libraries: str) -> str:
    """Which libraries Python cannot import, with the command that installs them."""
    found = lambda name: subprocess.run([PYTHON, "-c", f"import {name}"], capture_output=True).returncode == 0
    missing = [name for name in libraries if not found(name)]
    return f"{PYTHON} lacks {' and '.join(missing)}: pip install {' '.join(missing)}" if missing else ""


@unittest.skipUnless(ATFLOW.exists(), f"{ATFLOW} is missing: make build")
class PyTorch(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.space = Path(folder.name)

    def atflow(self, *args: str) -> str:
        # A cache beside the pipelines of this repository would serve otherwise, and be written to.
        environment = {**os.environ, "ATFLOW_CACHE": "cache"}
        done = subprocess.run([ATFLOW, *args], cwd=self.space, env=environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def output(self, stage: str, name: str) -> str:
        return json.loads(self.atflow("show", stage, "--json"))["outputs"][name]["path"]

    @unittest.skipIf(lacks("torch"), lacks("torch"))
    def test_every_network_that_is_exported_gives_the_same_predictions(self) -> None:
        (self.space / "p.yaml").write_text(STORY)
        self.atflow("run", "p.yaml", "-q")
        for net in re.findall(r"^ {8}(\w+): \{arch", STORY, re.MULTILINE):
            with self.subTest(net):
                self.atflow("export", f"model/{net}", "-o", net)
                files = [net, self.output("fashion", "test"), self.output(f"tested/{net}", "predictions")]
                done = subprocess.run([PYTHON, "-c", COMPARE, *files], cwd=self.space, capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stderr)
                different, loss = json.loads(done.stdout)
                self.assertEqual(different, 0)
                self.assertLess(loss, 1e-4)

    @unittest.skipIf(lacks("torch"), lacks("torch"))
    def test_a_torchscript_network_is_exported_with_its_program(self) -> None:
        # TorchScript reads the source of a class from its file.
        (self.space / "net.py").write_text(SCRIPT)
        subprocess.run([PYTHON, "-W", "ignore", "net.py"], cwd=self.space, check=True)
        (self.space / "p.yaml").write_text(OWN)
        self.atflow("run", "p.yaml", "-q")
        self.atflow("export", "model", "-o", "own")
        files = ["own", self.output("fashion", "test"), self.output("tested", "predictions")]
        done = subprocess.run([PYTHON, "-W", "ignore", "-c", COMPARE, *files], cwd=self.space, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        different, loss = json.loads(done.stdout)
        self.assertEqual(different, 0)
        self.assertLess(loss, 1e-4)
        self.assertIn("This checkpoint holds a program", (self.space / "own/README.md").read_text())

    @unittest.skipIf(lacks("torch", "torchattacks"), lacks("torch", "torchattacks"))
    def test_an_attack_of_torchattacks_stands_in_a_table(self) -> None:
        pipeline = str(ROOT / "pipelines/own-attack.yaml")
        self.atflow("run", pipeline, "attacks", "--profile", "smoke", "--set", f"python={PYTHON}", "-q")
        table = (self.space / "results").glob("own-attack@*/attacks.json")
        cells = json.loads(next(iter(table)).read_text())
        columns = [column["label"] for column in cells["columns"]]
        self.assertEqual(columns[2:], ["torchattacks", "torchattacks in 8 bits", "worse of both"])
        for row in cells["cells"]:
            hits = [cell["hits"] for cell in row]
            self.assertEqual({cell["n"] for cell in row[1:]}, {64})
            # The worse of both is never better than either.
            self.assertLessEqual(hits[4], min(hits[1], hits[2]))


if __name__ == "__main__":
    unittest.main()
