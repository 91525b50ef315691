"""No two runs write into one folder: a lock that dies with its process, however that dies."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model.errors import ModelError


@contextmanager
def alone(lock: Path, otherwise: ModelError) -> Iterator[None]:
    """Holds the file `lock`, which it makes; raises `otherwise` where another process holds it."""
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise otherwise from error
        yield
