"""How far a long step has come: a bar on stderr where that is a terminal, else a line every half minute."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

PAUSE = 30.0
"""Seconds between two lines where no bar can be drawn."""

T = TypeVar("T")


def steps(what: str, items: Sequence[T]) -> Iterator[T]:
    """The items, one after the other; `what` is a word or two for the person who waits."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(items, description=what, console=console)
        return
    said = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - said > PAUSE:
            print(f"{what}: {done} of {len(items)}", file=sys.stderr, flush=True)
            said = time.monotonic()
        yield item
