#!/usr/bin/env python3
"""Finds libtorch 2.11.0 or makes it, and prints its folder as the last line of stdout. Words go to stderr.

Looked for in this order:
  1. $LIBTORCH, which must then be right;
  2. what an earlier set-up of this checkout chose (with --cargo-config);
  3. a PyTorch 2.11.0 installed in this Python;
  4. the cache folder, $ATFLOW_HOME or ~/.cache/atflow;
  5. made there: on Linux x86-64 for the CPU cut out of three wheels (540 MB to fetch, 500 MB kept), otherwise a virtual
     environment with PyTorch in it.

Needs nothing but the standard library of Python 3.9. pip is asked for the address of its package index.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import hashlib
import html.parser
import http.client
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

VERSION = "2.11.0"

# What a libtorch for the CPU is cut out of. The package index has PyTorch for Linux x86-64 only with CUDA; the parts that
# the CPU needs work alone. libtorch_cpu.so names the two CUDA libraries as needed though it never calls them without a GPU.
# `unpack` says which members of a wheel go where; a name that ends in / is a folder. `sizes` are those of the unpacked files.
RECIPE = {
    "wheels": [
        {
            "project": "torch",
            "version": "2.11.0",
            "file": "torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl",
            "size": 530604548,
            "sha256": "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
            "unpack": {
                "torch/include/": "include/",
                "torch/lib/libtorch_cpu.so": "lib/libtorch_cpu.so",
                "torch/lib/libc10.so": "lib/libc10.so",
                "torch/lib/libgomp.so.1": "lib/libgomp.so.1",
            },
        },
        {
            "project": "nvidia-cuda-cupti",
            "version": "13.0.85",
            "file": "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
            "size": 10715597,
            "sha256": "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
            "unpack": {"nvidia/cu13/lib/libcupti.so.13": "lib/libcupti.so.13"},
        },
        {
            "project": "nvidia-cuda-runtime",
            "version": "13.0.96",
            "file": "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
            "size": 2243632,
            "sha256": "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
            "unpack": {"nvidia/cu13/lib/libcudart.so.13": "lib/libcudart.so.13"},
        },
    ],
    "sizes": {
        "lib/libtorch_cpu.so": 451209129,
        "lib/libc10.so": 1498969,
        "lib/libgomp.so.1": 254009,
        "lib/libcupti.so.13": 4152208,
        "lib/libcudart.so.13": 704288,
    },
}

CPU_FOLDER = f"libtorch-{VERSION}-cpu"
MARKER = "made-from.json"
ENOUGH_DISK = 2_500_000_000
# Attempts in a row that bring no new byte, before the download is given up.
ATTEMPTS = 6
CHUNK = 1 << 18


class SetupError(Exception):
    """Something that the user can put right; the message says how."""


class IndexUnusable(Exception):
    """The package index cannot be used directly; pip may still know how."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------- a folder that may be libtorch


def folder_version(folder: Path) -> str | None:
    """The version that a libtorch or an installed PyTorch claims, without what follows a plus sign."""
    with contextlib.suppress(OSError):
        return (folder / "build-version").read_text().strip().split("+")[0]
    with contextlib.suppress(OSError):
        found = re.search(r"__version__\s*=\s*['\"]([^'\"+]+)", (folder / "version.py").read_text())
        if found:
            return found.group(1)
    for header in ("headeronly/version.h", "csrc/api/include/torch/version.h"):
        with contextlib.suppress(OSError):
            text = (folder / "include/torch" / header).read_text()
            parts = [re.search(rf"TORCH_VERSION_{part}\s+(\d+)", text) for part in ("MAJOR", "MINOR", "PATCH")]
            if all(parts):
                return ".".join(part.group(1) for part in parts)
    return None


def fault(folder: Path, device: str) -> str | None:
    """Why the folder cannot serve, or None if it can."""
    if not folder.is_dir():
        return "there is no such folder"
    version = folder_version(folder)
    if version is None:
        return "it is no libtorch: neither build-version, version.py nor include/torch tells a version"
    if version != VERSION:
        return f"it is libtorch {version}"
    suffix = "dylib" if sys.platform == "darwin" else "so"
    libraries = ["torch", "torch_cpu", "c10"] + (["torch_cuda"] if device == "cuda" else [])
    wanted = ["include/torch/csrc/api/include/torch/torch.h"] + [f"lib/lib{name}.{suffix}" for name in libraries]
    missing = [name for name in wanted if not (folder / name).exists()]
    return f"it lacks {', '.join(missing)}" if missing else None


def installed_pytorch(device: str) -> Path | None:
    """PyTorch 2.11.0 as installed in this Python. Only looked at, never imported: importing takes seconds."""
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return None
    for place in (spec.submodule_search_locations or []) if spec else []:
        why = fault(Path(place), device)
        if why is None:
            return Path(place).resolve()
        say(f"Not used: PyTorch in {place}: {why}.")
    return None


def made_from(recipe: dict) -> dict:
    return {"version": VERSION, "wheels": {wheel["file"]: wheel["sha256"] for wheel in recipe["wheels"]}}


def complete(folder: Path, recipe: dict) -> bool:
    """Whether the folder is what `cut_out` makes.

    Folders appear whole, by a rename; sizes are compared all the same, for a disk that lost power or a copy made by hand.
    A copy made by hand has no marker and is taken if everything else is right.
    """
    if fault(folder, "cpu") is not None:
        return False
    for name, size in recipe["sizes"].items():
        try:
            if (folder / name).stat().st_size != size:
                return False
        except OSError:
            return False
    try:
        return json.loads((folder / MARKER).read_text()) == made_from(recipe)
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False


# ------------------------------------------------------------------------------------------------------- the package index


def pip_setting(name: str) -> str | None:
    """A setting of pip, from its environment variable or its files."""
    if value := os.environ.get("PIP_" + name.upper().replace("-", "_")):
        return value
    for section in ("global", "download"):
        # The working folder is nobody's: a stray pip.py must not be taken for pip.
        done = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", f"{section}.{name}"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/",
        )
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip()
    return None


def index_url() -> str:
    if url := pip_setting("index-url"):
        return url
    try:
        from pip._internal.models.index import PyPI
    except ImportError as error:
        raise IndexUnusable(f"pip does not tell its index ({error})") from error
    return PyPI.simple_url


def tls_context() -> ssl.SSLContext:
    """Trusts what the system trusts, and what pip was told to trust or brings itself: some Pythons come without certificates."""
    context = ssl.create_default_context()
    bundle = pip_setting("cert")
    if bundle is None and not context.get_ca_certs():
        with contextlib.suppress(ImportError):
            from pip._vendor import certifi

            bundle = certifi.where()
    if bundle:
        with contextlib.suppress(OSError):
            context.load_verify_locations(bundle)
    return context


class Links(html.parser.HTMLParser):
    """The addresses on a page of the simple index's HTML form."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag == "a" and dict(attrs).get("href"):
            self.found.append(dict(attrs)["href"])


class Index:
    """A package index that speaks the simple repository API, in its JSON or its HTML form."""

    def __init__(self) -> None:
        self.url = index_url().rstrip("/") + "/"
        if "@" in urllib.parse.urlsplit(self.url).netloc:
            raise IndexUnusable("the package index has a password in its address")
        self.tls = tls_context() if self.url.startswith("https:") else None

    def open(self, url: str, headers: dict):
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60, context=self.tls)

    def find(self, project: str, file: str) -> str:
        """The address of a file."""
        accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
        try:
            with self.open(f"{self.url}{project}/", {"Accept": accept}) as answer:
                page, kind, base = answer.read().decode(), answer.headers.get_content_type(), answer.geturl()
            if kind.endswith("json"):
                links = [entry["url"] for entry in json.loads(page)["files"]]
            else:
                links = Links(page).found
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
            raise IndexUnusable(f"the package index gave no list of {project}: {error}") from error
        for link in links:
            url = urllib.parse.urljoin(base, link)
            if urllib.parse.unquote(urllib.parse.urlsplit(url).path).endswith("/" + file):
                return urllib.parse.urldefrag(url).url
        raise IndexUnusable(f"the package index does not list {file}")


class Progress:
    """How far a download is: one line kept up to date on a terminal, elsewhere a line every ten seconds."""

    def __init__(self, name: str, total: int, done: int) -> None:
        self.name, self.total, self.start = name, total, done
        self.began = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.shown = self.began if not self.terminal else 0.0

    def show(self, done: int, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self.shown < (0.2 if self.terminal else 10):
            return
        self.shown = now
        rate = (done - self.start) / max(now - self.began, 1e-3) / 1e6
        line = f"  {self.name}  {100 * done // self.total}% of {self.total / 1e6:.0f} MB, {rate:.1f} MB/s"
        if self.terminal:
            print(f"\r{line}\x1b[K", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            say(line)


def checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def right(path: Path, wheel: dict) -> bool:
    return path.stat().st_size == wheel["size"] and checksum(path) == wheel["sha256"]


def download(index: Index, wheel: dict, folder: Path) -> Path:
    """Fetches a wheel, going on where an earlier attempt or an earlier run stopped."""
    final, part = folder / wheel["file"], folder / (wheel["file"] + ".part")
    url = index.find(wheel["project"], wheel["file"])
    failures = 0
    progress = Progress(wheel["project"], wheel["size"], part.stat().st_size if part.exists() else 0)
    while True:
        have = part.stat().st_size if part.exists() else 0
        if have >= wheel["size"]:
            break
        try:
            # An encoding on the way would make the offsets wrong.
            headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
            with index.open(url, headers) as answer:
                # A server that ignores the range sends the file from its start.
                if have and answer.status != 206:
                    have = 0
                progress.start = min(progress.start, have)
                with part.open("ab" if have else "wb") as file:
                    # Never more than a byte beyond what is wanted: a longer file is a wrong one.
                    while have <= wheel["size"] and (chunk := answer.read(min(CHUNK, wheel["size"] + 1 - have))):
                        file.write(chunk)
                        have += len(chunk)
                        failures = 0
                        progress.show(have)
            if have < wheel["size"]:
                raise http.client.IncompleteRead(b"", wheel["size"] - have)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise IndexUnusable(f"the package index refuses {wheel['file']}: {error}") from error
            failure = error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            failure = error
        else:
            continue
        failures += 1
        if failures >= ATTEMPTS:
            raise IndexUnusable(f"{wheel['file']} could not be fetched: {failure}")
        wait = 2 ** (failures - 1)
        say(f"  {wheel['project']}: the connection was cut ({failure}); trying again in {wait} s")
        time.sleep(wait)
    progress.show(have, last=True)
    if not right(part, wheel):
        part.unlink()
        raise SetupError(
            f"{wheel['file']} from the package index is not the file that was asked for: its bytes do not have the SHA-256 "
            f"{wheel['sha256']}. It was deleted. Run this again; if it stays so, the index or something on the way changes files."
        )
    part.replace(final)
    return final


def pip_download(wheel: dict, folder: Path) -> Path:
    """Fetches a wheel with pip, which knows indices that ask for a password and other ways that `Index` does not."""
    tags = wheel["file"][: -len(".whl")].split("-")
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder),
        *[argument for tag in tags[4].split(".") for argument in ("--platform", tag)],
        "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311",
        f"{wheel['project']}=={wheel['version']}",
    ]  # fmt: skip
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, cwd="/")
    path = folder / wheel["file"]
    if done.returncode != 0 or not path.exists():
        raise SetupError(f"pip could not download {wheel['project']}=={wheel['version']}.\n{other_ways()}")
    if not right(path, wheel):
        path.unlink()
        raise SetupError(f"{wheel['file']} from pip does not have the SHA-256 {wheel['sha256']}. It was deleted.")
    return path


def fetch(recipe: dict, folder: Path) -> list[Path]:
    """All wheels of the recipe, checked."""
    folder.mkdir(parents=True, exist_ok=True)
    index, paths = None, []
    for wheel in recipe["wheels"]:
        path = folder / wheel["file"]
        if not (path.exists() and right(path, wheel)):
            try:
                index = index or Index()
                path = download(index, wheel, folder)
            except IndexUnusable as error:
                say(f"{error}. Trying pip itself.")
                path = pip_download(wheel, folder)
        paths.append(path)
    return paths


def other_ways() -> str:
    return (
        f"Three ways to give atflow its libtorch {VERSION}:\n"
        f"  - set LIBTORCH to an unpacked libtorch {VERSION}, or to the folder site-packages/torch of a PyTorch {VERSION};\n"
        f"  - install torch=={VERSION} in the Python that `python3` names (a virtual environment is fine);\n"
        "  - let this computer reach a package index that has it (pip must be installed), and run this again."
    )


# -------------------------------------------------------------------------------------------------------- making libtorch


def c_compiler() -> list[str]:
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and shutil.which(shlex.split(name)[0]):
            return shlex.split(name)
    raise SetupError("There is no C compiler. On Debian or Ubuntu: apt-get install g++")


def unpack(wheel: Path, members: dict, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            for source, destination in members.items():
                if member.filename == source:
                    target = folder / destination
                elif source.endswith("/") and member.filename.startswith(source):
                    target = folder / destination / member.filename[len(source) :]
                else:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as packed, target.open("wb") as plain:
                    shutil.copyfileobj(packed, plain, 1 << 20)


def replace_folder(made: Path, folder: Path) -> None:
    """Gives a finished folder its name. Before this nobody sees it; a folder that was there before is incomplete and goes."""
    if folder.exists():
        old = folder.with_name(f"{folder.name}.old-{os.getpid()}")
        folder.rename(old)
        made.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        made.rename(folder)


@contextlib.contextmanager
def workshop(home: Path, folder: Path):
    """A temporary folder beside `folder`, for the only set-up that works in `home` now. What a killed one left is removed."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"Another set-up is working in {home}; waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for pattern in (".tmp-*", ".old-*"):
            for left in home.glob(folder.name + pattern):
                shutil.rmtree(left, ignore_errors=True)
        temporary = home / f"{folder.name}.tmp-{os.getpid()}"
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def warn_of_disk(home: Path, wanted: int) -> None:
    free = shutil.disk_usage(home).free
    if free < wanted:
        say(f"Warning: {free / 1e9:.1f} GB are free in {home}; the set-up and the build want about {wanted / 1e9:.1f} GB.")


def cut_out(home: Path, recipe: dict, keep_downloads: bool) -> Path:
    """libtorch for the CPU out of the wheels of the recipe."""
    folder = home / CPU_FOLDER
    if complete(folder, recipe):
        return folder
    libc, release = platform.libc_ver()
    if libc != "glibc" or tuple(int(part) for part in release.split(".")[:2]) < (2, 28):
        raise SetupError(f"PyTorch's files need glibc 2.28 or newer; this system has {libc or 'another C library'} {release}.\n{other_ways()}")
    compiler = c_compiler()
    with workshop(home, folder) as temporary:
        # The set-up that was waited for may have made it.
        if complete(folder, recipe):
            return folder
        warn_of_disk(home, ENOUGH_DISK)
        total = sum(wheel["size"] for wheel in recipe["wheels"])
        say(f"Making libtorch {VERSION} for the CPU in {folder}: {total / 1e6:.0f} MB to fetch, once for all checkouts.")
        downloads = home / "downloads"
        paths = fetch(recipe, downloads)
        say("Unpacking.")
        for path, wheel in zip(paths, recipe["wheels"]):
            unpack(path, wheel["unpack"], temporary)
        # tch links against libtorch.so. The wheel's own one pulls in the CUDA half; nothing in it is ever called.
        command = [*compiler, "-shared", "-Wl,-soname,libtorch.so", "-o", str(temporary / "lib/libtorch.so"), "-x", "c", os.devnull]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SetupError(f"`{shlex.join(command)}` failed:\n{done.stderr}")
        (temporary / "build-version").write_text(VERSION + "\n")
        (temporary / MARKER).write_text(json.dumps(made_from(recipe), indent=1) + "\n")
        if not complete(temporary, recipe):
            raise SetupError(f"What came out of the wheels is not libtorch {VERSION}: {fault(temporary, 'cpu') or 'sizes differ'}.")
        replace_folder(temporary, folder)
        if not keep_downloads:
            for path in paths:
                path.unlink()
            with contextlib.suppress(OSError):
                downloads.rmdir()
    return folder


def virtual_environment(home: Path, device: str) -> Path:
    """PyTorch as pip installs it, in a virtual environment of its own."""
    folder = home / f"pytorch-{VERSION}-{device}"

    def inside(base: Path) -> Path | None:
        return next((place for place in base.glob("lib/python3*/site-packages/torch") if fault(place, device) is None), None)

    if found := inside(folder):
        return found
    with workshop(home, folder) as temporary:
        if found := inside(folder):
            return found
        cuda = device == "cuda"
        warn_of_disk(home, 12_000_000_000 if cuda else ENOUGH_DISK)
        say(f"Installing PyTorch {VERSION} in {folder}" + (": about 5 GB with CUDA." if cuda else "."))
        # Installed libraries find each other relative to themselves, so the folder can be renamed afterwards; only the
        # environment's own commands (pip, activate) cannot, and nobody needs them.
        for command in (
            [sys.executable, "-m", "venv", str(temporary)],
            [str(temporary / "bin/python"), "-m", "pip", "install", f"torch=={VERSION}"],
        ):
            if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, cwd="/").returncode != 0:
                raise SetupError(f"`{shlex.join(command)}` failed.\n{other_ways()}")
        if not inside(temporary):
            raise SetupError(f"pip installed a PyTorch that does not serve here (device {device}).\n{other_ways()}")
        replace_folder(temporary, folder)
    return inside(folder)


def libtorch(device: str, home: Path, earlier: str | None, recipe: dict, keep_downloads: bool) -> tuple[Path, str]:
    """The folder of libtorch, and where it comes from."""
    if given := os.environ.get("LIBTORCH"):
        folder = Path(os.path.abspath(os.path.expanduser(given)))
        if why := fault(folder, device):
            raise SetupError(f"LIBTORCH is {folder}, but {why}. atflow needs libtorch {VERSION}{' with CUDA' if device == 'cuda' else ''}.")
        return folder, "$LIBTORCH"
    # The cache folder is looked at more closely below.
    if earlier and Path(earlier) != home / CPU_FOLDER and fault(Path(earlier), device) is None:
        return Path(earlier), "chosen before"
    before = earlier == str(home / CPU_FOLDER) and device == "cpu" and complete(home / CPU_FOLDER, recipe)
    if not before and (found := installed_pytorch(device)):
        return found, "the installed PyTorch"
    if device == "cpu" and sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64"):
        return cut_out(home, recipe, keep_downloads), "the cache folder"
    return virtual_environment(home, device), "the cache folder"


# ------------------------------------------------------------------------------------------------------ cargo's settings

CONFIG_HEAD = "# Written by `make setup`. Delete this file to have libtorch and the build folder chosen again.\n"


def build_folder(home: Path, checkout: Path) -> Path:
    """Where cargo builds this checkout: outside it, so that a checkout made anew in its place finds what was built.

    Never shared by two checkouts. Cargo names what it builds by paths within a workspace and compares times, so in a shared
    folder it takes what another checkout built for its own. A folder whose checkout is gone is handed on, because
    compiling tch's C++ takes minutes; only what was built from the gone checkout's own sources is dropped.
    """
    name = f"{checkout.name}-{hashlib.sha256(os.fsencode(checkout)).hexdigest()[:8]}"
    folder = home / "build" / name
    # The inode tells a checkout from a later one in its place, whose files may be older than what was built.
    identity = f"{checkout}\n{checkout.stat().st_ino}\n"
    candidates = [folder] if folder.exists() else sorted((home / "build").glob("*"))
    for candidate in candidates:
        owner = ""
        with contextlib.suppress(OSError):
            owner = (candidate / "checkout").read_text()
        if owner == identity:
            return folder
        path = owner.partition("\n")[0]
        if candidate != folder and path and Path(path).exists():
            continue
        # Another set-up may be quicker to take it; then it is gone, and the next one is looked at.
        with contextlib.suppress(FileNotFoundError):
            for record in candidate.glob("*/.fingerprint/atflow*"):
                shutil.rmtree(record)
            candidate.rename(folder)
            break
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkout").write_text(identity)
    return folder


def read_config(path: Path) -> tuple[bool, str | None]:
    """Whether the file is ours to write, and which libtorch it names."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return True, None
    named = re.search(r'^LIBTORCH = (".*")$', text, re.MULTILINE)
    with contextlib.suppress(ValueError):
        return text.startswith(CONFIG_HEAD), json.loads(named.group(1)) if named else None
    return text.startswith(CONFIG_HEAD), None


def write_config(path: Path, folder: Path, target: Path) -> None:
    """Writes the file only where it changes, whole or not at all."""

    def quoted(value: Path) -> str:
        return json.dumps(str(value), ensure_ascii=False)

    text = f"{CONFIG_HEAD}[env]\nLIBTORCH = {quoted(folder)}\n\n[build]\ntarget-dir = {quoted(target)}\n"
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def cache_home() -> Path:
    if own := os.environ.get("ATFLOW_HOME"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "atflow"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], epilog=__doc__.split("\n\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: libtorch must have its CUDA half")
    parser.add_argument("--home", type=Path, default=cache_home(), metavar="DIR", help="the cache folder (default: %(default)s)")
    parser.add_argument("--cargo-config", type=Path, metavar="FILE", help="also write cargo's settings for this checkout to FILE")
    parser.add_argument("--keep-downloads", action="store_true", help="keep the fetched wheels")
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="other wheels than the pinned ones, as JSON (for tests)")
    arguments = parser.parse_args()
    home = Path(os.path.abspath(arguments.home.expanduser()))
    recipe = json.loads(arguments.recipe.read_text()) if arguments.recipe else RECIPE

    config = arguments.cargo_config
    ours, earlier = read_config(config) if config else (False, None)
    folder, origin = libtorch(arguments.device, home, earlier, recipe, arguments.keep_downloads)
    say(f"libtorch {VERSION}: {folder} ({origin})")
    if config and ours:
        checkout = Path(os.path.abspath(config)).parent.parent
        write_config(config, folder, build_folder(home, checkout))
    elif config:
        say(f"{config} is not from `make setup` and stays as it is.")
    print(folder)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SetupError as error:
        say(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        say("\nStopped. Run it again to go on.")
        sys.exit(130)
    except OSError as error:
        hint = " Free some space and run it again; it goes on where it stopped." if error.errno == errno.ENOSPC else ""
        say(f"error: {error}.{hint}")
        sys.exit(2)
