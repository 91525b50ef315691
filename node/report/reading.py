"""A reading: all that a writer may know about one image that was analyzed, and nothing that it may not.

Two writers given equal readings write equal bytes: whatever would make two runs differ (the clock, a counter,
a random UID) stands in the reading or is derived from it.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from functools import cache, cached_property
from importlib.metadata import version
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from model.card import Card
from model.classifier import Finding
from node.errors import HilumError
from node.report import identity
from node.report.identity import Identity

MANUFACTURER = "Hilum"
"""Manufacturer, model name and private creator (in capitals) of every result: a node knows its own by them."""


class InvalidResult(HilumError):
    """A result that must not leave the node: it is quarantined. Names no patient."""

    @property
    def reason(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Reading:
    """One image, what the model said about it, and when."""

    source: Dataset
    """The image's header as received, without pixels."""
    content_hash: str
    """`sha256:…` of the image's data set bytes as received."""
    picture: npt.NDArray[np.uint8]
    """H×W, 0 black … 255 white, presentation polarity, square pixels, upright."""
    findings: list[Finding]
    card: Card
    made_at: datetime
    """Aware; the job's row says it, not the clock, so that a second run writes the same bytes."""
    intended_use: Literal["triage", "marks"] = "triage"
    revision: int = 1
    """n of this report, from 1."""
    timezone: tzinfo | None = None
    """In which times are written where the source names no offset; None: the machine's own."""
    predecessors: tuple[tuple[str, str], ...] = ()
    """(SOP class, SOP instance) of our results that this one replaces."""

    @cached_property
    def identity(self) -> Identity:
        """Patient and study, as every result of this reading carries them."""
        return identity.of(self.source)

    @property
    def local_time(self) -> datetime:
        """`made_at` at the source's TimezoneOffsetFromUTC (it governs every time of a data set, PS3.3 C.12.1.1.8);
        where it has none, in the configured time zone."""
        offset = self.identity.offset
        if not offset:
            return self.made_at.astimezone(self.timezone)
        minutes = int(offset[1:3]) * 60 + int(offset[3:5])
        return self.made_at.astimezone(timezone(timedelta(minutes=minutes if offset[0] == "+" else -minutes)))


@cache
def software_version() -> str:
    return version("hilum")


def uid(*parts: str) -> str:
    """A UID made from `parts`, the same each time: 2.25 and the first 128 bits of a SHA-256 (PS3.5 B.2).

    The bits of RFC 9562 that say "UUID, version 8" are set, because 2.25 promises a UUID.
    """
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    number = int.from_bytes(digest[:16], "big")
    number = number & ~(0xF << 76) | 8 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    return f"2.25.{number}"


def result_uid(reading: Reading, writer: str, variant: str) -> str:
    """The result's SOP Instance UID: a function of the image, the model, the settings, the writer and the revision.

    The same job run twice names the same object; anything that changes what stands in the object changes its UID.
    """
    card = reading.card
    settings = [reading.intended_use, str(reading.timezone), card.name, card.version, card.limits]
    settings += [f"{finding.label}={finding.threshold!r}" for finding in reading.findings]
    return uid(
        "result",
        reading.identity.sop_instance,
        reading.content_hash,
        card.sha256,
        hashlib.sha256("\0".join(settings).encode()).hexdigest(),
        f"{writer} {software_version()}",
        variant,
        str(reading.revision),
    )


def series_uid(sop_instance: str) -> str:
    """Each result has a series of its own: viewers open only the newest SR of a series."""
    return uid("series", sop_instance)
