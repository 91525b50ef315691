"""A month's records, counted in one pass. What it holds does not grow with their number.

Durations go into buckets of one percent: median and 95th percentile are right within one percent of their value.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from storage.audit import Record

MOST_KINDS = 500
"""Different senders, reasons, people; a sender that calls itself otherwise each time must not fill the memory."""
MOST_CHANGES = 60
MOST_ARRIVALS = 50_000
"""Images whose time of arrival is remembered; of an older one it is looked up."""
OTHERS = "others"

_PERCENT = math.log(1.01)
_SHORTEST = 0.001
_BY_SENDER = {
    "association.accepted": "associations", "association.refused": "turned away", "association.aborted": "broken off",
    "object.received": "received", "object.repeated": "repeated", "object.refused": "refused",
    "object.conflict": "conflict",
}  # fmt: skip
SENDER_COLUMNS = tuple(_BY_SENDER.values())
BY_PEOPLE = frozenset(
    {
        "job.retried", "job.discarded", "delivery.retried", "delivery.discarded", "audit.queried", "audit.exported",
        "audit.verified", "identity.erased", "model.activated", "operator.signed_in", "operator.signed_out",
        "operator.refused",
    }
)  # fmt: skip


class Tally(Counter[Any]):
    """Counts of a bounded number of kinds; what comes too late is counted together."""

    def count(self, kind: Hashable, by: int = 1) -> None:
        if kind not in self and len(self) >= MOST_KINDS:
            kind = (OTHERS, *(OTHERS for _ in kind[1:])) if isinstance(kind, tuple) else OTHERS
        self[kind] += by


class Durations:
    """How long something took, in seconds; any number of times."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        self._buckets[round(math.log(max(seconds, _SHORTEST)) / _PERCENT)] += 1

    def quantile(self, part: float) -> float | None:
        """In seconds; None where there is none."""
        left = math.ceil(part * self._buckets.total())
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return math.exp(bucket * _PERCENT)
        return None


@dataclass
class Destination:
    delivered: int = 0
    attempts: int = 0
    returned: int = 0
    parked: int = 0
    committed: int = 0
    not_committed: int = 0
    durations: Durations = field(default_factory=Durations)

    @property
    def failed(self) -> int:
        """Attempts that did not get through; what is being sent at the month's end counts in the next."""
        return max(0, self.attempts - self.returned - self.delivered)


@dataclass
class Model:
    """One set of weights: how many images it read, when first and last."""

    name: str
    sha256: str
    images: int
    first: str
    last: str


@dataclass(frozen=True)
class Change:
    time: str
    event: str
    told: str


class Counted:
    """All that is told of a month."""

    def __init__(self, arrival_of: Callable[[str], str]) -> None:
        """`arrival_of`: when an image came (a stamp, empty: not known), for those that are not remembered."""
        self.records = 0
        self.first_id = self.last_id = 0
        self.events = Tally()
        self.senders = Tally()
        self.bytes = Tally()
        self.skipped = Tally()
        self.results = Tally()
        self.failures = Tally()
        self.people = Tally()
        self.expired = Tally()
        self.destinations: dict[str, Destination] = {}
        self.models: dict[str, Model] = {}
        self.changes: list[Change] = []
        self.more_changes = 0
        self.verification: Record | None = None
        self._arrival_of = arrival_of
        self._arrivals: OrderedDict[str, str] = OrderedDict()

    def add(self, record: Record) -> None:
        self.records += 1
        self.first_id = self.first_id or record.id
        self.last_id = record.id
        event, detail = record.event, record.detail
        self.events.count(event)
        if event in _BY_SENDER:
            self._sender(record)
        elif event.startswith(("delivery.", "commitment.")):
            self._delivery(record)
        elif event == "job.analyzed":
            self._model(record)
        elif event == "job.skipped":
            self.skipped.count(str(detail.get("reason", "")))
        elif event == "result.made":
            self.results.count(str(detail.get("writer", "")))
        elif event == "object.expired":
            self.expired.count(str(detail.get("what", "image")))
        elif event in {"config.changed", "model.changed"}:
            self._change(
                record, f"{detail.get('key')}: {_value(detail.get('old'))} -> {_value(detail.get('new'))}"
            )
        elif event == "model.activated":
            self._change(record, f"{_model_of(detail.get('old'))} -> {_model_of(detail.get('new'))}")
        elif event in {"identity.erased", "audit.expired"}:
            self._change(record, _told(detail))
        if event == "audit.verified":
            self.verification = record
        if event in BY_PEOPLE:
            self.people.count((f"{record.actor} on {record.host}" if record.host else record.actor, event))
        if record.outcome == "failure":
            self.failures.count((event, str(detail.get("reason", "") or "no reason is recorded")))

    def _sender(self, record: Record) -> None:
        by = int(record.detail.get("objects", 1))
        self.senders.count((record.actor, _BY_SENDER[record.event]), by)
        if record.event == "object.received":
            self.bytes.count(record.actor, int(record.detail.get("size", 0)))
            self._arrivals[record.sop] = record.time
            if len(self._arrivals) > MOST_ARRIVALS:
                self._arrivals.popitem(last=False)

    def _delivery(self, record: Record) -> None:
        to = str(record.detail.get("destination") or "")
        if not to:
            return
        if to not in self.destinations and len(self.destinations) >= MOST_KINDS:
            to = OTHERS
        of = self.destinations.setdefault(to, Destination())
        match record.event:
            case "delivery.attempted":
                of.attempts += 1
            case "delivery.delivered":
                of.delivered += 1
                came = self._arrivals.get(record.sop) or self._arrival_of(record.sop)
                if came:
                    of.durations.add(_seconds(record.time) - _seconds(came))
            case "delivery.returned":
                of.returned += 1
            case "delivery.parked":
                of.parked += 1
            case "delivery.committed":
                of.committed += 1
            case "commitment.failed":
                of.not_committed += 1

    def _model(self, record: Record) -> None:
        detail = record.detail
        sha256 = str(detail.get("sha256", ""))
        if sha256 not in self.models and len(self.models) >= MOST_KINDS:
            sha256 = OTHERS
        name = f"{detail.get('model', '')} {detail.get('version', '')}".strip()
        known = self.models.setdefault(sha256, Model(name, sha256, 0, record.time, record.time))
        known.images += 1
        known.last = record.time

    def _change(self, record: Record, told: str) -> None:
        if len(self.changes) < MOST_CHANGES:
            by = "" if record.actor in {"", "hilum"} else f" (by {record.actor})"
            self.changes.append(Change(record.time, record.event, told + by))
        else:
            self.more_changes += 1


def _seconds(stamp: str) -> float:
    """Of a stamp; ten times as fast as `storage.clock.moment`, and there are two for each delivery."""
    return datetime.fromisoformat(stamp).timestamp()


def _value(value: Any) -> str:
    if value is None:
        return "none"
    shown = "true" if value is True else "false" if value is False else str(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _model_of(told: Any) -> str:
    """chest-vgg16 1.2 (0123456789ab)."""
    if not isinstance(told, dict) or "sha256" not in told:
        return "none"
    weights = str(told["sha256"]).removeprefix("sha256:")[:12]
    return f"{told.get('name', '')} {told.get('version', '')} ({weights})"


def _told(detail: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_value(value)}" for key, value in detail.items()) or "done"
