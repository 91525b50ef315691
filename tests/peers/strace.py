"""Kills a process inside one of its system calls: a crash at a chosen step, without a hook in the product."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def killed_at(strace: str, pid: int, call: str, nth: int) -> Iterator[subprocess.Popen[bytes]]:
    """While the block runs, the process (any of its threads) gets SIGKILL when it enters that call the nth time."""
    tracer = subprocess.Popen(
        [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={nth}",
         "-p", str(pid)],
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 10
        while not _traced(pid):
            if tracer.poll() is not None or time.monotonic() > deadline:
                raise PermissionError("processes may not be traced here")
            time.sleep(0.02)
        yield tracer
    finally:
        # a tracer whose last tracee has just been killed may not hear SIGTERM any more
        tracer.kill()
        tracer.wait()
        if tracer.stderr is not None:
            tracer.stderr.close()


def _traced(pid: int) -> bool:
    try:
        with Path(f"/proc/{pid}/status").open() as status:
            return any(line.startswith("TracerPid:") and line.split()[1] != "0" for line in status)
    except OSError:
        return False
