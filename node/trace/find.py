"""What a person asks a trace of, recognised by looking it up; and every record that belongs to that study.

All reads are by the log's index; none reads what does not belong to the answer.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy import Connection, select

from node.errors import Misuse, NotHeld
from storage import clock
from storage.audit import About, Filter, PatientKeys, Record, pages, shown
from storage.schema import audit_identity, audit_seal
from storage.store import Store

KINDS = {"study": "Study Instance UID", "sop": "SOP Instance UID", "accession": "accession number",
         "patient": "patient id"}  # fmt: skip
"""What an argument may be, in the order in which it is tried; the options are called so too."""
MOST_STUDIES = 200
"""Studies in one trace: a phantom's number, or none, may stand for all of a hospital's."""
REFUSAL_WITHIN = timedelta(hours=1)
"""So long after a request for commitment its refusal is looked for: it has no study, only the transaction."""

ASKING = ("audit.queried", "audit.exported")
ERASED, NOT_KEPT = "erased", "never kept"
"""Why there is nothing behind a keyed hash."""


@dataclass(frozen=True)
class Found:
    """What was asked for: of which kind it is, and the studies that it stands for; none for what was only refused."""

    kind: str
    given: str
    studies: Sequence[str]


@dataclass(frozen=True)
class Seals:
    """Which blocks hold the records of an answer, and which of these are younger than the last seal."""

    blocks: Sequence[int]
    unsealed: Sequence[int]


@dataclass(frozen=True)
class Dossier:
    """All that the log knows of a study, oldest first; `study` empty: of an instance that was only refused.

    `names`: what stands behind the keyed hashes, or why it does not.
    """

    study: str
    records: Sequence[Record]
    names: dict[str, str]
    seals: Seals

    @property
    def about(self) -> About:
        """Of the first record that names a patient; the study."""
        keys = next((r.about.patient for r in self.records if r.about.patient.id), PatientKeys())
        return About(keys, self.study, "" if self.study or not self.records else self.records[0].sop)


def find(store: Store, given: str, kind: str = "") -> Found:
    """Raises NotHeld where the log knows nothing of it, Misuse where it may be two things."""
    with store.database.read() as tx:
        fitting = [each for each in ([kind] if kind else KINDS) if _is_known(store, tx, each, given)]
    if not fitting:
        what = KINDS[kind] if kind else "study, image, result, accession number or patient"
        raise NotHeld(f"the audit log knows no such {what}; `hilum audit query` shows what it knows")
    if len(fitting) > 1:
        options = " or ".join(f"--{each}" for each in fitting)
        raise Misuse(f"this is a {' and a '.join(KINDS[each] for each in fitting)}: say which with {options}")
    return Found(fitting[0], given, _studies(store, fitting[0], given))


def read(store: Store, found: Found, last: int) -> Iterator[Dossier]:
    """The studies in their order, of records up to the id `last`."""
    for study in found.studies or [""]:
        of = Filter(study=study) if study else Filter(sop=found.given)
        records = {record.id: record for record in pages(store.audit, store.database.read, of)}
        with store.database.read() as tx:
            names = _names(tx, records.values())
            records |= _beside(store, tx, list(records.values()), names)
            told = [records[number] for number in sorted(records) if number <= last]
            yield Dossier(study, told, names, _seals(tx, [record.id for record in told]))


def _is_known(store: Store, tx: Connection, kind: str, given: str) -> bool:
    """Does any record name it that is more than somebody's asking for it?"""
    if not given:
        return False
    after = 0
    while page := store.audit.page(tx, _filter(kind, given), after=after, limit=20):
        if any(record.event not in ASKING for record in page):
            return True
        after = page[-1].id
    return False


def _studies(store: Store, kind: str, given: str) -> list[str]:
    if kind == "study":
        return [given]
    found: dict[str, None] = {}
    for record in pages(store.audit, store.database.read, _filter(kind, given)):
        if record.study:
            found[record.study] = None
        if len(found) > MOST_STUDIES:
            raise Misuse(
                f"this {KINDS[kind]} has more than {MOST_STUDIES} studies: ask for one of them, with --study"
            )
    return list(found)


def _filter(kind: str, given: str) -> Filter:
    return replace(Filter(), **{kind: given})


def _beside(
    store: Store, tx: Connection, records: Sequence[Record], names: Mapping[str, str]
) -> dict[int, Record]:
    """What names an instance, a patient or a transaction of the study, but not the study: refusals, questions."""
    wanted = [Filter(sop=uid) for uid in _instances(records)]
    for key in {record.about.patient.id for record in records if record.about.patient.id}:
        of = [Filter(patient=names[key], event=event) for event in (*ASKING, "identity.erased")]
        # what is erased can't be asked for; who asks by the patient's number finds it all the same
        wanted += of if store.audit.key_of("patient_id", names[key]) == key else []
    found = {r.id: r for each in wanted for r in store.audit.page(tx, each) if not r.study}
    return found | _refusals(store, tx, records)


def _instances(records: Sequence[Record]) -> list[str]:
    """The study's images and results, each once."""
    named = [uid for record in records for uid in (record.sop, record.detail.get("result", ""))]
    return list(dict.fromkeys(uid for uid in named if uid))


def _refusals(store: Store, tx: Connection, records: Sequence[Record]) -> dict[int, Record]:
    """Requests for commitment that were not taken: these records have a transaction and no study."""
    asked: dict[str, Record] = {}
    answered = set()
    for record in records:
        transaction = str(record.detail.get("transaction", ""))
        if record.event == "commitment.requested":
            asked[transaction] = record
        elif record.event in {"delivery.committed", "commitment.failed"}:
            answered.add(transaction)
    found: dict[int, Record] = {}
    for transaction, request in asked.items():
        if transaction in answered:
            continue
        until = clock.stamp(clock.moment(request.time) + REFUSAL_WITHIN)
        near = store.audit.page(tx, Filter(event="commitment.refused", since=request.time, until=until))
        found |= {record.id: record for record in near if record.detail.get("transaction") == transaction}
    return found


def _names(tx: Connection, records: Iterable[Record]) -> dict[str, str]:
    """What stands behind each keyed hash, or the hash's first digits and why nothing does."""
    keys = {key for record in records for key in vars(record.about.patient).values() if key}
    told = {key: f"{shown(key, '')} ({NOT_KEPT})" for key in keys}
    wanted = sorted(keys)
    for at in range(0, len(wanted), 500):
        some = audit_identity.c.key.in_(wanted[at : at + 500])
        for row in tx.execute(select(audit_identity.c.key, audit_identity.c.value).where(some)):
            told[row.key] = f"{shown(row.key, '')} ({ERASED})" if row.value is None else row.value
    return told


def _seals(tx: Connection, ids: Sequence[int]) -> Seals:
    """A query a block."""
    blocks: list[int] = []
    last = 0
    for at, number in enumerate(ids):
        if number <= last:
            continue
        holding = (
            select(audit_seal.c.block, audit_seal.c.last_id)
            .where(audit_seal.c.last_id >= number)
            .order_by(audit_seal.c.last_id)
            .limit(1)
        )
        row = tx.execute(holding).first()
        if row is None:
            return Seals(blocks, ids[at:])
        blocks.append(row.block)
        last = row.last_id
    return Seals(blocks, [])
