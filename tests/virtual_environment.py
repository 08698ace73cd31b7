"""Virtual environments for tests that read results with libraries of others, made once in the cache folder."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def programs(name: str, requirements: Path, *beside: Path, then: Callable[[Path], None] | None = None) -> Path:
    """The folder of the programs of an environment with some packages, made once for each version of the files.

    `then` is called with the folder of the environment when that is new; `beside` are the files that it depends on.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = requirements.read_bytes() + b"".join(file.read_bytes() for file in beside) + version.encode()
    home = Path(os.environ.get("ATFLOW_HOME") or Path.home() / ".cache/atflow")
    folder = home / f"{name}-{hashlib.sha256(wanted).hexdigest()[:12]}"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(requirements)], check=True)
        if then:
            then(folder)
        (folder / "complete").touch()
    return folder / "bin"
