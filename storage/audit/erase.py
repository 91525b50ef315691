"""Names, erased: the values behind a patient's keyed hashes go; the records, and so the seals, stay as they are.

A value goes where every record that carries its key is one of those that are meant: a name that two patients share
stays until nobody else has it. Erased stays erased: the key is left, empty, so that the patient's next image does not
put the name back to the records of before. It is forgotten when the last record that carries it has expired.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, func, select, text, update

from storage.audit.index import sealed_to, term
from storage.audit.log import Audit
from storage.audit.records import About, Actor, PatientKeys, told_of, values_of
from storage.database import Database
from storage.schema import audit, audit_identity, audit_posting

KINDS = ("patient", "name", "accession")
"""A payload's keyed hashes."""
_NAMED = 500


@dataclass(frozen=True)
class Whose:
    """Whose values: those of a patient (the key of the number), of a study, or of a patient in one study."""

    patient: str = ""
    study: str = ""

    def has(self, told: Mapping[str, Any]) -> bool:
        """Is a record with this payload one of theirs?"""
        wanted = {"patient": self.patient, "study": self.study}
        return all(told.get(kind, "") == value for kind, value in wanted.items() if value)

    def terms(self) -> list[int]:
        return [
            term(kind, value) for kind, value in (("patient", self.patient), ("study", self.study)) if value
        ]


@dataclass(frozen=True)
class Erasable:
    """What an erasure reaches. `keys`: whose values go. `values`, `shared`: how many go, and how many stay because
    other records carry them too, by kind."""

    records: int = 0
    studies: int = 0
    keys: tuple[str, ...] = ()
    values: Mapping[str, int] = field(default_factory=dict)
    shared: Mapping[str, int] = field(default_factory=dict)


def erasable(tx: Connection, whose: Whose) -> Erasable:
    """What `erase` would do now."""
    told = list(_told(tx, whose))
    carried = {(kind, payload[kind]) for payload in told for kind in KINDS if payload.get(kind)}
    kept = values_of(tx, (key for _, key in carried))
    there = sorted((kind, key) for kind, key in carried if key in kept)
    alone = [(kind, key) for kind, key in there if not _is_shared(tx, whose, kind, key)]
    gone = Counter(kind for kind, _ in alone)
    return Erasable(
        records=len(told),
        studies=len({payload["study"] for payload in told if payload.get("study")}),
        keys=tuple(key for _, key in alone),
        values=dict(gone),
        shared=dict(Counter(kind for kind, _ in there) - gone),
    )


def erase(database: Database, log: Audit, whose: Whose, actor: Actor) -> Erasable:
    """Erases what `erasable` finds; no byte of it is left in the database's files. Records identity.erased.

    Raises Unavailable; where that is said after the transaction, a second call does the rest.
    """
    with database.write() as tx:
        found = erasable(tx, whose)
        for at in range(0, len(found.keys), _NAMED):
            some = audit_identity.c.key.in_(found.keys[at : at + _NAMED])
            tx.execute(update(audit_identity).where(some).values(value=None))
        if found.keys:
            about = About(PatientKeys(id=whose.patient), whose.study)
            detail = {"keys": found.keys, "values": len(found.keys), "records": found.records}
            log.record(tx, "identity.erased", about=about, actor=actor, detail=detail)
    scrub(database)
    return found


def erase_all(database: Database, log: Audit, actor: Actor) -> int:
    """Erases every value that is kept; how many. Records identity.erased. Raises Unavailable, as `erase`."""
    with database.write() as tx:
        kept = audit_identity.c.value.is_not(None)
        count = tx.execute(update(audit_identity).where(kept).values(value=None)).rowcount
        if count:
            log.record(tx, "identity.erased", actor=actor, detail={"values": count})
    scrub(database)
    return count


def kept(tx: Connection) -> int:
    """How many values are kept."""
    return tx.execute(select(func.count(audit_identity.c.value))).scalar_one()


def scrub(database: Database) -> None:
    """Writes the identities anew, so that nothing deleted is left in their pages, and empties the database's log.

    SQLite overwrites what is deleted (secure_delete), but not copies that splitting a page left in its gaps, and a
    database may have been written where that was off. 100,000 values: about a second. Raises Unavailable.
    """
    with database.write() as tx:
        for statement in (
            "CREATE TEMPORARY TABLE identity_kept AS SELECT * FROM audit_identity",
            "DELETE FROM audit_identity",
            "INSERT INTO audit_identity SELECT * FROM identity_kept ORDER BY key",
            "DROP TABLE identity_kept",
        ):
            tx.execute(text(statement))
    database.empty_log()


def _told(tx: Connection, whose: Whose) -> Iterator[dict[str, Any]]:
    """The payloads of their records."""
    return (told for told in _payloads(tx, _listed(whose)) if whose.has(told))


def _is_shared(tx: Connection, whose: Whose, kind: str, key: str) -> bool:
    """Is there a record with this key that is not theirs? That somebody asked the log for it makes nobody its owner."""
    listed = select(audit_posting.c.record).where(
        audit_posting.c.term == term(kind, key), audit_posting.c.record.not_in(_listed(whose))
    )
    return any(
        told.get(kind) == key and not whose.has(told) and not told["event"].startswith("audit.")
        for told in _payloads(tx, listed)
    )


def _payloads(tx: Connection, listed: Select[Any]) -> Iterator[dict[str, Any]]:
    """Of the sealed records those that are listed, and all that are not sealed yet."""
    found = select(audit.c.payload).where(audit.c.id.in_(listed) | (audit.c.id > sealed_to(tx)))
    for row in tx.execute(found):
        yield told_of(row.payload)


def _listed(whose: Whose) -> Select[Any]:
    """The ids of their sealed records."""
    first, *others = whose.terms()
    query = select(audit_posting.c.record).where(audit_posting.c.term == first)
    for other in others:
        query = query.where(
            audit_posting.c.record.in_(select(audit_posting.c.record).where(audit_posting.c.term == other))
        )
    return query
