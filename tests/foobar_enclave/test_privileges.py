"""Root's rights are gone for good, and nothing is done where there are none."""

import os
import subprocess
import sys

import pytest

from foobar_enclave.privileges import NOBODY, give_up_root

PROGRAM = """
import os
from foobar_enclave.privileges import give_up_root

give_up_root()
print(os.getresuid(), os.getresgid(), os.getgroups())
for line in open("/proc/self/status"):
    if line.startswith(("CapPrm", "CapEff")):
        print(int(line.split()[1], 16))
try:
    os.setuid(0)
except PermissionError:
    print("no way back")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_root_becomes_nobody_for_good() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=30
    )

    ids = (NOBODY, NOBODY, NOBODY)
    assert done.stdout.splitlines() == [f"{ids} {ids} []", "0", "0", "no way back"]


def test_another_user_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for name in ("setgroups", "setresgid", "setresuid"):
        monkeypatch.delattr(os, name)

    give_up_root()


@pytest.mark.parametrize("failing", ["setgroups", "setresgid", "setresuid"])
def test_a_refusal_is_not_passed_over(monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name in ("setgroups", "setresgid", "setresuid"):
        monkeypatch.setattr(os, name, refuse if name == failing else lambda *_: None)

    with pytest.raises(PermissionError):
        give_up_root()
