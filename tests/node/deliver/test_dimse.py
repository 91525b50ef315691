"""C-STORE to peers that answer, refuse, stay silent or vanish: one outcome each."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from peers.results import add, encoded, picture
from peers.scripted import Line, Peer
from peers.servers import Storescp, running
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID
from pynetdicom import evt

from node.deliver.dimse import DimseSender, Timeouts, echo
from node.deliver.outcome import Delivered, Outcome, Parked, Postponed
from node.deliver.part10 import NotPart10
from node.settings import DimseDestination
from storage.store import Store

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
JPEG_LS = "1.2.840.10008.1.2.4.80"
COMPREHENSIVE_3D = "1.2.840.10008.5.1.4.1.1.88.34"
SHORT = Timeouts(connect=1.0, associate=1.0, response=1.0)


def to_port(port: int, **changes: Any) -> DimseDestination:
    given = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "results": ("sc",)}
    return DimseDestination.model_validate({**given, **changes})


@pytest.fixture
def send(store: Store) -> Iterator[Callable[..., Outcome]]:
    senders: dict[DimseDestination, DimseSender] = {}

    def once(destination: DimseDestination, dataset: Dataset | None = None, file: bytes = b"") -> Outcome:
        sender = senders.setdefault(destination, DimseSender(destination, "HILUM", SHORT))
        add(store, dataset or picture(), "pacs")
        with store.database.write() as tx:
            delivery = store.outbox.claim(tx, "pacs", "test", 60)
        assert delivery is not None and delivery.file is not None
        if file:
            store.spool.path(delivery.file).write_bytes(file)
        return sender.send(delivery, store.spool.path(delivery.file))

    yield once
    for sender in senders.values():
        sender.rest()


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0x0000, Delivered("0000")),
        (0x0111, Delivered("0111")),
        (0xB000, Delivered("B000")),
        (0xA700, Postponed("the destination answered A700 (out of resources)")),
        (0x0122, Parked("the destination answered 0122 (SOP class not supported)")),
        (0xC000, Parked("the destination answered C000 (cannot understand)")),
    ],
)
def test_each_answer_has_its_outcome(
    send: Callable[..., Outcome], pacs: Callable[..., Any], status: int, outcome: Outcome
) -> None:
    peer = pacs(lambda event: status)
    assert send(peer.destination) == outcome


def test_a_comment_of_the_peer_is_not_kept(send: Callable[..., Outcome], pacs: Callable[..., Any]) -> None:
    def refuse(event: evt.Event) -> Dataset:
        answer = Dataset()
        answer.Status, answer.ErrorComment = 0xC000, "Unmistakable^Name is unknown"
        return answer

    outcome = send(pacs(refuse).destination)
    assert isinstance(outcome, Parked) and "Unmistakable" not in outcome.reason


def test_the_bytes_arrive_as_they_lie_in_the_spool(
    send: Callable[..., Outcome], pacs: Callable[..., Any]
) -> None:
    peer, dataset = pacs(), picture(side=300)
    assert send(peer.destination, dataset) == Delivered("0000")
    ((_, _, data),) = peer.received
    assert encoded(dataset).endswith(data)


def test_a_peer_of_implicit_vr_gets_the_same_elements(
    send: Callable[..., Outcome], pacs: Callable[..., Any], tmp_path: Path
) -> None:
    peer, dataset = pacs(syntaxes=(IMPLICIT,)), picture()
    assert send(peer.destination, dataset) == Delivered("0000")
    ((_, syntax, data),) = peer.received
    (tmp_path / "implicit").write_bytes(data)
    got = dcmread(tmp_path / "implicit", force=True)
    assert syntax == IMPLICIT
    assert [(e.tag, e.value) for e in got] == [(e.tag, e.value) for e in dataset]


def in_syntax(dataset: Dataset, syntax: str) -> bytes:
    """The whole file; a compressed transfer syntax is claimed only: nobody here decodes."""
    out = BytesIO()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    if syntax == JPEG_LS:
        dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
        dataset["PixelData"].is_undefined_length = True
    dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


def test_an_implicit_file_reaches_a_peer_of_explicit_vr(
    send: Callable[..., Outcome], pacs: Callable[..., Any], tmp_path: Path
) -> None:
    peer, dataset = pacs(syntaxes=(EXPLICIT,)), picture()
    assert send(peer.destination, dataset, in_syntax(dataset, IMPLICIT)) == Delivered("0000")
    ((_, syntax, data),) = peer.received
    (tmp_path / "explicit").write_bytes(data)
    got = dcmread(tmp_path / "explicit", force=True)
    assert syntax == EXPLICIT
    assert [(e.tag, e.value) for e in got] == [(e.tag, e.value) for e in dataset]


def test_a_files_own_transfer_syntax_goes_first_and_unchanged(
    send: Callable[..., Outcome], pacs: Callable[..., Any]
) -> None:
    peer = pacs(syntaxes=(EXPLICIT, IMPLICIT, JPEG_LS))
    for syntax in (JPEG_LS, IMPLICIT):
        dataset = picture()
        file = in_syntax(dataset, syntax)
        assert send(peer.destination, dataset, file) == Delivered("0000")
        _, taken, data = peer.received[-1]
        assert taken == syntax and file.endswith(data)


def test_a_compressed_file_is_not_decoded_for_a_peer_that_refuses_it(
    send: Callable[..., Outcome], pacs: Callable[..., Any]
) -> None:
    peer, dataset = pacs(), picture()
    outcome = send(peer.destination, dataset, in_syntax(dataset, JPEG_LS))
    assert outcome == Parked("the destination does not take JPEG-LS Lossless, and it is not converted")
    assert peer.received == []


@pytest.mark.parametrize("keep", [0, 100, 140, 300])
def test_a_damaged_file_is_not_sent(
    send: Callable[..., Outcome], pacs: Callable[..., Any], keep: int
) -> None:
    peer, dataset = pacs(), picture()
    with pytest.raises((NotPart10, EOFError)):
        send(peer.destination, dataset, encoded(dataset)[:keep] + b"\0" * (keep == 0))
    assert peer.received == []


def test_a_class_that_was_not_proposed_gets_an_association_of_its_own(
    send: Callable[..., Outcome], pacs: Callable[..., Any]
) -> None:
    others = [picture(), picture()]
    for other in others:
        other.SOPClassUID = COMPREHENSIVE_3D
    peer = pacs(classes=(str(picture().SOPClassUID), COMPREHENSIVE_3D))
    outcomes = [send(peer.destination), *(send(peer.destination, other) for other in others)]
    assert outcomes == [Delivered("0000")] * 3
    assert (peer.associations, peer.released) == (2, 1)


def test_a_peer_that_breaks_the_protocol_postpones(send: Callable[..., Outcome]) -> None:
    def script(line: Line) -> None:
        line.accept()
        line.message()
        line.say(b"\xff" * 10)
        line.until_closed()

    outcome = send(to_port(Peer(script).port))
    assert outcome == Postponed("the destination does not keep to the protocol: an unknown PDU")


def test_several_results_share_an_association_that_is_released_after_them(
    send: Callable[..., Outcome], pacs: Callable[..., Any], store: Store
) -> None:
    peer = pacs()
    sender = DimseSender(peer.destination, "HILUM", SHORT)
    for _ in range(3):
        add(store, picture(), "pacs")
        with store.database.write() as tx:
            delivery = store.outbox.claim(tx, "pacs", "test", 60)
        assert delivery is not None and delivery.file is not None
        assert sender.send(delivery, store.spool.path(delivery.file)) == Delivered("0000")
    sender.rest()
    assert (len(peer.received), peer.associations, peer.released) == (3, 1, 1)


def test_an_association_that_the_peer_ended_meanwhile_is_opened_anew(
    send: Callable[..., Outcome], pacs: Callable[..., Any]
) -> None:
    peer = pacs()
    send(peer.destination)
    for association in peer.ae.active_associations:
        association.abort()
    time.sleep(0.2)
    assert send(peer.destination) == Delivered("0000")


def test_a_slow_answer_postpones(send: Callable[..., Outcome], pacs: Callable[..., Any]) -> None:
    late = threading.Event()
    peer = pacs(lambda event: late.wait(10) and 0x0000)
    outcome = send(peer.destination)
    late.set()
    assert outcome == Postponed("no answer within 1 s")


def test_an_abort_postpones(send: Callable[..., Outcome], pacs: Callable[..., Any]) -> None:
    peer = pacs(lambda event: event.assoc.abort())
    assert send(peer.destination) == Postponed("the association ended before the answer")


def test_a_rejected_association_postpones(send: Callable[..., Outcome], pacs: Callable[..., Any]) -> None:
    peer = pacs(require_called="OTHER")
    outcome = send(peer.destination)
    assert outcome == Postponed("association rejected (permanent): Called AE title not recognised")


def test_a_refused_class_parks_and_the_other_goes_on(
    send: Callable[..., Outcome], pacs: Callable[..., Any]
) -> None:
    peer = pacs()
    both = peer.destination.model_copy(update={"results": ("sr", "sc")})
    other = picture()
    other.SOPClassUID = COMPREHENSIVE_3D
    reason = "presentation context refused: Comprehensive 3D SR Storage (SOP class not supported)"
    assert send(both, other) == Parked(reason)
    assert send(both) == Delivered("0000")


def test_a_peer_that_takes_none_of_it_parks(send: Callable[..., Outcome], pacs: Callable[..., Any]) -> None:
    outcome = send(pacs(syntaxes=("1.2.840.10008.1.2.4.70",)).destination)
    assert outcome == Parked(
        "presentation context refused: Secondary Capture Image Storage (transfer syntax not supported)"
    )


def test_nobody_at_the_port_postpones(send: Callable[..., Outcome], free_port: Callable[[], int]) -> None:
    port = free_port()
    assert send(to_port(port)) == Postponed(f"no connection to 127.0.0.1:{port}: refused or unreachable")


def test_an_unknown_host_postpones(send: Callable[..., Outcome]) -> None:
    outcome = send(to_port(104, host="pacs.invalid"))
    assert outcome == Postponed("the host name pacs.invalid is not known")


def test_a_port_that_says_nothing_postpones(send: Callable[..., Outcome]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        outcome = send(to_port(port))
    assert outcome == Postponed(f"127.0.0.1:{port} did not answer the association request in 1 s")


def test_a_port_that_hangs_up_postpones(send: Callable[..., Outcome]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rude:
        threading.Thread(target=lambda: rude.accept()[0].close()).start()
        port = rude.getsockname()[1]
        outcome = send(to_port(port))
    assert outcome == Postponed(f"127.0.0.1:{port} ended the connection instead of accepting an association")


def test_echo_says_which_classes_are_taken(pacs: Callable[..., Any]) -> None:
    peer = pacs()
    result = echo(peer.destination.model_copy(update={"results": ("sr", "sc")}), "HILUM", SHORT)
    assert (result.answered, result.reason, result.accepts) == (True, "", {"sr": False, "sc": True})


def test_echo_says_why_nobody_answers(free_port: Callable[[], int]) -> None:
    port = free_port()
    result = echo(to_port(port), "HILUM", SHORT)
    assert (
        not result.answered and result.reason == f"no connection to 127.0.0.1:{port}: refused or unreachable"
    )


@pytest.mark.peer
@pytest.mark.parametrize(
    ("option", "outcome"),
    [
        ("--fork", Delivered("0000")),
        ("--refuse", Postponed("association rejected (permanent): No reason given")),
        ("--abort-after", Postponed("the association ended before the answer")),
        ("--abort-during", Postponed("the association ended before the answer")),
    ],
)
def test_dcmtk_takes_refuses_or_aborts(
    send: Callable[..., Outcome],
    program: Callable[[str], str],
    free_port: Callable[[], int],
    tmp_path: Path,
    option: str,
    outcome: Outcome,
) -> None:
    dataset = picture(side=1000)
    with running(Storescp(program("storescp"), free_port(), tmp_path / "received", option)) as peer:
        assert send(to_port(peer.port, ae_title=peer.ae_title), dataset) == outcome
        kept = [dcmread(file) for file in peer.files] if isinstance(outcome, Delivered) else []
    assert kept == ([dataset] if isinstance(outcome, Delivered) else [])
