#!/usr/bin/env python3
"""Builds the documentation as a site, with mdBook, and checks every link between its pages.

    python3 tools/docs_site.py FOLDER

Takes mdBook from PATH, or builds it once into the cache folder ($ATFLOW_HOME, else ~/.cache/atflow). The pages are those
that docs/SUMMARY.md lists, and stand as in the repository, so that links between them hold there and on the site.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
VERSION = "0.5.4"
# Beside the pages: what they link to.
ASSETS = ["LICENSE", "pipelines"]
# Data sets and weights are no part of a site.
LEFT_OUT = shutil.ignore_patterns("*.gz", "*.zip", "*.tar", "*.safetensors", "__pycache__")


def mdbook() -> Path:
    """The program; builds it if this machine has none."""
    found = shutil.which("mdbook")
    if found:
        return Path(found)
    folder = Path(os.environ.get("ATFLOW_HOME") or Path.home() / ".cache/atflow") / f"mdbook-{VERSION}"
    program = folder / "bin/mdbook"
    if not program.exists():
        print(f"building mdBook {VERSION}, once", file=sys.stderr)
        features = ["--no-default-features", "--features", "search"]
        install = ["cargo", "install", "--quiet", "--locked", "--root", str(folder), f"mdbook@{VERSION}", *features]
        # Neither the toolchain nor the build folder of this repository: mdBook is no part of it.
        subprocess.run(install, check=True, cwd=tempfile.gettempdir())
    return program


def lay_out(book: Path) -> None:
    """Copies what mdBook reads: the pages as they stand in the repository, and the summary above them."""
    source = book / "src"
    summary = (ROOT / "docs/SUMMARY.md").read_text(encoding="utf-8")
    shutil.copytree(ROOT / "docs", source / "docs", ignore=shutil.ignore_patterns("SUMMARY.md", "book.toml"))
    for page in re.findall(r"\]\(\.\./([^)]+)\)", summary) + ASSETS:
        target = source / page
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / page).is_dir():
            shutil.copytree(ROOT / page, target, ignore=LEFT_OUT)
        else:
            shutil.copy(ROOT / page, target)
    # mdBook calls the page of a README index, and leaves links to it as they are.
    for page in source.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        page.write_text(re.sub(r"(\]\([^)\s]*?)README\.md(?=[#)])", r"\1index.md", text), encoding="utf-8")
    lines = re.sub(r"\]\((?!\.\./)", "](docs/", summary).replace("](../", "](")
    (source / "SUMMARY.md").write_text(lines, encoding="utf-8")
    shutil.copy(ROOT / "docs/book.toml", book / "book.toml")


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def broken_links(site: Path) -> list[str]:
    """The links of a site that lead nowhere within it. Other sites are not asked."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    broken = []
    for path, page in pages.items():
        # These two repeat the others, with links from elsewhere.
        if path.name in ("print.html", "toc.html", "404.html"):
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("/"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            is_there = target.exists() and (not anchor or target not in pages or anchor in pages[target].anchors)
            if not is_there:
                broken.append(f"{path.relative_to(site)}: {link}")
    return broken


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    site = Path(sys.argv[1]).absolute()
    with tempfile.TemporaryDirectory() as folder:
        book = Path(folder)
        lay_out(book)
        subprocess.run([mdbook(), "build", "--dest-dir", site, book], check=True)
    broken = broken_links(site.resolve())
    if broken:
        sys.exit("links that lead nowhere:\n  " + "\n  ".join(broken))
    print(site / "index.html")


if __name__ == "__main__":
    main()
