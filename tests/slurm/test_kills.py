"""Controllers, agents and slurmctld killed again and again in one run: nothing is lost, nothing is wrong, and nothing
runs more often than the kills explain.

`python3 -m unittest discover -s tests/slurm`; `on_slurm.py` says what it needs. $ATFLOW_CONTROLLER_KILLS,
$ATFLOW_AGENT_KILLS and $ATFLOW_SLURMCTLD_RESTARTS say how often [default: 3, 5, 1]. The whole story: 20, 50, 5.
"""

from __future__ import annotations

import collections
import os
import random
import signal
import subprocess
import time
import unittest

from on_slurm import ATFLOW, HERE, PIPELINE, OnSlurm


def number(name: str, default: int) -> int:
    return int(os.environ.get(name) or default)


CONTROLLERS = number("ATFLOW_CONTROLLER_KILLS", 3)
AGENTS = number("ATFLOW_AGENT_KILLS", 5)
RESTARTS = number("ATFLOW_SLURMCTLD_RESTARTS", 1)


class Kills(OnSlurm):
    def controller(self) -> subprocess.Popen:
        command = [ATFLOW, "run", "p.yaml", "--no-report", "--executor", "slurm"]
        # A file takes all that is said; a pipe that nobody reads would stop the controller.
        with (self.space / "said").open("a") as said:
            return subprocess.Popen(
                command, cwd=self.space, env=self.env, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )

    def said(self) -> str:
        return (self.space / "said").read_text()

    def test_kills_of_all_sorts_lose_nothing(self) -> None:
        events = ["controller"] * CONTROLLERS + ["agent"] * AGENTS + ["slurmctld"] * RESTARTS
        random.shuffle(events)
        # More than can be done before the last kill. Then all that is left is done fast.
        numbers = 40 + 12 * len(events)
        fast = self.space / "fast"
        pipeline = PIPELINE.replace("sleep SLEEP", f"test -e {fast} || sleep 0.5")
        self.write(numbers=numbers, agents=4, pipeline=pipeline)
        controller = self.controller()
        self.addCleanup(lambda: controller.poll() is None and controller.kill())
        self.wait_for(lambda: self.tries())
        started = time.monotonic()
        for event in events:
            time.sleep(random.uniform(0.1, 0.8))
            self.assertIsNone(controller.poll(), f"it ended before its time: {self.said()[-3000:]}")
            if event == "controller":
                controller.kill()
                controller.wait()
                time.sleep(random.uniform(0, 0.5))
                controller = self.controller()
            elif event == "agent":
                found = []
                self.wait_for(lambda: found.append(self.an_agent()) or found[-1])
                os.kill(found[-1]["pid"], signal.SIGKILL)
            else:
                for verb in ("stop-controller", "start-controller"):
                    subprocess.run([HERE / "start.sh", self.folder, verb], check=True, capture_output=True, timeout=60)
        self.assertLess(len(self.results("cache")), 2 * numbers, "the last kill met a run that was over")
        seconds = time.monotonic() - started
        fast.touch()
        controller.wait(timeout=300)
        self.assertEqual(controller.returncode, 0, self.said()[-3000:])
        tries = self.tries()
        more = len(tries) - len(set(tries))
        # An agent runs one stage at a time, and only a killed one leaves its stage to another.
        self.assertLessEqual(more, AGENTS, collections.Counter(tries).most_common(AGENTS + 1))
        self.assertEqual(len(set(tries)), 2 * numbers)
        self.assertEqual(len(list((self.space / "cache/cluster").iterdir())), 1, "all joined the same run")
        self.assert_whole(numbers)
        endings = dict(collections.Counter(self.endings()))
        print(f"{CONTROLLERS} controllers, {AGENTS} agents, {RESTARTS} slurmctld in {seconds:.0f} s; "
              f"{2 * numbers} stages, {more} tried again; agents ended: {endings}")


if __name__ == "__main__":
    unittest.main()
