"""How agents end on a real Slurm, and what follows: rows of the table in `docs/cluster.md`.

`python3 -m unittest discover -s tests/slurm`; `on_slurm.py` says what they need.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import unittest
from pathlib import Path

from images import DATA, write_images
from on_slurm import ATFLOW, OnSlurm

TRAINING = f"""pipeline: story
stages:
{DATA}  model:
    kind: train
    needs: {{data: data.train, validation: data.test}}
    with:
      net: {{arch: resnet, width: 8, blocks: [1, 1]}}
      epochs: 16
      batch_size: 16
      schedule: {{shape: triangle, warmup: 0.3}}
      adversary: {{attack: pgd, eps: 8/255, step: 2/255, steps: 2}}
"""

# A library that lets `fsync` fail while the file `$HOME/fault` is there: as a full disk does (28: no space left).
FAULT = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int fsync(int fd) {
    char path[4096];
    snprintf(path, sizeof path, "%s/fault", getenv("HOME"));
    if (access(path, F_OK) == 0) { errno = 28; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
"""

WORKER = ATFLOW.resolve().with_name("atflow-worker")


class Endings(OnSlurm):
    def describe(self, **keys: str) -> None:
        """One class of machines for all stages, with one agent at a time."""
        of = {"match": "{}", "time": "5 min", "memory": "200M", "max_agents": "1", "idle": "5 s", **keys}
        text = ", ".join(f"{key}: {value}" for key, value in of.items())
        (self.space / "cluster.yaml").write_text(f"executor: slurm\nclasses:\n  all: {{{text}}}\n")

    def scontrol(self, *args: str) -> None:
        subprocess.run(["scontrol", *args], env=self.env, check=True, capture_output=True, timeout=30)

    def agents(self) -> list[dict]:
        """The notes of agents that live."""
        notes = (json.loads(path.read_text()) for path in (self.space / "cache/cluster").glob("*/agents/*.json"))
        return [note for note in notes if Path(f"/proc/{note['pid']}").exists()]

    def job(self) -> str:
        """The job of the only agent that runs."""
        self.wait_for(lambda: len(self.squeue("-t", "R", "-o", "%i")) == 1)
        return self.squeue("-t", "R", "-o", "%i")[0]

    def started(self, *args: str, **env: str):
        return self.start("run", "p.yaml", "--no-report", "--executor", "slurm", *args, **env)

    def end(self, controller: subprocess.Popen, code: int = 0) -> str:
        out, err = controller.communicate(timeout=150)
        self.assertEqual(controller.returncode, code, out + err)
        return out + err

    @unittest.skipUnless(WORKER.is_file(), f"there is no {WORKER}: make build")
    def test_a_training_whose_time_is_over_goes_on_in_another_agent(self) -> None:
        (self.space / "p.yaml").write_text(TRAINING)
        write_images(self.space, 480)
        self.describe(memory="1500M")
        controller = self.started()

        def epochs() -> int:
            # The file is replaced after each epoch.
            files = (self.space / "cache/partial").glob("*/training.safetensors")
            seen.update(path.stat().st_mtime_ns for path in files)
            return len(seen)

        seen: set[int] = set()
        job = self.job()
        self.wait_for(lambda: epochs() >= 1)
        # Slurm's own warning before the end of the time is this signal to the batch script.
        subprocess.run(["scancel", "--signal=TERM", "--batch", job], env=self.env, check=True, timeout=30)
        self.wait_for(lambda: self.endings() == ["deadline"])
        job, ended = self.job(), epochs()
        self.wait_for(lambda: epochs() > ended)
        # The next agent stands still, and its worker, until Slurm ends both at the end of their time.
        [agent] = self.agents()
        for pid in self.processes_of("atflow-worker", agent["pid"]):
            os.kill(pid, signal.SIGSTOP)
        os.kill(agent["pid"], signal.SIGSTOP)
        self.scontrol("update", f"jobid={job}", "EndTime=now+1")
        said = self.end(controller)
        self.assertEqual(self.endings()[:2], ["deadline", "deadline"], self.lines("decisions.jsonl"))
        self.assertIn("2 ran", said)
        self.assertIn("resumed after epoch", self.run_atflow("log", "model")[1])
        code, said = self.run_atflow("run", "p.yaml", "--no-report", "--cache", "own", "--device", "cpu", "--quiet")
        self.assertEqual(code, 0, said)
        self.assertEqual(self.results("cache"), self.results("own"))

    def processes_of(self, name: str, parent: int) -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                own, group = (path / "cmdline").read_bytes(), (path / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if name.encode() in own.split(b"\0")[0] and int(group[1]) == parent:
                found.append(int(path.name))
        return found

    def test_what_does_not_fit_into_the_time_ends_its_class(self) -> None:
        self.write(numbers=1, sleep=60)
        # An agent stops 15 seconds before its end.
        self.describe(time="20 s")
        code, said = self.on_slurm(timeout=120)
        self.assertEqual(code, 1, said)
        # An error is wrapped to the width of a page.
        words = "3 submissions of class all ended without progress: what is left does not fit into the `time` of the class"
        self.assertIn(words, " ".join(said.replace("|", " ").split()))
        self.assertEqual(self.endings(), ["deadline"] * 3)
        self.assertEqual(self.results("cache"), {})

    def test_a_node_that_fails_is_used_no_more(self) -> None:
        self.write(numbers=2, sleep=2)
        # With `--requeue`, Slurm itself would start the job again.
        self.describe(sbatch="[--no-requeue]")
        real = shutil.which("sbatch")
        path = self.fake("sbatch", f'echo "$@" >>{self.space}/submitted\nexec {real} "$@"')
        controller = self.started(**path)
        self.wait_for(lambda: self.tries())
        [node] = self.squeue("-t", "R", "-o", "%N")
        self.scontrol("update", f"nodename={node}", "state=down", "reason=story")
        said = self.end(controller)
        self.assertIn("node_failed", self.endings())
        self.assertIn(f"node {node} failed under agent", said)
        first, *others = (self.space / "submitted").read_text().splitlines()
        self.assertNotIn("--exclude", first)
        self.assertTrue(others and all(f"--exclude={node}" in line for line in others), others)
        self.assert_whole(2)

    def test_what_slurm_preempts_goes_on_in_another_agent(self) -> None:
        self.write(numbers=2, sleep=2)
        self.describe()
        controller = self.started()
        self.wait_for(lambda: self.tries())
        urgent = ["sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 1"]
        subprocess.run(urgent, env=self.env, check=True, capture_output=True, timeout=30)
        said = self.end(controller)
        self.assertEqual(self.endings()[0], "taken_away", self.lines("decisions.jsonl"))
        self.assertNotIn("warning", said, "nobody is to blame")
        self.assert_whole(2)

    def test_a_forgotten_job_counts_by_its_last_words_or_is_lost(self) -> None:
        self.write(numbers=3, sleep=3, agents=1)
        self.assertEqual(self.on_slurm("--detach")[0], 0)
        self.wait_for(lambda: self.tries())
        [agent] = self.agents()
        os.kill(agent["pid"], signal.SIGKILL)
        # The agent of the other class starts, has nothing to do and ends. Slurm forgets both after ten seconds or more.
        self.wait_for(lambda: not self.squeue("-t", "all"), timeout=120)
        code, said = self.on_slurm(ATFLOW_CLUSTER_HEARTBEAT="1")
        self.assertEqual(code, 0, said)
        endings = {line["class"]: line["ending"] for line in self.lines("decisions.jsonl")[:2]}
        self.assertEqual(endings, {"first": "lost", "rest": "clean"})
        self.assertIn("it is gone without a word", said)
        self.assertEqual(len(self.tries()), 7, "one stage was tried twice: that of the killed agent")
        self.assert_whole(3)

    def test_an_agent_that_stands_still_is_told_of_and_ended(self) -> None:
        self.write(numbers=3, sleep=1)
        self.describe(hang="12 s")
        # An agent counts as idle until its second note, which comes after 30 seconds; idle ones may be silent for longer.
        controller = self.started(ATFLOW_CLUSTER_HEARTBEAT="0.3")
        self.wait_for(lambda: self.tries())
        [agent] = self.agents()
        os.kill(agent["pid"], signal.SIGSTOP)
        said = self.end(controller)
        self.assertRegex(said, "has been silent for [0-9]+ s; 12 s end it")
        self.assertRegex(said, "was silent for [0-9]+ s and is ended")
        self.assertEqual(self.endings()[0], "hung")
        self.assert_whole(3)

    def test_a_waiting_agent_is_shown_with_its_reason(self) -> None:
        self.write(numbers=1)
        self.describe(sbatch="[--hold]")
        controller = self.started()
        self.wait_for(lambda: self.squeue("-t", "PD", "-o", "%r") == ["JobHeldUser"])
        # Two questions to Slurm later, the controller has seen it.
        time.sleep(3)
        self.scontrol("release", self.lines("jobs.jsonl")[0]["job"])
        self.assertIn("agents of class all wait: JobHeldUser", self.end(controller))
        self.assert_whole(1)

    def test_a_word_that_nobody_knows_is_told_once_and_changes_nothing(self) -> None:
        self.write(numbers=2, sleep=3)
        self.describe()
        # As a later Slurm might say it.
        real = shutil.which("squeue")
        path = self.fake("squeue", f'{real} "$@" | sed s/RUNNING/HIBERNATING/')
        said = self.end(self.started(**path))
        self.assertEqual(said.count("the site says HIBERNATING of job"), 1, said)
        self.assertEqual(len(self.tries()), 4, "no stage ran twice")
        self.assert_whole(2)

    @unittest.skipUnless(shutil.which("cc"), "there is no C compiler")
    def test_while_a_node_cannot_use_the_cache_the_class_pauses(self) -> None:
        (self.space / "fault.c").write_text(FAULT)
        library = self.space / "fault.so"
        command = ["cc", "-shared", "-fPIC", "-o", library, self.space / "fault.c", "-ldl"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        (self.space / "fault").touch()
        self.write(numbers=2)
        self.describe(env=f"{{LD_PRELOAD: {library}}}")
        controller = self.started()
        self.wait_for(lambda: "storage" in self.endings())
        (self.space / "fault").unlink()
        said = self.end(controller)
        self.assertRegex(said, "could not use the cache from node[12]: .*os error 28")
        self.assert_whole(2)


if __name__ == "__main__":
    unittest.main()
