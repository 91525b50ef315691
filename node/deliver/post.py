"""Delivery of JSON by HTTP: the file's bytes in a POST to `url`, its UID as `Idempotency-Key`.

A repeat has the same key and the same bytes, so that a receiver can drop it. Whatever it answers beside the status is
not looked at.
"""

from pathlib import Path

from node.deliver.exchange import USUAL, Answer, Exchange, Timeouts
from node.deliver.outcome import Outcome, of_http
from node.settings import HttpDestination
from node.wire.kinds import kind_of
from storage.outbox import Delivery


class HttpSender:
    """One destination that takes JSON."""

    def __init__(self, destination: HttpDestination, timeouts: Timeouts = USUAL) -> None:
        self._url = destination.url
        self._exchange = Exchange(destination, timeouts)

    def send(self, delivery: Delivery, file: Path) -> Outcome:
        """One POST. Raises what opening a damaged file raises."""
        headers = {
            "Content-Type": kind_of(delivery.writer).media,
            "Idempotency-Key": delivery.sop_instance,
        }
        with file.open("rb") as body:
            answer = self._exchange.request("POST", self._url, body, headers)
        return of_http(answer.status) if isinstance(answer, Answer) else answer

    def rest(self) -> None:
        self._exchange.rest()
