"""Several sender processes at once, let go together."""

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pynetdicom.presentation import AllStoragePresentationContexts

from scripts.benchmarks.association import Association
from scripts.benchmarks.image import DX_FOR_PRESENTATION, new_run
from scripts.benchmarks.sender import Outcome, Plan

ROOT = Path(__file__).resolve().parents[2]
WATCH_SECONDS = 0.1


class Failed(Exception):
    """A measurement that can't be made; the text says why."""


@dataclass(frozen=True)
class Load:
    """What all senders together send: `count` images of about `size` bytes, `contexts` proposed an association."""

    size: int
    count: int
    senders: int
    contexts: int = 1
    per_association: int = 0
    max_seconds: float = 60.0


@dataclass
class Sent:
    """What came of it. `acknowledged` names each image by its sender and its number."""

    run: str
    load: Load
    seconds: float = 0.0
    acknowledged: list[tuple[int, int]] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    tail: list[float] = field(default_factory=list)
    associate: list[float] = field(default_factory=list)
    troubles: dict[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return len(self.acknowledged) / self.seconds if self.seconds else 0.0


def other_classes(count: int) -> tuple[str, ...]:
    """Storage classes that are proposed beside the image's own; at most 127 fit."""
    classes = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
    return tuple(sorted(classes - {DX_FOR_PRESENTATION}))[: min(count, 128) - 1]


def send(
    port: int, called: str, load: Load, *, late: bool = False, watch: Callable[[], None] = lambda: None
) -> Sent:
    """Sends it all; `watch` is called ten times a second meanwhile. Raises Failed where a sender can't begin."""
    run = new_run()
    shares = [load.count // load.senders + (n < load.count % load.senders) for n in range(load.senders)]
    plans = [
        Plan(port, called, load.size, share, run, n, other_classes(load.contexts),
             load.per_association, late, load.max_seconds)
        for n, share in enumerate(shares)
    ]  # fmt: skip
    running = [_start(plan) for plan in plans]
    try:
        for process in running:
            assert process.stdout
            if process.stdout.readline() != "ready\n":
                raise Failed("a sender could not begin")
        for process in running:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        outcomes = _gather(running, watch)
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return _together(run, load, outcomes)


def _start(plan: Plan) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.benchmarks.sender"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True,
    )  # fmt: skip
    assert process.stdin
    process.stdin.write(json.dumps(asdict(plan)) + "\n")
    process.stdin.flush()
    return process


def _gather(running: list[subprocess.Popen[str]], watch: Callable[[], None]) -> list[Outcome]:
    said: dict[int, str] = {}

    def listen(n: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        said[n] = process.stdout.readline()

    listeners = [threading.Thread(target=listen, args=one) for one in enumerate(running)]
    for listener in listeners:
        listener.start()
    for listener in listeners:
        while listener.is_alive():
            listener.join(WATCH_SECONDS)
            watch()
    if not all(said.values()):
        raise Failed("a sender died")
    return [Outcome(**json.loads(said[n])) for n in range(len(running))]


def _together(run: str, load: Load, outcomes: list[Outcome]) -> Sent:
    sent, troubles = Sent(run, load), Counter[str]()
    for n, outcome in enumerate(outcomes):
        sent.acknowledged += [(n, number) for number in outcome.acknowledged]
        sent.whole += outcome.whole
        sent.tail += outcome.tail
        sent.associate += outcome.associate
        troubles.update(outcome.troubles)
    sent.seconds = max(o.ended for o in outcomes) - min(o.began for o in outcomes)
    sent.troubles = dict(troubles)
    return sent


def opened(count: int, port: int, called: str) -> list[Association]:
    """So many associations with nothing to do."""
    return [Association(port, called) for _ in range(count)]
