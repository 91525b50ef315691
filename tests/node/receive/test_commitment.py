"""A peer asks whether we keep what it sent: the answer is true, and whatever it asks wrongly is a status."""

import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynetdicom.dsutils import decode

from model.stored_only import stored_only
from node.receive.accept import Receiver
from node.receive.commitment import MAX_OWED, addresses
from node.receive.services import Message, serve
from node.settings import Settings
from node.wire import command, commitment
from node.wire.commitment import Failure, Reference, Said
from node.wire.contexts import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from storage.audit import Actor, Filter, Patient, Record
from storage.objects import Arrival
from storage.store import Store

CR = "1.2.840.10008.5.1.4.1.1.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
MODALITY = Actor("CR_ROOM", "10.0.0.9")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.create(tmp_path)
    yield store
    store.close()


def receiver(store: Store, **reports_to: tuple[str, int]) -> Receiver:
    return Receiver(store, Settings().receive, "sha256:model", stored_only, reports_to=reports_to)


def keep(store: Store, instance: str) -> Path:
    """An object that was received; its file."""
    with store.spool.incoming("objects") as incoming:
        incoming.write(b"bytes")
        file = incoming.keep().name
    arrival = Arrival(
        sop_class=CR, sop_instance=instance, series="1.2.3", study="1.2", patient=Patient("P"),
        transfer_syntax=EXPLICIT_LITTLE, size=5, content_hash="sha256:" + "a" * 64, sender=MODALITY,
    )  # fmt: skip
    with store.database.write() as tx:
        store.objects.keep(tx, arrival, file)
    return store.spool.path(file)


def action(data: bytes, syntax: str = IMPLICIT_LITTLE, **changes: bytes) -> Message:
    names = {"cls": commitment.REQUESTED_CLASS, "instance": commitment.REQUESTED_INSTANCE,
             "type": commitment.ACTION_TYPE, "field": command.COMMAND_FIELD}  # fmt: skip
    values = {**commitment.action(), command.MESSAGE_ID: b"\x07\0"}
    values |= {names[name]: value for name, value in changes.items()}
    return Message(commitment.PUSH_MODEL, syntax, values, data)


def asking(*instances: str, sop_class: str = CR, syntax: str = IMPLICIT_LITTLE) -> bytes:
    return commitment.encode(Said("1.2.3.99", [Reference(sop_class, i) for i in instances]), syntax)


def status(encoded: bytes) -> int:
    return command.number(command.parse(encoded), command.STATUS)


def records(store: Store, event: str) -> list[Record]:
    with store.database.read() as tx:
        return store.audit.page(tx, Filter(event=event))


@pytest.mark.parametrize("syntax", [IMPLICIT_LITTLE, EXPLICIT_LITTLE])
def test_what_is_here_is_committed_and_what_is_not_is_told_why(store: Store, syntax: str) -> None:
    keep(store, "1.2.3.1")
    keep(store, "1.2.3.3").unlink()
    expired = keep(store, "1.2.3.4")
    with store.database.write() as tx:
        store.objects.forget_file(tx, 3)
    expired.unlink()
    data = asking("1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.4", "1.2.3.1", syntax=syntax)
    response, report = serve(receiver(store), MODALITY, action(data, syntax))
    assert status(response.command) == 0 and not response.data
    values = command.parse(report.command)
    said = commitment.report_of(values, report.data, syntax)
    assert said.transaction == "1.2.3.99" and said.referenced == [Reference(CR, "1.2.3.1")]
    assert said.failed == [
        Failure(CR, "1.2.3.2", 0x0112),
        Failure(CR, "1.2.3.3", 0x0110),
        Failure(CR, "1.2.3.4", 0x0112),
    ]
    assert command.number(values, commitment.EVENT_TYPE) == 2
    (record,) = records(store, "commitment.asked")
    assert (record.actor, record.detail) == (
        "CR_ROOM", {"transaction": "1.2.3.99", "committed": 1, "failed": 3},
    )  # fmt: skip


def test_another_class_is_a_conflict_and_is_not_committed(store: Store) -> None:
    keep(store, "1.2.3.1")
    _, report = serve(receiver(store), MODALITY, action(asking("1.2.3.1", sop_class=DX)))
    said = commitment.parse(report.data, IMPLICIT_LITTLE)
    assert (said.referenced, said.failed) == ([], [Failure(DX, "1.2.3.1", 0x0119)])


def test_all_of_it_is_event_type_one(store: Store) -> None:
    keep(store, "1.2.3.1")
    _, report = serve(receiver(store), MODALITY, action(asking("1.2.3.1")))
    assert command.number(command.parse(report.command), commitment.EVENT_TYPE) == 1


def test_a_peer_whose_port_is_known_is_told_by_the_deliverer(store: Store) -> None:
    it = receiver(store, CR_ROOM=("", 104))
    (response,) = serve(it, MODALITY, action(asking("1.2.3.1", syntax=EXPLICIT_LITTLE), EXPLICIT_LITTLE))
    assert status(response.command) == 0
    with store.database.read() as tx:
        report = store.commitment_reports.due(tx)
    assert report is not None
    assert (report.ae_title, report.host, report.port) == ("CR_ROOM", "10.0.0.9", 104)
    assert commitment.parse(report.data, IMPLICIT_LITTLE).failed == [Failure(CR, "1.2.3.1", 0x0112)]


def test_a_peer_that_takes_no_reports_is_refused_at_last(store: Store) -> None:
    it = receiver(store, CR_ROOM=("10.0.0.9", 104))
    for number in range(MAX_OWED):
        data = commitment.encode(Said(f"1.2.3.{number}", [Reference(CR, "1.2")]), IMPLICIT_LITTLE)
        serve(it, MODALITY, action(data))
    (response,) = serve(it, MODALITY, action(asking("1.2.3.1")))
    assert status(response.command) == 0x0213


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (action(asking("1.2.3.1"), cls=b"1.2.3\0"), 0x0118),
        (action(asking("1.2.3.1"), instance=b"1.2.3\0"), 0x0112),
        (action(asking("1.2.3.1"), instance=b""), 0x0112),
        (action(asking("1.2.3.1"), type=b"\x02\0"), 0x0123),
        (action(asking("1.2.3.1"), type=b""), 0x0123),
        (action(b""), 0x0114),
        (action(asking()), 0x0114),
        (action(asking("1.2.3.1")[:-3]), 0x0115),
        (action(asking("not a uid")), 0x0115),
        (action(asking("1.2.3.1"), field=b"\x10\x01"), 0x0211),
        (action(commitment.encode(Said("1.2", failed=[Failure(CR, "1.2", 1)]), IMPLICIT_LITTLE)), 0x0114),
    ],
)
def test_a_wrong_request_is_a_status(store: Store, message: Message, expected: int) -> None:
    (response,) = serve(receiver(store), MODALITY, message)
    assert status(response.command) == expected
    assert records(store, "commitment.asked") == []


def test_the_response_is_read_by_others(store: Store) -> None:
    (response, _) = serve(receiver(store), MODALITY, action(asking("1.2.3.1")))
    ds: Any = decode(BytesIO(response.command), True, True)
    assert (ds.CommandField, ds.MessageIDBeingRespondedTo, ds.ActionTypeID) == (0x8130, 7, 1)
    assert (ds.AffectedSOPClassUID, ds.AffectedSOPInstanceUID) == (
        "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1",
    )  # fmt: skip


def event(data: bytes, kind: int = 1, instance: str = commitment.WELL_KNOWN_INSTANCE) -> Message:
    values = {**commitment.report(kind), command.MESSAGE_ID: b"\x09\0"}
    values[command.AFFECTED_INSTANCE] = instance.encode()
    return Message(commitment.PUSH_MODEL, IMPLICIT_LITTLE, values, data)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (event(asking("1.2.3.1")), 0x0115),  # a transaction that we never began
        (event(asking("1.2.3.1"), kind=3), 0x0113),
        (event(asking("1.2.3.1"), instance="1.2.3"), 0x0112),
        (event(b"\0\0"), 0x0115),
    ],
)
def test_a_report_on_nothing_of_ours_is_a_status(store: Store, message: Message, expected: int) -> None:
    (response,) = serve(receiver(store), MODALITY, message)
    assert status(response.command) == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    data=st.binary(max_size=80) | st.binary(max_size=8).map(lambda b: asking("1.2.3.1")[:-8] + b),
    kind=st.integers(0, 3),
    is_action=st.booleans(),
)
def test_no_message_makes_it_stumble(store: Store, data: bytes, kind: int, is_action: bool) -> None:
    message = action(data, type=struct.pack("<H", kind)) if is_action else event(data, kind)
    answers = serve(receiver(store), MODALITY, message)
    assert 1 <= len(answers) <= 2


def test_ports_come_from_peers_and_from_destinations() -> None:
    given_settings = Settings.model_validate(
        {
            "receive": {
                "peers": [
                    {"ae_title": "CR_ROOM", "host": "10.0.7.0/24", "port": 104},
                    {"ae_title": "PACS", "host": "10.0.0.5", "port": 11113},
                    {"ae_title": "SILENT", "host": "10.0.0.7"},
                ]
            },
            "destinations": [
                {"name": "a", "ae_title": "PACS", "host": "10.0.0.5", "port": 104},
                {"name": "b", "ae_title": "VNA", "host": "10.0.0.6", "port": 104},
            ],
        }
    )
    assert addresses(given_settings) == {
        "CR_ROOM": ("", 104), "PACS": ("10.0.0.5", 11113), "VNA": ("10.0.0.6", 104),
    }  # fmt: skip
