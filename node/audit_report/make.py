"""A report, asked for: each month is read once, page by page; it is recorded, and only then shown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select

from node.audit_report.availability import availability
from node.audit_report.months import Month, months
from node.audit_report.pages import MonthTold, as_json, paper
from node.audit_report.tally import Counted
from node.operate import operator
from node.paper.forms import formed
from node.paper.out import reserved
from node.paper.printing import Printing
from node.settings import Settings
from node.state import read_state
from storage.audit import Filter, pages
from storage.clock import stamp
from storage.schema import audit_seal
from storage.store import Store


@dataclass(frozen=True)
class Seals:
    """The blocks that hold a month's records, the last of them with its hash, and how many records none holds yet."""

    blocks: int
    last_block: int
    last_hash: str
    unsealed: int


def report(store: Store, settings: Settings, since: str, until: str, form: str, out: Path | None) -> None:
    """Raises Misuse, BadEnvironment, Unavailable."""
    actor, now, zone = operator(), store.clock.now(), settings.report.zone
    asked = months(since, until, now, zone)
    with reserved(out, form) as write:
        told = list(_told(store, settings, asked, now))
        printing = Printing.of(actor, settings, now)
        content = formed(paper(told, printing), as_json(told, printing), form)
        span = {"since": stamp(asked[0].begin), "until": stamp(asked[-1].end)}
        with store.database.write() as tx:
            detail = {"what": "report", "filter": span, "format": form}
            store.audit.record(tx, "audit.exported", actor=actor, detail=detail)
        write(content)


def _told(store: Store, settings: Settings, asked: Sequence[Month], now: datetime) -> Iterator[MonthTold]:
    is_running = read_state(settings.node.data_dir) is not None
    for month in asked:
        counted = count(store, month)
        yield MonthTold(
            month, counted, availability(store, month, now, is_running=is_running), seals(store, counted)
        )


def count(store: Store, month: Month) -> Counted:
    """One pass over a month's records."""
    counted = Counted(lambda sop: _arrival(store, sop))
    # the last moment that a stamp can say
    last = month.end - timedelta(microseconds=1)
    for record in pages(
        store.audit, store.database.read, Filter(since=stamp(month.begin), until=stamp(last))
    ):
        counted.add(record)
    return counted


def seals(store: Store, counted: Counted) -> Seals:
    if not counted.records:
        return Seals(0, 0, "", 0)
    first, last = counted.first_id, counted.last_id
    with store.database.read() as tx:
        holding = (
            select(audit_seal).where(audit_seal.c.last_id >= last).order_by(audit_seal.c.last_id).limit(1)
        )
        row = tx.execute(holding).first()
        if row is None:
            row = tx.execute(select(audit_seal).order_by(audit_seal.c.block.desc()).limit(1)).first()
        if row is None or row.last_id < first:
            return Seals(0, 0, "", last - first + 1)
        of = audit_seal.c.last_id.between(first, row.last_id)
        blocks = tx.execute(select(func.count()).select_from(audit_seal).where(of)).scalar_one()
    return Seals(blocks, row.block, row.hash.hex(), max(0, last - row.last_id))


def _arrival(store: Store, sop: str) -> str:
    """When an image came of which the pass does not remember it: before the month, or long ago."""
    if not sop:
        return ""
    with store.database.read() as tx:
        found = store.audit.page(tx, Filter(event="object.received", sop=sop), limit=1)
    return found[0].time if found else ""
