"""Where a paper goes: standard output, or a file of its owner's alone that was not there before."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from node.errors import BadEnvironment, Misuse

FORMATS = ("text", "html", "pdf", "json")


@contextmanager
def reserved(out: Path | None, form: str) -> Iterator[Callable[[bytes], object]]:
    """What writes the paper once it may be shown. Raises Misuse, BadEnvironment before anything is recorded.

    The file is made first (0600) and removed again where the rest fails: nobody is told of a paper that is not there.
    """
    if out is None:
        if form == "pdf" and sys.stdout.isatty():
            raise Misuse("--format pdf: a terminal can't show it; name a file with --out FILE")
        yield _print
        return
    try:
        # the mode holds from the first moment; what is there is never overwritten, nor a link followed
        fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise Misuse(f"{out}: is there already; name another file with --out") from None
    except OSError as e:
        raise BadEnvironment(f"{out}: can't be written: {e.strerror}") from e
    try:
        with os.fdopen(fd, "wb") as file:
            yield file.write
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        out.unlink(missing_ok=True)
        raise


def _print(content: bytes) -> None:
    sys.stdout.flush()
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(content.decode(errors="replace"))
        return
    buffer.write(content)
    buffer.flush()
