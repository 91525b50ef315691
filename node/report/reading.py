"""A report's readings: all that a writer may know about the images that were analyzed, and nothing that it may not.

Two writers given equal reports write equal bytes: whatever would make two runs differ (the clock, a counter,
a random UID) stands in the report or is derived from it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone, tzinfo
from functools import cache, cached_property
from importlib.metadata import version
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from model.card import Card
from model.classifier import Finding
from model.explain import Mark
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


class NothingToSay(Exception):
    """A writer's way to say that this report needs no result of its kind; `report.make` leaves it out."""


@dataclass(frozen=True)
class Reading:
    """One image and what the model said about it."""

    source: Dataset
    """The image's header as received, without pixels."""
    content_hash: str
    """`sha256:…` of the image's data set bytes as received."""
    picture: npt.NDArray[np.uint8]
    """H×W, 0 black … 255 white, presentation polarity, square pixels, upright."""
    findings: list[Finding]
    """Empty where the image was not analyzed: then the report has a reason."""
    marks: Mapping[str, Mark] = field(default_factory=dict)
    """Label -> where; of the findings above their thresholds, and only where the intended use is `marks`."""
    unlike: str = ""
    """A sentence where the picture looks unlike what the model was made for and was analyzed all the same."""

    @cached_property
    def identity(self) -> Identity:
        """Patient and study, as every result of this reading carries them."""
        return identity.of(self.source)


@dataclass(frozen=True)
class Earlier:
    """What was found before in another image of the same patient."""

    analyzed_at: datetime
    """Aware."""
    study: str
    findings: tuple[tuple[str, float, bool], ...]
    """(label, score, above its threshold then), in that model's order."""
    model: str
    """SHA-256 of its weights, `sha256:…`: scores of other weights are not to be compared. Empty where the same weights'
    scores were calibrated otherwise."""


@dataclass(frozen=True)
class Report:
    """All that a writer may know: one image, or those of one study, and the circumstances."""

    readings: tuple[Reading, ...]
    """At least one; all of one patient and one study."""
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
    earlier: tuple[Earlier, ...] = ()
    """Of the same patient, newest first."""
    reason: str = ""
    """Why the image was not analyzed, fit for a radiographer; empty where it was."""

    @property
    def first(self) -> Reading:
        return self.readings[0]

    @property
    def identity(self) -> Identity:
        """The first image's: that of all that is not made for each image."""
        return self.first.identity

    @property
    def local_time(self) -> datetime:
        """`made_at` at the source's TimezoneOffsetFromUTC (it governs every time of a data set, PS3.3 C.12.1.1.8);
        where it has none, in the configured time zone."""
        return self.local(self.made_at)

    def local(self, at: datetime) -> datetime:
        offset = self.identity.offset
        if not offset:
            return at.astimezone(self.timezone)
        minutes = int(offset[1:3]) * 60 + int(offset[3:5])
        return at.astimezone(timezone(timedelta(minutes=minutes if offset[0] == "+" else -minutes)))


@cache
def software_version() -> str:
    return version("hilum")


def serial_number(card: Card) -> str:
    """Which weights: the device is the model."""
    return card.sha256.removeprefix("sha256:")[:16]


def uid(*parts: str) -> str:
    """A UID made from `parts`, the same each time: 2.25 and the first 128 bits of a SHA-256 (PS3.5 B.2).

    The bits of RFC 9562 that say "UUID, version 8" are set, because 2.25 promises a UUID.
    """
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    number = int.from_bytes(digest[:16], "big")
    number = number & ~(0xF << 76) | 8 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    return f"2.25.{number}"


def result_uid(report: Report, writer: str, variant: str, image: int = 0) -> str:
    """The result's SOP Instance UID: a function of the images, the model, the settings, the writer and the revision.

    The same job run twice names the same object; anything that changes what stands in the object changes its UID.
    """
    settings = [report.intended_use, str(report.timezone), report.reason]
    settings += [f"{f.label}={f.threshold!r}" for reading in report.readings for f in reading.findings]
    settings += [reading.unlike for reading in report.readings]
    settings += [f"{one.analyzed_at.isoformat()} {one.model} {one.findings!r}" for one in report.earlier]
    images = [part for r in report.readings for part in (r.identity.sop_instance, r.content_hash)]
    return uid(
        "result",
        *images,
        report.card.identity,
        hashlib.sha256("\0".join(settings).encode()).hexdigest(),
        f"{writer} {software_version()}",
        variant,
        str(report.revision),
        *([f"image {image}"] if image else []),
    )


def series_uid(sop_instance: str) -> str:
    """Each report has series of its own, one a kind: viewers open only the newest SR of a series.

    `sop_instance`: of the kind's first object in this report.
    """
    return uid("series", sop_instance)
