"""`scripts/bench audit`: the audit log at its size: questions, traces, verifying, sealing, bytes; and what it costs.

Times of questions are those of a page, the median of three; of all pages the median and the longest are shown.
"""

import argparse
import os
import shutil
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from itertools import product
from pathlib import Path

from node.trace.find import find, read
from scripts.benchmarks import kept, options, processes
from scripts.benchmarks.audit_log import Built, build
from scripts.benchmarks.audit_questions import questions, samples
from scripts.benchmarks.nodes import Kind, hilum, running
from scripts.benchmarks.report import Report, milliseconds, quantile, rates
from scripts.benchmarks.rounds import Figures, interleave
from scripts.benchmarks.senders import Load, send
from storage.audit import Filter
from storage.audit.index import term
from storage.audit.verify import Findings, opened, verify
from storage.store import DATABASE, KEY, Store

RECORDS = 2_000_000
QUICK_RECORDS = 50_000
PAGE_GOAL = 0.2
TRACE_GOAL = 0.05
VERIFY_GOAL = 200_000
# what a node writes at most: 1,000 small images a second, three records each
SEAL_GOAL = 3_000
PAGES = (100, 1000)
REPEATS = 3
TRACES = 40
PARTS = ("log", "cost")
PARTS_OF_A_RECORD = {
    "audit": "records (payload and hash)",
    "audit_posting": "postings",
    "audit_identity": "identities",
    "audit_seal": "seals",
}
_SIZES = (
    "SELECT m.tbl_name, sum(d.pgsize) FROM dbstat d JOIN sqlite_master m ON m.name = d.name "
    "WHERE d.aggregate = true GROUP BY m.tbl_name"
)
UNAUDITED = "no audit"
FULL = "hilum, full log"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--records", type=int, default=RECORDS, metavar="N", help="in the log that is built")
    parser.add_argument(
        "--log", type=Path, metavar="DIR", help="build the log there, or use the one that is there; it stays"
    )
    parser.add_argument(
        "--parts", type=options.words, default=list(PARTS), metavar="a,b", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument("--count", type=int, default=300, metavar="N", help="[cost] images a round")
    parser.add_argument("--senders", type=int, default=4, metavar="N", help="[cost] at once")
    options.add_shared(parser, rounds=15)


def run(asked: argparse.Namespace, root: Path, report: Report) -> int:
    folder = asked.log or root / "log"
    records = min(asked.records, QUICK_RECORDS) if asked.quick else asked.records
    if not (folder / DATABASE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"building a log of {records} records", file=sys.stderr)
        _say_built(report, build(folder, records))
    if "log" in asked.parts:
        store = Store.open(folder)
        try:
            _say_bytes(report, store)
            _say_questions(report, store)
            _say_traces(report, store)
            _say_verified(report, store)
        finally:
            store.close()
    if "cost" in asked.parts:
        _say_cost(asked, root, folder, report)
    return 0


def _say_built(report: Report, built: Built) -> None:
    report.heading(
        f"sealing: {built.records} records of {built.images} images, {len(built.transactions)} blocks"
    )
    rate, end, held = built.records / built.seal_seconds, built.sealings[-20:], built.transactions
    rate_at_end = sum(records for records, _ in end) / sum(seconds for _, seconds in end)
    goal = f"goal >= {SEAL_GOAL} {_word(rate_at_end >= SEAL_GOAL)}"
    report.line(
        f"sealed: {rate:.0f} records/s, at the end {rate_at_end:.0f}; {goal}; "
        f"a CPU second: {built.records / built.seal_cpu:.0f}"
    )
    median, late, longest = statistics.median(held), quantile(held, 0.99), max(held)
    report.line(
        f"the sealer's transaction: median {milliseconds(median)} ms, p99 {milliseconds(late)}, "
        f"longest {milliseconds(longest)}"
    )
    written = built.records / built.write_seconds
    report.line(f"written: {written:.0f} records/s; checkpoints: {built.checkpoint_seconds:.0f} s of all")
    rates_of = {"seal_rate": rate, "seal_rate_at_end": rate_at_end}
    more = {"records": built.records, "images": built.images, **rates_of}
    report.keep("audit sealing", more, {"seal": [Figures(rate, whole=held)]})


def _say_bytes(report: Report, store: Store) -> None:
    """By table, its indexes with it (`dbstat`); every image of the log has its whole life in it."""
    with closing(sqlite3.connect(f"file:{store.database.file}?mode=ro", uri=True)) as raw:
        images = raw.execute(
            "SELECT count(*) FROM audit_posting WHERE term = ?", (term("event", "object.received"),)
        ).fetchone()[0]
        records, blocks = raw.execute(
            "SELECT (SELECT count(*) FROM audit), (SELECT count(*) FROM audit_seal)"
        ).fetchone()
        sizes: dict[str, int] = dict(raw.execute(_SIZES).fetchall())
    report.heading(f"bytes: {images} images, {records} records ({records / images:.1f} an image)")
    for table, called in PARTS_OF_A_RECORD.items():
        each = f", {sizes[table] / blocks:.0f} a block" if table == "audit_seal" else ""
        report.line(
            f"  {called:30} {sizes[table] / images:8.0f} an image {sizes[table] / records:8.1f} a record{each}"
        )
    whole = sum(sizes[table] for table in PARTS_OF_A_RECORD)
    report.line(f"  {'all':30} {whole / images:8.0f} an image {whole / records:8.1f} a record")
    report.keep("audit bytes", {"images": images, "records": records, "blocks": blocks, **sizes}, {})


def _say_questions(report: Report, store: Store) -> None:
    """A page of each question: of 100 and of 1000 records, from either end and from deep within."""
    with store.database.read() as tx:
        last = store.audit.newest(tx)
    report.heading(
        f"questions: pages of {' and '.join(map(str, PAGES))} records, from both ends and from within"
    )
    report.line(f"{'':56}{'found':>8}{'p50 ms':>9}{'max ms':>9}")
    found: dict[str, list[Figures]] = {}
    for title, wanted in questions(samples(store, 1)[0], store):
        times, most = [], 0
        for limit, newest, deep in product(PAGES, (False, True), (0, 1, 2, 3)):
            after = last * deep // 4
            page = partial(_page, store, wanted, after, limit, newest)
            seconds, count = _median_of(page)
            times.append(seconds)
            most = max(most, count)
        found[title] = [Figures(1 / max(times), whole=times, more={"found": most})]
        missed = "" if max(times) <= PAGE_GOAL else "  MISSED"
        report.line(
            f"{title:56}{most:>8}{milliseconds(statistics.median(times)):>9}{milliseconds(max(times)):>9}{missed}"
        )
    every = [seconds for figures in found.values() for seconds in figures[0].whole]
    median, longest = statistics.median(every), max(every)
    report.line(
        f"all {len(every)} pages: p50 {milliseconds(median)} ms, longest {milliseconds(longest)} ms; "
        f"goal <= {1000 * PAGE_GOAL:.0f} ms {_word(longest <= PAGE_GOAL)}"
    )
    report.keep("audit questions", {"records": last}, found)


def _page(store: Store, wanted: Filter, after: int, limit: int, newest: bool) -> int:
    with store.database.read() as tx:
        return len(store.audit.page(tx, wanted, after=after, limit=limit, newest=newest))


def _say_traces(report: Report, store: Store) -> None:
    """All that the paper of a study, or of a patient, is made of."""
    with store.database.read() as tx:
        last = store.audit.newest(tx)
    report.heading(f"traces: {TRACES} of each kind")
    found, some = {}, samples(store, TRACES)
    for kind in ("study", "patient", "accession", "sop"):
        times, counts = [], []
        for sample in some:
            seconds, count = _median_of(partial(_trace, store, getattr(sample, kind), kind, last))
            times.append(seconds)
            counts.append(count)
        found[kind] = [Figures(1 / max(times), whole=times)]
        median, longest = statistics.median(times), max(times)
        report.line(
            f"of a {kind:10} {statistics.median(counts):5.0f} records: p50 {milliseconds(median)} ms, longest "
            f"{milliseconds(longest)} ms; goal <= {1000 * TRACE_GOAL:.0f} ms {_word(longest <= TRACE_GOAL)}"
        )
    report.keep("audit traces", {"records": last}, found)


def _trace(store: Store, given: str, kind: str, last: int) -> int:
    """How many records it has."""
    return sum(len(dossier.records) for dossier in read(store, find(store, given, kind), last))


def _say_verified(report: Report, store: Store) -> None:
    """The sealed records' hashes and their chain: what `hilum audit verify` reads of the database."""
    report.heading("verifying")
    findings = Findings()
    with opened(store.database.file) as connection:
        began = time.perf_counter()
        checked = verify(connection, findings)
        seconds = time.perf_counter() - began
    rate = (checked.records + checked.unsealed) / seconds
    report.line(
        f"{checked.records} records in {checked.blocks} blocks: {seconds:.1f} s, {rate:.0f} records/s; "
        f"goal >= {VERIFY_GOAL} {_word(rate >= VERIFY_GOAL)}; findings: {findings.count}"
    )
    report.keep("audit verify", {"records": checked.records}, {"verify": [Figures(rate)]})


def _say_cost(asked: argparse.Namespace, root: Path, log: Path, report: Report) -> None:
    """Receiving with the audit log and its sealer beside the same node without; and on top of the full log."""
    load = Load(
        10**6, 60 if asked.quick else asked.count, asked.senders, 1, max_seconds=options.seconds(asked)
    )
    kinds = {"hilum": hilum(), FULL: hilum(), UNAUDITED: _unaudited()}
    rows: dict[str, Callable[[Path], Figures]] = {
        name: partial(_receive, kind, load, log if name == FULL else None, name == "hilum")
        for name, kind in kinds.items()
    }
    found = interleave(rows, options.rounds(asked), root)
    report.heading(
        f"cost to receiving: {load.count} images of {options.of_bytes(load.size)}, {load.senders} senders, "
        f"{options.rounds(asked)} rounds"
    )
    for name in ("hilum", FULL):
        report.ratios(name, {row: found[row] for row in (name, UNAUDITED)}, {UNAUDITED: 1.0})
    report.table(found, rates({}))
    report.keep("audit cost", {"size": load.size, "count": load.count, "senders": load.senders}, found)


def _unaudited() -> Kind:
    node = hilum()

    def command(folder: Path, port: int) -> Sequence[str]:
        words = list(node.command(folder, port))
        words[words.index("node.cli")] = "scripts.benchmarks.unaudited"
        return words

    return Kind(UNAUDITED, "file and row", command, files=node.files, is_hilum=True)


def _receive(kind: Kind, load: Load, log: Path | None, checked: bool, folder: Path) -> Figures:
    """One load on a node of its own, on top of the log where one is given. CPU is the whole node's."""
    if log is not None:
        (folder / "data").mkdir()
        for name in (DATABASE, KEY):
            shutil.copyfile(log / name, folder / "data" / name)
        os.sync()
    with running(kind, folder) as node:
        cpu = processes.cpu_seconds(node.pid)
        sent = send(node.port, "PEER", load)
        cpu = processes.cpu_seconds(node.pid) - cpu
    if checked:
        kept.check(node, sent)
    images = max(1, len(sent.acknowledged))
    return Figures(sent.rate, sent.whole, sent.tail, sent.associate, 0.0, cpu / images, acknowledged=images,
                   troubles=sent.troubles)  # fmt: skip


def _median_of(measured: Callable[[], int]) -> tuple[float, int]:
    """Seconds, and what it gave."""
    times, given = [], 0
    for _ in range(REPEATS):
        began = time.perf_counter()
        given = measured()
        times.append(time.perf_counter() - began)
    return statistics.median(times), given


def _word(reached: bool) -> str:
    return "reached" if reached else "MISSED"
