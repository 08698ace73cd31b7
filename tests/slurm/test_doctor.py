"""What `atflow doctor --executor slurm` tells of a real Slurm.

`python3 -m unittest discover -s tests/slurm`; `on_slurm.py` says what it needs.
"""

from __future__ import annotations

import json
import shutil
import unittest

from on_slurm import OnSlurm

ACCOUNTS = """case "$*" in
*"show associations user=lab format=Account,Partition,MaxSubmitJobs,MaxJobs"*) echo "lab||50|";;
*) exit 1;;
esac"""


class Doctor(OnSlurm):
    def checks(self, **env: str) -> dict[str, dict]:
        code, said = self.run_atflow("doctor", "--executor", "slurm", "--json", USER="lab", **env)
        return {check["name"]: check for check in json.loads(said)["checks"]}

    def test_it_tells_limits_and_how_long_files_take(self) -> None:
        self.write()
        checks = self.checks()
        self.assertRegex(checks["limits"]["found"], "^MaxArraySize 1001, MaxJobCount 10000, MinJobAge 10 sec$")
        for of in ("first", "rest"):
            self.assertEqual(checks[f"{of}: files"]["state"], "ok", checks)
            self.assertRegex(checks[f"{of}: files"]["found"], "seen there after .* seen here after")
            self.assertNotIn(f"{of}: agents", checks)

    def test_it_names_a_class_that_exceeds_a_limit_and_the_limits_of_accounts(self) -> None:
        self.write(agents=16)
        # A Slurm with a data base of accounts, and with shorter arrays.
        real = shutil.which("scontrol")
        changes = "-e 's/\\(MaxArraySize *= \\).*/\\110/' -e 's/\\(AccountingStorageType *= \\).*/\\1accounting_storage\\/slurmdbd/'"
        self.fake("sacctmgr", ACCOUNTS)
        checks = self.checks(**self.fake("scontrol", f'{real} "$@" | sed {changes}'))
        self.assertIn("MaxArraySize 10,", checks["limits"]["found"])
        self.assertIn("MaxSubmitJobs 50 (account lab)", checks["limits"]["found"])
        self.assertEqual(checks["first: agents"]["state"], "problem")
        self.assertEqual(checks["first: agents"]["advice"], "write `max_agents: 10`, or less")
        self.assertNotIn("rest: agents", checks)


if __name__ == "__main__":
    unittest.main()
