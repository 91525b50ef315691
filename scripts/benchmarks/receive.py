"""`scripts/bench receive`: images a second until the last Success, beside other nodes and beside the bare disk."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from scripts.benchmarks import disk, kept, options, processes, system_calls
from scripts.benchmarks.nodes import Kind, chosen, running
from scripts.benchmarks.report import Report, milliseconds, rates, sha256_seconds
from scripts.benchmarks.rounds import Figures, Rounds, fresh_folder, interleave
from scripts.benchmarks.senders import Load, send

NODES = ["disk", "floor", "discard", "storescp", "storescp-bit", "storescp-fork", "orthanc", "orthanc-tuned",
         "pynetdicom-app", "pynetdicom-fsync", "hilum"]  # fmt: skip
# a quantile of fewer images is noise: an fsync's p99 is 3 to 20 times its median
COUNTS = {10**3: 600, 10**6: 300, 10**7: 60, 2 * 10**8: 3}
QUICK_COUNTS = {10**3: 100, 10**6: 60, 10**7: 12, 2 * 10**8: 1}
CPU_GOAL_MS = 1.2
MEMORY_GOAL = 60_000_000
MEMORY_AN_ASSOCIATION = 300_000


def goals(size: int, senders: int) -> dict[str, float]:
    """What Hilum's rate is to be, as a multiple of the others', at least."""
    if size == 10**6 and 4 <= senders <= 8:
        return {
            "disk": 1.0,
            "storescp-fork": 0.9,
            "storescp": 1.5,
            "orthanc-tuned": 2.5,
            "pynetdicom-fsync": 3.0,
        }
    if size == 10**7:
        return {"storescp-fork": 0.9}
    if size == 10**3:
        return {"disk": 0.9}
    if size == 10**6 and senders == 1:
        return {"storescp-bit": 0.8}
    return {}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=options.sizes, default=[10**6], metavar="1KB,1MB,10MB,200MB")
    parser.add_argument("--senders", type=options.numbers, default=[4], metavar="1,4,8,32")
    parser.add_argument("--count", type=int, metavar="N", help="images a round; default by size")
    parser.add_argument(
        "--nodes", type=options.words, default=NODES, metavar="a,b", help=f"of {', '.join(NODES)}"
    )
    parser.add_argument("--contexts", type=int, default=128, metavar="N", help="proposed an association")
    parser.add_argument(
        "--system-calls", action="store_true", help="count Hilum's system calls an image instead"
    )
    options.add_shared(parser, rounds=15)


def run(asked: argparse.Namespace, root: Path, report: Report) -> int:
    for size in asked.size:
        for senders in asked.senders:
            load = _load(asked, size, senders)
            if asked.system_calls:
                _count_calls(asked, load, root, report)
            else:
                _measure(asked, load, root, report)
    return 0


def _load(asked: argparse.Namespace, size: int, senders: int) -> Load:
    counts = QUICK_COUNTS if asked.quick else COUNTS
    nearest = min(counts, key=lambda known: abs(known - size))
    count = asked.count or max(counts[nearest], senders)
    return Load(size, count, senders, asked.contexts, max_seconds=options.seconds(asked))


def _measure(asked: argparse.Namespace, load: Load, root: Path, report: Report) -> None:
    rounds = options.rounds(asked)
    kinds = chosen([name for name in asked.nodes if name != "disk"], asked.engine, root)
    rows: dict[str, Callable[[Path], Figures]] = {kind.name: partial(node_row, kind, load) for kind in kinds}
    if "disk" in asked.nodes:
        rows = {"disk": partial(disk_row, load), **rows}
    found = interleave(rows, rounds, root)
    durable = {kind.name: kind.durable for kind in kinds} | {"disk": "file"}
    hash_seconds = sha256_seconds(load.size)
    _print(report, load, found, durable, hash_seconds)
    what = {"size": load.size, "count": load.count, "senders": load.senders, "contexts": load.contexts}
    report.keep("receive", what, found)


def node_row(kind: Kind, load: Load, folder: Path) -> Figures:
    """One load on one node that is started for it; then what it kept is read back. Raises Failed."""
    with running(kind, folder) as node:
        cpu, all_cpu = processes.cpu_seconds(node.receiver), processes.cpu_seconds(node.pid)
        sent = send(node.port, "PEER", load, late=load.senders > kind.at_once, watch=node.watch)
        node.watch()
        cpu = processes.cpu_seconds(node.receiver) - cpu
        all_cpu = processes.cpu_seconds(node.pid) - all_cpu
    kept.check(node, sent)
    images = max(1, len(sent.acknowledged))
    return Figures(
        sent.rate, sent.whole, sent.tail, sent.associate, cpu / images, all_cpu / images if kind.is_hilum else 0.0,
        node.peak_bytes, len(sent.acknowledged), sent.troubles,
    )  # fmt: skip


def disk_row(load: Load, folder: Path) -> Figures:
    seconds, cpu = disk.write(folder, load.size, load.count, load.senders)
    return Figures(load.count / seconds, cpu=cpu / load.count, acknowledged=load.count)


def _print(report: Report, load: Load, found: Rounds, durable: dict[str, str], hash_seconds: float) -> None:
    hilums = [name for name in found if name.startswith("hilum")]
    rounds = len(next(iter(found.values())))
    report.heading(
        f"receive: {load.count} images of {options.of_bytes(load.size)}, {load.senders} senders, "
        f"{load.contexts} contexts proposed, {rounds} rounds"
    )
    for name in hilums:
        report.ratios(name, found, goals(load.size, load.senders))
    if "floor" in found:
        report.ratios("floor", found, {})
    report.table(found, rates(durable, hash_seconds))
    report.line(f"\nSHA-256 here: {milliseconds(sha256_seconds(10**6))} ms of CPU a MB")
    for name in hilums:
        _say_goals(report, name, load, found[name], hash_seconds)


def _say_goals(
    report: Report, name: str, load: Load, figures: Sequence[Figures], hash_seconds: float
) -> None:
    if load.size == 10**6:
        spent = sorted(1e3 * (f.cpu - hash_seconds) for f in figures)
        median = spent[len(spent) // 2]
        spread = f"{spent[0]:.2f}..{spent[-1]:.2f}"
        report.line(
            f"{name}: {median:.2f} ms of CPU an image, all but the hash ({spread}); "
            f"goal <= {CPU_GOAL_MS} {_word(median <= CPU_GOAL_MS)}"
        )
    peak = max(f.peak for f in figures)
    limit = MEMORY_GOAL + load.senders * MEMORY_AN_ASSOCIATION
    report.line(f"{name}: {peak / 1e6:.0f} MB at most; goal <= {limit / 1e6:.0f} {_word(peak <= limit)}")


def _word(reached: bool) -> str:
    return "reached" if reached else "MISSED"


def _count_calls(asked: argparse.Namespace, load: Load, root: Path, report: Report) -> None:
    """Under strace, which makes everything slow: counts only, no times."""
    names = asked.nodes if asked.nodes is not NODES else ["hilum"]
    for kind in chosen([name for name in names if name != "disk"], asked.engine, root):
        with fresh_folder(root) as folder, running(kind, folder) as node:
            with system_calls.counted(node.receiver) as calls:
                sent = send(node.port, "PEER", load, late=load.senders > kind.at_once)
            images = max(1, len(sent.acknowledged))
        report.heading(
            f"{kind.name}: {sum(calls.values()) / images:.1f} system calls an image of "
            f"{options.of_bytes(load.size)} ({images} images, {load.senders} senders)"
        )
        for call, times in calls.most_common():
            if times / images >= 0.05:
                report.line(f"  {call:20} {times / images:8.1f}")
