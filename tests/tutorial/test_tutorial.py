"""Every command of docs/tutorial.md runs, in the order of the page, as a reader would type it.

`python3 -m unittest discover -s tests/tutorial`. Needs atflow with its worker, Python 3.11 or newer and, once, the
package index. Skipped with the reason where one of them is missing. $ATFLOW names the program [default: ./atflow].
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from virtual_environment import programs  # noqa: E402

ATFLOW = Path(os.environ.get("ATFLOW") or ROOT / "atflow").absolute()
PAGE = ROOT / "docs/tutorial.md"
# The reader waits some minutes for the experiment; a test trains on fewer images for fewer epochs.
SHORTER = {"epochs": "1", "images_per_class": "60"}


def blocks(page: str) -> list[tuple[str, str]]:
    """The code of a page: its language and its text."""
    return re.findall(r"^```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


@unittest.skipUnless(ATFLOW.exists(), f"{ATFLOW} is missing: make build")
class Tutorial(unittest.TestCase):
    def test_every_command_runs(self) -> None:
        try:
            python = programs("tutorial", Path(__file__).with_name("requirements.txt"))
        except (OSError, subprocess.CalledProcessError) as error:
            self.skipTest(f"no environment with scikit-image: {error}")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        space = Path(folder.name)
        (space / "photos.py").write_bytes((ROOT / "docs/tutorial/photos.py").read_bytes())
        (space / "bin").mkdir()
        (space / "bin/atflow").symlink_to(ATFLOW)
        path = os.pathsep.join([str(space / "bin"), str(python), "/usr/local/bin", "/usr/bin", "/bin"])
        environment = {"PATH": path, "HOME": str(space), "LANG": "C.UTF-8"}
        shell, where = "", space
        for language, text in blocks(PAGE.read_text(encoding="utf-8")):
            if language == "yaml":
                pipeline = where / "pipeline.yaml"
                pipeline.write_text(pipeline.read_text(encoding="utf-8") + "\n" + text, encoding="utf-8")
            if language != "sh":
                continue
            for line in text.splitlines():
                # The environment of the test stands in for it.
                if line.startswith("pip install"):
                    continue
                shell = f"set -e\n{line}\npwd > {space}/where"
                done = subprocess.run(["sh", "-c", shell], cwd=where, env=environment, capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, f"{line}\n{done.stdout}\n{done.stderr}")
                where = Path((space / "where").read_text().strip())
                if line.startswith("atflow init"):
                    self.shorten(space / "surfaces/pipeline.yaml")
        results = space / "surfaces/results/photos"
        for name in ("robustness.md", "saturation.tex", "smoothgrad.png", "report.html"):
            self.assertTrue((results / name).exists(), name)
        self.assertTrue((space / "surfaces/export/photos/model-pgd/modeling.py").exists())

    def shorten(self, pipeline: Path) -> None:
        text = pipeline.read_text(encoding="utf-8")
        for name, value in SHORTER.items():
            text, count = re.subn(rf"^  {name}: .*$", f"  {name}: {value}", text, flags=re.MULTILINE)
            self.assertGreaterEqual(count, 1, name)
        pipeline.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    unittest.main()
