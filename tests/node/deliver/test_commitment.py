"""Asking destinations to commit, and telling peers: to those that answer, refuse, stay silent or vanish."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clocks import Time
from peers.results import add, picture
from pydicom import Dataset
from pydicom.sequence import Sequence
from pynetdicom import AE, build_role, evt

from model.stored_only import stored_only
from node.check import checks
from node.deliver.commitment import Committing, Reporting, refusal
from node.receive.accept import Receiver
from node.receive.server import Engine, open_engine
from node.recover import after_stop
from node.settings import DimseDestination, Settings
from node.wire.commitment import Failure, Reference, Said, encode
from node.wire.contexts import IMPLICIT_LITTLE
from storage.audit import Filter, Record
from storage.store import Store

PUSH = "1.2.840.10008.1.20.1"
INSTANCE = "1.2.840.10008.1.20.1.1"
SC = "1.2.840.10008.5.1.4.1.1.7"


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def store(tmp_path: Path, time: Time) -> Iterator[Store]:
    store = Store.create(tmp_path / "data", clock=time.clock)
    yield store
    store.close()


class Archive:
    """A pynetdicom server for storage commitment, as both its provider and its user."""

    def __init__(self, *, offers: bool = True, status: int = 0x0000) -> None:
        self.asked: list[Dataset] = []
        self.told: list[tuple[int, Dataset]] = []
        self.answers: list[int] = []
        self.on_asked: Callable[[Any, Dataset], None] = lambda assoc, asked: None
        self.status = status
        self.delay = 0.1
        self.associations = 0
        self.released = threading.Event()
        self._ae = AE(ae_title="PACS")
        self._ae.add_supported_context("1.2.840.10008.1.1")
        if offers:
            self._ae.add_supported_context(PUSH, scu_role=True, scp_role=True)
        handlers = [
            (evt.EVT_N_ACTION, self._action), (evt.EVT_N_EVENT_REPORT, self._report),
            (evt.EVT_ACCEPTED, self._accepted), (evt.EVT_RELEASED, lambda event: self.released.set()),
        ]  # fmt: skip
        self._server: Any = self._ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port: int = self._server.socket.getsockname()[1]

    def stop(self) -> None:
        self._server.shutdown()

    def _accepted(self, event: evt.Event) -> None:
        self.associations += 1

    def _action(self, event: evt.Event) -> Any:
        asked = event.action_information
        self.asked.append(asked)
        if self.status == 0:
            # the response goes out when this returns, and only then the report
            threading.Timer(self.delay, self.on_asked, (event.assoc, asked)).start()
        return self.status, None

    def _report(self, event: evt.Event) -> Any:
        self.told.append((event.event_type, event.event_information))
        return self.status, None


@pytest.fixture
def archive() -> Iterator[Callable[..., Archive]]:
    started: list[Archive] = []

    def start(**options: Any) -> Archive:
        started.append(Archive(**options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def report(asked: Dataset, failed: tuple[str, ...] = ()) -> Dataset:
    """What a provider reports of what it was asked; `failed`: instances that it does not have."""
    told = Dataset()
    told.TransactionUID = asked.TransactionUID
    kept = [item for item in asked.ReferencedSOPSequence if item.ReferencedSOPInstanceUID not in failed]
    lost = [item for item in asked.ReferencedSOPSequence if item.ReferencedSOPInstanceUID in failed]
    for item in lost:
        item.FailureReason = 0x0131
    if kept:
        told.ReferencedSOPSequence = Sequence(kept)
    if lost:
        told.FailedSOPSequence = Sequence(lost)
    return told


def destination(port: int) -> DimseDestination:
    return DimseDestination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, commitment=True)


def committing(store: Store, port: int) -> Committing:
    return Committing(destination(port), "HILUM", store, threading.Event())


def delivered(store: Store) -> str:
    """A result that the PACS has; its UID."""
    dataset = picture(side=8)
    add(store, dataset, "pacs")
    with store.database.write() as tx:
        delivery = store.outbox.claim(tx, "pacs", "test", 60)
        assert delivery is not None
        store.outbox.delivered(tx, delivery, {"status": "0000"})
        store.commitments.owe(tx, delivery.id)
    return str(dataset.SOPInstanceUID)


def states(store: Store) -> list[tuple[str, str]]:
    with store.database.read() as tx:
        return [(d.state, d.reason) for d in store.outbox.listing(tx)]


def records(store: Store, event: str) -> list[Record]:
    with store.database.read() as tx:
        return store.audit.page(tx, Filter(event=event))


def test_a_report_on_the_same_association_commits(store: Store, archive: Callable[..., Archive]) -> None:
    peer = archive()
    uids = [delivered(store) for _ in range(3)]

    def tell(assoc: Any, asked: Dataset) -> None:
        status, _ = assoc.send_n_event_report(report(asked, (uids[1],)), 2, PUSH, INSTANCE)
        peer.answers.append(status.Status)

    peer.on_asked = tell
    assert committing(store, peer.port).turn() == 0
    assert [item.ReferencedSOPInstanceUID for item in peer.asked[0].ReferencedSOPSequence] == uids
    assert states(store) == [
        ("committed", ""),
        ("waiting", "not committed: 0131 (transaction UID used before)"),
        ("committed", ""),
    ]
    assert peer.released.wait(5) and peer.answers == [0] and peer.associations == 1
    assert [r.detail["transaction"] for r in records(store, "delivery.committed")] == (
        [str(peer.asked[0].TransactionUID)] * 2
    )


def test_a_report_on_another_transaction_is_answered_and_changes_nothing(
    store: Store, archive: Callable[..., Archive]
) -> None:
    peer = archive()
    delivered(store)

    def tell(assoc: Any, asked: Dataset) -> None:
        wrong = report(asked)
        wrong.TransactionUID = "1.2.3"
        status, _ = assoc.send_n_event_report(wrong, 1, PUSH, INSTANCE)
        peer.answers.append(status.Status)

    peer.on_asked = tell
    committing(store, peer.port).turn()
    assert peer.released.wait(5) and peer.answers == [0x0115]
    assert states(store) == [("delivered", "")]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"status": 0x0213}, "the destination answered 0213 (out of resources)"),
        (
            {"offers": False},
            "presentation context refused: Storage Commitment Push Model (SOP class not supported)",
        ),
    ],
)
def test_a_destination_that_refuses_is_named_and_left_alone_for_a_while(
    store: Store, time: Time, archive: Callable[..., Archive], options: dict[str, Any], reason: str
) -> None:
    peer = archive(**options)
    delivered(store)
    it = committing(store, peer.port)
    assert it.turn() == 0 and it.turn() > 0
    assert states(store) == [("delivered", f"not committed yet: {reason}")]
    with store.database.read() as tx:
        assert store.commitments.awaited(tx)["pacs"].trouble == reason
    (record,) = records(store, "commitment.refused")
    assert (record.outcome, record.detail["reason"]) == ("failure", reason)
    time.seconds += 60
    assert it.turn() == 0 and len(records(store, "commitment.refused")) == 2


def test_a_destination_that_is_down_is_asked_again_without_end(
    store: Store, time: Time, archive: Callable[..., Archive], free_port: Callable[[], int]
) -> None:
    delivered(store)
    it = committing(store, free_port())
    for _ in range(60):
        assert it.turn() == 0
        time.seconds += 300
    ((state, reason),) = states(store)
    assert state == "delivered" and reason.startswith("not committed yet: no connection")
    peer = archive()
    peer.on_asked = lambda assoc, asked: assoc.send_n_event_report(report(asked), 1, PUSH, INSTANCE)
    committing(store, peer.port).turn()
    assert peer.released.wait(5) and states(store) == [("committed", "")]


def test_a_check_says_who_does_not_commit(
    archive: Callable[..., Archive], free_port: Callable[[], int]
) -> None:
    assert refusal(destination(archive().port), "HILUM") == ""
    assert "SOP class not supported" in refusal(destination(archive(offers=False).port), "HILUM")
    assert refusal(destination(free_port()), "HILUM").startswith("no connection")


def test_hilum_check_sees_that_reports_could_not_come_in(archive: Callable[..., Archive]) -> None:
    there = destination(archive().port).model_dump()
    for title, holds in (("PACS", True), ("ANOTHER", False)):
        peers = [{"ae_title": title, "host": "127.0.0.1"}]
        settings = Settings.model_validate({"receive": {"port": 0, "peers": peers}, "destinations": [there]})
        (found,) = (check for check in checks(settings) if check.what == "commitment pacs")
        assert found.holds is holds, found.detail


def test_a_start_of_the_node_goes_on_waiting_unless_nobody_is_asked_any_more(store: Store) -> None:
    delivered(store)
    asked = Settings(destinations=(destination(104),))
    assert after_stop(store, asked, "sha256:model").commitments_withdrawn == 0
    with store.database.read() as tx:
        assert store.commitments.is_due(tx, "pacs")
    assert after_stop(store, Settings(), "sha256:model").commitments_withdrawn == 1
    assert states(store) == [("delivered", "")]
    (record,) = records(store, "commitment.failed")
    assert record.detail["reason"] == "commitment is no longer asked of this destination"


def test_silence_makes_it_wait_to_be_sent_again(
    store: Store, time: Time, archive: Callable[..., Archive]
) -> None:
    peer = archive()
    delivered(store)
    it = committing(store, peer.port)
    assert it.turn() == 0 and it.turn() > 0
    time.seconds += 601
    assert it.turn() == 0
    assert states(store) == [("waiting", "not committed: nothing heard of it within 600 s")]
    assert len(peer.asked) == 1


def test_a_peer_that_aborts_behind_its_response_may_still_report(
    store: Store, archive: Callable[..., Archive]
) -> None:
    peer = archive()
    peer.on_asked = lambda assoc, asked: assoc.abort()
    delivered(store)
    committing(store, peer.port).turn()
    assert states(store) == [("delivered", "")]
    with store.database.read() as tx:
        assert store.commitments.awaited(tx)["pacs"].results == 1


@pytest.fixture(params=["hilum", "pynetdicom"])
def receiver(store: Store, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Our own port, on the same store."""
    settings = Settings.model_validate({"receive": {"port": 0, "engine": request.param}})
    engine = open_engine(settings, Receiver(store, settings.receive, "sha256:test", stored_only))
    engine.start()
    yield engine
    engine.stop(2)


def reported_to(port: int, told: Dataset, **roles: bool) -> int:
    """As a provider does on an association of its own; the status that it is answered."""
    ae = AE(ae_title="PACS")
    ae.add_requested_context(PUSH)
    ext = [build_role(PUSH, **roles)] if roles else []
    assoc = ae.associate("127.0.0.1", port, ae_title="HILUM", ext_neg=ext)
    assert assoc.is_established
    if roles:
        assert assoc.accepted_contexts[0].as_scp
    else:
        # some providers propose no role; what they say is heard all the same
        assoc.accepted_contexts[0]._as_scp = True
    status, _ = assoc.send_n_event_report(told, 2 if "FailedSOPSequence" in told else 1, PUSH, INSTANCE)
    assoc.release()
    return int(status.Status)


@pytest.mark.parametrize("roles", [{"scp_role": True}, {"scp_role": True, "scu_role": True}, {}])
def test_a_report_on_an_association_of_the_destinations_own_commits(
    store: Store, archive: Callable[..., Archive], receiver: Engine, roles: dict[str, bool]
) -> None:
    peer = archive()
    delivered(store)
    committing(store, peer.port).turn()
    assert reported_to(receiver.port, report(peer.asked[0]), **roles) == 0
    assert states(store) == [("committed", "")]
    (record,) = records(store, "delivery.committed")
    assert (record.actor, record.host) == ("PACS", "127.0.0.1")


def test_a_destination_that_reports_otherwise_is_let_go_at_once_from_then_on(
    store: Store, archive: Callable[..., Archive], receiver: Engine
) -> None:
    """The second report would come on the first's association if that were still open."""
    peer = archive()
    it = committing(store, peer.port)
    delivered(store)
    it.turn()
    assert reported_to(receiver.port, report(peer.asked[0]), scp_role=True) == 0
    # within the second for which it would be held otherwise
    peer.delay = 0.6
    open_still = []
    peer.on_asked = lambda assoc, asked: open_still.append(assoc.is_established)
    delivered(store)
    it.turn()
    peer.released.wait(5)
    while not open_still:
        threading.Event().wait(0.02)
    assert open_still == [False]


def owe(store: Store, port: int, transaction: str = "1.2.3.9") -> None:
    said = Said(transaction, [Reference(SC, "1.2.3.1")], [Failure(SC, "1.2.3.2", 0x0112)])
    with store.database.write() as tx:
        store.commitment_reports.queue(
            tx, "PACS", "127.0.0.1", port, transaction, encode(said, IMPLICIT_LITTLE)
        )


def reporting(store: Store) -> Reporting:
    return Reporting("HILUM", store, threading.Event())


def test_a_peer_is_told_on_an_association_of_ours(store: Store, archive: Callable[..., Archive]) -> None:
    peer = archive()
    owe(store, peer.port)
    it = reporting(store)
    assert it.turn() == 0 and it.turn() > 0
    ((event_type, told),) = peer.told
    assert (event_type, told.TransactionUID) == (2, "1.2.3.9")
    assert told.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.1"
    assert told.FailedSOPSequence[0].FailureReason == 0x0112
    assert [r.outcome for r in records(store, "commitment.reported")] == ["success"]


def test_a_peer_that_is_away_is_told_later_and_given_up_after_a_day(
    store: Store, time: Time, archive: Callable[..., Archive], free_port: Callable[[], int]
) -> None:
    peer = archive(status=0x0110)
    owe(store, free_port(), "1.2.3.8")
    owe(store, peer.port, "1.2.3.9")
    it = reporting(store)
    while time.seconds < 86_400:
        while it.turn() == 0:
            pass
        time.seconds += 7200
    peer.status = 0
    time.seconds += 900
    while it.turn() == 0:
        pass
    with store.database.read() as tx:
        assert store.commitment_reports.count(tx, "PACS") == 0
    ended = {
        r.detail["transaction"]: (r.outcome, r.detail.get("reason", ""))
        for r in records(store, "commitment.reported")
    }
    assert ended["1.2.3.8"][0] == "failure" and ended["1.2.3.8"][1].startswith("no connection")
    assert ended["1.2.3.9"] == ("success", "")
