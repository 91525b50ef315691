"""Whatever is asked of the log, the answer is what reading every record would give: sealed or not, in any order."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from storage.audit import About, Actor, Filter, Patient, pages
from storage.audit.seal import seal_all, seal_some
from storage.clock import Clock, stamp
from storage.schema import audit, audit_posting, audit_seal
from storage.store import Store

EVENTS = ("result.made", "delivery.attempted", "delivery.delivered", "delivery.parked")
START = datetime(2026, 3, 1, tzinfo=UTC)


class Hands:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = START

    def clock(self) -> Clock:
        return Clock(now=lambda: self.now)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Hands]]:
    """300 records of 20 images by two senders; the clock is put back twice; the last 40 are not sealed."""
    hands = Hands()
    store = Store.create(tmp_path_factory.mktemp("store"), clock=hands.clock())
    for number in range(300):
        hands.now += timedelta(seconds=7)
        if number in {120, 200}:
            hands.now -= timedelta(minutes=9)
        image = number % 20
        with store.database.write() as tx:
            keys = store.audit.identify(tx, Patient(f"P{image % 5}", f"Name^{image % 3}", f"A{image}"))
            store.audit.record(
                tx,
                EVENTS[number % 4],
                about=About(keys, f"1.2.{image // 2}", f"1.2.{image // 2}.{image}"),
                actor=Actor(f"AE{number % 2}", "10.0.0.1"),
                outcome="failure" if number % 4 == 3 else "success",
                detail={"result": f"1.9.{number}"} if number % 3 == 0 else {},
            )
        if number % 13 == 0 and number < 260:
            seal_some(store.database, store.clock)
    yield store, hands
    store.close()


def by_reading_all(store: Store, wanted: Filter) -> list[int]:
    """The answer, the slow way."""
    with store.database.read() as tx:
        rows = tx.execute(select(audit.c.id, audit.c.payload).order_by(audit.c.id)).all()
    keys = store.audit.keys_of(Patient(wanted.patient, wanted.name, wanted.accession))
    found = []
    for number, payload in rows:
        told = json.loads(payload)
        fits = (
            told.get("patient", "") == keys.id if keys.id else True,
            told.get("name", "") == keys.name if keys.name else True,
            told.get("accession", "") == keys.accession if keys.accession else True,
            not wanted.study or told["study"] == wanted.study,
            not wanted.sop or wanted.sop in (told["sop"], told.get("detail", {}).get("result")),
            not wanted.ae or told["actor"] == wanted.ae,
            not wanted.event or told["event"] == wanted.event,
            not wanted.outcome or told["outcome"] == wanted.outcome,
            not wanted.since or told["time"] >= wanted.since,
            not wanted.until or told["time"] <= wanted.until,
        )
        if all(fits):
            found.append(number)
    return found


times = st.one_of(st.just(""), st.integers(-100, 2300).map(lambda s: stamp(START + timedelta(seconds=s))))
filters = st.builds(
    Filter,
    since=times,
    until=times,
    patient=st.sampled_from(["", "", "P1", "P4", "nobody"]),
    name=st.sampled_from(["", "", "", "Name^2"]),
    accession=st.sampled_from(["", "", "", "A7"]),
    study=st.sampled_from(["", "", "1.2.3"]),
    sop=st.sampled_from(["", "", "", "1.2.3.7", "1.9.33", "1.9.298"]),
    ae=st.sampled_from(["", "AE0", "AE1"]),
    event=st.sampled_from(["", "", *EVENTS]),
    outcome=st.sampled_from(["", "", "success", "failure"]),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters, st.integers(1, 50))
def test_every_filter_finds_what_reading_all_finds(
    kept: tuple[Store, Hands], wanted: Filter, limit: int
) -> None:
    store, _ = kept
    right = by_reading_all(store, wanted)
    assert [record.id for record in pages(store.audit, store.database.read, wanted)] == right
    forth: list[int] = []
    back: list[int] = []
    with store.database.read() as tx:
        while found := store.audit.page(tx, wanted, after=forth[-1] if forth else 0, limit=limit):
            forth += [record.id for record in found]
        while found := store.audit.page(tx, wanted, after=back[-1] if back else 0, limit=limit, newest=True):
            back += [record.id for record in found]
    assert forth == right
    assert back == right[::-1]


def test_a_count_knows_sealed_and_unsealed_records(kept: tuple[Store, Hands]) -> None:
    store, _ = kept
    with store.database.read() as tx:
        assert store.audit.count(tx, "delivery.parked") == 75


def test_sealing_goes_on_where_it_ended_and_seals_nothing_twice(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    for number in range(3):
        with store.database.write() as tx:
            for _ in range(400):
                store.audit.record(tx, "node.started", detail={"port": number})
        sealed = seal_all(store.database, store.clock)
        assert sealed is not None
        assert sealed.last_id == 400 * (number + 1)
    assert seal_all(store.database, store.clock) is None
    with store.database.read() as tx:
        blocks = tx.execute(select(audit_seal).order_by(audit_seal.c.block)).all()
        listed = tx.execute(select(audit_posting.c.record).distinct()).all()
    assert [row.block for row in blocks] == list(range(1, len(blocks) + 1))
    assert [row.first_id for row in blocks[1:]] == [row.last_id + 1 for row in blocks[:-1]]
    assert len(listed) == 1200
    store.close()


@pytest.mark.parametrize(
    "payload",
    [b"", b"{",
     b'{"time":"2026-99-31T00:00:00.000000Z","event":"node.started","outcome":"success"}',
     b"[]", b"\xff\xfe", b'{"time":1,"event":"x","outcome":"success"}', b'{"event":"job.queued"}',
     b'{"time":"2026-01-31T00:00:00.000000Z","event":"x","outcome":"success","detail":{"result":{},"results":[1]}}',
     b'{"time":"9999-12-31T00:00:00.000000Z","event":"node.started","outcome":"success"}'],
)  # fmt: skip
def test_a_forged_record_stops_neither_sealing_nor_asking_nor_the_order_of_times(
    tmp_path: Path, payload: bytes
) -> None:
    store = Store.create(tmp_path)
    with store.database.write() as tx:
        store.audit.record(tx, "node.started")
        tx.execute(audit.insert().values(payload=payload, hash=bytes(32)))
        store.audit.record(tx, "node.stopped")
    for _ in range(2):
        with store.database.read() as tx:
            assert [record.id for record in store.audit.page(tx, Filter())] == [1, 2, 3]
            assert [record.id for record in store.audit.page(tx, Filter(event="node.stopped"))] == [3]
        seal_all(store.database, store.clock)
    with store.database.read() as tx:
        assert tx.execute(select(audit_seal.c.latest)).scalar_one() <= store.clock.stamp()
    store.close()
