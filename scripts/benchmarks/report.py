"""What is printed: ratios first, with their spread; then rates, latencies, CPU, memory. And the JSON that is kept."""

import hashlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scripts.benchmarks.rounds import Figures, Ratio, Rounds, ratio


@dataclass(frozen=True)
class Goal:
    """What a ratio should be at least."""

    least: float

    def verdict(self, found: Ratio) -> str:
        """Reached: the interval includes it, or lies above it."""
        return f">= {self.least:g}  {'reached' if found.high >= self.least else 'MISSED'}"


class Report:
    """Collects what is measured, prints it as it comes, keeps it as JSON at the end."""

    def __init__(self) -> None:
        self._runs: list[dict[str, Any]] = []

    def heading(self, text: str) -> None:
        print(f"\n{text}\n{'=' * len(text)}", flush=True)

    def line(self, text: str) -> None:
        print(text, flush=True)

    def ratios(self, name: str, found: Rounds, goals: Mapping[str, float]) -> None:
        """`name`'s rate to every other row's."""
        print(f"\n{name}'s rate to that of …{'median':>14}  {'95 % interval':>15}  {'best..worst':>13}  goal")
        for other, figures in found.items():
            if other == name:
                continue
            r = ratio(found[name], figures)
            interval, spread = f"{r.low:.2f} – {r.high:.2f}", f"{r.best:.2f}..{r.worst:.2f}"
            goal = Goal(goals[other]).verdict(r) if other in goals else ""
            print(f"  {other:28} {r.median:8.2f}  {interval:>15}  {spread:>13}  {goal}")
        rounds = len(found[name])
        if rounds < 6:
            print(f"  ({rounds} rounds are too few for a 95 % interval: the extremes are shown)")

    def table(self, found: Rounds, columns: Sequence["Column"]) -> None:
        print("\n" + f"{'':20}" + " ".join(f"{c.title:>{c.width}}" for c in columns))
        for name, figures in found.items():
            print(f"{name:20}" + " ".join(f"{c.of(name, figures):>{c.width}}" for c in columns))
        for name, figures in found.items():
            for trouble, times in _troubles(figures).items():
                print(f"  {name}: {times} x {trouble}")

    def keep(self, what: str, load: Mapping[str, Any], found: Rounds) -> None:
        """The figures of every round, latencies as quantiles."""
        rows = {name: [_summary(f) for f in figures] for name, figures in found.items()}
        self._runs.append({"what": what, **load, "rounds": rows})

    def keep_as(self, file: Path | None) -> None:
        if file:
            kept = {
                "machine": machine(),
                "sha256_ms_per_mb": round(1e3 * sha256_seconds(10**6), 4),
                "runs": self._runs,
            }
            file.write_text(json.dumps(kept, indent=1) + "\n")


@dataclass(frozen=True)
class Column:
    title: str
    width: int
    of: Callable[[str, Sequence[Figures]], str]


def rates(durable: Mapping[str, str], hash_seconds: float = 0.0) -> list[Column]:
    """The columns of a receiving node. `hash_seconds`: what SHA-256 of one image costs, taken off Hilum's CPU."""

    def without_hash(name: str, figures: Sequence[Figures]) -> str:
        if not (name.startswith("hilum") and hash_seconds):
            return ""
        return milliseconds(_median(f.cpu for f in figures) - hash_seconds)

    return [
        Column("images/s", 9, lambda _, figures: f"{_median(f.rate for f in figures):.1f}"),
        Column(
            "best..worst", 13, lambda _, fs: f"{max(f.rate for f in fs):.0f}..{min(f.rate for f in fs):.0f}"
        ),
        Column("p50 ms", 7, lambda _, figures: _quantile(figures, "whole", 0.5)),
        Column("p99 ms", 7, lambda _, figures: _quantile(figures, "whole", 0.99)),
        Column("tail p50", 8, lambda _, figures: _quantile(figures, "tail", 0.5)),
        Column("CPU ms/image", 12, lambda _, figures: milliseconds(_median(f.cpu for f in figures))),
        Column("less hash", 9, without_hash),
        Column("whole node", 10, lambda _, figures: milliseconds(_median(f.cpu_of_all for f in figures))),
        Column("peak MB", 8, lambda _, figures: _megabytes(max(f.peak for f in figures))),
        Column("durable at Success", 20, lambda name, _: durable.get(name, "")),
    ]


@cache
def sha256_seconds(size: int) -> float:
    """CPU of hashing so many bytes here, in pieces as they arrive: the median of nine times 16 MB."""
    piece, times = os.urandom(131_072), []
    for _ in range(9):
        whole, began = hashlib.sha256(), time.thread_time()
        for _ in range(128):
            whole.update(piece)
        times.append(time.thread_time() - began)
    return statistics.median(times) / (128 * len(piece)) * size


def machine() -> dict[str, Any]:
    return {"cores": os.cpu_count(), "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version()}  # fmt: skip


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}" if seconds else ""


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f}" if size else ""


def _quantile(figures: Sequence[Figures], which: str, q: float) -> str:
    """Over the images of all rounds."""
    return milliseconds(quantile([s for f in figures for s in getattr(f, which)], q))


def quantile(values: Sequence[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * q))] if values else 0.0


def _troubles(figures: Sequence[Figures]) -> dict[str, int]:
    found: dict[str, int] = {}
    for f in figures:
        for trouble, times in f.troubles.items():
            found[trouble] = found.get(trouble, 0) + times
    return found


def _summary(figures: Figures) -> dict[str, Any]:
    rest = asdict(figures)
    for name in ("whole", "tail", "associate"):
        values = rest.pop(name)
        rest |= {f"{name}_p{int(100 * q)}_ms": round(1e3 * quantile(values, q), 3) for q in (0.5, 0.99)}
    return rest
