"""Nothing is called committed that was not; what was not is sent again, three times, and then a person hears of it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from clocks import Time

from storage.audit import Actor, Filter, Patient, Record
from storage.commitments import MOST_REFUSALS, Awaited, Question
from storage.errors import WrongState
from storage.objects import Arrival
from storage.outbox import Delivery
from storage.results import Made
from storage.store import Store

SR = "1.2.840.10008.5.1.4.1.1.88.34"
PACS = Actor("PACS", "10.0.0.5")
SECONDS = 600.0


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def store(tmp_path: Path, time: Time) -> Iterator[Store]:
    store = Store.create(tmp_path, clock=time.clock)
    yield store
    store.close()


def make(store: Store, number: int) -> None:
    """A result that waits for the PACS."""
    arrival = Arrival(
        sop_class="1.2.840.10008.5.1.4.1.1.1.1", sop_instance=f"1.2.3.{number}", series="1.2.3.4", study="1.2.3",
        patient=Patient("P1", "Unmistakable^Name"), transfer_syntax="1.2.840.10008.1.2.1", size=10,
        content_hash="sha256:" + "a" * 64, sender=Actor("MODALITY", "10.0.0.1"),
    )  # fmt: skip
    made = Made("sr", "", SR, f"2.25.{number}", "sha256:r", f"results/{number}.dcm", ("pacs",))
    with store.database.write() as tx:
        object_id = store.objects.keep(tx, arrival, f"objects/{number}.dcm")
        job_id = store.jobs.queue(tx, object_id, "sha256:model")
        store.jobs.claim(tx, "w", 8, 60)
        store.jobs.finish(tx, job_id, "w", "done")
        (job,) = store.jobs.get(tx, [job_id])
        store.results.add(tx, job, 1, [made])


def deliver(store: Store) -> Delivery:
    with store.database.write() as tx:
        delivery = store.outbox.claim(tx, "pacs", "d", 60)
        assert delivery is not None
        store.outbox.delivered(tx, delivery, {"status": "0000"})
        store.commitments.owe(tx, delivery.id)
    return delivery


def ask(store: Store, transaction: str) -> Question:
    with store.database.write() as tx:
        question = store.commitments.ask(tx, "pacs", transaction, SECONDS)
        assert question is not None
        store.commitments.taken(tx, question)
    return question


def report(store: Store, transaction: str, committed: list[int], failed: list[int] | None = None) -> int:
    with store.database.write() as tx:
        return store.commitments.reported(
            tx,
            transaction,
            {(SR, f"2.25.{n}") for n in committed},
            {(SR, f"2.25.{n}"): "0112 (no such object there)" for n in failed or []},
            PACS,
        )


def overdue(store: Store) -> int:
    with store.database.write() as tx:
        return store.commitments.overdue(tx, "pacs", SECONDS)


def states(store: Store) -> list[tuple[str, str]]:
    with store.database.read() as tx:
        return [(d.state, d.reason) for d in store.outbox.listing(tx)]


def records(store: Store, event: str) -> list[Record]:
    with store.database.read() as tx:
        return store.audit.page(tx, Filter(event=event))


def awaited(store: Store) -> dict[str, Awaited]:
    with store.database.read() as tx:
        return store.commitments.awaited(tx)


def test_a_report_commits_what_it_names_and_nothing_else(store: Store) -> None:
    for number in (1, 2, 3):
        make(store, number)
        deliver(store)
    question = ask(store, "2.25.100")
    assert question.instances == ((SR, "2.25.1"), (SR, "2.25.2"), (SR, "2.25.3"))
    assert report(store, "2.25.100", [1, 99], [2]) == 2
    assert states(store) == [
        ("committed", ""),
        ("waiting", "not committed: 0112 (no such object there)"),
        ("delivered", ""),
    ]
    assert awaited(store) == {"pacs": Awaited(1, "")}
    (record,) = records(store, "delivery.committed")
    assert (record.actor, record.host, record.sop) == ("PACS", "10.0.0.5", "1.2.3.1")
    assert record.detail["transaction"] == "2.25.100" and record.detail["result"] == "2.25.1"
    (record,) = records(store, "commitment.failed")
    assert (record.outcome, record.sop, record.detail["failures"]) == ("failure", "1.2.3.2", 1)
    assert {r.detail["transaction"] for r in records(store, "commitment.requested")} == {"2.25.100"}


def test_another_class_or_transaction_commits_nothing(store: Store) -> None:
    make(store, 1)
    deliver(store)
    ask(store, "2.25.100")
    with store.database.write() as tx:
        assert store.commitments.reported(tx, "2.25.100", {("1.2.3", "2.25.1")}, {}, PACS) == 0
    with pytest.raises(WrongState), store.database.write() as tx:
        store.commitments.reported(tx, "2.25.101", {(SR, "2.25.1")}, {}, PACS)
    assert states(store) == [("delivered", "")]


def test_what_failed_four_times_is_parked_with_the_reason(store: Store, time: Time) -> None:
    make(store, 1)
    attempts = 0
    for round_ in range(4):
        deliver(store)
        attempts += 1
        ask(store, f"2.25.10{round_}")
        report(store, f"2.25.10{round_}", [], [1])
        time.seconds += 1000
    assert states(store) == [("parked", "delivered, not committed: 0112 (no such object there)")]
    assert attempts == 4 and len(records(store, "commitment.failed")) == 4
    (parked,) = records(store, "delivery.parked")
    assert parked.detail["transaction"] == "2.25.103"


def test_silence_counts_like_a_failure_and_a_late_report_still_commits(store: Store, time: Time) -> None:
    make(store, 1)
    deliver(store)
    ask(store, "2.25.100")
    assert overdue(store) == 0
    time.seconds += SECONDS
    assert overdue(store) == 1
    assert states(store) == [("waiting", "not committed: nothing heard of it within 600 s")]
    report(store, "2.25.100", [1])
    assert states(store) == [("committed", "")]
    time.seconds += 10_000
    with store.database.write() as tx:
        assert store.outbox.claim(tx, "pacs", "d", 60) is None


def test_a_late_report_ends_the_round_that_began_meanwhile(store: Store, time: Time) -> None:
    make(store, 1)
    deliver(store)
    ask(store, "2.25.100")
    time.seconds += SECONDS
    overdue(store)
    time.seconds += 100
    deliver(store)
    ask(store, "2.25.101")
    report(store, "2.25.100", [1])
    assert states(store) == [("committed", "")] and awaited(store) == {}
    time.seconds += 2 * SECONDS
    assert overdue(store) == 0


def test_what_is_being_sent_again_is_not_called_committed_by_a_late_report(store: Store, time: Time) -> None:
    """The round that follows decides."""
    make(store, 1)
    deliver(store)
    ask(store, "2.25.100")
    time.seconds += SECONDS
    overdue(store)
    time.seconds += 100
    with store.database.write() as tx:
        delivery = store.outbox.claim(tx, "pacs", "d", 60)
    report(store, "2.25.100", [1])
    assert delivery is not None and states(store)[0][0] == "sending"


def test_a_person_who_tries_again_gets_all_rounds_anew(store: Store, time: Time) -> None:
    make(store, 1)
    for round_ in range(4):
        delivery = deliver(store)
        ask(store, f"2.25.10{round_}")
        time.seconds += 1000
        overdue(store)
        time.seconds += 1000
    assert states(store)[0][0] == "parked"
    with store.database.write() as tx:
        store.outbox.retry(tx, delivery.id, Actor("operator"))
    deliver(store)
    ask(store, "2.25.200")
    report(store, "2.25.200", [], [1])
    assert states(store)[0][0] == "waiting"


def test_a_destination_that_refuses_is_asked_so_often_and_no_more(store: Store) -> None:
    make(store, 1)
    deliver(store)
    for refusal in range(MOST_REFUSALS):
        assert states(store)[0][0] == "delivered"
        with store.database.write() as tx:
            question = store.commitments.ask(tx, "pacs", f"2.25.{refusal + 100}", SECONDS)
            assert question is not None
            store.commitments.refused(tx, question, "presentation context refused")
        if refusal == 0:
            assert awaited(store) == {"pacs": Awaited(1, "presentation context refused")}
            assert states(store) == [("delivered", "not committed yet: presentation context refused")]
    assert states(store) == [("parked", "delivered, not committed: presentation context refused")]
    assert awaited(store) == {}
    assert len(records(store, "commitment.refused")) == MOST_REFUSALS


def test_an_answer_that_outran_the_response_stands(store: Store) -> None:
    make(store, 1)
    deliver(store)
    with store.database.write() as tx:
        question = store.commitments.ask(tx, "pacs", "2.25.100", SECONDS)
    assert question is not None
    report(store, "2.25.100", [1])
    with store.database.write() as tx:
        store.commitments.refused(tx, question, "no answer in time")
        store.commitments.postponed(tx, question, "no answer in time")
    assert states(store) == [("committed", "")] and awaited(store) == {}


def test_nothing_that_awaits_commitment_expires(store: Store, time: Time) -> None:
    make(store, 1)
    deliver(store)
    later = datetime(2030, 1, 1, tzinfo=UTC)

    def expirable() -> tuple[int, int]:
        with store.database.read() as tx:
            return len(store.results.expirable(tx, later)), len(store.objects.expirable(tx, later))

    assert expirable() == (0, 0)
    ask(store, "2.25.100")
    assert expirable() == (0, 0)
    report(store, "2.25.100", [1])
    assert expirable() == (1, 1)


def test_what_is_no_longer_asked_of_a_destination_stays_delivered(store: Store) -> None:
    make(store, 1)
    deliver(store)
    with store.database.write() as tx:
        assert store.commitments.withdraw(tx, {"pacs"}) == 0
        assert store.commitments.withdraw(tx, {"another"}) == 1
    assert states(store) == [("delivered", "")] and awaited(store) == {}


def test_a_report_is_owed_until_the_peer_has_it(store: Store, time: Time) -> None:
    reports = store.commitment_reports
    with store.database.write() as tx:
        for data in (b"first", b"second"):
            reports.queue(tx, "MODALITY", "10.0.0.1", 104, "1.2.3.9", data)
        assert reports.count(tx, "MODALITY") == 1
        report = reports.due(tx)
        assert report is not None and report.data == b"second"
        reports.postponed(tx, report, 60)
        assert reports.due(tx) is None
    time.seconds += 60
    with store.database.write() as tx:
        report = reports.due(tx)
        assert report is not None and report.attempt == 1
        reports.told(tx, report)
        assert reports.count(tx, "MODALITY") == 0
    (record,) = records(store, "commitment.reported")
    assert record.detail == {"peer": "MODALITY", "transaction": "1.2.3.9", "attempts": 2}
