"""The measuring itself: intervals, what counts as growth, and a sender that sends what it says."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from scripts.benchmarks.image import Message, data_set, new_run, uids
from scripts.benchmarks.nodes import free_port
from scripts.benchmarks.rounds import Figures, median_interval, ratio
from scripts.benchmarks.sender import Plan, Sender
from scripts.benchmarks.senders import ROOT
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
