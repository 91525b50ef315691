"""A lane's promises: nothing is sent unrecorded, trouble passes without hammering, nobody holds up the others."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from clocks import Time
from peers.results import add, picture
from pydantic import ValidationError
from sqlalchemy import update

from node.deliver.lanes import BEHIND_SECONDS, Lane, lanes_of
from node.deliver.outcome import Delivered, Outcome, Parked, Postponed
from node.deliver.trouble import Backoff, Trouble
from node.settings import DimseDestination
from storage.audit import Actor, Filter
from storage.errors import Unavailable
from storage.outbox import Delivery
from storage.schema import deliveries
from storage.store import Store

DELIVERED = Delivered("0000")
DOWN = Postponed("no connection")


class Script:
    """A sender that answers as told: one outcome for each instance, or for all."""

    def __init__(self, outcome: Outcome | Exception = DELIVERED) -> None:
        self.outcome = outcome
        self.special: dict[str, Outcome] = {}
        self.tried: list[str] = []
        self.rests = 0

    def send(self, delivery: Delivery, file: Path) -> Outcome:
        self.tried.append(delivery.sop_instance)
        outcome = self.special.get(delivery.sop_instance, self.outcome)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def rest(self) -> None:
        self.rests += 1


class Refusing:
    """A database that takes no writes while told so."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self.refusals = 0

    @contextmanager
    def write(self) -> Iterator[Any]:
        if self.refusals:
            self.refusals -= 1
            raise Unavailable("the database does not take the work: disk I/O error")
        with self._database.write() as tx:
            yield tx

    def read(self) -> Any:
        return self._database.read()

    def close(self) -> None:
        self._database.close()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def store(tmp_path: Path, time: Time) -> Iterator[Store]:
    store = Store.create(tmp_path / "data", clock=time.clock)
    yield store
    store.close()


def lane(store: Store, sender: Script) -> Lane:
    """One without jitter."""
    return Lane(
        "pacs", sender, store, "test", threading.Event(), Trouble(store.clock, Backoff(jitter=lambda: 0.0))
    )


def wait(store: Store, count: int) -> list[str]:
    """So many results for the PACS; their UIDs, oldest first."""
    uids = []
    for _ in range(count):
        dataset = picture(side=8)
        add(store, dataset, "pacs")
        uids.append(str(dataset.SOPInstanceUID))
    return uids


def listing(store: Store) -> list[Delivery]:
    with store.database.read() as tx:
        return store.outbox.listing(tx)


def events(store: Store) -> list[str]:
    with store.database.read() as tx:
        return [r.event for r in store.audit.page(tx, Filter()) if r.event.startswith("delivery.")]


def test_what_waits_is_delivered_in_order_and_each_step_is_recorded(store: Store) -> None:
    uids, sender = wait(store, 2), Script()
    it = lane(store, sender)
    assert [it.turn(), it.turn()] == [0, 0] and it.turn() > 0
    assert sender.tried == uids
    assert events(store) == ["delivery.attempted", "delivery.delivered"] * 2


def test_the_first_goes_alone_and_what_follows_shares_two_transactions(store: Store) -> None:
    uids, sender = wait(store, 6), Script()
    it = lane(store, sender)
    assert [it.turn(), it.turn()] == [0, 0] and it.turn() > 0
    assert sender.tried == uids
    alone = ["delivery.attempted", "delivery.delivered"]
    assert events(store) == alone + ["delivery.attempted"] * 5 + ["delivery.delivered"] * 5


def test_what_a_broken_batch_did_not_try_waits_as_before(store: Store, time: Time) -> None:
    _, _, poison, *others = wait(store, 6)
    before = listing(store)
    sender = Script()
    sender.special[poison] = DOWN
    it = lane(store, sender)
    assert [it.turn(), it.turn()] == [0, 0]
    assert len(sender.tried) == 3
    after = listing(store)
    assert [d.state for d in after] == ["delivered"] * 2 + ["waiting"] * 4
    assert after[3:] == before[3:]
    assert events(store).count("delivery.returned") == len(others)
    time.seconds += 1
    assert it.turn() == 0 and sender.tried[3:] == others[:1]


def test_a_slow_destination_gets_smaller_batches_and_nothing_stays_unrecorded_for_long(
    store: Store, time: Time
) -> None:
    uids = wait(store, 20)

    class Slow(Script):
        def send(self, delivery: Delivery, file: Path) -> Outcome:
            time.seconds += 0.01 if len(self.tried) < 2 else 0.2
            return super().send(delivery, file)

    sender = Slow()
    it = lane(store, sender)
    unrecorded = []
    while it.turn() == 0:
        unrecorded.append(len(sender.tried) - events(store).count("delivery.delivered"))
        assert [d.state for d in listing(store)].count("sending") == 0
    assert sender.tried == uids and set(unrecorded) == {0}
    # the first of the slow ones were claimed at the pace before; all others at their own
    assert events(store).count("delivery.returned") == 20 - 1 - 4


def test_a_stop_gives_back_what_was_not_tried(store: Store) -> None:
    wait(store, 4)
    stopping = threading.Event()

    class Stopped(Script):
        def send(self, delivery: Delivery, file: Path) -> Outcome:
            if self.tried:
                stopping.set()
            return super().send(delivery, file)

    it = Lane("pacs", Stopped(), store, "test", stopping)
    it.run()
    assert [d.state for d in listing(store)] == ["delivered"] * 2 + ["waiting"] * 2
    assert [d.attempt for d in listing(store)] == [1, 1, 0, 0]


def test_lanes_of_a_destination_share_its_pause_and_one_of_them_tries(store: Store, time: Time) -> None:
    wait(store, 6)
    trouble = Trouble(store.clock, Backoff(jitter=lambda: 0.0))
    first, second = Script(DOWN), Script(DOWN)
    leading = Lane("pacs", first, store, "1", threading.Event(), trouble, lanes=2)
    other = Lane("pacs", second, store, "2", threading.Event(), trouble, lanes=2, leads=False)
    assert other.turn() == 0 and other.turn() > 0 and leading.turn() > 0
    time.seconds += 1
    assert other.turn() > 0 and leading.turn() == 0
    assert (len(first.tried), len(second.tried), trouble.failures) == (1, 1, 2)
    first.outcome = second.outcome = DELIVERED
    time.seconds += 2
    assert leading.turn() == 0 and other.turn() == 0
    assert (len(first.tried), len(second.tried)) == (2, 2)


def test_a_destination_has_as_many_lanes_as_associations(store: Store) -> None:
    given = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}
    for count in (1, 8):
        destination = DimseDestination.model_validate({**given, "associations": count})
        assert len(lanes_of(destination, "HILUM", store, "test", threading.Event())) == count
    for count in (0, 9):
        with pytest.raises(ValidationError, match="associations"):
            DimseDestination.model_validate({**given, "associations": count})


def test_one_outage_is_one_failure_however_many_lanes_see_it(time: Time) -> None:
    trouble = Trouble(time.clock, Backoff(jitter=lambda: 0.0))
    began = time.seconds
    time.seconds += 5
    pauses = [trouble.failed(began) for _ in range(4)]
    assert (trouble.failures, pauses) == (1, [1.0] * 4)


def test_a_warning_status_is_kept_in_the_audit_log(store: Store) -> None:
    wait(store, 1)
    lane(store, Script(Delivered("B007"))).turn()
    with store.database.read() as tx:
        (record,) = store.audit.page(tx, Filter(event="delivery.delivered"))
    assert record.detail["status"] == "B007"


def test_a_dead_host_is_asked_ever_more_rarely_whatever_waits(store: Store, time: Time) -> None:
    wait(store, 5)
    sender = Script(DOWN)
    it = lane(store, sender)
    tries = []
    while time.seconds < 3000:
        before = len(sender.tried)
        wait_seconds = it.turn()
        if len(sender.tried) > before:
            tries.append(time.seconds)
        time.seconds += wait_seconds
    gaps = [b - a for a, b in pairwise(tries)]
    assert gaps[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert set(gaps[9:]) == {300} and len(sender.tried) == len(tries)


def test_once_the_host_is_back_all_goes_out(store: Store, time: Time) -> None:
    wait(store, 3)
    sender = Script(DOWN)
    it = lane(store, sender)
    it.turn()
    sender.outcome = Delivered("0000")
    time.seconds += 1 + BEHIND_SECONDS
    while it.turn() == 0:
        pass
    assert {d.state for d in listing(store)} == {"delivered"}


def test_one_object_that_a_peer_chokes_on_holds_up_nobody(store: Store, time: Time) -> None:
    poison, *others = wait(store, 4)
    sender = Script()
    sender.special[poison] = Postponed("the destination answered A700 (out of resources)")
    it = lane(store, sender)
    for _ in range(4):
        while it.turn() == 0:
            pass
        time.seconds += 1
    assert [d.sop_instance for d in listing(store) if d.state == "delivered"] == others
    assert sender.tried.count(poison) <= 3


def test_a_person_who_asks_again_ends_the_pause_once(store: Store, time: Time) -> None:
    wait(store, 3)
    sender = Script(DOWN)
    it = lane(store, sender)
    for _ in range(8):
        it.turn()
        time.seconds += 300
    it.turn()
    tried = len(sender.tried)
    time.seconds += 10
    with store.database.write() as tx:
        store.outbox.retry(tx, listing(store)[0].id, Actor("operator"))
    assert it.turn() == 0 and it.turn() > 0
    assert len(sender.tried) == tried + 1


def test_a_lost_file_parks_and_says_nothing_about_the_destination(store: Store) -> None:
    wait(store, 1)
    file = listing(store)[0].file
    assert file is not None
    store.spool.path(file).unlink()
    lane(store, Script()).turn()
    (delivery,) = listing(store)
    assert (delivery.state, delivery.reason) == ("parked", "its file is missing in the spool")
    with store.database.read() as tx:
        assert store.outbox.destination_states(tx, ["pacs"])["pacs"].state == "unknown"


def test_what_cannot_be_sent_parks_without_quoting_it(store: Store) -> None:
    wait(store, 1)
    lane(store, Script(ValueError("Unmistakable^Name"))).turn()
    (delivery,) = listing(store)
    assert (delivery.state, delivery.reason) == ("parked", "it can't be sent: ValueError")


def test_a_refusal_parks_and_the_destination_is_up(store: Store) -> None:
    wait(store, 1)
    lane(store, Script(Parked("the destination answered C000 (cannot understand)"))).turn()
    with store.database.read() as tx:
        state = store.outbox.destination_states(tx, ["pacs"])["pacs"]
    assert state.state == "up" and state.last_error == "the destination answered C000 (cannot understand)"


def test_nothing_is_sent_whose_attempt_is_not_recorded(store: Store) -> None:
    wait(store, 1)
    sender = Script()
    store.database = refusing = Refusing(store.database)  # type: ignore[assignment]
    refusing.refusals = 1
    it = lane(store, sender)
    with pytest.raises(Unavailable):
        it.turn()
    assert sender.tried == []
    it.turn()
    assert len(sender.tried) == 1


def test_what_was_sent_is_recorded_once_the_database_takes_it(store: Store) -> None:
    wait(store, 1)
    store.database = refusing = Refusing(store.database)  # type: ignore[assignment]

    class Failing(Script):
        def send(self, delivery: Delivery, file: Path) -> Outcome:
            refusing.refusals = 1
            return super().send(delivery, file)

    sender = Failing()
    lane(store, sender).turn()
    assert len(sender.tried) == 1 and listing(store)[0].state == "delivered"


def test_a_delivery_that_was_taken_back_meanwhile_does_not_stop_the_lane(store: Store) -> None:
    wait(store, 1)

    class Late(Script):
        def send(self, delivery: Delivery, file: Path) -> Outcome:
            if not self.tried:
                with store.database.write() as tx:
                    store.outbox.recover(tx)
            return super().send(delivery, file)

    sender = Late()
    it = lane(store, sender)
    assert [it.turn(), it.turn()] == [0, 0]
    assert len(sender.tried) == 2 and listing(store)[0].state == "delivered"


def test_of_a_batch_only_what_was_taken_back_is_sent_again(store: Store) -> None:
    first, second, third = wait(store, 3)

    class Late(Script):
        def send(self, delivery: Delivery, file: Path) -> Outcome:
            if delivery.sop_instance == second and second not in self.tried:
                with store.database.write() as tx:
                    tx.execute(
                        update(deliveries)
                        .where(deliveries.c.id == delivery.id)
                        .values(state="waiting", owner=None)
                    )
            return super().send(delivery, file)

    sender = Late()
    it = lane(store, sender)
    while it.turn() == 0:
        pass
    assert sender.tried == [first, second, third, second]
    assert {d.state for d in listing(store)} == {"delivered"}


def test_the_association_is_given_back_when_nothing_is_due(store: Store) -> None:
    wait(store, 1)
    sender, stopping = Script(), threading.Event()
    it = Lane("pacs", sender, store, "test", stopping)
    thread = threading.Thread(target=it.run)
    thread.start()
    while not sender.rests:
        stopping.wait(0.01)
    assert len(sender.tried) == 1
    stopping.set()
    it.nudge()
    thread.join(5)
    assert not thread.is_alive()


def test_the_longest_wait_is_five_minutes_and_lanes_do_not_march_in_step() -> None:
    assert Backoff(jitter=lambda: 0.0).seconds(10_000) == 300
    assert Backoff(jitter=lambda: 1.0).seconds(1) == 0.75
