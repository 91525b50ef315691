"""How many system calls a process makes, by strace: the same on every machine, unlike its seconds."""

import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ATTACH_SECONDS = 10.0


@contextmanager
def counted(pid: int) -> Iterator[Counter[str]]:
    """Counts the calls of all its threads and children while the block runs; filled when the block has ended.

    Raises PermissionError where processes may not be traced, FileNotFoundError where there is no strace.
    """
    calls: Counter[str] = Counter()
    with tempfile.NamedTemporaryFile("r") as table:
        tracer = subprocess.Popen(
            ["strace", "-c", "-f", "-p", str(pid), "-o", table.name], stderr=subprocess.DEVNULL
        )
        try:
            _until_attached(pid, tracer)
            yield calls
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait()
        calls.update(parse(table.read()))


def parse(table: str) -> dict[str, int]:
    """`strace -c`: share, seconds, microseconds a call, calls, errors (may be empty), name."""
    found = {}
    for line in table.splitlines():
        words = line.split()
        if len(words) >= 5 and words[3].isdigit() and words[-1] != "total":
            found[words[-1]] = int(words[3])
    return found


def _until_attached(pid: int, tracer: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + ATTACH_SECONDS
    while not all(_is_traced(status) for status in Path(f"/proc/{pid}/task").glob("*/status")):
        if tracer.poll() is not None or time.monotonic() > deadline:
            raise PermissionError("processes may not be traced here")
        time.sleep(0.02)


def _is_traced(status: Path) -> bool:
    try:
        return "\nTracerPid:\t0\n" not in status.read_text()
    except OSError:
        # the thread has ended
        return True
