"""`scripts/bench associations`: an association an image, idle ones, many at once, an unpatched storescu, a slow one."""

import argparse
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from scripts.benchmarks import image, kept, nodes, options, processes
from scripts.benchmarks.association import Association, Lost, Rejected
from scripts.benchmarks.nodes import AE_TITLE, Kind, Running, chosen, running
from scripts.benchmarks.receive import node_row
from scripts.benchmarks.report import Column, Report, milliseconds, quantile, rates
from scripts.benchmarks.rounds import Figures, Rounds, interleave
from scripts.benchmarks.senders import Failed, Load, Sent, opened, send

IDLE_SECONDS, QUICK_IDLE_SECONDS = 3.0, 1.0
SLOW_BYTES_A_SECOND = 65_536
SLOW_SECONDS, QUICK_SLOW_SECONDS = 4, 2
STEP_SECONDS = 0.1

Rows = Mapping[str, Callable[[Path], Figures]]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only", type=options.words, default=list(PARTS), metavar="a,b", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--nodes", type=options.words, metavar="a,b", help="instead of those that each part compares"
    )
    parser.add_argument("--count", type=int, metavar="N", help="images, or associations open at once")
    options.add_shared(parser, rounds=5)


def run(asked: argparse.Namespace, root: Path, report: Report) -> int:
    for name in asked.only:
        if name not in PARTS:
            raise Failed(f"there is no part {name!r}; there are {', '.join(PARTS)}")
        PARTS[name](asked, root, report)
    return 0


def one_image(asked: argparse.Namespace, root: Path, report: Report) -> None:
    """An association an image, 128 contexts proposed: what many modalities do."""
    count = _count(asked, 200, 24)
    load = Load(10**3, count, 4, 128, per_association=1, max_seconds=options.seconds(asked))
    kinds = _kinds(asked, root, "floor", "storescp-fork", "orthanc", "pynetdicom-app", "hilum")
    found = _interleave(asked, {kind.name: partial(node_row, kind, load) for kind in kinds}, root)
    report.heading(f"associations: one image of 1 KB each, 128 contexts, 4 senders, {count} images")
    _ratios(report, found, {"storescp-fork": 3.0, "orthanc": 6.0, "pynetdicom-app": 30.0})
    columns = rates({kind.name: kind.durable for kind in kinds})
    report.table(found, [Column("set-up p50", 10, lambda _, fs: _associate(fs)), *columns])
    report.keep("associations one-image", {"count": count, "senders": 4, "contexts": 128}, found)


def idle(asked: argparse.Namespace, root: Path, report: Report) -> None:
    """A busy sender beside many associations with nothing to do, and what these alone cost."""
    many = _count(asked, 200, 50)
    load = Load(10**6, 40 if asked.quick else 200, 1, max_seconds=options.seconds(asked))
    seconds = QUICK_IDLE_SECONDS if asked.quick else IDLE_SECONDS
    found = _beside(asked, root, " + idle", lambda kind, is_beside: partial(
        _busy, kind, load, many if is_beside else 0, seconds
    ))  # fmt: skip
    report.heading(
        f"associations: 1 sender of {load.count} images of 1 MB beside {many} idle associations, and alone"
    )
    _ratios_to_alone(report, found, " + idle")
    report.table(found, [
        Column("idle CPU %", 10, lambda _, fs: f"{100 * _more(fs, 'idle_cpu'):.1f}"),
        Column("opened in s", 11, lambda _, fs: f"{_more(fs, 'opening'):.2f}"),
        *rates({}),
    ])  # fmt: skip
    report.keep("associations idle", {"idle": many, "count": load.count}, found)


def together(asked: argparse.Namespace, root: Path, report: Report) -> None:
    """Many associations, all of which store at the same moment."""
    many = _count(asked, 200, 50)
    size = 10**6
    kinds = _kinds(asked, root, "storescp-fork", "hilum")
    found = _interleave(asked, {kind.name: partial(_at_once, kind, many, size) for kind in kinds}, root)
    report.heading(f"associations: {many} at once, each stores one image of 1 MB")
    _ratios(report, found, {})
    report.table(found, rates({kind.name: kind.durable for kind in kinds}))
    report.keep("associations together", {"associations": many, "size": size}, found)


def unpatched(asked: argparse.Namespace, root: Path, report: Report) -> None:
    """DCMTK's storescu as Debian ships it, TCP_NODELAY unset: Nagle's algorithm on its side."""
    count = _count(asked, 300, 60)
    kinds = _kinds(asked, root, "storescp-fork", "orthanc", "hilum")
    found = _interleave(asked, {kind.name: partial(_storescu, kind, count) for kind in kinds}, root)
    report.heading(f"associations: an unpatched storescu, {count} images of 1 KB in one association")
    _ratios(report, found, {})
    report.table(found, rates({}))
    for name, figures in found.items():
        if name.startswith("hilum"):
            rate = quantile([f.rate for f in figures], 0.5)
            report.line(f"{name}: {rate:.0f} images/s; goal >= 300 {'reached' if rate >= 300 else 'MISSED'}")
    report.keep("associations unpatched", {"count": count}, found)


def slow(asked: argparse.Namespace, root: Path, report: Report) -> None:
    """One sender of 64 KB/s beside four fast ones, and these alone."""
    load = Load(10**6, 60 if asked.quick else 300, 4, max_seconds=options.seconds(asked))
    seconds = QUICK_SLOW_SECONDS if asked.quick else SLOW_SECONDS
    found = _beside(asked, root, " + slow", lambda kind, is_beside: partial(
        _beside_slow, kind, load, seconds if is_beside else 0
    ))  # fmt: skip
    report.heading(
        f"associations: 4 senders of {load.count} images of 1 MB beside one that sends 64 KB/s, and alone"
    )
    _ratios_to_alone(report, found, " + slow")
    report.table(found, rates({}))
    report.keep("associations slow", {"count": load.count, "bytes_a_second": SLOW_BYTES_A_SECOND}, found)


PARTS = {"one-image": one_image, "idle": idle, "together": together, "unpatched": unpatched, "slow": slow}


def _beside(
    asked: argparse.Namespace,
    root: Path,
    company: str,
    row: Callable[[Kind, bool], Callable[[Path], Figures]],
) -> dict[str, list[Figures]]:
    """Each node's rounds with company, whose rows are named by it, and alone."""
    rows = {
        f"{kind.name}{beside}": row(kind, bool(beside))
        for kind in _kinds(asked, root, "storescp-fork", "hilum")
        for beside in (company, "")
    }
    return _interleave(asked, rows, root)


def _ratios_to_alone(report: Report, found: Mapping[str, list[Figures]], company: str) -> None:
    for name in found:
        if name.endswith(company):
            alone = name.removesuffix(company)
            report.ratios(name, {name: found[name], alone: found[alone]}, {})


def _busy(kind: Kind, load: Load, many: int, seconds: float, folder: Path) -> Figures:
    with running(kind, folder) as node, ExitStack() as open_ones:
        began = time.monotonic()
        for association in opened(many, node.port, AE_TITLE):
            open_ones.callback(association.socket.close)
        opening = time.monotonic() - began
        cpu = processes.cpu_seconds(node.receiver)
        time.sleep(seconds)
        idle_cpu = (processes.cpu_seconds(node.receiver) - cpu) / seconds
        figures, sent = _send_to(node, load)
    kept.check(node, sent)
    figures.more = {"idle_cpu": idle_cpu, "opening": opening}
    return figures


def _beside_slow(kind: Kind, load: Load, seconds: int, folder: Path) -> Figures:
    troubles: list[str] = []
    with running(kind, folder) as node:
        trickle = threading.Thread(target=_trickle, args=(node.port, seconds, troubles))
        if seconds:
            trickle.start()
            time.sleep(5 * STEP_SECONDS)
        figures, sent = _send_to(node, load)
        if seconds:
            trickle.join()
    if not seconds:
        kept.check(node, sent)
    for trouble in troubles:
        figures.troubles[f"slow sender: {trouble}"] = 1
    return figures


def _trickle(port: int, seconds: int, troubles: list[str]) -> None:
    try:
        association = Association(port, AE_TITLE)
        message = image.Message(
            SLOW_BYTES_A_SECOND * seconds, image.new_run(), 0, max_pdu=association.max_pdu
        )
        step = int(SLOW_BYTES_A_SECOND * STEP_SECONDS)
        for at in range(0, len(message.bytes), step):
            association.socket.sendall(message.bytes[at : at + step])
            time.sleep(STEP_SECONDS)
        status = association.status()
        if status:
            troubles.append(f"status {status:04X}")
        association.release()
    except (OSError, Lost, Rejected) as e:
        troubles.append(str(e))


def _at_once(kind: Kind, many: int, size: int, folder: Path) -> Figures:
    """A thread an association: sending and waiting are the kernel's."""
    run = image.new_run()
    barrier = threading.Barrier(many + 1)

    def one(n: int, node: Running) -> tuple[int, float] | str:
        try:
            association = Association(node.port, AE_TITLE)
            message = image.Message(size, run, n, max_pdu=association.max_pdu)
        except (OSError, Lost, Rejected) as e:
            barrier.wait()
            return str(e)
        barrier.wait()
        began = time.monotonic()
        try:
            association.socket.sendall(message.bytes)
            status = association.status()
            seconds = time.monotonic() - began
            association.release()
        except (OSError, Lost) as e:
            return str(e)
        return (n, seconds) if status == 0 else f"status {status:04X}"

    with running(kind, folder) as node, ThreadPoolExecutor(many) as pool:
        waiting = [pool.submit(one, n, node) for n in range(many)]
        barrier.wait()
        began, cpu = time.monotonic(), processes.cpu_seconds(node.receiver)
        while not all(w.done() for w in waiting):
            node.watch()
            time.sleep(0.1)
        seconds = time.monotonic() - began
        cpu = processes.cpu_seconds(node.receiver) - cpu
        answers = [w.result() for w in waiting]
    sent = Sent(run, Load(size, many, many))
    for answer in answers:
        if isinstance(answer, str):
            sent.troubles[answer] = sent.troubles.get(answer, 0) + 1
        else:
            sent.acknowledged.append((answer[0], 0))
            sent.whole.append(answer[1])
    kept.check(node, sent)
    return Figures(
        len(sent.acknowledged) / seconds, sent.whole, cpu=cpu / many, peak=node.peak_bytes,
        acknowledged=len(sent.acknowledged), troubles=sent.troubles,
    )  # fmt: skip


def _storescu(kind: Kind, count: int, folder: Path) -> Figures:
    """The program's start is in the figure."""
    run, source = image.new_run(), folder / "source"
    source.mkdir()
    for number in range(count):
        identity = image.uids(run, 0, number)
        whole = image.file(image.data_set(10**3, run, identity), identity[0])
        (source / f"{number:05d}.dcm").write_bytes(whole)
    environment = {k: v for k, v in os.environ.items() if k not in nodes.AT_ONCE}
    with running(kind, folder) as node:
        began = time.monotonic()
        command = [
            nodes.dcmtk("storescu"),
            "-R",
            "-aec",
            AE_TITLE,
            "127.0.0.1",
            str(node.port),
            "+sd",
            str(source),
        ]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=600)
        seconds = time.monotonic() - began
        node.watch()
    if done.returncode:
        raise Failed(f"storescu: {done.stderr.decode(errors='replace')[-500:]}")
    kept.check(node, Sent(run, Load(10**3, count, 1), acknowledged=[(0, number) for number in range(count)]))
    return Figures(count / seconds, peak=node.peak_bytes, acknowledged=count)


def _send_to(node: Running, load: Load) -> tuple[Figures, Sent]:
    cpu = processes.cpu_seconds(node.receiver)
    sent = send(node.port, AE_TITLE, load, watch=node.watch)
    node.watch()
    cpu = processes.cpu_seconds(node.receiver) - cpu
    figures = Figures(
        sent.rate, sent.whole, sent.tail, sent.associate, cpu / max(1, len(sent.acknowledged)),
        peak=node.peak_bytes, acknowledged=len(sent.acknowledged), troubles=sent.troubles,
    )  # fmt: skip
    return figures, sent


def _kinds(asked: argparse.Namespace, root: Path, *names: str) -> list[Kind]:
    return chosen(asked.nodes or names, asked.engine, root)


def _count(asked: argparse.Namespace, usual: int, quick: int) -> int:
    return asked.count or (quick if asked.quick else usual)


def _interleave(asked: argparse.Namespace, rows: Rows, root: Path) -> Rounds:
    return interleave(rows, options.rounds(asked), root)


def _ratios(report: Report, found: Rounds, goals: Mapping[str, float]) -> None:
    for name in found:
        if name.startswith("hilum"):
            report.ratios(name, found, goals)
    if "floor" in found:
        report.ratios("floor", found, {})


def _associate(figures: Sequence[Figures]) -> str:
    return milliseconds(quantile([s for f in figures for s in f.associate], 0.5))


def _more(figures: Sequence[Figures], key: str) -> float:
    return quantile([f.more.get(key, 0.0) for f in figures], 0.5)
