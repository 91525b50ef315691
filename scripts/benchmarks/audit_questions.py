"""What `scripts/bench audit` asks of its log: every filter alone, then what is hard to answer."""

import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from scripts.benchmarks.audit_log import BEGIN, FIRST_MONTH, OFFICER, RESEARCH, ROOMS, STRAY, WORKER
from storage.audit import Filter
from storage.clock import moment, stamp
from storage.store import Store


@dataclass(frozen=True)
class Sample:
    """What one image of the log is found by."""

    patient: str
    name: str
    accession: str
    study: str
    sop: str
    result: str


def samples(store: Store, count: int) -> list[Sample]:
    """Images from all over the log, none of the research archive."""
    chance, found = random.Random(count), []
    with closing(sqlite3.connect(f"file:{store.database.file}?mode=ro", uri=True)) as raw:
        last = raw.execute("SELECT max(id) FROM audit").fetchone()[0]
        values = "SELECT value FROM audit_identity WHERE key = ?"
        made = "SELECT payload FROM audit WHERE id > ? AND json_extract(payload, '$.event') = 'result.made' LIMIT 1"
        while len(found) < count:
            row = raw.execute(made, (chance.randint(1, last * 9 // 10),)).fetchone()
            told = json.loads(row[0])
            if "accession" not in told:
                continue
            patient, name, accession = (
                raw.execute(values, (told[key],)).fetchone()[0] for key in ("patient", "name", "accession")
            )
            found.append(
                Sample(patient, name, accession, told["study"], told["sop"], told["detail"]["result"])
            )
    return found


def questions(one: Sample, store: Store) -> Iterator[tuple[str, Filter]]:
    """Every filter alone; then pairs and more that are hard to answer: long lists that hardly meet, or far away."""
    with store.database.read() as tx:
        latest = moment(store.audit.page(tx, Filter(), limit=1, newest=True)[0].time)
    whole = latest - BEGIN
    month = whole / 24
    room, anonymous = ROOMS[0].name, RESEARCH.id
    yield "everything", Filter()
    for event in (
        "object.received",
        "delivery.delivered",
        "job.parked",
        "object.conflict",
        "object.refused",
        "node.started",
    ):
        yield f"event {event}", Filter(event=event)
    yield "event that never happened", Filter(event="audit.mismatch")
    for ae in (room, "hilum", WORKER.name, OFFICER.name, FIRST_MONTH.name, STRAY.name, "NOBODY"):
        yield f"ae {ae}", Filter(ae=ae)
    yield "patient", Filter(patient=one.patient)
    yield "patient with 1 record in 20", Filter(patient=anonymous)
    yield "patient unknown", Filter(patient="nobody")
    yield "name", Filter(name=one.name)
    yield "accession", Filter(accession=one.accession)
    yield "study", Filter(study=one.study)
    yield "sop of an image", Filter(sop=one.sop)
    yield "sop of a result", Filter(sop=one.result)
    yield "failure", Filter(outcome="failure")
    yield "success", Filter(outcome="success")
    for part in (0, 12, 23):
        begin = BEGIN + part * month
        yield f"a day of month {part + 1}", Filter(since=stamp(begin), until=stamp(begin + month / 30))
        yield f"month {part + 1}", Filter(since=stamp(begin), until=stamp(begin + month))
    yield "before the log began", Filter(until=stamp(BEGIN - month))
    yield "after its end", Filter(since=stamp(latest + month))
    late = stamp(BEGIN + 22 * month)
    pairs = {
        "event object.received + ae of the first month": Filter(event="object.received", ae=FIRST_MONTH.name),
        "the same, since month 23": Filter(event="object.received", ae=FIRST_MONTH.name, since=late),
        "ae of the first month, since month 23": Filter(ae=FIRST_MONTH.name, since=late),
        "event + ae that never met": Filter(event="audit.queried", ae=room),
        "event + success where all failed": Filter(event="association.refused", outcome="success"),
        "ae + success where all failed": Filter(ae=STRAY.name, outcome="success"),
        "event + failure": Filter(event="delivery.parked", outcome="failure"),
        "event + failure where none failed": Filter(event="job.analyzed", outcome="failure"),
        "ae hilum + failure": Filter(ae="hilum", outcome="failure"),
        "ae of a room + failure": Filter(ae=room, outcome="failure"),
        "ae + failure where none failed": Filter(ae=OFFICER.name, outcome="failure"),
        "big patient + event": Filter(patient=anonymous, event="job.analyzed"),
        "big patient + event that never names one": Filter(patient=anonymous, event="association.accepted"),
        "big patient + rare event": Filter(patient=anonymous, event="object.conflict"),
        "big patient + ae hilum": Filter(patient=anonymous, ae="hilum"),
        "big patient + ae of a room": Filter(patient=anonymous, ae=room),
        "big patient + worker + failure": Filter(patient=anonymous, ae=WORKER.name, outcome="failure"),
        "big patient + success": Filter(patient=anonymous, outcome="success"),
        "big patient, since month 23": Filter(patient=anonymous, since=late),
        "big patient + event, since month 23": Filter(patient=anonymous, event="job.analyzed", since=late),
        "big patient + another's name": Filter(patient=anonymous, name=one.name),
        "big patient + her name": Filter(patient=anonymous, name=RESEARCH.name),
        "patient + ae": Filter(patient=one.patient, ae=WORKER.name),
        "study + event": Filter(study=one.study, event="delivery.delivered"),
        "study + sop of another": Filter(study="1.2.3", sop=one.sop),
        "event, since month 23": Filter(event="delivery.delivered", since=late),
        "failure, since month 23": Filter(outcome="failure", since=late),
        "everything at once": Filter("", late, one.patient, one.name, one.accession, one.study, one.sop, WORKER.name,
                                     "job.analyzed", "success"),
    }  # fmt: skip
    yield from pairs.items()
