"""The queue's promises: once, in order, and an image that kills its reader harms nobody else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.audit import Actor, Filter, Patient
from storage.errors import WrongState
from storage.objects import Arrival, Verdict
from storage.store import Store

MODEL = "sha256:" + "0" * 64
SENDER = Actor("MODALITY", "10.0.0.1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.create(tmp_path)
    yield store
    store.close()


def arrival(number: int, *, content: str = "a", patient: str = "P1") -> Arrival:
    return Arrival(
        sop_class="1.2.840.10008.5.1.4.1.1.1.1",
        sop_instance=f"1.2.3.{number}",
        series="1.2.3.4",
        study="1.2.3",
        patient=Patient(patient, "Unmistakable^Name", "ACC1"),
        transfer_syntax="1.2.840.10008.1.2.1",
        size=10,
        content_hash="sha256:" + content * 64,
        sender=SENDER,
    )


def queue(store: Store, *numbers: int) -> list[int]:
    ids = []
    for number in numbers:
        with store.database.write() as tx:
            object_id = store.objects.keep(tx, arrival(number), f"objects/{number}.dcm")
            ids.append(store.jobs.queue(tx, object_id, MODEL))
    return ids


def states(store: Store) -> list[str]:
    with store.database.read() as tx:
        return [job.state for job in store.jobs.listing(tx)]


def claim(store: Store, owner: str, limit: int = 8) -> list[int]:
    with store.database.write() as tx:
        return [job.id for job in store.jobs.claim(tx, owner, limit, 60)]


def test_jobs_are_claimed_once_oldest_first(store: Store) -> None:
    ids = queue(store, 1, 2, 3)
    assert claim(store, "w1", 2) == ids[:2]
    assert claim(store, "w2", 2) == ids[2:]
    assert claim(store, "w3", 2) == []


def test_after_a_death_the_batch_is_tried_one_by_one_and_only_the_killer_is_parked(store: Store) -> None:
    killer, innocent = queue(store, 1, 2)
    assert claim(store, "w1") == [killer, innocent]
    with store.database.write() as tx:
        store.jobs.died(tx, "w1")
    for round_ in range(3):
        assert claim(store, f"k{round_}") == [killer]
        with store.database.write() as tx:
            store.jobs.died(tx, f"k{round_}")
    assert states(store) == ["parked", "queued"]
    assert claim(store, "w5") == [innocent]


def test_a_restart_of_the_node_counts_nothing(store: Store) -> None:
    (only,) = queue(store, 1)
    for _ in range(5):
        assert claim(store, "w") == [only]
        with store.database.write() as tx:
            assert store.jobs.recover(tx) == 1
    assert states(store) == ["queued"]


def test_a_worker_that_lost_its_lease_cannot_finish_the_job(store: Store) -> None:
    (only,) = queue(store, 1)
    claim(store, "slow")
    with store.database.write() as tx:
        store.jobs.died(tx, "slow")
    claim(store, "next")
    with pytest.raises(WrongState), store.database.write() as tx:
        store.jobs.finish(tx, only, "slow", "done")
    with store.database.write() as tx:
        store.jobs.finish(tx, only, "next", "skipped", reason="lateral view")
    assert states(store) == ["skipped"]


def test_a_job_names_the_model_that_read_it_not_the_one_at_hand_when_it_came(store: Store) -> None:
    (only,) = queue(store, 1)
    claim(store, "w")
    newer = "sha256:" + "1" * 64
    with store.database.write() as tx:
        store.jobs.finish(tx, only, "w", "done", model=newer)
    with store.database.read() as tx:
        assert store.jobs.get(tx, [only])[0].model == newer


def test_a_parked_job_can_be_retried_or_discarded_and_nothing_else_can(store: Store) -> None:
    (only,) = queue(store, 1)
    operator = Actor("operator")
    with pytest.raises(WrongState, match="is queued, not parked"), store.database.write() as tx:
        store.jobs.retry(tx, only, operator)
    claim(store, "w")
    with store.database.write() as tx:
        store.jobs.finish(tx, only, "w", "parked", reason="cut stream")
    with store.database.write() as tx:
        store.jobs.retry(tx, only, operator)
    assert states(store) == ["queued"]


def test_the_same_uid_is_judged_by_bytes_and_patient(store: Store) -> None:
    queue(store, 1)
    with store.database.read() as tx:
        assert store.objects.judge(tx, arrival(1)) is Verdict.REPEATED
        assert store.objects.judge(tx, arrival(1, content="b")) is Verdict.CHANGED
        assert store.objects.judge(tx, arrival(1, patient="P2")) is Verdict.FOREIGN
        assert store.objects.judge(tx, arrival(1, content="b", patient="P2")) is Verdict.FOREIGN
        assert store.objects.judge(tx, arrival(2)) is Verdict.NEW


def test_a_state_change_that_fails_leaves_no_audit_record(store: Store) -> None:
    queue(store, 1)
    with store.database.read() as tx:
        before = store.audit.page(tx, Filter())
    with pytest.raises(RuntimeError), store.database.write() as tx:
        store.jobs.claim(tx, "w", 1, 60)
        raise RuntimeError
    with store.database.read() as tx:
        assert store.audit.page(tx, Filter()) == before
    assert states(store) == ["queued"]
