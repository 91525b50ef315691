"""Trouble with a destination: failures in a row, and the pause after them. All its lanes share it."""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from storage.clock import Clock

_NEVER = datetime.min.replace(year=1970, tzinfo=UTC)


@dataclass(frozen=True)
class Backoff:
    """Seconds after the nth failure in a row: doubling, and up to a quarter less, so that lanes don't march in step."""

    first: float = 1.0
    most: float = 300.0
    jitter: Callable[[], float] = random.random

    def seconds(self, failures: int) -> float:
        return min(self.most, self.first * 2.0 ** min(failures - 1, 32)) * (1 - self.jitter() / 4)


class Trouble:
    """How often in a row a destination was not reached, since when, and until when it is left alone."""

    def __init__(self, clock: Clock, backoff: Backoff = Backoff()) -> None:
        self.backoff = backoff
        self.failures = 0
        self.failed_at = _NEVER
        self._clock = clock
        self._lock = threading.Lock()
        self._noticed = 0.0
        self._paused_until = 0.0

    @property
    def pause(self) -> float:
        """Seconds that are left of the pause; none is 0 or less."""
        return self._paused_until - self._clock.monotonic()

    def failed(self, began: float) -> float:
        """A try that began then (monotonic) did not get through; the seconds of the pause.

        Of tries that ran side by side the first to fail counts: one outage is one failure, however many lanes see it.
        """
        with self._lock:
            if began >= self._noticed:
                self.failures += 1
                self.failed_at = self._clock.now()
                self._noticed = self._clock.monotonic()
                self._paused_until = self._noticed + self.backoff.seconds(self.failures)
            return max(0.0, self.pause)

    def passed(self) -> None:
        """The destination answered."""
        with self._lock:
            self.failures = 0
            self._paused_until = 0.0
