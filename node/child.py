"""What every process under the supervisor does first: settings, log, signals, and dying with its parent.

    python -m node.<stage> NAME READY_FD PARENT_FD < settings as JSON

READY_FD: one line is written there when the process does its work. PARENT_FD: a pipe whose other end the supervisor
holds; when it closes, the supervisor is gone and so is the child.
"""

import os
import select
import signal
import sys
import threading
from dataclasses import dataclass
from types import FrameType

from node import log
from node.parent import die_with_parent, leave_with_parent
from node.settings import Settings

# a worker's exit code when the model folder is unusable
NO_MODEL_EXIT = 10
# and where another model was activated than the one that it has loaded
NEW_MODEL_EXIT = 11


@dataclass(frozen=True)
class Child:
    """This process: its name, its settings, and whether it has been asked to stop."""

    name: str
    settings: Settings
    stopping: threading.Event
    # readable from the moment it is asked to stop, for whoever waits in select()
    stop_fd: int
    _ready_fd: int

    @property
    def owner(self) -> str:
        """Who claims jobs and deliveries: a new name for each process."""
        return f"{self.name}:{os.getpid()}"

    def wait_for_stop(self) -> None:
        """Returns when it is asked to stop, whichever thread the kernel gave the signal to."""
        select.select([self.stop_fd], [], [])
        self.stopping.set()

    def ready(self, line: str = "ready") -> None:
        """Tells the supervisor that the work has begun."""
        os.write(self._ready_fd, f"{line}\n".encode())


def start() -> Child:
    """Call first in a child's `main`."""
    name, ready_fd, parent_fd = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    die_with_parent()
    log.configure(name)
    stopping = threading.Event()
    stop_fd, stop_end = os.pipe()
    os.set_blocking(stop_end, False)
    # written by the signal's own handler in C: a Python handler runs only once the main thread wakes
    signal.set_wakeup_fd(stop_end, warn_on_full_buffer=False)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    # ctrl-C reaches the whole group; the supervisor alone decides the order of stopping
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = Settings.model_validate_json(sys.stdin.buffer.read())
    leave_with_parent(parent_fd)
    return Child(name, settings, stopping, stop_fd, ready_fd)
