"""A thread of the deliverer: its work turn by turn, until it is time to stop."""

import threading

from node import log
from storage.errors import Unavailable
from storage.store import Store

# how soon a database that did not take the work is asked again
DATABASE_SECONDS = 1.0


class Turns:
    """Runs `turn` again and again; sleeps for as long as that says, or until it is nudged."""

    # how long it waits for more once it was nudged
    gather_seconds = 0.0
    waits_for_database = "deliveries wait for the database"

    def __init__(self, name: str, store: Store, stopping: threading.Event) -> None:
        self.name = name
        self._store = store
        self._stopping = stopping
        self._nudged = threading.Event()
        self._log = log.get().bind(destination=name)
        self._database_told = False

    def nudge(self) -> None:
        """There may be work, or it is time to stop."""
        self._nudged.set()

    def run(self) -> None:
        while not self._stopping.is_set():
            self._nudged.clear()
            try:
                wait = self.turn()
                self._database_told = False
            except Unavailable as e:
                self._tell_database(e)
                wait = DATABASE_SECONDS
            if wait > 0 and not self._stopping.is_set():
                self.rest()
                if self._nudged.wait(wait):
                    self._stopping.wait(self.gather_seconds)
        self.rest()

    def turn(self) -> float:
        """One piece of work; how many seconds to wait until the next turn. Raises Unavailable."""
        raise NotImplementedError

    def rest(self) -> None:
        """Nothing is due: gives back what is held."""

    def _tell_database(self, error: Unavailable) -> None:
        if not self._database_told:
            self._log.error(self.waits_for_database, reason=str(error))
        self._database_told = True
