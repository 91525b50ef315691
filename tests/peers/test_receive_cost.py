"""What an image costs the receiver: system calls have a ceiling; CPU and the ratio to the bare disk are only printed.

System calls are counted by strace, alike on every machine. futex is left out: how often threads hand the interpreter
to each other depends on what else runs. Seconds are never judged here; `scripts/bench receive` is for that.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks import disk, processes, system_calls
from scripts.benchmarks.image import new_run
from scripts.benchmarks.sender import Outcome, Plan, Sender

KILOBYTE, MEGABYTE = 10**3, 10**6
# (engine, bytes an image): images sent, system calls an image at most, futex not counted.
# 80 to 87 and 68 to 72 were seen with hilum. pynetdicom polls and sleeps, so its number depends on the time, 90 to
# 180: its ceiling is there to notice a loop that has run away.
CEILINGS = {
    ("hilum", MEGABYTE): (200, 130),
    ("hilum", KILOBYTE): (300, 110),
    ("pynetdicom", MEGABYTE): (60, 600),
    ("pynetdicom", KILOBYTE): (60, 600),
}


@pytest.mark.peer
@pytest.mark.parametrize(("engine", "size"), CEILINGS)
def test_an_image_costs_the_receiver_no_more_system_calls_than_it_must(
    engine: str,
    size: int,
    receiver_process: Callable[..., Any],
    program: Callable[[str], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program("strace")
    images, ceiling = CEILINGS[engine, size]
    node = receiver_process(engine=engine)

    cpu = processes.cpu_seconds(node.process.pid)
    untraced = send(node.port, size, images)
    cpu = processes.cpu_seconds(node.process.pid) - cpu
    with system_calls.counted(node.process.pid) as calls:
        traced = send(node.port, size, images)
    tell(engine, size, untraced, cpu, calls, tmp_path, capsys)

    assert len(untraced.acknowledged) == len(traced.acknowledged) == images
    assert (calls.total() - calls["futex"]) / images <= ceiling, calls.most_common()


def send(port: int, size: int, images: int) -> Outcome:
    """Two at a time would measure how they get in each other's way."""
    sender = Sender(Plan(port, "HILUM", size, images, new_run()))
    sender.prepare()
    return sender.run()


def tell(
    engine: str,
    size: int,
    sent: Outcome,
    cpu: float,
    calls: Counter[str],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = len(sent.acknowledged)
    (folder / "disk").mkdir()
    bare, _ = disk.write(folder / "disk", size, images, 1)
    ratio = bare / (sent.ended - sent.began)
    with capsys.disabled():
        print(
            f"\n  engine {engine}, {size} bytes: {(calls.total() - calls['futex']) / images:.1f} system calls and "
            f"{1e3 * cpu / images:.2f} ms of CPU an image, {ratio:.2f} x the bare disk's rate"
        )
