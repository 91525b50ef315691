"""A pool of decoder processes: one that hangs, dies or wants too much memory costs its own image only.

Each process has a socket for requests and short answers, and a piece of anonymous shared memory (memfd: it
has no name that could be left behind) for arrays. The pool never waits for a process longer than `seconds`,
and never reads from the socket what might come in part.

A Decoders belongs to the thread that made it: its processes die with that thread (PR_SET_PDEATHSIG).
"""

import mmap
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from pydicom import Dataset

from model.card import Card
from model.header import quietly
from model.scope import Policy
from node.analyze.decoder import distinct, input_bytes, preparation, room

START_SECONDS = 60.0
"""A process imports its libraries in under two seconds on an idle machine."""

MAX_STARTS = 3
"""Starts in a row that may fail before the images at hand are given up."""

REAP_SECONDS = 2.0
"""A killed process that stays longer hangs in the kernel (a dead network drive); nobody waits for it."""

Kind = Literal["undecodable", "unreadable", "timeout", "memory", "died", "io"]


@dataclass(frozen=True)
class Skipped:
    """Out of scope; the reason is fit for a radiographer. `header`: as in Ready, where somebody may want to be told."""

    reason: str
    header: Dataset | None = None


@dataclass(frozen=True)
class Failed:
    """No picture came of it. `undecodable` and `unreadable` will fail again; `io` may not; `timeout`,
    `memory` and `died` are the image's fault or the machine's."""

    reason: str
    kind: Kind


@dataclass(frozen=True)
class Ready:
    """`header`: the data set without pixels and bulk; `inputs`: float32 (size, size, channels), what each network
    sees, in the cards' order; `picture`: uint8 H×W, 0 = air black … 255 = bone bright, upright, at most 4,096 pixels
    long."""

    header: Dataset
    inputs: tuple[np.ndarray[Any, np.dtype[np.float32]], ...]
    picture: np.ndarray[Any, np.dtype[np.uint8]]
    seconds: float = 0.0
    """From the request to the answer."""
    doubt: str = ""
    """Why it would be skipped, did the site not leave that to the guard."""


Examined = Skipped | Failed | Ready


class Decoders:
    """`workers` processes, each of which may allocate `memory_bytes` beside what its libraries take, and
    has `seconds` for an image. The largest picture, 64 megapixels of 16 bits, needs 1.2 GB and some 7 seconds.
    Each picture is prepared for each of `cards`."""

    def __init__(
        self, workers: int, memory_bytes: int, seconds: float, policy: Policy, cards: Sequence[Card]
    ) -> None:
        # a curve of thousands of knots would fill the pipe before anybody reads it
        light = tuple(replace(card, calibrations={}) for card in cards)
        self._settings = (memory_bytes, policy, light)
        self._seconds = seconds
        self._failed_starts = 0
        self._processes = [_Process(self._settings) for _ in range(workers)]

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def examine(self, paths: Sequence[Path], *, view: str = "PA", age: int = 40) -> list[Examined]:
        """One answer per path, in the same order; never raises for what a file holds.

        `view` and `age` are said of PNG and JPEG files, which say nothing themselves.
        """
        found: dict[int, Examined] = {}
        waiting = deque(enumerate(paths))
        self._failed_starts = 0
        while len(found) < len(paths):
            for n, process in enumerate(self._processes):
                if waiting and process.idle:
                    index, path = waiting.popleft()
                    if not process.give(index, (str(path), view, age), self._seconds):
                        waiting.appendleft((index, path))  # it had died before: not this image's fault
                        self._replace(n)
            self._collect(found)
            if self._failed_starts >= MAX_STARTS:
                reason = "The decoder processes don't start"
                found.update({index: Failed(reason, "died") for index, _ in waiting})
                waiting.clear()
        return [found[n] for n in range(len(paths))]

    def _collect(self, found: dict[int, Examined]) -> None:
        """Waits for an answer, a death or a time limit, whichever comes first."""
        active = [process for process in self._processes if not process.idle]
        if not active:
            return
        patience = max(0.0, min(process.deadline for process in active) - time.monotonic())
        answered = connection.wait([process.pipe for process in active], patience)
        for n, process in enumerate(self._processes):
            if process.idle:
                continue
            if process.pipe in answered:
                answer = process.answer()
            elif time.monotonic() >= process.deadline:
                answer = Failed(f"Decoding took longer than {self._seconds:g} seconds", "timeout")
            else:
                continue
            index = process.job
            if answer is not None and index is not None:
                found[index] = answer
            if (
                answer is None
                or isinstance(answer, Ready | Skipped)
                or answer.kind not in ("timeout", "died")
            ):
                process.job, process.idle = None, True
                self._failed_starts = 0
                continue
            self._failed_starts += index is None
            self._replace(n)

    def _replace(self, n: int) -> None:
        self._processes[n].close()
        self._processes[n] = _Process(self._settings)

    def close(self) -> None:
        """Ends the processes; none outlives this call but one that hangs in the kernel."""
        for process in self._processes:
            process.close()
        self._processes = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


class _Process:
    """One decoder process and what is known of it: starting (not idle, no job), idle, or busy with a job."""

    def __init__(self, settings: tuple[int, Policy, tuple[Card, ...]]) -> None:
        self._cards = settings[2]
        size = room(self._cards)
        self.pipe, theirs = connection.Pipe()
        descriptor = os.memfd_create("hilum-decoder")
        os.ftruncate(descriptor, size)
        self._memory = mmap.mmap(descriptor, size)
        fds = (theirs.fileno(), descriptor)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "node.analyze.decoder", *map(str, fds), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            pass_fds=fds,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        theirs.close()
        os.close(descriptor)
        self.pid = self._process.pid
        self.job: int | None = None
        self.idle = False
        self._given = 0.0
        self.deadline = time.monotonic() + START_SECONDS
        self.pipe.send(settings)

    def give(self, job: int, request: tuple[str, str, int], seconds: float) -> bool:
        """Sends a request; False where the process is no more."""
        if self._process.poll() is not None or self.pipe.poll():
            return False
        try:
            self.pipe.send(request)
        except OSError:
            return False
        self.job, self.idle = job, False
        self._given = time.monotonic()
        self.deadline = self._given + seconds
        return True

    def answer(self) -> Examined | None:
        """What came; None where it only says that it has started."""
        try:
            message = self.pipe.recv()  # under 4 kB: written whole or not at all
        except (EOFError, OSError, pickle.UnpicklingError):
            return Failed(f"The decoder died ({self._last_words()})", "died")
        match message:
            case ("ready",):
                return None
            case ("skipped", reason, header):
                self._memory.seek(0)
                return Skipped(reason, self._header(header) if header else None)
            case ("failed", reason, kind):
                return Failed(reason, kind)
            case ("ready", rows, columns, header, doubt):
                return self._ready(rows, columns, header, doubt)
        return Failed("The decoder gave no sensible answer", "died")

    def _ready(self, rows: int, columns: int, header: int, doubt: str) -> Ready:
        self._memory.seek(0)
        sees = {preparation(card): self._input(card) for card in distinct(self._cards)}
        picture = np.frombuffer(self._memory.read(rows * columns), np.uint8).reshape(rows, columns)
        inputs = tuple(sees[preparation(card)] for card in self._cards)
        return Ready(self._header(header), inputs, picture, time.monotonic() - self._given, doubt)

    def _input(self, card: Card) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Lies where the memory has been read to."""
        values = np.frombuffer(self._memory.read(input_bytes(card)), np.float32)
        return values.reshape(card.size, card.size, card.channels)

    def _header(self, size: int) -> Dataset:
        """Lies where the memory has been read to."""
        with quietly():
            header: Dataset = pickle.loads(self._memory.read(size))
            return header

    def _last_words(self) -> str:
        try:
            code = self._process.wait(REAP_SECONDS)
        except subprocess.TimeoutExpired:
            return "it closed its pipe"
        return signal.Signals(-code).name if code < 0 else f"exit {code}"

    def close(self) -> None:
        self._process.kill()  # also one that is stopped
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(REAP_SECONDS)
        self.pipe.close()
        self._memory.close()
