"""Every dependency in the Cargo.toml files has its line of reason in docs/design-notes.md, and no other has."""

import re
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Dependencies(unittest.TestCase):
    def test_each_has_a_reason(self) -> None:
        # Read line by line: Python has a TOML reader only from 3.11 on.
        declared = set()
        for manifest in ("Cargo.toml", "src/worker/Cargo.toml"):
            section = ""
            for line in (ROOT / manifest).read_text().splitlines():
                if line.startswith("["):
                    section = line
                elif section.endswith("dependencies]") and (name := re.match(r"[\w-]+", line)):
                    declared.add(name.group())
        notes = (ROOT / "docs/design-notes.md").read_text().split("\n## Dependencies\n")[1].split("\n## ")[0]
        explained = set(re.findall(r"^- `([\w-]+)`: \S", notes, re.MULTILINE))
        self.assertEqual(sorted(declared), sorted(explained))


if __name__ == "__main__":
    unittest.main()
