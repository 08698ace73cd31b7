"""Runs readers.py with the libraries that it needs, in a virtual environment of its own.

`python3 -m unittest discover -s tests/notebook`. Needs Python 3.11 or newer and, once, the package index. Skipped with
the reason where Python is older or cannot make virtual environments.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from virtual_environment import programs  # noqa: E402


@unittest.skipIf(sys.version_info < (3, 11), "Python 3.11 or newer is missing")
@unittest.skipUnless(importlib.util.find_spec("ensurepip"), "venv is missing (Debian: apt-get install python3-venv)")
class Notebook(unittest.TestCase):
    def run_readers(self, name: str) -> str:
        python = programs("notebook", HERE / "requirements.txt") / "python"
        command = [python, "-m", "unittest", "-v", f"readers.{name}"]
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stderr

    def test_pandas_and_polars_read_the_tables(self) -> None:
        self.assertNotIn("skipped", self.run_readers("Readers"))

    def test_the_code_of_the_page_runs(self) -> None:
        said = self.run_readers("Notebook")
        if "skipped" in said:
            self.skipTest(said.split("skipped", 1)[1].splitlines()[0].strip(" '\""))


if __name__ == "__main__":
    unittest.main()
