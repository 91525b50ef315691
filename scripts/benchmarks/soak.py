"""`scripts/bench soak`: many small objects; does the node's memory or the number of its open files grow?"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks import options, processes
from scripts.benchmarks.nodes import hilum, running
from scripts.benchmarks.report import Report
from scripts.benchmarks.rounds import Figures, fresh_folder
from scripts.benchmarks.senders import Failed, Load, send

SAMPLES = 20
# what is warm after this share of the run must stay as it is
WARM = 0.2
MEMORY_GROWTH = 0.10
# five connections to the database may still be opened, of two files each; a leak is a file an object or an association
MORE_DESCRIPTORS = 10
IMAGES_AN_ASSOCIATION = 50


@dataclass(frozen=True)
class Sample:
    """One process after so many objects."""

    objects: int
    resident: int
    descriptors: int


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=100_000, metavar="N")
    parser.add_argument("--size", type=options.size, default=10**3, metavar="1KB")
    parser.add_argument("--senders", type=int, default=4, metavar="N")
    parser.add_argument("--engine", default="", metavar="hilum|pynetdicom")
    parser.add_argument("--quick", action="store_true", help="2,000 objects: a look, no measurement")
    parser.add_argument("--folder", type=Path, metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE")


def run(chosen: argparse.Namespace, root: Path, report: Report) -> int:
    count = 2_000 if chosen.quick else chosen.count
    load = Load(chosen.size, max(chosen.senders, count // SAMPLES), chosen.senders,
                per_association=IMAGES_AN_ASSOCIATION, max_seconds=3600)  # fmt: skip
    report.heading(f"soak: {count} objects of {options.of_bytes(chosen.size)}, {chosen.senders} senders")
    report.line(f"{'objects':>9} {'objects/s':>10}  resident MB / open files of each process")
    seen, rates = _soak(chosen.engine, load, root, report)
    grown = False
    for name, samples in seen.items():
        judged = name == "node.receive.server"
        problem = growth(samples, memory=judged)
        grown |= bool(problem)
        report.line(
            f"{name}: {slope(samples):+.1f} bytes of memory an object once warm{'; ' + problem if problem else ''}"
        )
    figures = [Figures(rate) for rate in rates]
    report.keep("soak", {"size": load.size, "count": count, "samples": _as_numbers(seen)}, {"hilum": figures})
    return 1 if grown else 0


def _soak(engine: str, load: Load, root: Path, report: Report) -> tuple[dict[str, list[Sample]], list[float]]:
    """Senders end between two samples: nothing is under way when a sample is taken."""
    seen: dict[str, list[Sample]] = {}
    rates = []
    with fresh_folder(root) as folder, running(hilum(engine), folder) as node:
        for part in range(1, SAMPLES + 1):
            sent = send(node.port, "PEER", load)
            if len(sent.acknowledged) < load.count:
                raise Failed(
                    f"only {len(sent.acknowledged)} of {load.count} were acknowledged: {sent.troubles}"
                )
            rates.append(sent.rate)
            told = []
            for pid in processes.tree(node.pid):
                sample = Sample(part * load.count, processes.resident_bytes(pid), processes.descriptors(pid))
                seen.setdefault(processes.command(pid), []).append(sample)
                told.append(f"{processes.command(pid)} {sample.resident / 1e6:.1f}/{sample.descriptors}")
            report.line(f"{part * load.count:9} {sent.rate:10.1f}  {'  '.join(told)}")
    return seen, rates


def growth(samples: Sequence[Sample], *, memory: bool) -> str:
    """What grew, or "". Open files: the last quarter's fewest against the most of the time when it got warm."""
    warm = [s for s in samples if s.objects >= WARM * samples[-1].objects]
    early, late = warm[: max(1, len(warm) // 4)], warm[-max(1, len(warm) // 4) :]
    if min(s.descriptors for s in late) > max(s.descriptors for s in early) + MORE_DESCRIPTORS:
        return f"GREW from {early[0].descriptors} to {late[-1].descriptors} open files"
    if memory and late[-1].resident > (1 + MEMORY_GROWTH) * early[0].resident:
        return f"GREW from {early[0].resident / 1e6:.1f} to {late[-1].resident / 1e6:.1f} MB"
    return ""


def slope(samples: Sequence[Sample]) -> float:
    """Bytes of resident memory an object, once warm."""
    warm = [s for s in samples if s.objects >= WARM * samples[-1].objects]
    if len(warm) < 2:
        return 0.0
    return statistics.linear_regression([s.objects for s in warm], [s.resident for s in warm]).slope


def _as_numbers(seen: dict[str, list[Sample]]) -> dict[str, list[list[int]]]:
    return {name: [[s.objects, s.resident, s.descriptors] for s in samples] for name, samples in seen.items()}
