"""Our own upper layer by the standard's book: who breaks a rule is told which, who is silent is not waited for."""

import errno
import os
import random
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from peers.differential import Side, data

from node.receive import engine as our_engine
from node.wire import pdu
from storage.spool import Disk

DX = "1.2.840.10008.5.1.4.1.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
PROPOSAL = [(1, DX, [EXPLICIT]), (3, VERIFICATION, [EXPLICIT])]
UID = b"1.2.3.4"


@pytest.fixture
def engine() -> str:
    return "hilum"


@pytest.fixture(autouse=True)
def no_long_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the peer hears everything, so it never closes first."""
    monkeypatch.setattr(our_engine, "CLOSING_SECONDS", 0.2)
    monkeypatch.setattr(our_engine, "QUIET_SECONDS", 0.1)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`patience(NETWORK_SECONDS=0.2)`: the engine's constants."""

    def set_to(**seconds: float) -> None:
        for name, value in seconds.items():
            monkeypatch.setattr(our_engine, name, value)

    return set_to


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def header(pixels: int) -> bytes:
    """A data set up to the value of its pixels, of which there will be so many bytes."""
    return (
        element(0x00080016, b"UI", DX.encode())
        + element(0x00080018, b"UI", UID)
        + element(0x00080068, b"CS", b"FOR PRESENTATION")
        + element(0x00100020, b"LO", b"P1")
        + element(0x0020000D, b"UI", b"1.2.3")
        + element(0x0020000E, b"UI", b"1.2.3.1")
        + struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, pixels)
    )


IMAGE = header(2000) + random.Random(1).randbytes(2000)


def echo(message: int) -> bytes:
    body = b"".join(
        struct.pack("<HHLH", 0, number, 2, value)
        for number, value in ((0x0100, 0x0030), (0x0110, message), (0x0800, 0x0101))
    )
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def request(raw: ModuleType) -> bytes:
    whole: bytes = raw.request(PROPOSAL, "HILUM", "RAW")
    return whole


def hear(connection: socket.socket) -> list[bytes]:
    """Everything up to the other's close, as PDUs."""
    connection.settimeout(20)
    heard = b""
    try:
        while piece := connection.recv(65_536):
            heard += piece
    except ConnectionError:
        pass
    found = []
    while heard:
        length = 6 + struct.unpack_from(">L", heard, 2)[0]
        found.append(heard[:length])
        heard = heard[length:]
    return found


def no_thread_is_left() -> bool:
    end = threading.Event()
    for _ in range(1000):
        if not any(thread.name.startswith("association-") for thread in threading.enumerate()):
            return True
        end.wait(0.01)
    return False


# --- silence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begins", [b"", b"\x01\x00", "half"])
def test_who_does_not_ask_for_an_association_in_time_is_hung_up_on(
    raw: ModuleType, receiving: Callable[..., Any], patience: Callable[..., None], begins: bytes | str
) -> None:
    patience(NEGOTIATION_SECONDS=0.2)
    node = receiving()
    with socket.create_connection(("127.0.0.1", node.port)) as connection:
        connection.sendall(request(raw)[:100] if isinstance(begins, str) else begins)
        assert hear(connection) == []
    assert no_thread_is_left() and node.audit() == []


def test_a_request_that_drips_in_does_not_hold_a_thread_for_longer(
    raw: ModuleType, receiving: Callable[..., Any], patience: Callable[..., None]
) -> None:
    patience(NEGOTIATION_SECONDS=0.2)
    node = receiving()
    stop = threading.Event()
    with socket.create_connection(("127.0.0.1", node.port)) as connection:

        def drip() -> None:
            for n in range(150):
                if stop.wait(0.02):
                    return
                try:
                    connection.sendall(request(raw)[n : n + 1])
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        assert hear(connection) == []
        stop.set()
        dripping.join()


def test_an_idle_association_is_aborted(
    raw: ModuleType, receiving: Callable[..., Any], patience: Callable[..., None]
) -> None:
    patience(NETWORK_SECONDS=0.2)
    node = receiving()
    with raw.Sender(node.port, PROPOSAL) as sender:
        assert hear(sender.socket) == [pdu.abort(pdu.BY_PROVIDER)]
    (record,) = node.wait_for_audit("association.aborted")
    assert record.detail == {"busy": False}


def test_a_message_that_stalls_is_aborted_and_nothing_of_it_is_left(
    raw: ModuleType, receiving: Callable[..., Any], patience: Callable[..., None]
) -> None:
    patience(NETWORK_SECONDS=0.2)
    node = receiving()
    with raw.Sender(node.port, PROPOSAL) as sender:
        sender.socket.sendall(sender.message(1, DX.encode(), UID, IMAGE)[:-100])
        assert hear(sender.socket) == [pdu.abort(pdu.BY_PROVIDER)]
    (record,) = node.wait_for_audit("association.aborted")
    assert record.detail == {"busy": True} and node.files() == []


@pytest.mark.parametrize("over", ["rejected", "released", "aborted"])
def test_a_peer_that_was_told_that_it_is_over_and_does_not_close_is_closed(
    raw: ModuleType, receiving: Callable[..., Any], over: str
) -> None:
    node = receiving()
    with socket.create_connection(("127.0.0.1", node.port)) as connection:
        said = {
            "rejected": [raw.request(PROPOSAL, "ANOTHER", "RAW")],
            "released": [request(raw), pdu.release_request()],
            "aborted": [request(raw), pdu.release_reply()],
        }[over]
        connection.sendall(b"".join(said))
        heard = hear(connection)
    kinds = {"rejected": pdu.A_ASSOCIATE_RJ, "released": pdu.A_RELEASE_RP, "aborted": pdu.A_ABORT}
    assert heard[-1][0] == kinds[over] and no_thread_is_left()


def test_a_peer_that_aborts_and_waits_for_the_close_is_closed_at_once(
    raw: ModuleType, receiving: Callable[..., Any], patience: Callable[..., None]
) -> None:
    patience(CLOSING_SECONDS=1000)
    node = receiving()
    with raw.Sender(node.port, PROPOSAL) as sender:
        sender.socket.sendall(pdu.abort(pdu.BY_USER))
        assert hear(sender.socket) == []
        assert no_thread_is_left()


@pytest.mark.parametrize("first", [pdu.release_request(), b"rejected"])
def test_what_follows_the_end_in_the_same_breath_is_dropped(
    raw: ModuleType, receiving: Callable[..., Any], first: bytes
) -> None:
    node = receiving()
    opening = raw.request(PROPOSAL, "ANOTHER", "RAW") if first == b"rejected" else request(raw) + first
    with socket.create_connection(("127.0.0.1", node.port)) as connection:
        connection.sendall(opening + request(raw) + pdu.release_request() + b"\xff" * 20)
        connection.shutdown(socket.SHUT_WR)
        kinds = [answer[0] for answer in hear(connection)]
    assert kinds == [pdu.A_ASSOCIATE_RJ] if first == b"rejected" else [pdu.A_ASSOCIATE_AC, pdu.A_RELEASE_RP]
    assert no_thread_is_left()


# --- rules broken --------------------------------------------------------------------------------------------------

COMMAND = b"a C-STORE-RQ"


@pytest.mark.parametrize(
    ("reason", "sent"),
    {
        "a second request": (pdu.UNEXPECTED_PDU, ["request"]),
        "an acceptance": (pdu.UNEXPECTED_PDU, [pdu.HEADER.pack(2, 4) + bytes(4)]),
        "a rejection": (pdu.UNEXPECTED_PDU, [pdu.reject(1, 1, 1)]),
        "a release reply": (pdu.UNEXPECTED_PDU, [pdu.release_reply()]),
        "an unknown type": (pdu.UNRECOGNIZED_PDU, [pdu.HEADER.pack(8, 4) + bytes(4)]),
        "an empty P-DATA-TF": (pdu.INVALID_PARAMETER, [pdu.HEADER.pack(4, 0)]),
        "a P-DATA-TF of 4 GiB": (pdu.INVALID_PARAMETER, [pdu.HEADER.pack(4, 2**32 - 1)]),
        "a request of 2 MiB": (pdu.INVALID_PARAMETER, [pdu.HEADER.pack(1, 2**21)]),
        "a fragment without control": (pdu.INVALID_PARAMETER, [pdu.HEADERS.pack(4, 6, 1, 1, 3)]),
        "a fragment beyond its PDU": (pdu.INVALID_PARAMETER, [pdu.HEADERS.pack(4, 100, 97, 1, 3)]),
        "fragments that don't fill it": (pdu.INVALID_PARAMETER, [pdu.HEADERS.pack(4, 100, 93, 1, 3)]),
        "a context that is none": (pdu.UNEXPECTED_PARAMETER, [data((5, 3, echo(1)))]),
        "another context inside": (pdu.UNEXPECTED_PARAMETER, [COMMAND, data((3, 0, b"x"))]),
        "a command inside": (pdu.UNEXPECTED_PARAMETER, [COMMAND, data((1, 0, b"x")), COMMAND]),
        "data without a command": (pdu.UNEXPECTED_PARAMETER, [data((1, 0, b"x"))]),
        "a command without end": (pdu.INVALID_PARAMETER, [data((1, 1, bytes(60_000)))] * 2),
        "no command at all": (pdu.INVALID_PARAMETER, [data((1, 3, b"\xff" * 20))]),
    }.values(),
)
def test_who_breaks_a_rule_is_aborted_with_the_reason(
    raw: ModuleType, receiving: Callable[..., Any], reason: int, sent: list[bytes | str]
) -> None:
    node = receiving()
    command = data((1, 3, raw.store_command(DX.encode(), UID)))
    with raw.Sender(node.port, PROPOSAL) as sender:
        for one in sent:
            piece = one if isinstance(one, bytes) else request(raw)
            sender.socket.sendall(command if piece == COMMAND else piece)
        assert hear(sender.socket) == [pdu.abort(pdu.BY_PROVIDER, reason)]
    assert node.wait_for_files(0) == [] and node.wait_for_audit("association.aborted")


@pytest.mark.parametrize(
    "first",
    [pdu.release_request(), data((1, 3, echo(1))), pdu.HEADER.pack(1, 2**20 + 1), pdu.HEADER.pack(1, 0)],
)
def test_whoever_begins_with_another_pdu_is_aborted_by_the_service_user(
    receiving: Callable[..., Any], first: bytes
) -> None:
    node = receiving()
    with socket.create_connection(("127.0.0.1", node.port)) as connection:
        connection.sendall(first)
        assert hear(connection) == [pdu.abort(pdu.BY_USER)]
    assert no_thread_is_left()


@pytest.mark.parametrize(
    "first",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/1.1\r\n\r\n", b"\x00", b"\xff" * 100],
)
def test_whoever_speaks_no_dicom_is_hung_up_on_without_a_word(
    receiving: Callable[..., Any], first: bytes
) -> None:
    node = receiving()
    with socket.create_connection(("127.0.0.1", node.port)) as connection:
        connection.sendall(first)
        assert hear(connection) == []
    assert no_thread_is_left()


# --- what is allowed -----------------------------------------------------------------------------------------------


def test_the_answer_repeats_titles_and_reserved_bytes_as_they_came(
    raw: ModuleType, receiving: Callable[..., Any]
) -> None:
    node = receiving()
    asked = bytearray(request(raw))
    asked[42:74] = bytes(range(32))
    with socket.create_connection(("127.0.0.1", node.port)) as connection:
        connection.sendall(bytes(asked) + pdu.release_request())
        connection.shutdown(socket.SHUT_WR)
        answer = hear(connection)[0]
    assert answer[10:74] == asked[10:74]


def test_a_context_id_that_is_proposed_twice_is_answered_once_by_the_last(
    raw: ModuleType, receiving: Callable[..., Any]
) -> None:
    node = receiving()
    proposals = [(1, DX, [EXPLICIT]), (1, "1.3.12.2.1107.5.9.1", [EXPLICIT])]
    with raw.Sender(node.port, proposals) as sender:
        assert (sender.accepted, sender.refused) == ({}, {1: 3})
        sender.release()
    (record,) = node.wait_for_audit("association.accepted")
    assert (record.detail["contexts"], record.detail["refused_contexts"]) == (0, 1)


def test_a_peer_that_ignores_the_announced_length_is_tolerated(
    raw: ModuleType, receiving: Callable[..., Any]
) -> None:
    node = receiving()
    body = header(2**20) + bytes(2**20)
    with raw.Sender(node.port, PROPOSAL) as sender:
        assert sender.store(1, DX.encode(), UID, body, step=2**21) == (0, "")


def test_twenty_operations_sent_ahead_are_answered_in_order(
    raw: ModuleType, receiving: Callable[..., Any]
) -> None:
    node = receiving()
    store = raw.store_command(DX.encode(), UID, message=10)
    # some alone, some three in a PDU
    pieces = [data((3, 3, echo(n))) for n in range(9)]
    pieces += [data((3, 3, echo(9)), (1, 3, store), (1, 2, IMAGE), (3, 3, echo(11)))]
    pieces += [data((3, 3, echo(n))) for n in range(12, 20)]
    with raw.Sender(node.port, PROPOSAL) as sender:
        sender.socket.sendall(b"".join(pieces) + pdu.release_request())
        sender.socket.shutdown(socket.SHUT_WR)
        *answers, last = hear(sender.socket)
    responds_to = struct.pack("<HHL", 0, 0x0120, 2)
    said = [answer[answer.index(responds_to) + 8] for answer in answers]
    assert said == list(range(20)) and last == pdu.release_reply()
    assert len(node.files()) == 1


@pytest.mark.parametrize("pieces", [[b""], [b"", b""], []])
def test_a_data_set_of_no_bytes_is_refused_and_the_association_goes_on(
    raw: ModuleType, receiving: Callable[..., Any], pieces: list[bytes]
) -> None:
    node = receiving()
    announced = 0 if pieces else 0x0101
    with raw.Sender(node.port, PROPOSAL) as sender:
        command = raw.store_command(DX.encode(), UID, data_set=announced)
        last = len(pieces) - 1
        fragments = [data((1, 2 if n == last else 0, piece)) for n, piece in enumerate(pieces)]
        sender.socket.sendall(data((1, 3, command)) + b"".join(fragments))
        assert sender.answer()[0] == 0xC000
        assert sender.store(1, DX.encode(), UID, IMAGE) == (0, "")
    assert len(node.files()) == 1


class Grudging(Disk):
    """Takes fewer bytes than it is given; or none at all from some byte on, until told otherwise."""

    def __init__(self, most: int, full_at: int | None = None) -> None:
        self.most = most
        self.full_at = full_at
        self.written = 0
        self.widest = 0

    def _room(self) -> int:
        if self.full_at is not None and self.written >= self.full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.most

    def write(self, fd: int, data: bytes | memoryview) -> int:
        done = super().write(fd, data[: self._room()])
        self.written += done
        return done

    def write_all(self, fd: int, pieces: Sequence[bytes | memoryview]) -> int:
        self.widest = max(self.widest, len(pieces))
        done = super().write(fd, b"".join(pieces)[: self._room()])
        self.written += done
        return done


def stream(raw: ModuleType, body: bytes, step: int) -> list[bytes]:
    pieces = [body[at : at + step] for at in range(0, len(body), step)]
    items = [(1, 2 if n == len(pieces) - 1 else 0, piece) for n, piece in enumerate(pieces)]
    command = data((1, 3, raw.store_command(DX.encode(), UID)))
    return [request(raw), command + data(*items), pdu.release_request()]


def test_short_writes_and_a_thousand_slices_lose_no_byte(raw: ModuleType, tmp_path: Path) -> None:
    disk = Grudging(most=7)
    side = Side("hilum", tmp_path / "node", disk)
    body = header(2000) + IMAGE[-2000:]
    seen = side.play(stream(raw, body, step=1))
    side.end()
    (file,) = seen.files
    assert file[-len(body) :] == body and len(body) > 1024 >= disk.widest > 100


def test_a_disk_that_fills_up_in_the_middle_costs_that_object_alone(raw: ModuleType, tmp_path: Path) -> None:
    disk = Grudging(most=2**20, full_at=1)
    side = Side("hilum", tmp_path / "node", disk)
    # two buffers at least, so that the first is written before the second fails
    body = header(2**20) + bytes(2**20)
    refused = side.play(stream(raw, body, step=10_000))
    disk.full_at = None
    taken = side.play(stream(raw, body, step=10_000))
    side.end()
    assert (refused.files, refused.parts, refused.rows) == ((), (), ())
    assert refused.spoken[1][3]["0900"] == struct.pack("<H", 0xA700)
    assert [answer[0] for answer in refused.spoken] == ["AC", "message", "RP"]
    assert taken.files[0][-len(body) :] == body and len(taken.rows) == 1


# --- the whole node ------------------------------------------------------------------------------------------------


def memory(process: int, name: str) -> int:
    """A line of /proc/…/status, in MB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) // 1000
    raise AssertionError(name)


def test_memory_does_not_depend_on_the_objects_size(
    raw: ModuleType, receiver_process: Callable[..., Any]
) -> None:
    node = receiver_process()
    piece, count = bytes(range(256)) * 4096, 300
    with raw.Sender(node.port, PROPOSAL) as sender:
        sender.socket.sendall(
            data((1, 3, raw.store_command(DX.encode(), UID)), (1, 0, header(count * len(piece))))
        )
        whole = data((1, 0, piece))
        for _ in range(count):
            sender.socket.sendall(whole)
        sender.socket.sendall(data((1, 2, b"")))
        sender.socket.settimeout(60)
        assert sender.answer() == (0, "")
    assert memory(node.process.pid, "VmHWM") < 80
    (file,) = node.files()
    assert file.stat().st_size > count * len(piece)
    file.unlink()


def test_two_hundred_idle_associations_cost_next_to_nothing(
    raw: ModuleType, receiver_process: Callable[..., Any]
) -> None:
    node = receiver_process(max_associations=250)
    with raw.Sender(node.port, PROPOSAL) as sender:
        assert sender.store(1, DX.encode(), UID, IMAGE) == (0, "")
        before = memory(node.process.pid, "VmRSS")
        idle = [raw.Sender(node.port, PROPOSAL) for _ in range(200)]
        for one in idle:
            assert one.store(1, DX.encode(), UID, IMAGE) == (0, "")
        assert memory(node.process.pid, "VmRSS") - before < 60
        for one in idle:
            one.release()


def test_a_node_that_stops_aborts_idle_associations(raw: ModuleType, tmp_path: Path) -> None:
    side = Side("hilum", tmp_path / "node")
    with raw.Sender(side.engine.port, PROPOSAL) as sender:
        stopping = threading.Thread(target=side.end)
        stopping.start()
        assert hear(sender.socket) == [pdu.abort(pdu.BY_USER)]
        stopping.join()
    assert no_thread_is_left()
