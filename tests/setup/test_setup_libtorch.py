"""Stories about tools/setup_libtorch.py, told to a package index on the loopback interface with small wheels."""

import contextlib
import hashlib
import http.server
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import zipfile
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "tools/setup_libtorch.py"
VERSION = "2.11.0"
TORCH_H = "include/torch/csrc/api/include/torch/torch.h"


def wheel(name: str, tag: str, members: dict) -> bytes:
    """A wheel that pip accepts. Stored, not compressed, so that cuts fall where the test says."""
    project, version = name.split("-")
    info = f"{name}.dist-info/"
    members = {
        **members,
        info + "METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n",
        info + "WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    members[info + "RECORD"] = "".join(f"{member},,\n" for member in [*members, info + "RECORD"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, content in members.items():
            archive.writestr(zipfile.ZipInfo(member), content)
    return buffer.getvalue()


LIBRARY = bytes(range(256)) * 4000  # 1 MB
TORCH_WHEEL = wheel(
    "torch-2.11.0",
    "cp311-cp311-manylinux_2_28_x86_64",
    {
        # Some wheels list their folders, too.
        "torch/include/": "",
        "torch/" + TORCH_H: "// torch.h",
        "torch/include/ATen/ATen.h": "// ATen.h",
        "torch/lib/libtorch_cpu.so": LIBRARY,
        "torch/lib/libc10.so": b"c10",
        "torch/lib/libtorch_cuda.so": b"must not be unpacked",
    },
)
CUDART_WHEEL = wheel(
    "nvidia_cuda_runtime-13.0.96",
    "py3-none-manylinux2014_x86_64",
    {"nvidia/cu13/lib/libcudart.so.13": b"cudart", "nvidia/cu13/include/cuda.h": b"no"},
)
FILES = {
    "torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl": ("torch", TORCH_WHEEL),
    "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.whl": ("nvidia-cuda-runtime", CUDART_WHEEL),
}
# For any Python, to be installed by the test of the virtual environment.
WHOLE_TORCH = {
    "torch-2.11.0-py3-none-any.whl": (
        "torch",
        wheel(
            "torch-2.11.0",
            "py3-none-any",
            {
                "torch/__init__.py": "",
                "torch/version.py": "__version__ = '2.11.0+cu130'",
                "torch/" + TORCH_H: "",
                **{f"torch/lib/lib{name}.so": "" for name in ("torch", "torch_cpu", "torch_cuda", "c10")},
            },
        ),
    )
}
RECIPE = {
    "wheels": [
        {
            "project": project,
            "version": file.split("-")[1],
            "file": file,
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "unpack": {
                "torch": {
                    "torch/include/": "include/",
                    "torch/lib/libtorch_cpu.so": "lib/libtorch_cpu.so",
                    "torch/lib/libc10.so": "lib/libc10.so",
                },
                "nvidia-cuda-runtime": {"nvidia/cu13/lib/libcudart.so.13": "lib/libcudart.so.13"},
            }[project],
        }
        for file, (project, content) in FILES.items()
    ],
    "sizes": {"lib/libtorch_cpu.so": len(LIBRARY), "lib/libc10.so": 3, "lib/libcudart.so.13": 6},
}


class IndexServer(http.server.ThreadingHTTPServer):
    """A package index. Its attributes say how it misbehaves; `ranges` records what was asked of the big file."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.json = True
        self.cuts: list = []  # bytes after which each next download of the big file is cut
        self.hang_at = None  # bytes after which the big file stalls
        self.stalled = threading.Event()
        self.ignore_ranges = False
        self.flip = False  # one wrong byte
        self.password = None  # as in the Authorization header
        self.files = FILES
        self.ranges: list = []
        self.requests = 0
        self.url = f"http://127.0.0.1:{self.server_port}/simple/"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests += 1
        if self.server.password and self.headers["Authorization"] != self.server.password:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="index"')
            self.end_headers()
            return
        parts = self.path.strip("/").split("/")
        if parts[0] == "simple":
            self.page(parts[1])
        else:
            self.file(parts[1])

    def page(self, project: str) -> None:
        names = [file for file, (owner, _) in self.server.files.items() if owner == project]
        if self.server.json and "json" in self.headers["Accept"]:
            kind = "application/vnd.pypi.simple.v1+json"
            body = json.dumps({"meta": {"api-version": "1.0"}, "name": project, "files": [{"filename": name, "url": f"../../files/{name}", "hashes": {}} for name in names]})
        else:
            kind = "text/html; charset=utf-8"
            body = "<html><body>" + "".join(f'<a href="../../files/{name}#sha256=00">{name}</a><br>' for name in names)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body.encode())

    def file(self, name: str) -> None:
        server, content = self.server, self.server.files[name][1]
        if server.flip:
            content = content[:100] + bytes([content[100] ^ 1]) + content[101:]
        start = 0
        asked = self.headers["Range"]
        if asked and not server.ignore_ranges:
            start = int(asked[len("bytes=") : -1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        if content[:100] == TORCH_WHEEL[:100]:
            server.ranges.append(asked)
            if server.hang_at is not None:
                self.wfile.write(rest[: server.hang_at])
                self.wfile.flush()
                server.stalled.set()
                time.sleep(60)
            if server.cuts:
                self.wfile.write(rest[: server.cuts.pop(0)])
                self.close_connection = True
                return
        with contextlib.suppress(ConnectionError):
            self.wfile.write(rest)


class SetupTest(unittest.TestCase):
    def setUp(self) -> None:
        kept = tempfile.TemporaryDirectory()
        self.addCleanup(kept.cleanup)
        self.root = Path(kept.name).resolve()
        self.home = self.root / "home"
        self.made = self.home / f"libtorch-{VERSION}-cpu"
        (self.root / "recipe.json").write_text(json.dumps(RECIPE))
        self.index = IndexServer()
        threading.Thread(target=self.index.serve_forever, daemon=True).start()
        self.addCleanup(self.index.server_close)
        self.addCleanup(self.index.shutdown)

    def command(self, *arguments) -> list:
        # Without site-packages (-S), so that a PyTorch installed where the tests run is not found.
        return [sys.executable, "-S", str(SCRIPT), "--recipe", str(self.root / "recipe.json"), *map(str, arguments)]

    def environment(self, **extra) -> dict:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "LIBTORCH", "PYTHON"))}
        return {**clean, "no_proxy": "127.0.0.1", "ATFLOW_HOME": str(self.home), "PIP_INDEX_URL": self.index.url, "PIP_CONFIG_FILE": os.devnull, **extra}

    def run_setup(self, *arguments, **extra) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*arguments), env=self.environment(**extra), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100
        )

    def expect_made(self, done: subprocess.CompletedProcess) -> None:
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.splitlines()[-1], str(self.made))
        self.assertEqual((self.made / "lib/libtorch_cpu.so").read_bytes(), LIBRARY)
        self.assertEqual((self.made / "build-version").read_text().strip(), VERSION)
        self.assertTrue((self.made / "include/ATen/ATen.h").exists())
        self.assertTrue((self.made / "lib/libtorch.so").exists())
        self.assertFalse((self.made / "lib/libtorch_cuda.so").exists())
        self.assertEqual(sorted(path.name for path in self.home.iterdir()), [self.made.name, "setup.lock"])

    def pip_alone(self) -> str:
        """A folder to put into PYTHONPATH that has pip and nothing else."""
        (self.root / "pip").mkdir()
        (self.root / "pip/pip").symlink_to(Path(importlib.util.find_spec("pip").origin).parent)
        return str(self.root / "pip")

    def fake_libtorch(self, folder: Path, version: str, *more: str) -> Path:
        for name in (TORCH_H, "lib/libtorch.so", "lib/libtorch_cpu.so", "lib/libc10.so", *more):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"")
        (folder / "version.py").write_text(f"__version__ = '{version}'\n")
        return folder


class Making(SetupTest):
    def test_from_nothing_then_again_without_network(self) -> None:
        self.expect_made(self.run_setup())
        self.index.shutdown()
        asked = self.index.requests
        self.expect_made(self.run_setup(PIP_INDEX_URL="http://127.0.0.1:9/simple/"))
        self.assertEqual(self.index.requests, asked)

    def test_an_index_that_speaks_only_html(self) -> None:
        self.index.json = False
        self.expect_made(self.run_setup())

    def test_a_cut_connection_is_taken_up_where_it_broke(self) -> None:
        self.index.cuts = [300_000, 400_000]
        done = self.run_setup()
        self.expect_made(done)
        self.assertEqual(self.index.ranges, [None, "bytes=300000-", "bytes=700000-"])
        self.assertIn("trying again", done.stderr)

    def test_a_server_without_ranges_starts_over(self) -> None:
        self.index.cuts = [300_000]
        self.index.ignore_ranges = True
        self.expect_made(self.run_setup())

    def test_wrong_bytes_are_refused_and_deleted(self) -> None:
        self.index.flip = True
        done = self.run_setup()
        self.assertEqual(done.returncode, 2)
        self.assertIn("not the file that was asked for", done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertEqual(list((self.home / "downloads").iterdir()), [])
        self.assertFalse(self.made.exists())
        self.index.flip = False
        self.expect_made(self.run_setup())

    def test_killed_in_the_middle_then_run_again(self) -> None:
        self.index.hang_at = 500_000
        process = subprocess.Popen(self.command(), env=self.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.assertTrue(self.index.stalled.wait(20))
        part = self.home / "downloads" / (RECIPE["wheels"][0]["file"] + ".part")
        for _ in range(200):
            if part.exists() and part.stat().st_size > 0:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        # What a run killed while it unpacked would leave.
        (self.home / f"{self.made.name}.tmp-1/lib").mkdir(parents=True)
        have = part.stat().st_size
        self.assertGreater(have, 0)
        self.assertFalse(self.made.exists())
        self.index.hang_at = None
        self.expect_made(self.run_setup())
        self.assertEqual(self.index.ranges[1], f"bytes={have}-")

    def test_two_at_once_fetch_once(self) -> None:
        processes = [
            subprocess.Popen(self.command(), env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for process in processes:
            out, err = process.communicate(timeout=60)
            self.expect_made(subprocess.CompletedProcess([], process.returncode, out, err))
        self.assertEqual(self.index.ranges, [None])

    def test_an_incomplete_folder_is_made_again(self) -> None:
        self.expect_made(self.run_setup())
        (self.made / "lib/libtorch_cpu.so").write_bytes(b"torn")
        self.expect_made(self.run_setup())

    def test_a_folder_copied_by_hand_is_taken(self) -> None:
        self.expect_made(self.run_setup())
        (self.made / "made-from.json").unlink()
        self.expect_made(self.run_setup(PIP_INDEX_URL="http://127.0.0.1:9/simple/"))

    def test_downloads_can_be_kept(self) -> None:
        self.assertEqual(self.run_setup("--keep-downloads").returncode, 0)
        self.assertEqual(sorted(path.name for path in (self.home / "downloads").iterdir()), sorted(FILES))

    @unittest.skipUnless(importlib.util.find_spec("pip"), "needs pip")
    def test_an_index_with_a_password_is_left_to_pip(self) -> None:
        self.index.password = "Basic bWU6c2VjcmV0"
        done = self.run_setup(PIP_INDEX_URL=self.index.url.replace("//", "//me:secret@"), PYTHONPATH=self.pip_alone())
        self.expect_made(done)
        self.assertIn("Trying pip itself", done.stderr)
        self.assertNotIn("secret", done.stderr)

    @unittest.skipUnless(importlib.util.find_spec("ensurepip"), "needs venv")
    def test_a_virtual_environment_where_wheels_do_not_do(self) -> None:
        self.index.files = WHOLE_TORCH
        for _ in range(2):
            done = self.run_setup("--device", "cuda")
            self.assertEqual(done.returncode, 0, done.stderr)
            folder = Path(done.stdout.strip())
            self.assertEqual(folder.parts[len(self.home.parts)], f"pytorch-{VERSION}-cuda")
            self.assertTrue((folder / "lib/libtorch_cuda.so").exists())
            # The second time it is there.
            self.index.files = {}

    @unittest.skipUnless(importlib.util.find_spec("pip"), "needs pip")
    def test_no_network_says_what_can_be_done(self) -> None:
        done = self.run_setup(PIP_INDEX_URL="http://127.0.0.1:9/simple/", PIP_RETRIES="0", PYTHONPATH=self.pip_alone())
        self.assertEqual(done.returncode, 2)
        for way in ("set LIBTORCH", "install torch==2.11.0", "package index"):
            self.assertIn(way, done.stderr)

    def test_no_c_compiler_is_said_before_the_download(self) -> None:
        done = self.run_setup(PATH="/nonexistent")
        self.assertEqual(done.returncode, 2)
        self.assertIn("no C compiler", done.stderr)
        self.assertEqual(self.index.requests, 0)


class Finding(SetupTest):
    def test_libtorch_as_told(self) -> None:
        folder = self.fake_libtorch(self.root / "own", "2.11.0+cpu")
        done = self.run_setup(LIBTORCH=str(folder))
        self.assertEqual((done.returncode, done.stdout), (0, f"{folder}\n"))

    def test_libtorch_of_another_version(self) -> None:
        folder = self.fake_libtorch(self.root / "own", "2.7.1")
        done = self.run_setup(LIBTORCH=str(folder))
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("it is libtorch 2.7.1", done.stderr)
        self.assertEqual(self.index.requests, 0)

    def test_libtorch_known_by_its_headers(self) -> None:
        folder = self.fake_libtorch(self.root / "own", "")
        (folder / "version.py").unlink()
        header = folder / "include/torch/headeronly/version.h"
        header.parent.mkdir(parents=True)
        for minor, code in ((11, 0), (8, 2)):
            header.write_text(f"#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR {minor}\n#define TORCH_VERSION_PATCH 0\n")
            self.assertEqual(self.run_setup(LIBTORCH=str(folder)).returncode, code)

    def test_libtorch_that_is_something_else(self) -> None:
        for name, words in (("missing", "no such folder"), ("empty", "no libtorch")):
            if name == "empty":
                (self.root / name).mkdir()
            done = self.run_setup(LIBTORCH=str(self.root / name))
            self.assertEqual(done.returncode, 2)
            self.assertIn(words, done.stderr)

    def test_cuda_asks_for_the_cuda_half(self) -> None:
        folder = self.fake_libtorch(self.root / "own", VERSION)
        done = self.run_setup("--device", "cuda", LIBTORCH=str(folder))
        self.assertEqual(done.returncode, 2)
        self.assertIn("it lacks lib/libtorch_cuda.so", done.stderr)
        (folder / "lib/libtorch_cuda.so").write_bytes(b"")
        self.assertEqual(self.run_setup("--device", "cuda", LIBTORCH=str(folder)).returncode, 0)

    def test_an_installed_pytorch(self) -> None:
        site = self.root / "site"
        self.fake_libtorch(site / "torch", "2.11.0+cu130")
        # Importing it would be seen.
        (site / "torch/__init__.py").write_text("raise SystemExit('imported')")
        done = self.run_setup(PYTHONPATH=str(site))
        self.assertEqual((done.returncode, done.stdout), (0, f"{site}/torch\n"))

    def test_an_installed_pytorch_of_another_version_is_passed_over(self) -> None:
        site = self.root / "site"
        self.fake_libtorch(site / "torch", "2.9.0")
        (site / "torch/__init__.py").write_text("")
        done = self.run_setup(PYTHONPATH=str(site))
        self.expect_made(done)
        self.assertIn("it is libtorch 2.9.0", done.stderr)


class CargoConfig(SetupTest):
    def checkout(self, name: str) -> Path:
        (self.root / name).mkdir()
        return self.root / name / ".cargo/config.toml"

    def config(self, path: Path, **extra) -> str:
        done = self.run_setup("--cargo-config", path, **extra)
        self.assertEqual(done.returncode, 0, done.stderr)
        return path.read_text()

    def target(self, text: str) -> Path:
        return Path(json.loads(text.split("target-dir = ")[1].splitlines()[0]))

    def test_written_once_and_the_same_libtorch_in_every_checkout(self) -> None:
        one, two = self.checkout("one"), self.checkout("two")
        text = self.config(one)
        self.assertIn(f'LIBTORCH = "{self.made}"', text)
        written = one.stat().st_mtime_ns
        self.assertEqual(self.config(one), text)
        self.assertEqual(one.stat().st_mtime_ns, written)
        other = self.config(two)
        self.assertIn(f'LIBTORCH = "{self.made}"', other)
        self.assertNotEqual(self.target(text), self.target(other))

    def test_a_choice_lasts_while_it_is_good(self) -> None:
        path = self.checkout("one")
        folder = self.fake_libtorch(self.root / "own", VERSION)
        self.config(path, LIBTORCH=str(folder))
        self.assertIn(f'LIBTORCH = "{folder}"', self.config(path))
        (folder / "lib/libtorch_cpu.so").unlink()
        self.assertIn(f'LIBTORCH = "{self.made}"', self.config(path))

    def test_a_file_of_the_user_stays(self) -> None:
        path = self.checkout("one")
        path.parent.mkdir()
        path.write_text("[net]\nretry = 9\n")
        self.assertEqual(self.config(path), "[net]\nretry = 9\n")

    def test_a_build_folder_is_handed_on_when_its_checkout_is_gone(self) -> None:
        one, two = self.checkout("one"), self.checkout("two")
        first = self.target(self.config(one))
        for record in ("atflow-12", "atflow-worker-34", "torch-sys-56"):
            (first / "release/.fingerprint" / record).mkdir(parents=True)
        # While the first checkout is there, the second builds elsewhere.
        self.assertFalse((self.target(self.config(two)) / "release").exists())
        three = self.checkout("three")
        one.unlink()
        one.parent.rmdir()
        one.parent.parent.rmdir()
        third = self.target(self.config(three))
        self.assertFalse(first.exists())
        # Nothing that was built from the first checkout's own sources may pass for the third's.
        self.assertEqual([path.name for path in (third / "release/.fingerprint").iterdir()], ["torch-sys-56"])

    def test_a_new_checkout_in_the_place_of_an_old_one(self) -> None:
        path = self.checkout("one")
        target = self.target(self.config(path))
        (target / "release/.fingerprint/atflow-12").mkdir(parents=True)
        self.config(path)
        self.assertTrue((target / "release/.fingerprint/atflow-12").exists())
        path.parent.parent.rename(self.root / "aside")
        self.checkout("one")
        self.assertEqual(self.target(self.config(path)), target)
        self.assertFalse((target / "release/.fingerprint/atflow-12").exists())


if __name__ == "__main__":
    unittest.main()
