"""Where a paper goes: standard output, or a file of its owner's alone that was not there before."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from node.errors import BadEnvironment, Misuse
from node.new_files import created, finished

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
        fd = created(out)
    except FileExistsError:
        raise Misuse(f"{out}: is there already; name another file with --out") from None
    except OSError as e:
        raise BadEnvironment(f"{out}: can't be written: {e.strerror}") from e
    with finished(fd, out) as file:
        yield file.write


def _print(content: bytes) -> None:
    sys.stdout.flush()
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(content.decode(errors="replace"))
        return
    buffer.write(content)
    buffer.flush()
