"""The measuring itself: intervals, what counts as growth, and a sender that sends what it says."""

import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.benchmarks import kept
from scripts.benchmarks.association import Association
from scripts.benchmarks.image import Message, data_set, new_run, uids
from scripts.benchmarks.nodes import Running, chosen, free_port, running
from scripts.benchmarks.rounds import Figures, median_interval, ratio
from scripts.benchmarks.sender import Plan, Sender
from scripts.benchmarks.senders import ROOT, Failed, Load, Sent
from scripts.benchmarks.soak import Sample, growth
from scripts.benchmarks.system_calls import parse


@pytest.fixture(scope="module")
def discard() -> Iterator[int]:
    """The port of a receiver that throws everything away."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "scripts.benchmarks.discard", str(port)], cwd=ROOT)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.02)
    yield port
    process.kill()
    process.wait()


def test_fifteen_rounds_give_a_95_percent_interval_between_the_fourth_and_the_twelfth() -> None:
    low, high, coverage = median_interval([float(n) for n in range(15, 0, -1)])
    assert (low, high) == (4, 12)
    assert coverage == pytest.approx(0.9648, abs=1e-4)


@pytest.mark.parametrize(("rounds", "coverage"), [(1, 0.0), (3, 0.75), (5, 0.9375), (6, 0.96875)])
def test_few_rounds_show_their_extremes(rounds: int, coverage: float) -> None:
    assert median_interval([float(n) for n in range(rounds)]) == (0, rounds - 1, coverage)


def test_a_ratio_is_taken_within_its_round() -> None:
    """A machine that gets twice as slow changes nothing."""
    found = ratio([Figures(100), Figures(50), Figures(25)], [Figures(200), Figures(100), Figures(50)])
    assert (found.median, found.best, found.worst) == (0.5, 0.5, 0.5)


def test_a_leak_is_growth_and_a_pool_that_fills_is_not() -> None:
    def samples(files_each: float, bytes_each: int) -> list[Sample]:
        return [Sample(n, 60_000_000 + n * bytes_each, 10 + int(n * files_each)) for n in range(50, 1001, 50)]

    assert growth(samples(0.005, 100), memory=True) == ""
    assert "open files" in growth(samples(1, 100), memory=True)
    assert "MB" in growth(samples(0, 20_000), memory=True)


def test_the_table_of_strace_is_read_with_and_without_errors() -> None:
    table = (
        "% time     seconds  usecs/call     calls    errors syscall\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        " 60.00    0.000200           2       100           recvfrom\n"
        " 40.00    0.000100           1        50         3 openat\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        "100.00    0.000300           2       150         3 total\n"
    )
    assert parse(table) == {"recvfrom": 100, "openat": 50}


def test_a_message_carries_the_images_own_identifiers_and_nothing_else_changes() -> None:
    run = new_run()
    message = Message(10_000, run, 7, max_pdu=4096)
    message.be(65_536)
    identity = uids(run, 7, 65_536)
    data = data_set(10_000, run, identity)
    # fragments without their 12 bytes of PDU and PDV; the first PDU is the command
    framed, at, carried = bytes(message.bytes), 0, b""
    while at < len(framed):
        end = at + 6 + int.from_bytes(framed[at + 2 : at + 6])
        carried += b"" if framed[at + 11] & 1 else framed[at + 12 : end]
        at = end
    assert carried == data
    assert framed.count(identity[0]) == 2


@pytest.mark.parametrize("per_association", [0, 1])
def test_a_sender_counts_each_acknowledged_image_once(discard: int, per_association: int) -> None:
    sender = Sender(
        Plan(discard, "PEER", 1000, 20, new_run(), others=("1.2.3",), per_association=per_association)
    )
    sender.prepare()
    sent = sender.run()
    assert sent.acknowledged == list(range(20))
    assert sent.troubles == {}
    assert len(sent.associate) == 20 * per_association


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Running]:
    """The receiver in C; what it keeps lies under `received`."""
    kinds = chosen(["floor"], [], tmp_path)
    if not kinds:
        pytest.skip("no C compiler")
    with running(kinds[0], tmp_path / "run") as node:
        yield node


def test_without_a_compiler_there_is_no_floor_row_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chosen(["floor"], [], tmp_path) == []
    assert capsys.readouterr().err.count("no floor row") == 1


@pytest.mark.parametrize(("size", "per_association"), [(1000, 1), (700_000, 0)])
def test_the_floor_keeps_every_byte_of_what_it_acknowledges(
    floor: Running, size: int, per_association: int
) -> None:
    run = new_run()
    sender = Sender(
        Plan(floor.port, "PEER", size, 3, run, others=("1.2.3",), per_association=per_association)
    )
    sender.prepare()
    outcome = sender.run()
    assert (outcome.acknowledged, outcome.troubles) == ([0, 1, 2], {})
    kept.check(floor, Sent(run, Load(size, 3, 1), acknowledged=[(0, 0), (0, 1), (0, 2)]))


def test_the_floor_takes_pdus_and_fragments_cut_anywhere(floor: Running) -> None:
    run, cut = new_run(), random.Random(5)
    message = Message(300_000, run, 0)
    message.be(0)
    framed = _reframed(bytes(message.bytes), cut)
    association = Association(floor.port, "PEER")
    at = 0
    while at < len(framed):
        step = cut.choice((1, 5, 7, 4096, 70_000))
        association.socket.sendall(framed[at : at + step])
        time.sleep(0.001)
        at += step
    assert association.status() == 0
    association.release()
    kept.check(floor, Sent(run, Load(300_000, 1, 1), acknowledged=[(0, 0)]))


def test_a_file_of_the_floor_that_differs_is_found(floor: Running) -> None:
    run = new_run()
    sender = Sender(Plan(floor.port, "PEER", 1000, 2, run))
    sender.prepare()
    sent = Sent(run, Load(1000, 2, 1), acknowledged=[(0, number) for number in sender.run().acknowledged])
    first, second = (floor.folder / "received").glob("*.dcm")
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(Failed, match="not what was sent"):
        kept.check(floor, sent)
    first.unlink()
    with pytest.raises(Failed, match="1 acknowledged"):
        kept.check(floor, sent)
    assert second.exists()


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", struct.pack(">BxLL", 7, 4, 0), b"\4\0\0\0\0\7" * 9]
)
def test_the_floor_hangs_up_on_what_it_does_not_expect(floor: Running, garbage: bytes) -> None:
    with socket.create_connection(("127.0.0.1", floor.port), 10) as peer:
        peer.sendall(garbage)
        peer.shutdown(socket.SHUT_WR)
        try:
            assert peer.recv(100) == b""
        except ConnectionResetError:
            # it had not read all of it
            return


def _reframed(framed: bytes, cut: random.Random) -> bytes:
    """The same fragments of one PDV a PDU as many PDVs of any length, several in a PDU."""
    pdus, at = b"", 0
    while at < len(framed):
        (length,) = struct.unpack_from(">L", framed, at + 2)
        context, control = framed[at + 10], framed[at + 11]
        data, at = framed[at + 12 : at + 6 + length], at + 6 + length
        pdvs = []
        while data or not pdvs:
            size = cut.choice((0, 1, 2, 11, 5000, 40_000)) if pdvs or len(data) > 1 else len(data)
            piece, data = data[:size], data[size:]
            # the last one alone ends the message
            pdvs.append(
                struct.pack(">LBB", len(piece) + 2, context, control if not data else control & 1) + piece
            )
        while pdvs:
            some = cut.randint(1, 4)
            body, pdvs = b"".join(pdvs[:some]), pdvs[some:]
            pdus += struct.pack(">BxL", 4, len(body)) + body
    return pdus
