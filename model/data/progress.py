"""How far a download is, in bytes: a bar on stderr where that is a terminal, else a plain line now and then.

Steps that are counted in images have `model.progress`.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

PAUSE = 60.0
"""Seconds between two lines where no bar can be drawn: a log of a night's download stays short."""


class Progress:
    """One step at a time: `start`, then `advance` as its bytes come."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        console = Console(stderr=True)
        self._terminal = console.is_terminal
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self._terminal,
        )
        self._bar = self.bars.add_task("", visible=False)
        self._title, self._done, self._told = "", 0, 0.0
        self._total: int | None = None

    def start(self, title: str, total: int | None, done: int = 0) -> None:
        """A new step of `total` bytes (None: nobody knows), of which `done` are there already."""
        self._title, self._total, self._done, self._told = title, total, done, time.monotonic()
        self.bars.remove_task(self._bar)
        self._bar = self.bars.add_task(title, total=total, completed=done)

    def advance(self, count: int) -> None:
        self._done += count
        self.bars.advance(self._bar, count)
        if not self._terminal and time.monotonic() - self._told > PAUSE:
            self._told = time.monotonic()
            of = f" of {amount(self._total)}" if self._total is not None else ""
            self.say(f"{self._title}: {amount(self._done)}{of}")

    def say(self, line: str) -> None:
        """A line of its own, above the bar."""
        if self._terminal:
            self.bars.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)


@contextmanager
def progress() -> Iterator[Progress]:
    """A Progress that is shown while the block runs."""
    shown = Progress()
    with shown.bars:
        yield shown


def amount(count: int) -> str:
    """1500000000 -> "1.5 GB"."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"
