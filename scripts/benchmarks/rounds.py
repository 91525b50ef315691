"""Rounds: all rows take turns, the order reversed every other round, and each ratio is taken within its round."""

import math
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scripts.benchmarks.senders import Failed


@dataclass
class Figures:
    """One row in one round. Times in seconds, memory in bytes, CPU in seconds an image; 0 where it does not apply."""

    rate: float
    whole: list[float] = field(default_factory=list)
    tail: list[float] = field(default_factory=list)
    associate: list[float] = field(default_factory=list)
    cpu: float = 0.0
    cpu_of_all: float = 0.0
    peak: int = 0
    acknowledged: int = 0
    troubles: dict[str, int] = field(default_factory=dict)
    more: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, and an interval that holds it with probability `coverage`."""

    median: float
    low: float
    high: float
    best: float
    worst: float
    coverage: float


Rounds = dict[str, list[Figures]]


def interleave(rows: Mapping[str, Callable[[Path], Figures]], rounds: int, root: Path) -> Rounds:
    """Each row once a round, each time in a fresh folder under `root`, with nothing left to be written.

    Raises Failed, as the rows do.
    """
    if not rows:
        raise Failed("no row is left that could be measured")
    found: Rounds = {name: [] for name in rows}
    for number in range(rounds):
        for name in list(rows)[:: 1 if number % 2 == 0 else -1]:
            with fresh_folder(root) as folder:
                try:
                    found[name].append(rows[name](folder))
                except Failed as e:
                    raise Failed(f"{name}: {e}") from e
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    return found


@contextmanager
def fresh_folder(root: Path) -> Iterator[Path]:
    """Nobody pays for the dirty pages and the removed files of the one before."""
    folder = Path(tempfile.mkdtemp(dir=root))
    os.sync()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ratio(of: Sequence[Figures], to: Sequence[Figures]) -> Ratio:
    """Of the rates, paired by round."""
    pairs = [a.rate / b.rate if b.rate else math.inf for a, b in zip(of, to, strict=True)]
    low, high, coverage = median_interval(pairs)
    return Ratio(statistics.median(pairs), low, high, max(pairs), min(pairs), coverage)


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """(low, high, coverage) for the median of what the values were drawn from, by order statistics.

    Nothing is assumed of the distribution: each draw lies below its median with probability 1/2. The narrowest
    symmetric pair of ranks with at least `level`; below six values no pair has 95 %, and the extremes are given.
    """
    ordered, n = sorted(values), len(values)
    drop, coverage = 0, 1 - 2 * 0.5**n
    while drop + 1 < n / 2:
        below = sum(math.comb(n, k) for k in range(drop + 2)) / 2**n
        if 1 - 2 * below < level:
            break
        drop, coverage = drop + 1, 1 - 2 * below
    return ordered[drop], ordered[n - 1 - drop], coverage
