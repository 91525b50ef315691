"""How records are found: postings (term, record), made by the sealer a moment after the records themselves.

The path of images writes a record and nothing else; every index that it had to keep would cost it two pages of the
database's log. A term is 64 bits of a hash of what somebody may ask for, so that there is no dictionary to keep:
whoever asks compares the records found with the question. What is not sealed yet is read in full; that is what a
second has brought.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, func, select

from storage.audit.records import Record, Records, records_of, told_of
from storage.schema import audit_posting, audit_seal

PAGE = 1000
_NO_END = 2**63 - 1
# where a list's length is guessed from, and from how many of its records there
_PLACES = 16
_LOOK = 50
_LISTED = "audit_posting WHERE term = ? AND record BETWEEN ? AND ?"
_FEW = f"SELECT count(*), max(record) FROM (SELECT record FROM {_LISTED} ORDER BY record LIMIT ?)"
_ENDS = f"SELECT (SELECT min(record) FROM {_LISTED}), (SELECT max(record) FROM {_LISTED})"
_SINGLE = ("event", "actor", "patient", "name", "accession", "study")


@dataclass(frozen=True)
class Filter:
    """What is asked for: records that fit every field that is given. Times are stamps (`storage.clock`).

    `patient`, `name` and `accession` as a person types them. `sop`: of an image, or of a result.
    """

    since: str = ""
    until: str = ""
    patient: str = ""
    name: str = ""
    accession: str = ""
    study: str = ""
    sop: str = ""
    ae: str = ""
    event: str = ""
    outcome: str = ""


@lru_cache(maxsize=4096)
def term(kind: str, value: str) -> int:
    """What records of this kind of value are listed under: 64 bits, signed."""
    digest = hashlib.blake2b(f"{kind}\0{value}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def postings_of(records: Iterable[tuple[int, Mapping[str, Any]]]) -> list[tuple[int, int]]:
    """The rows of records, (term, record), in the order of the table. What they share is hashed once, in a quarter of
    the time."""
    listed: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for number, told in records:
        for named in _named(told):
            listed[named].append(number)
    by_term = sorted((term(*named), numbers) for named, numbers in listed.items())
    return [(each, number) for each, numbers in by_term for number in numbers]


def _named(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(kind, value) of all that somebody may ask for, each once."""
    event, actor = told["event"], told.get("actor", "")
    found = [(kind, told[kind]) for kind in _SINGLE if kind in told]
    found.append(("event+actor", f"{event}\0{actor}"))
    if told["outcome"] == "failure":
        found += [("failure", ""), ("failure", event)]
    found += [("sop", uid) for uid in set(_instances(told))]
    return found


def count(tx: Connection, event: str) -> int:
    """How often something happened."""
    listed = (
        select(func.count()).select_from(audit_posting).where(audit_posting.c.term == term("event", event))
    )
    unlisted = sum(told["event"] == event for _, told in _unsealed(tx, sealed_to(tx), 0))
    return tx.execute(listed).scalar_one() + unlisted


def page(
    log: Records, tx: Connection, wanted: Filter, *, after: int = 0, limit: int = PAGE, newest: bool = False
) -> list[Record]:
    """At most `limit` records with ids above `after`, oldest first; with `newest` below `after` (0: from the end)
    and newest first."""
    asked, last = _Asked(log, wanted), sealed_to(tx)
    parts = [
        _listed(tx, asked, last, after, limit, newest),
        _fitting(_unsealed(tx, last, after, newest), asked),
    ]
    found: list[tuple[int, dict[str, Any]]] = []
    for part in reversed(parts) if newest else parts:
        for row in part:
            found.append(row)
            if len(found) == limit:
                return records_of(tx, found)
    return records_of(tx, found)


def pages(log: Records, read: Any, wanted: Filter, *, after: int = 0) -> Iterator[Record]:
    """Every record that fits, oldest first; a short transaction a page, so that an export of any size holds up nobody.

    `read` is the database's `read`.
    """
    while True:
        with read() as tx:
            found = page(log, tx, wanted, after=after)
        yield from found
        if len(found) < PAGE:
            return
        after = found[-1].id


class _Asked:
    """A filter as payloads have it."""

    def __init__(self, log: Records, wanted: Filter) -> None:
        self.since, self.until = wanted.since, wanted.until
        self.sop, self.outcome = wanted.sop, wanted.outcome
        values = {
            "patient": log.key_of("patient_id", wanted.patient),
            "name": log.key_of("patient_name", wanted.name),
            "accession": log.key_of("accession", wanted.accession),
            "study": wanted.study,
            "actor": wanted.ae,
            "event": wanted.event,
        }
        self._values = {kind: value for kind, value in values.items() if value}

    def fits(self, told: Mapping[str, Any]) -> bool:
        return (
            all(told.get(kind, "") == value for kind, value in self._values.items())
            and (not self.since or told["time"] >= self.since)
            and (not self.until or told["time"] <= self.until)
            and (not self.outcome or told["outcome"] == self.outcome)
            and (not self.sop or self.sop in _instances(told))
        )

    @property
    def terms(self) -> list[int]:
        """The terms to look under."""
        of = self._values
        found = [term("sop", self.sop)] if self.sop else []
        found += [term(kind, of[kind]) for kind in ("accession", "study", "name", "patient") if kind in of]
        failed = self.outcome == "failure"
        if failed:
            found.append(term("failure", of.get("event", "")))
        if "event" in of and "actor" in of:
            found.append(term("event+actor", f"{of['event']}\0{of['actor']}"))
        elif "actor" in of or not failed:
            found += [term(kind, of[kind]) for kind in ("event", "actor") if kind in of]
        return found


def _listed(
    tx: Connection, asked: _Asked, last: int, after: int, limit: int, newest: bool
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Of the sealed records those that fit."""
    low, high = _range(tx, asked, last)
    low, high = (low, min(high, after - 1) if after else high) if newest else (max(low, after + 1), high)
    terms, low, high = _narrowed(tx, asked.terms, low, high)
    query = _query(len(terms), newest, term("failure", "") if asked.outcome == "success" else None)
    while low <= high:
        rows = tx.exec_driver_sql(query, (*terms, low, high, limit)).all()
        yield from _fitting(((row[0], told_of(row[1])) for row in rows), asked)
        if len(rows) < limit:
            return
        low, high = (low, rows[-1][0] - 1) if newest else (rows[-1][0] + 1, high)


def _narrowed(tx: Connection, terms: list[int], low: int, high: int) -> tuple[list[int], int, int]:
    """The terms, that with the fewest records first, and the range in which they all have some."""
    if len(terms) < 2 or low > high:
        return terms, low, high
    for each in terms:
        first, last = tx.exec_driver_sql(_ENDS, (each, low, high, each, low, high)).one()
        if first is None:
            return terms, 1, 0
        low, high = max(low, first), min(high, last)
    return _shortest_first(tx, terms, low, high), low, high


def _shortest_first(tx: Connection, terms: list[int], low: int, high: int) -> list[int]:
    """To count a long list takes as long as to go through it: of such a few places are looked at."""
    lengths = {}
    for each in terms:
        few, _ = tx.exec_driver_sql(_FEW, (each, low, high, _LOOK)).one()
        if few < _LOOK:
            return [each, *(other for other in terms if other != each)]
    part = (high - low) // _PLACES + 1
    for each in terms:
        lengths[each] = 0.0
        for begin in range(low, high + 1, part):
            few, last = tx.exec_driver_sql(_FEW, (each, begin, begin + part - 1, _LOOK)).one()
            lengths[each] += few if few < _LOOK else _LOOK * part / (last - begin + 1)
    return sorted(terms, key=lambda each: lengths[each])


@lru_cache(maxsize=64)
def _query(terms: int, newest: bool, without: int | None) -> str:
    """Ids and payloads of the records under all of so many terms (0: of all records) and not under `without`.

    Parameters: the terms, the range, the limit. SQLite is to go through the first term's list, in its order, and to
    look each record up in the others: it knows nothing of the lists' lengths.
    """
    if terms:
        number, tables = "p0.record", "audit_posting AS p0 CROSS JOIN audit ON audit.id = p0.record"
    else:
        number, tables = "audit.id", "audit"
    listed = "SELECT 1 FROM audit_posting AS p WHERE p.record = {} AND p.term = {}"
    fits = ["p0.term = ?"] * bool(terms)
    fits += [f"EXISTS ({listed.format(number, '?')})"] * (terms - 1)
    if without is not None:
        fits.append(f"NOT EXISTS ({listed.format(number, without)})")
    fits.append(f"{number} BETWEEN ? AND ?")
    direction = "DESC" if newest else "ASC"
    return (
        f"SELECT {number}, audit.payload FROM {tables} WHERE {' AND '.join(fits)} "
        f"ORDER BY {number} {direction} LIMIT ?"
    )


def _range(tx: Connection, asked: _Asked, last: int) -> tuple[int, int]:
    """The first and the last id that a record of that time can have, up to `last`, the last sealed one; also where
    the clock was put back."""
    low, high = 1, last
    if asked.since:
        low = _first_id(tx, _first_block(tx, asked.since, inclusive=True), last + 1)
    if asked.until:
        high = _first_id(tx, _first_block(tx, asked.until, inclusive=False), last + 1) - 1
        stepped = select(func.max(audit_seal.c.last_id)).where(
            audit_seal.c.stepped, audit_seal.c.earliest <= asked.until
        )
        # the block in which the time is passed holds earlier records too
        block = select(func.min(audit_seal.c.last_id)).where(audit_seal.c.last_id > high)
        high = max(high, tx.execute(block).scalar() or 0, tx.execute(stepped).scalar() or 0)
    return low, high


def _first_block(tx: Connection, time: str, *, inclusive: bool) -> int:
    """The first block with a record at or after that time (after it, unless `inclusive`), by bisection: `latest`
    never falls."""
    low = tx.exec_driver_sql("SELECT min(block) FROM audit_seal").scalar() or 1
    end = (tx.exec_driver_sql("SELECT max(block) FROM audit_seal").scalar() or 0) + 1
    while low < end:
        middle = (low + end) // 2
        latest = tx.exec_driver_sql("SELECT latest FROM audit_seal WHERE block = ?", (middle,)).scalar_one()
        if latest >= time if inclusive else latest > time:
            end = middle
        else:
            low = middle + 1
    return low


def _first_id(tx: Connection, block: int, otherwise: int) -> int:
    found = tx.exec_driver_sql("SELECT first_id FROM audit_seal WHERE block = ?", (block,)).scalar()
    return otherwise if found is None else found


def sealed_to(tx: Connection) -> int:
    """The id of the last sealed record."""
    return tx.exec_driver_sql("SELECT max(last_id) FROM audit_seal").scalar() or 0


def _unsealed(
    tx: Connection, last: int, after: int, newest: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Records that no block holds yet, beyond `after`; `last`: the last sealed one."""
    low, high = (last, after or _NO_END) if newest else (max(last, after), _NO_END)
    query = "SELECT id, payload FROM audit WHERE id > ? AND id < ? ORDER BY id " + (
        "DESC" if newest else "ASC"
    )
    for number, payload in tx.exec_driver_sql(query, (low, high)):
        yield number, told_of(payload)


def _fitting(
    rows: Iterable[tuple[int, dict[str, Any]]], asked: _Asked
) -> Iterator[tuple[int, dict[str, Any]]]:
    return ((number, told) for number, told in rows if asked.fits(told))


def _instances(told: Mapping[str, Any]) -> list[str]:
    """The SOP instances that a record names: the image, and results of ours."""
    detail = told.get("detail", {})
    named = [told.get("sop", ""), detail.get("result", "")]
    results = detail.get("results", ())
    listed = (*named, *(results if isinstance(results, list) else ()))
    return [uid for uid in listed if uid and isinstance(uid, str)]
