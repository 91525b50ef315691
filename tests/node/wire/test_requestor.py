"""Our own association with peers that keep to the protocol, and with one that does anything but."""

import os
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peers.results import encoded, picture
from peers.scripted import Line, Peer, acceptance
from peers.servers import Orthanc, Storescp
from pydicom import dcmread

from node.deliver.part10 import read_meta
from node.wire import command, pdu
from node.wire.connection import Broken, Ended, NoAnswer, NoAssociation, NotConnected
from node.wire.requestor import Rejected, Requestor, Timeouts, associate

SC = "1.2.840.10008.5.1.4.1.1.7"
COMMITMENT = "1.2.840.10008.1.20.1"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
PATIENT = Timeouts(5, 10, 20)
SHORT = Timeouts(1, 0.3, 0.3)
ABORT = pdu.abort(pdu.BY_USER)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Callable[[bytes], int]]:
    """`file(data)`: the descriptor of a file with these bytes."""
    opened: list[Any] = []

    def make(data: bytes) -> int:
        path = tmp_path / f"{len(opened)}"
        path.write_bytes(data)
        opened.append(path.open("rb"))
        fd: int = opened[-1].fileno()
        return fd

    yield make
    for one in opened:
        one.close()


def call(peer: Peer, timeouts: Timeouts = PATIENT, **more: Any) -> Requestor:
    return associate("127.0.0.1", peer.port, "PEER", "HILUM", [(SC, (EXPLICIT,))], timeouts, **more)


def stored(association: Requestor, fd: int) -> int:
    return association.store(1, SC, "2.25.1", fd, 0)


def taking(
    answers: int = 1, max_length: int = 16_384, then: Callable[[Line], None] = Line.until_closed
) -> Any:
    """A script: accepts, answers so many messages with Success, goes on with `then`."""

    def script(line: Line) -> None:
        line.accept(max_length)
        for _ in range(answers):
            line.answer(line.message()[0])
        then(line)

    return script


def releasing(line: Line) -> None:
    assert line.read()[0] == pdu.A_RELEASE_RQ
    line.say(pdu.release_reply())
    line.until_closed()


# as large as the buffer, a little less, a little more; one byte; whole fragments
@pytest.mark.parametrize("max_length", [0, 7, 1000, 16_384, 131_072, 2**32 - 1])
@pytest.mark.parametrize("size", [2, 994, 16_378, 1 << 20, (1 << 20) + 2])
def test_a_file_arrives_whole_in_pdus_that_the_peer_can_take(file: Any, max_length: int, size: int) -> None:
    if max_length == 7:
        size = min(size, 16_378)
    data, got, lengths = os.urandom(size), bytearray(), []

    def script(line: Line) -> None:
        line.accept(max_length)
        values: dict[int, bytes] = {}
        while True:
            _, body = line.read()
            _, _, control = pdu.PDV_HEADER.unpack_from(body)
            lengths.append(len(body))
            if control & pdu.COMMAND:
                values = values or {1: b""}
                head.extend(body[6:])
            else:
                got.extend(body[6:])
                if control & pdu.LAST:
                    break
        line.answer(command.parse(head))
        releasing(line)

    head = bytearray()
    it = Peer(script)
    with call(it) as association:
        assert stored(association, file(data)) == 0
    assert it.end().heard[-1] == pdu.A_RELEASE_RQ
    assert bytes(got) == data
    assert max(lengths) <= max(8, max_length or 262_144)
    assert command.parse(head)[command.AFFECTED_INSTANCE].rstrip(b"\0") == b"2.25.1"


@pytest.mark.peer
def test_dcmtk_and_orthanc_get_the_data_set_byte_for_byte(
    storescp: Storescp, orthanc: Orthanc, file: Any
) -> None:
    dataset = picture(side=1600, study="1.2.3.77")
    fd = file(encoded(dataset))
    syntax, start = read_meta(fd)
    uid = str(dataset.SOPInstanceUID)
    for peer in (storescp, orthanc):
        proposals = [(SC, (syntax,))]
        with associate("127.0.0.1", peer.port, peer.ae_title, "HILUM", proposals, PATIENT) as association:
            assert association.store(association.syntaxes(SC)[syntax], SC, uid, fd, start) == 0
    (kept,) = [f for f in storescp.files if uid in f.name]
    assert encoded(dataset)[start:] == kept.read_bytes()[-(os.fstat(fd).st_size - start) :]
    assert dcmread(BytesIO(orthanc.file(orthanc.find("1.2.3.77")[0]))) == dataset


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", Ended),
        (ABORT, Ended),
        (pdu.reject(2, 3, 1), Rejected),
        (pdu.release_request(), Broken),
        (pdu.release_reply(), Broken),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Broken),
        (b"\x02\0\0\0\0\x04abcd", Broken),
        (b"\x03\0\0\0\0\x01a", Broken),
        (b"\x02\0\xff\xff\xff\xff", Broken),
    ],
)
def test_each_answer_that_is_no_acceptance_has_its_error(sent: bytes, error: type[Exception]) -> None:
    def script(line: Line) -> None:
        line.read()
        line.say(sent)

    with pytest.raises(error):
        call(Peer(script))


def test_a_rejection_says_why() -> None:
    def script(line: Line) -> None:
        line.read()
        line.say(pdu.reject(1, 1, 7))
        line.until_closed()

    it = Peer(script)
    with pytest.raises(
        Rejected, match=r"^association rejected \(permanent\): Called AE title not recognised$"
    ) as e:
        call(it)
    assert (e.value.result, e.value.source, e.value.reason) == (1, 1, 7)
    assert it.end().heard == [pdu.A_ASSOCIATE_RQ]


def test_silence_is_no_answer_and_is_aborted() -> None:
    it = Peer(Line.until_closed)
    with pytest.raises(NoAnswer):
        call(it, SHORT)
    assert it.end().heard == [pdu.A_ASSOCIATE_RQ, pdu.A_ABORT]


def test_nobody_there_is_not_connected(free_port: Callable[[], int]) -> None:
    with pytest.raises(NotConnected, match="refused or unreachable"):
        associate("127.0.0.1", free_port(), "PEER", "HILUM", [(SC, (EXPLICIT,))], SHORT)


def test_a_transfer_syntax_that_was_not_proposed_is_not_accepted() -> None:
    def script(line: Line) -> None:
        line.accept(syntaxes={1: IMPLICIT.encode()})
        releasing(line)

    with call(Peer(script)) as association:
        assert association.syntaxes(SC) == {} and association.refusal(SC) == pdu.NO_REASON_GIVEN


def test_roles_are_proposed_and_read() -> None:
    it = Peer(taking(0, then=releasing))
    with call(it, roles={SC: pdu.Role(scu=False, scp=True)}) as association:
        assert association.roles == {SC: pdu.Role(scu=False, scp=True)}
    assert it.end().request.roles == {SC.encode(): pdu.Role(scu=False, scp=True)}


@given(cuts=st.lists(st.integers(1, 400), max_size=12), fragment=st.integers(1, 60), empty_last=st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_peers_bytes_may_be_cut_anywhere(cuts: list[int], fragment: int, empty_last: bool) -> None:
    def script(line: Line) -> None:
        _, body = line.read()
        pieces(line, acceptance(pdu.parse_request(body)))
        values, _ = line.message()
        answer = command.response(values, 0xB007)
        pdvs = [answer[at : at + fragment] for at in range(0, len(answer), fragment)] + [b""] * empty_last
        marked = [pdv(p, pdu.COMMAND | (pdu.LAST if n == len(pdvs) - 1 else 0)) for n, p in enumerate(pdvs)]
        half = len(marked) // 2
        pieces(line, b"".join(pdus(part) for part in (marked[:half], marked[half:]) if part))
        releasing(line)

    def pieces(line: Line, data: bytes) -> None:
        for size in cuts:
            line.say(data[:size])
            data = data[size:]
        line.say(data)

    it = Peer(script)
    with tempfile.TemporaryFile() as file, call(it) as association:
        file.write(b"data set")
        file.flush()
        assert stored(association, file.fileno()) == 0xB007
    it.end()


@given(sent=st.binary(max_size=60), as_pdu=st.integers(0, 9), keeps=st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_whatever_a_peer_says_instead_of_an_answer_ends_the_association_and_nothing_else(
    sent: bytes, as_pdu: int, keeps: int
) -> None:
    def script(line: Line) -> None:
        line.accept()
        values, _ = line.message()
        answer = pdu.message(1, command.response(values, 0))
        said = pdu.HEADER.pack(as_pdu, len(sent)) + sent if as_pdu else sent
        # without its last element, the status, which a drawn byte could complete
        line.say(answer[: min(keeps, len(answer) - 12)], said)

    it = Peer(script)
    with tempfile.TemporaryFile() as file:
        file.write(b"data set")
        file.flush()
        association = call(it)
        with pytest.raises(NoAssociation):
            stored(association, file.fileno())
        assert not association.is_open()
        association.release()


def pdv(fragment: bytes, control: int, context: int = 1) -> bytes:
    return pdu.PDV_HEADER.pack(len(fragment) + 2, context, control) + fragment


def pdus(pdvs: list[bytes]) -> bytes:
    body = b"".join(pdvs)
    return pdu.HEADER.pack(pdu.P_DATA_TF, len(body)) + body


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (lambda rsp: pdu.message(3, rsp), pdu.INVALID_PARAMETER),
        (lambda rsp: pdus([]), pdu.INVALID_PARAMETER),
        (lambda rsp: pdus([b"\0\0\0\x01\x01"]), pdu.INVALID_PARAMETER),
        (lambda rsp: pdus([b"\0\0\xff\xff\x01\x03"]), pdu.INVALID_PARAMETER),
        (lambda rsp: pdus([pdv(rsp, pdu.LAST)]), pdu.INVALID_PARAMETER),
        (lambda rsp: pdus([pdv(b"x" * 70_000, pdu.COMMAND)]), pdu.INVALID_PARAMETER),
        (lambda rsp: pdus([pdv(b"no command", pdu.COMMAND | pdu.LAST)]), pdu.INVALID_PARAMETER),
        (lambda rsp: pdu.message(1, rsp.replace(RESPONDS, ANOTHER)), pdu.UNEXPECTED_PARAMETER),
        (lambda rsp: pdu.message(1, rsp) * 2 + pdu.message(1, rsp), pdu.UNEXPECTED_PARAMETER),
        (lambda rsp: b"\x08\0\0\0\0\0", pdu.UNRECOGNIZED_PDU),
        (lambda rsp: b"\x01\0\0\0\0\0", pdu.UNEXPECTED_PDU),
        (lambda rsp: pdu.HEADER.pack(pdu.P_DATA_TF, 2**31), pdu.INVALID_PARAMETER),
    ],
)
def test_a_peer_that_breaks_the_protocol_is_aborted_with_the_reason(
    file: Any, reply: Callable[[bytes], bytes], reason: int
) -> None:
    last: list[bytes] = []

    def script(line: Line) -> None:
        line.accept()
        values, _ = line.message()
        line.say(reply(command.response(values, 0)))
        kind, body = line.read()
        assert kind == pdu.A_ABORT
        last.append(body)

    it = Peer(script)
    association = call(it)
    with pytest.raises(Broken):
        stored(association, file(b"data set"))
        association.hear(5)
    it.end()
    assert last == [bytes((0, 0, pdu.BY_PROVIDER, reason))]


RESPONDS = struct.pack("<HHLH", 0, command.RESPONDS_TO, 2, 1)
ANOTHER = struct.pack("<HHLH", 0, command.RESPONDS_TO, 2, 7)


@pytest.mark.parametrize("said", [ABORT, b""])
def test_a_peer_that_ends_while_we_send_is_heard(file: Any, said: bytes) -> None:
    """An abort without a close after it, too: it goes on holding the connection, and reads no more."""

    def script(line: Line) -> None:
        line.accept()
        line.read()
        line.say(said)
        if said:
            ended.wait(10)

    ended = threading.Event()
    association = call(Peer(script))
    with pytest.raises(Ended, match="aborted" if said else "closed"):
        stored(association, file(bytes(60 << 20)))
    ended.set()


def test_a_peer_that_stops_reading_does_not_hold_us(file: Any) -> None:
    ended = threading.Event()

    def script(line: Line) -> None:
        line.accept()
        ended.wait(10)

    association = call(Peer(script), SHORT)
    with pytest.raises(NoAnswer):
        stored(association, file(bytes(60 << 20)))
    ended.set()
    assert not association.is_open()


def test_a_peer_that_takes_everything_and_says_nothing_is_aborted(file: Any) -> None:
    it = Peer(taking(0))
    association = call(it, SHORT)
    with pytest.raises(NoAnswer):
        stored(association, file(b"data set"))
    assert it.end().heard[-1] == pdu.A_ABORT


def test_a_peer_may_release_between_two_messages(file: Any) -> None:
    def release(line: Line) -> None:
        line.say(pdu.release_request())
        line.until_closed()

    it = Peer(taking(1, then=release))
    association = call(it)
    assert stored(association, file(b"data set")) == 0
    while association.is_open():
        pass
    assert it.end().heard[-1] == pdu.A_RELEASE_RP


def test_a_release_in_place_of_an_answer_is_answered_and_ends_it(file: Any) -> None:
    def script(line: Line) -> None:
        line.accept()
        line.message()
        line.say(pdu.release_request())
        line.until_closed()

    it = Peer(script)
    with pytest.raises(Ended, match="released"):
        stored(call(it), file(b"data set"))
    assert it.end().heard[-1] == pdu.A_RELEASE_RP


def test_in_a_release_collision_the_requestor_answers_at_once() -> None:
    def collide(line: Line) -> None:
        line.read()
        line.say(pdu.release_request())
        assert line.read()[0] == pdu.A_RELEASE_RP
        line.say(pdu.release_reply())
        line.until_closed()

    it = Peer(taking(0, then=collide))
    call(it).release()
    assert it.end().heard == [pdu.A_ASSOCIATE_RQ, pdu.A_RELEASE_RQ, pdu.A_RELEASE_RP]


def test_a_release_that_is_not_answered_ends_in_an_abort() -> None:
    it = Peer(taking(0))
    call(it, SHORT).release()
    assert it.end().heard == [pdu.A_ASSOCIATE_RQ, pdu.A_RELEASE_RQ, pdu.A_ABORT]


@pytest.mark.parametrize("length", [0, 100])
def test_a_file_that_is_shorter_than_it_was_is_not_sent_as_if_whole(tmp_path: Path, length: int) -> None:
    it = Peer(taking(0))
    path = tmp_path / "file"
    path.write_bytes(bytes(length))
    with path.open("rb") as opened, pytest.raises(EOFError):
        call(it).store(1, SC, "2.25.1", opened.fileno(), 100)
    assert it.end().heard == [pdu.A_ASSOCIATE_RQ, pdu.A_ABORT]


def test_what_the_peer_asks_before_it_answers_is_kept_and_can_be_answered() -> None:
    """Storage commitment: N-ACTION out, an N-EVENT-REPORT-RQ of 200 KB in one PDU and the N-ACTION-RSP in."""
    event = command.encode(
        {
            command.AFFECTED_CLASS: COMMITMENT.encode(),
            command.COMMAND_FIELD: struct.pack("<H", command.N_EVENT_REPORT_RQ),
            command.MESSAGE_ID: struct.pack("<H", 9),
            command.DATA_SET_TYPE: struct.pack("<H", 0),
        }
    )
    data = os.urandom(200_000)
    answers: list[dict[int, bytes]] = []

    def script(line: Line) -> None:
        line.accept()
        values, sent = line.message()
        assert sent == b"which"
        line.say(pdu.message(1, event, data))
        line.answer(values, 0x0110)
        answers.append(line.message()[0])
        releasing(line)

    it = Peer(script)
    action = {command.COMMAND_FIELD: struct.pack("<H", command.N_ACTION_RQ)}
    with call(it) as association:
        answer = association.ask(1, action, b"which")
        assert command.number(answer.values, command.STATUS) == 0x0110
        message = association.read_message()
        assert (message.context, message.data) == (1, data)
        association.send_message(1, command.response(message.values, command.SUCCESS))
        assert association.is_open()
    it.end()
    assert command.number(answers[0], command.RESPONDS_TO) == 9


def test_hearing_nothing_leaves_the_association_as_it_is(file: Any) -> None:
    with call(Peer(taking(1, then=releasing))) as association:
        assert association.hear(0.05) is None
        assert stored(association, file(b"data set")) == 0
