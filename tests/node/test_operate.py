"""Who gave a command is what the kernel says, not what an environment claims."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from node import operate
from node.operate import operator

ME = pwd.getpwuid(os.getuid()).pw_name


def test_an_environment_does_not_change_who_gave_a_command() -> None:
    claimed = {**os.environ, "USER": "somebody", "LOGNAME": "somebody", "USERNAME": "somebody"}
    code = "from node.operate import operator; print(operator().name)"
    told = subprocess.run(
        [sys.executable, "-c", code], env=claimed, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == operator().name
    assert "somebody" not in told.stdout


@pytest.mark.parametrize(
    ("login", "shown"), [("4294967295\n", ME), (f"{os.getuid()}\n", ME), ("54321\n", f"uid 54321 as {ME}")]
)
def test_who_became_another_user_is_named_as_who_logged_in(
    monkeypatch: pytest.MonkeyPatch, login: str, shown: str
) -> None:
    monkeypatch.setattr(operate, "Path", lambda _: _File(login))
    assert operator().name == shown


class _File:
    """Stands for /proc/self/loginuid, which only a login can set."""

    def __init__(self, content: str) -> None:
        self._content = content

    def read_text(self) -> str:
        return self._content


def test_a_kernel_that_was_not_told_who_logged_in_names_the_user_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operate, "Path", lambda _: Path("/proc/self/none"))
    assert operator().name == ME
