"""`scripts/bench deliver`: results a second to a PACS, beside storescu and pynetdicom's send_c_store."""

import argparse
import json
import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from functools import partial
from pathlib import Path

from pydicom import dcmread

from scripts.benchmarks import image, kept, nodes, options, processes
from scripts.benchmarks.nodes import AE_TITLE, PEERS, Kind, Running, hilum, running
from scripts.benchmarks.report import Column, Report, milliseconds, quantile
from scripts.benchmarks.rounds import Figures, Rounds, interleave
from scripts.benchmarks.senders import ROOT, Failed, Load, Sent

PATIENCE = 120.0
DESTINATIONS = {
    "storescp": (PEERS["storescp-fork"], False),
    "storescp-nagle": (PEERS["storescp-fork"], True),
    "orthanc": (PEERS["orthanc-tuned"], False),
    "orthanc-nagle": (PEERS["orthanc-tuned"], True),
}
GOALS = {("storescp", "storescu"): 2.0, ("orthanc-nagle", "pynetdicom"): 6.0}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=options.size, default=10**6, metavar="1MB")
    parser.add_argument("--count", type=int, metavar="N", help="results a round")
    parser.add_argument("--to", type=options.words, default=list(DESTINATIONS), metavar="a,b",
                        help=f"of {', '.join(DESTINATIONS)}; nagle: started without TCP_NODELAY=1")  # fmt: skip
    parser.add_argument("--from", type=options.words, default=list(SENDERS), dest="senders", metavar="a,b",
                        help=f"of {', '.join(SENDERS)}; serve: a whole node whose outbox is full")  # fmt: skip
    options.add_shared(parser, rounds=7)


def run(chosen: argparse.Namespace, root: Path, report: Report) -> int:
    count = chosen.count or (30 if chosen.quick else 200)
    for name in [n for n in chosen.to if n not in DESTINATIONS] + [
        n for n in chosen.senders if n not in SENDERS
    ]:
        raise Failed(f"there is no {name!r}; --to {', '.join(DESTINATIONS)}; --from {', '.join(SENDERS)}")
    for name in chosen.to:
        kind, nagle = DESTINATIONS[name]
        rows: dict[str, Callable[[Path], Figures]] = {
            _label(sender): partial(_row, SENDERS[sender], kind, nagle, chosen.size, count)
            for sender in chosen.senders
        }
        found = interleave(rows, options.rounds(chosen), root)
        _print(report, name, chosen.size, count, found)
        report.keep("deliver", {"to": name, "size": chosen.size, "count": count}, found)
    return 0


def _row(send: "Sender", kind: Kind, nagle: bool, size: int, count: int, folder: Path) -> Figures:
    """One sender to a peer that is started for it; each result new to it, and there afterwards."""
    run, source = image.new_run(), folder / "source"
    source.mkdir()
    for number in range(count):
        identity = image.uids(run, 0, number)
        whole = image.file(image.data_set(size, run, identity), identity[0])
        (source / f"{identity[0].decode()}.dcm").write_bytes(whole)
    with running(kind, folder / "peer", nagle=nagle) as peer:
        figures = send(peer, source, count)
    kept.check(
        peer, Sent(run, Load(size, count, 1), acknowledged=[(0, n) for n in range(figures.acknowledged)])
    )
    if figures.acknowledged < count:
        raise Failed(f"only {figures.acknowledged} of {count} were taken")
    return figures


def _by_class(how: str, peer: Running, source: Path, count: int) -> Figures:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.benchmarks.delivering", how, str(peer.port), str(source)],
        cwd=ROOT, capture_output=True, timeout=PATIENCE, text=True,
    )  # fmt: skip
    if done.returncode:
        raise Failed(done.stderr[-1000:])
    said = json.loads(done.stdout.splitlines()[-1])
    return Figures(said["taken"] / said["seconds"], cpu=said["cpu"] / count, acknowledged=said["taken"])


def _by_storescu(peer: Running, source: Path, count: int) -> Figures:
    """The start of the process is in the figure."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [nodes.dcmtk("storescu"), "-R", "-pdu", "131072", "-aec", AE_TITLE, "127.0.0.1", str(peer.port), "+sd", source],
        env={**os.environ, **nodes.AT_ONCE}, capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Figures(count / seconds, cpu=cpu / count, acknowledged=0 if done.returncode else count)


def _by_serve(peer: Running, source: Path, count: int) -> Figures:
    """A whole node with these files in its outbox: from the first attempt's record to the last delivery's."""
    folder = source.parent / "node"
    folder.mkdir()
    _fill_outbox(folder / "data", source)
    destination = (
        f'[[destinations]]\nname = "peer"\nae_title = "{AE_TITLE}"\nhost = "127.0.0.1"\nport = {peer.port}\n'
    )
    with running(hilum(more=destination), folder) as node:
        deadline = time.monotonic() + PATIENCE
        while (delivered := _outbox(folder)[0]) < count:
            if time.monotonic() > deadline:
                raise Failed(f"{delivered} of {count} delivered")
            time.sleep(0.2)
        deliverer = processes.find(node.pid, "node.deliver.lanes")
        cpu = processes.cpu_seconds(deliverer) if deliverer else 0.0
    delivered, seconds = _outbox(folder)
    return Figures(delivered / seconds, cpu=cpu / count, acknowledged=delivered)


def _fill_outbox(data_dir: Path, source: Path) -> None:
    """As the deliverer's tests do it: a result of one invented image each."""
    sys.path.append(str(ROOT / "tests"))
    from peers.results import add  # type: ignore[import-not-found]

    from storage.store import Store

    store = Store.create(data_dir)
    for file in sorted(source.iterdir()):
        add(store, dcmread(file), "peer")
    store.close()


def _outbox(folder: Path) -> tuple[int, float]:
    """Deliveries that have ended well, and the seconds they took together."""
    with closing(sqlite3.connect(f"file:{folder}/data/hilum.db?mode=ro", uri=True)) as database:
        count, last = database.execute(
            "SELECT count(*), max(finished_at) FROM deliveries WHERE state = 'delivered'"
        ).fetchone()
        first = database.execute(
            "SELECT min(json_extract(payload, '$.time')) FROM audit "
            "WHERE json_extract(payload, '$.event') = 'delivery.attempted'"
        ).fetchone()[0]
    if not last or not first:
        return count, 0.0
    return count, (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()


Sender = Callable[[Running, Path, int], Figures]

SENDERS: dict[str, Sender] = {
    "class": partial(_by_class, "hilum"),
    "serve": _by_serve,
    "storescu": _by_storescu,
    "pynetdicom": partial(_by_class, "pynetdicom"),
}


def _label(sender: str) -> str:
    return {"class": "hilum", "serve": "hilum serve"}.get(sender, sender)


def _print(report: Report, to: str, size: int, count: int, found: Rounds) -> None:
    rounds = len(next(iter(found.values())))
    report.heading(
        f"deliver to {to}: {count} results of {options.of_bytes(size)}, one association, {rounds} rounds"
    )
    goals = {other: least for (name, other), least in GOALS.items() if name == to}
    for name in found:
        if name.startswith("hilum"):
            report.ratios(name, found, goals if name == "hilum" else {})
    report.table(found, [
        Column("results/s", 10, lambda _, fs: f"{quantile([f.rate for f in fs], 0.5):.1f}"),
        Column("best..worst", 13, lambda _, fs: f"{max(f.rate for f in fs):.0f}..{min(f.rate for f in fs):.0f}"),
        Column("sender's CPU ms/result", 23, lambda _, fs: milliseconds(quantile([f.cpu for f in fs], 0.5))),
    ])  # fmt: skip
