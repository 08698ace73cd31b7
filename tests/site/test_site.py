"""The documentation becomes a site: every page is in its summary, and every link between pages leads somewhere.

`python3 -m unittest discover -s tests/site`. The second test needs mdBook, which it builds once. It is skipped with the
reason where cargo cannot build it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import docs_site  # noqa: E402


class Site(unittest.TestCase):
    def test_the_summary_lists_every_page_once(self) -> None:
        summary = (ROOT / "docs/SUMMARY.md").read_text(encoding="utf-8")
        listed = re.findall(r"\]\(([^)]+\.md)\)", summary)
        self.assertEqual(len(listed), len(set(listed)))
        pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")} - {"SUMMARY.md"}
        # Results have a page for each run; the tables beside it are what it shows.
        pages = {page for page in pages if not page.startswith("results/") or page.endswith("README.md")}
        self.assertEqual({page for page in listed if not page.startswith("../")}, pages)

    def test_every_link_leads_somewhere(self) -> None:
        try:
            docs_site.mdbook()
        except (OSError, subprocess.CalledProcessError) as error:
            self.skipTest(f"mdBook cannot be built: {error}")
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, ROOT / "tools/docs_site.py", folder]
            done = subprocess.run(command, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            site = Path(folder)
            self.assertIn("Pipeline reference", (site / "docs/pipeline-reference.html").read_text(encoding="utf-8"))
            # A link that leads nowhere is seen.
            (site / "docs/glossary.html").write_text('<a href="nowhere.html">x</a><a href="#gone">x</a>', encoding="utf-8")
            broken = docs_site.broken_links(site.resolve())
            self.assertIn("docs/glossary.html: nowhere.html", broken)
            self.assertIn("docs/glossary.html: #gone", broken)


if __name__ == "__main__":
    unittest.main()
