#!/usr/bin/env python3
"""Times a table over many inputs from a remote cache that is far away.

    python3 benches/remote.py --inputs 108 --round-trip 0.1

A web server on this machine waits for one round trip at each new connection, and at each request. A pipeline with so
many inputs of 20 kB, and a table-like stage over them, runs once to fill a cache. Then the last stage runs in an empty
cache that reads the first one through that server.
"""

from __future__ import annotations

import argparse
import http.server
import os
import socketserver
import subprocess
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ATFLOW = os.environ.get("ATFLOW", str(ROOT / "atflow"))


def pipeline(inputs: int, command: str) -> str:
    numbers = ", ".join(str(n) for n in range(inputs))
    return (
        f"stages:\n  each:\n    kind: command\n    matrix: {{n: [{numbers}]}}\n"
        "    with: {run: 'head -c 20000 /dev/zero | tr \"\\\\0\" x > ${out.o}; echo ${n} >> ${out.o}', outputs: {o: o}}\n"
        f"  all:\n    kind: command\n    needs: {{of: each}}\n    with: {{run: '{command}', outputs: {{o: o}}}}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=108)
    parser.add_argument("--round-trip", type=float, default=0.1, help="seconds [0.1]")
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    counts = {"connections": 0, "requests": 0}

    class Far(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            counts["connections"] += 1
            time.sleep(args.round_trip)
            super().setup()

        def do_GET(self) -> None:
            counts["requests"] += 1
            time.sleep(args.round_trip)
            super().do_GET()

        def do_HEAD(self) -> None:
            counts["requests"] += 1
            time.sleep(args.round_trip)
            super().do_HEAD()

        def log_message(self, *_: object) -> None:
            pass

    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        daemon_threads = True
        request_queue_size = 128

    with tempfile.TemporaryDirectory() as top:
        made = Path(top, "made")
        made.mkdir()
        (made / "p.yaml").write_text(pipeline(args.inputs, "cat ../in/of/* | wc -c > ${out.o}"))
        subprocess.run([ATFLOW, "run", "p.yaml", "--quiet", "--no-report"], cwd=made, check=True)
        folder = str(made / "cache")
        server = Server(("127.0.0.1", 0), lambda *request: Far(*request, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        for turn in range(args.repeat):
            counts.update(connections=0, requests=0)
            empty = Path(top, f"empty-{turn}")
            empty.mkdir()
            # Another command over the same inputs: the stage has to run, and reads them all.
            (empty / "p.yaml").write_text(pipeline(args.inputs, "cat ../in/of/* |  wc -c > ${out.o}"))
            started = time.perf_counter()
            command = [ATFLOW, "run", "p.yaml", "all", "--remote", url, "--quiet", "--no-report"]
            subprocess.run(command, cwd=empty, check=True)
            seconds = time.perf_counter() - started
            print(f"{args.inputs} inputs, {seconds:.2f} s, {counts['requests']} requests, {counts['connections']} connections")


if __name__ == "__main__":
    main()
