"""No process of ours outlives the one that started it."""

import ctypes
import os
import select
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """The kernel kills this process when the thread that started it dies (Linux, prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def leave_with_parent(pipe: int) -> None:
    """Leaves when the other end of the pipe closes, which the parent holds; also if that was before this call."""
    threading.Thread(target=_wait, args=(pipe,), daemon=True).start()


def _wait(pipe: int) -> None:
    select.select([pipe], [], [])
    if os.read(pipe, 1) == b"":
        os._exit(1)
