"""Files of their owner's alone that were not there before: nothing is written over, and no half is left."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def created(file: Path) -> int:
    """A new file (0600 from the first moment), opened to be written; no link is followed. Raises FileExistsError,
    OSError."""
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)


@contextmanager
def finished(fd: int, file: Path) -> Iterator[IO[bytes]]:
    """Writes what `created` has made; synced at the end, removed again where that is not reached. Raises OSError."""
    try:
        with os.fdopen(fd, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        file.unlink(missing_ok=True)
        raise
