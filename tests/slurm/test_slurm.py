"""Runs on a cluster, told with a real Slurm of two nodes on the loopback interface.

`python3 -m unittest discover -s tests/slurm`; `on_slurm.py` says what they need. $ATFLOW_KILLS is how often agents and
controllers are killed [default: 4, at most 50].
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
import unittest

from on_slurm import HERE, PIPELINE, OnSlurm

KILLS = min(int(os.environ.get("ATFLOW_KILLS") or 4), 50)


class Stories(OnSlurm):
    def test_a_run_makes_what_a_run_here_makes(self) -> None:
        self.write()
        code, said = self.on_slurm()
        self.assertEqual(code, 0, said)
        self.assertIn("12 ran", said)
        self.assertEqual(len(self.tries()), 12, "no stage ran twice")
        self.assert_whole()
        # Nothing is left to do, so nothing is submitted.
        before = len(self.lines("jobs.jsonl"))
        code, said = self.on_slurm()
        self.assertEqual((code, len(self.lines("jobs.jsonl"))), (0, before), said)

    def test_a_detached_run_needs_nobody(self) -> None:
        self.write()
        code, said = self.on_slurm("--detach")
        self.assertEqual(code, 0, said)
        self.assertIn("atflow status", said)
        # The second class waits in the queue until the first is through.
        self.wait_for(lambda: len(self.results("cache")) == 12)
        code, said = self.run_atflow("status")
        self.assertIn("12 of 12 stages done", said)
        self.assertIn("it is over", said)
        self.assertIn("nothing runs", self.run_atflow("status")[1], "its end is noted")
        self.assert_whole()

    def test_killed_controllers_lose_nothing(self) -> None:
        self.write(numbers=6, sleep=1)
        for _ in range(KILLS):
            controller = self.start("run", "p.yaml", "--no-report", "--executor", "slurm")
            time.sleep(random.uniform(0.05, 1.0))
            controller.kill()
            controller.communicate()
        code, said = self.on_slurm()
        self.assertEqual(code, 0, said)
        self.assertEqual(len(list((self.space / "cache/cluster").iterdir())), 1, "all joined the same run")
        self.assertEqual(len(self.tries()), 12, "no stage ran twice")
        self.assert_whole()

    def test_killed_agents_lose_nothing(self) -> None:
        kills = min(KILLS, 20)
        numbers = 2 * kills + 6
        self.write(numbers=numbers, sleep=0.3)
        controller = self.start("run", "p.yaml", "--no-report", "--executor", "slurm")
        killed = 0
        until = time.monotonic() + 90
        while killed < kills and controller.poll() is None and time.monotonic() < until:
            time.sleep(random.uniform(0.5, 1.5))
            if note := self.an_agent():
                os.kill(note["pid"], signal.SIGKILL)
                killed += 1
        out, err = controller.communicate(timeout=120)
        self.assertEqual(controller.returncode, 0, out + err)
        self.assertGreater(killed, 0)
        self.assert_whole(numbers)

    def test_slurmctld_may_restart(self) -> None:
        self.write(numbers=6, sleep=2)
        controller = self.start("run", "p.yaml", "--no-report", "--executor", "slurm")
        self.wait_for(lambda: self.tries())
        for verb in ("stop-controller", "start-controller"):
            subprocess.run([HERE / "start.sh", self.folder, verb], check=True, capture_output=True, timeout=60)
            time.sleep(1)
        out, err = controller.communicate(timeout=120)
        self.assertEqual(controller.returncode, 0, out + err)
        self.assertEqual(len(self.tries()), 12, "no stage ran twice")
        self.assert_whole()

    def test_a_person_who_cancels_a_job_ends_the_run(self) -> None:
        self.write(numbers=6, sleep=30)
        controller = self.start("run", "p.yaml", "--no-report", "--executor", "slurm")
        self.wait_for(lambda: self.tries())
        job = self.lines("jobs.jsonl")[0]["job"]
        subprocess.run(["scancel", job], env=self.env, check=True, timeout=30)
        out, err = controller.communicate(timeout=90)
        self.assertEqual(controller.returncode, 130, out + err)
        self.assertIn("cancelled", self.endings())
        self.wait_for(lambda: not self.squeue("-t", "PD,R,CG"))

    def test_cancel_ends_a_run_from_anywhere(self) -> None:
        self.write(numbers=6, sleep=30)
        self.assertEqual(self.on_slurm("--detach")[0], 0)
        self.wait_for(lambda: self.tries())
        code, said = self.run_atflow("cancel")
        self.assertEqual(code, 0, said)
        self.assertIn("is cancelled", said)
        self.wait_for(lambda: not self.squeue("-t", "PD,R,CG"))
        code, said = self.run_atflow("cancel")
        self.assertEqual(code, 2, "there is no other")

    def test_what_slurm_requeues_goes_on_and_costs_nothing(self) -> None:
        # Slurm sends TERM to all processes of the job: a command may end of it before its agent hears of it.
        self.write(numbers=3, sleep=3, agents=1)
        controller = self.start("run", "p.yaml", "--no-report", "--executor", "slurm")
        self.wait_for(lambda: self.tries())
        job = self.lines("jobs.jsonl")[0]["job"]
        subprocess.run(["scontrol", "requeue", job], env=self.env, check=True, timeout=30, capture_output=True)
        # Slurm lets such a job wait for two minutes, unless it is told otherwise once it has put it into the queue.
        now = ["scontrol", "update", f"jobid={job}", "StartTime=now"]
        until = time.monotonic() + 30
        while not self.squeue("-t", "R", "-j", job) and time.monotonic() < until:
            time.sleep(1)
            subprocess.run(now, env=self.env, capture_output=True, timeout=30)
        out, err = controller.communicate(timeout=240)
        self.assertEqual(controller.returncode, 0, out + err)
        self.assertNotIn("broken", self.endings())
        self.assert_whole(3)

    def test_a_stage_that_needs_more_memory_gets_it_once_and_then_fails(self) -> None:
        hungry = """pipeline: story
stages:
  hungry:
    kind: command
    with:
      run: [python3, -c, "import os, time; x = bytearray(MIB << 20); time.sleep(5); open('${out.text}', 'w').write('y')"]
      outputs: {text: t}
"""
        for mebibytes, code_expected in ((190, 0), (400, 1)):
            self.write(pipeline=hungry.replace("MIB", str(mebibytes)))
            cluster = "executor: slurm\nclasses: {small: {match: {}, time: 5 min, memory: 200M, idle: 5 s}}\n"
            (self.space / "cluster.yaml").write_text(cluster)
            code, said = self.on_slurm(timeout=120)
            self.assertEqual(code, code_expected, said)
            self.assertIn("ran out of 200 MiB: agents of class small get 300 MiB now", said)
        self.assertIn("its agent had 300 MiB; write more `memory` for class `small`", said)
        self.assertIn("memory", self.endings())

    def test_a_refused_class_is_named(self) -> None:
        self.write()
        text = (self.space / "cluster.yaml").read_text().replace("match: {stage", "partition: none, match: {stage")
        (self.space / "cluster.yaml").write_text(text)
        code, said = self.on_slurm()
        self.assertEqual(code, 2, said)
        self.assertIn("no agent of class `first` can be started", said)
        self.assertIn("invalid partition specified: none", said)

    def test_while_squeue_fails_the_run_goes_on(self) -> None:
        self.write()
        said = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
        code, told = self.on_slurm(**self.fake("squeue", f"echo '{said}' >&2; exit 1"))
        self.assertEqual(code, 0, told)
        self.assertIn("does not reach the site", told)
        self.assert_whole()

    def test_a_limit_of_jobs_means_fewer_agents(self) -> None:
        self.write(numbers=12)
        real = shutil.which("sbatch")
        limit = "sbatch: error: QOSMaxSubmitJobPerUserLimit"
        script = f'case "$*" in *--array=0-0*) exec {real} "$@";; esac\necho "{limit}" >&2; exit 1'
        code, told = self.on_slurm(**self.fake("sbatch", script))
        self.assertEqual(code, 0, told)
        self.assertIn("gets fewer agents", told)
        self.assertTrue(all(line["count"] == 1 for line in self.lines("jobs.jsonl")))
        self.assert_whole(12)

    def test_a_submission_that_nobody_wrote_down_is_found_by_its_comment(self) -> None:
        self.write(numbers=6, sleep=2)
        self.assertEqual(self.on_slurm("--detach")[0], 0)
        file = next((self.space / "cache/cluster").glob("*/jobs.jsonl"))
        file.write_text("")
        code, said = self.on_slurm()
        self.assertEqual(code, 0, said)
        self.assertTrue(any("comment" in line["why"] for line in self.lines("jobs.jsonl")), self.lines("jobs.jsonl"))
        self.assertEqual(len(self.tries()), 12, "no stage ran twice")

    def test_a_failed_stage_is_told_once_and_the_rest_goes_on(self) -> None:
        self.write(pipeline=PIPELINE.replace("echo ${n} >${out.text}", "test ${n} != 3 && echo ${n} >${out.text}"))
        code, said = self.on_slurm()
        self.assertEqual(code, 1, said)
        self.assertRegex(said, "part/3 failed")
        self.assertEqual([line for line in self.tries() if line == "part/3"], ["part/3"], "nobody tried it again")
        self.assertEqual(len(self.results("cache")), 10)


if __name__ == "__main__":
    unittest.main()
