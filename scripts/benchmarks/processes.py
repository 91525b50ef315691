"""What a process and its descendants have used, read from /proc (Linux)."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        with suppress(OSError):
            for thread in Path(f"/proc/{one}/task").iterdir():
                with suppress(OSError):
                    waiting += map(int, (thread / "children").read_text().split())
    return found


def find(pid: int, module: str) -> int | None:
    """The descendant that runs this Python module."""
    for one in tree(pid):
        with suppress(OSError):
            if module.encode() in Path(f"/proc/{one}/cmdline").read_bytes().split(b"\0"):
                return one
    return None


def cpu_seconds(pid: int) -> float:
    """User and system time of the whole tree, children that were waited for included. 10 ms steps."""
    ticks = 0
    for one in tree(pid):
        with suppress(OSError):
            stat = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, stat[11:15]))
    return ticks / _TICKS


def peak_bytes(pids: Iterable[int]) -> int:
    """The sum of the largest resident memory that each ever had."""
    return sum(_status(pid, "VmHWM") for pid in pids)


def resident_bytes(pid: int) -> int:
    return _status(pid, "VmRSS")


def descriptors(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
    except OSError:
        return 0


def command(pid: int) -> str:
    """A word for the process: its Python module, else its program."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "?"
    return words[words.index("-m") + 1] if "-m" in words[:-1] else Path(words[0]).name


def _status(pid: int, key: str) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    return 0
