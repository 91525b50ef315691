"""When, by whom and of which node a paper is printed, and the time zone of its times."""

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from importlib.metadata import version
from typing import Any

from node.paper import moment
from node.settings import Settings
from storage import clock
from storage.audit import Actor


def person_of(actor: Actor) -> str:
    """anna on ws-3."""
    return f"{actor.name} on {actor.host}" if actor.host else actor.name


@dataclass(frozen=True)
class Printing:
    """`by`: a person in words. `zone` None: the machine's."""

    at: datetime
    by: str
    node: str
    version: str
    zone: tzinfo | None = None

    @classmethod
    def of(cls, actor: Actor, settings: Settings, at: datetime) -> "Printing":
        at = at.astimezone(UTC)
        return cls(at, person_of(actor), settings.node.ae_title, version("hilum"), settings.report.zone)

    @property
    def printed(self) -> str:
        return f"{moment(self.local(self.at))} by {self.by}"

    def local(self, at: datetime) -> datetime:
        return at.astimezone(self.zone)

    def when(self, at: datetime | None) -> str:
        """With milliseconds; empty for None."""
        return moment(self.local(at), exact=True) if at else ""

    def when_stamped(self, stamp: str) -> str:
        """To the second."""
        return moment(self.local(clock.moment(stamp)))

    def as_json(self) -> dict[str, Any]:
        return {
            "printed": clock.stamp(self.at), "by": self.by, "node": self.node, "version": self.version,
        }  # fmt: skip
