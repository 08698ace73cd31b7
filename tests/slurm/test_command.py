"""Runs whose agents are started by commands: the executor for all sites but Slurm, on this machine.

`python3 -m unittest discover -s tests/slurm`. Skipped where there is no atflow; $ATFLOW_BINARY names the program
[default: ./atflow].
"""

from __future__ import annotations

import json
import unittest
from pathlib import Path

from images import DATA, write_images
from on_commands import OnCommands
from on_slurm import ATFLOW

# What depends on the processor, and a stage that lets the run wait.
ON_PROCESSORS = f"""pipeline: processors
numerics: NUMERICS
stages:
{DATA}  bright:
    kind: transform
    matrix: {{level: [2, 8]}}
    needs: {{data: data.test}}
    with: {{op: saturate, level: "${{level}}"}}
  last:
    kind: command
    needs: {{one: bright/2, two: bright/8}}
    with:
      run: "ls ${{in.one}} ${{in.two}}; while ! test -e $HOME/go; do sleep 0.1; done; echo 1 >${{out.n}}"
      outputs: {{n: n}}
"""

# Programs of a site: `submit` starts a process and prints its name, as PBS and its like do.
CLUSTER = """executor: command
submit: "{agent} >{logs}/$$.txt 2>&1 & echo job $!"
list: "ps -eo pid="
cancel: "kill {job}"
classes:
  part: {match: {stage: part}, time: 10 min, max_agents: 2, idle: 3 s, setup: "echo from setup"}
  rest: {match: {}, time: 10 min, idle: 3 s}
"""


@unittest.skipUnless(ATFLOW.is_file(), f"there is no {ATFLOW}: make build")
class Stories(OnCommands):
    def setUp(self) -> None:
        super().setUp()
        (self.space / "cluster.yaml").write_text(CLUSTER)

    def test_agents_make_what_a_run_here_makes(self) -> None:
        code, said = self.run_there()
        self.assertEqual(code, 0, said)
        self.assertIn("5 ran", said)
        self.assertEqual(self.run_atflow("run", "p.yaml", "--no-report", "--cache", "own")[0], 0)
        self.assertEqual(self.results("cache"), self.results("own"))
        log = "".join(file.read_text() for file in (self.space / "cache/cluster").glob("*/logs/*"))
        self.assertIn("from setup", log)

    def test_a_detached_run_is_seen_and_cancelled(self) -> None:
        self.write(30)
        code, said = self.run_there("--detach")
        self.assertEqual(code, 0, said)
        self.wait_for((self.space / "tries").exists)
        code, said = self.run_atflow("status")
        self.assertIn("0 of 5 stages done", said)
        self.assertIn("at work", said)
        code, said = self.run_atflow("cancel")
        self.assertEqual(code, 0, said)
        exits = self.space / "cache/cluster"
        self.wait_for(lambda: len(list(exits.glob("*/exit/*.json"))) >= 2)
        self.assertEqual(self.results("cache"), {})
        runs = json.loads(self.run_atflow("runs", "--json")[1])
        self.assertIn("interrupted", json.dumps(runs))

    @unittest.skipUnless(ATFLOW.resolve().with_name("atflow-worker").is_file(), "there is no worker: make build")
    def test_the_end_tells_of_processors_whose_bytes_may_differ(self) -> None:
        for numerics in ("native", "portable"):
            text = ON_PROCESSORS.replace("NUMERICS", numerics)
            (self.space / "p.yaml").write_text(text)
            write_images(self.space, 30)
            (self.space / "go").unlink(missing_ok=True)
            self.assertEqual(self.run_there("--detach")[0], 0)

            def computed() -> list[Path]:
                files = sorted((self.space / "cache/actions").rglob("*.json"))
                return [file for file in files if json.loads(file.read_text())["record"].get("numerics") == numerics]

            self.wait_for(lambda: len(computed()) == 2)
            # As another processor would have written it.
            file = computed()[0]
            manifest = json.loads(file.read_text())
            manifest["made"]["arithmetic"]["isa"] = "avx1024"
            file.chmod(0o644)
            file.write_text(json.dumps(manifest))
            (self.space / "go").touch()
            code, said = self.run_there()
            self.assertEqual(code, 0, said)
            words = r"computed with different instruction sets \(1 with avx\S+, 1 with avx\S+\)"
            if numerics == "native":
                self.assertRegex(said, words)
            else:
                self.assertNotIn("instruction set", said)

    def test_the_doctor_tells_how_long_files_take(self) -> None:
        code, said = self.run_atflow("doctor", "--executor", "command", "--json")
        checks = {check["name"]: check for check in json.loads(said)["checks"]}
        for of in ("part", "rest"):
            self.assertEqual(checks[f"{of}: files"]["state"], "ok", said)
            words = r"seen there after [0-9.]+ s, .* seen here after [0-9.]+ s \(the longest of 2 each\)"
            self.assertRegex(checks[f"{of}: files"]["found"], words)
        self.assertEqual(list((self.space / "cache/tmp").iterdir()), [], "it leaves nothing")

    def test_what_a_cluster_cannot_do_is_told_before_anything_runs(self) -> None:
        for args, words in [
            (["--executor", "slurm"], "is of `executor: command`"),
            (["--detach"], "--detach is for runs on a cluster"),
            (["--executor", "command", "--from", "scratch"], "--from does not go with --executor"),
            (["--executor", "command", "--force", "joined"], "joined would run on every agent"),
            (["--executor", "command", "--cluster", "none.yaml"], "there is no file none.yaml"),
        ]:
            code, said = self.run_atflow("run", "p.yaml", *args)
            self.assertEqual(code, 2, said)
            self.assertIn(words, said)
        (self.space / "cluster.yaml").write_text(CLUSTER.replace("match: {}", "match: {kind: table}"))
        code, said = self.run_there()
        self.assertEqual(code, 2)
        self.assertIn("joined, a stage of kind `command`, fits no class of cluster.yaml", said)
        self.assertFalse((self.space / "tries").exists())


if __name__ == "__main__":
    unittest.main()
