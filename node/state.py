"""Who holds a data folder: the lock that makes it one node's, and what that node says of itself.

Light: `hilum status` asks here without importing what the supervisor needs.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from node.errors import BadEnvironment

# `read_state` holds the lock for a moment: a node that starts just then must not take that for another node
PATIENCE_SECONDS = 1.0


@dataclass(frozen=True)
class NodeState:
    """run/node.json: what the supervisor tells `hilum status`."""

    pid: int
    since: str
    host: str
    port: int
    ae_title: str
    workers: dict[str, int]
    problem: str = ""
    # what the workers compute with, once one is ready
    runtime: str = ""


def read_state(data_dir: Path) -> NodeState | None:
    """What a running node says of itself; None where none runs."""
    try:
        with (data_dir / "run" / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except FileNotFoundError:
        return None
    except OSError:
        pass
    try:
        return NodeState(**json.loads((data_dir / "run" / "node.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def there(path: Path) -> Path:
    """The folder, or the nearest above it that exists: where it will be made."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Holds the data folder: one node a folder. Raises BadEnvironment, naming the other's pid."""
    path = data_dir / "run" / "lock"
    try:
        # the mode holds for the last folder of the path alone, and everything in the data folder is private
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        lock = path.open("a+")
    except OSError as e:
        raise BadEnvironment(f"{data_dir}: can't be used as data folder: {e.strerror}") from e
    with lock:
        if not _taken(lock):
            lock.seek(0)
            pid = lock.read().strip() or "?"
            raise BadEnvironment(f"{data_dir}: another node (pid {pid}) runs here")
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _taken(lock: IO[str]) -> bool:
    patient_until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() > patient_until:
                return False
            time.sleep(0.05)
