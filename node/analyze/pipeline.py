"""Images through scope, decode, predict and report. Knows no queue and no network.

Everything that touches untrusted pixels runs in the decoder processes; here only small headers, pictures and scores
are handled.
"""

import hashlib
import importlib
import os
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Literal, Self

import numpy as np

from model import card
from model.card import Card
from model.classifier import Classifier, Finding
from model.scope import Policy
from node import log, report
from node.analyze.decoders import Decoders, Failed, Ready, Skipped
from node.settings import Settings

# a 43 x 35 cm detector at 0.1 mm decodes in 0.5 s; 64 megapixels at 16 bits need 1.2 GB
DECODER_MEMORY_BYTES = 2 * 2**30
DECODER_SECONDS = 30.0
MOST_DECODERS = 8

Status = Literal["analyzed", "skipped", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of one image.

    `trouble` is set on failures: "image" (this image can't be read: park it) or "io" (our disk or process: again).
    """

    status: Status
    reason: str = ""
    trouble: Literal["", "image", "io"] = ""
    findings: list[Finding] = field(default_factory=list)
    ready: Ready | None = None

    @property
    def picture_hash(self) -> str:
        """SHA-256 of the upright 8-bit picture and its shape; empty where there is none."""
        if self.ready is None:
            return ""
        picture = self.ready.picture
        return "sha256:" + hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()


@dataclass(frozen=True)
class Occasion:
    """When and as which revision a report is made, and whom it replaces: (SOP class, SOP instance) by writer."""

    content_hash: str
    made_at: datetime
    revision: int = 1
    predecessors: tuple[tuple[str, str], ...] = ()


class Pipeline:
    """A loaded model and its decoder processes. Slow to open (TensorFlow); close it."""

    def __init__(self, settings: Settings, classifier: Classifier, decoders: Decoders) -> None:
        self.classifier = classifier
        self._decoders = decoders
        self._intended_use = settings.report.intended_use
        self._zone: tzinfo | None = settings.report.zone

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Everything that the first image would wait for is loaded here. Raises BadModel."""
        folder = settings.analyze.folder
        # started first: they import their libraries while TensorFlow loads
        decoders = Decoders(
            workers=min(os.cpu_count() or 1, MOST_DECODERS),
            memory_bytes=DECODER_MEMORY_BYTES,
            seconds=DECODER_SECONDS,
            policy=policy(settings),
            card=card.load(folder),
        )
        try:
            classifier = Classifier.load(folder)
        except BaseException:
            decoders.close()
            raise
        importlib.import_module("highdicom")
        return cls(settings, classifier, decoders)

    @property
    def card(self) -> Card:
        return self.classifier.card

    def read(self, paths: Sequence[Path], *, view: str = "PA", age: int = 40) -> list[Outcome]:
        """One outcome a path, in order. A bad image never raises and never costs another one."""
        examined = self._decoders.examine(list(paths), view=view, age=age)
        ready = [e for e in examined if isinstance(e, Ready)]
        found = iter(self.classifier.predict(np.stack([r.input for r in ready])) if ready else [])
        outcomes = []
        for one in examined:
            match one:
                case Ready():
                    outcomes.append(Outcome("analyzed", findings=next(found), ready=one))
                case Skipped(reason):
                    outcomes.append(Outcome("skipped", reason))
                case Failed(reason, kind):
                    outcomes.append(Outcome("failed", reason, "io" if kind == "io" else "image"))
        return outcomes

    def report(
        self, outcome: Outcome, wanted: Sequence[tuple[str, str]], occasion: Occasion
    ) -> list[report.Result]:
        """The result objects of an analyzed image, one for each wanted (writer, variant).

        Raises report.InvalidResult where one does not pass its check.
        """
        assert outcome.ready is not None
        reading = report.Reading(
            source=outcome.ready.header,
            content_hash=occasion.content_hash,
            picture=outcome.ready.picture,
            findings=outcome.findings,
            card=self.card,
            intended_use=self._intended_use,
            revision=occasion.revision,
            made_at=occasion.made_at,
            timezone=self._zone,
            predecessors=occasion.predecessors,
        )
        return [report.make(writer, reading, variant) for writer, variant in wanted]

    def close(self) -> None:
        self._decoders.close()


def policy(settings: Settings) -> Policy:
    """The `[scope]` section as `model.scope` wants it."""
    scope = settings.scope
    return Policy(
        min_age=scope.min_age,
        unknown_age=scope.unknown_age,
        unknown_body_part=scope.unknown_body_part,
        unknown_view=scope.unknown_view,
        chest_words=scope.words.body_part.chest,
        other_body_words=scope.words.body_part.other,
        frontal_words=scope.words.view.frontal,
        other_view_words=scope.words.view.other,
    )


def wanted_results(settings: Settings) -> dict[tuple[str, str], tuple[str, ...]]:
    """(writer, variant) -> the destinations that want it. Without destinations the results are made all the same."""
    wanted: dict[tuple[str, str], list[str]] = {}
    for destination in settings.destinations:
        for writer in destination.results:
            variant = destination.sr_class if writer == "sr" else ""
            wanted.setdefault((writer, variant), []).append(destination.name)
    if not wanted:
        wanted = {("sr", "comprehensive3d"): [], ("sc", ""): []}
    return {key: tuple(names) for key, names in wanted.items()}


def tell_fault(what: str, error: BaseException) -> str:
    """Logs a fault of our own by type and place; its text might hold a value of the image's header."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    log.get().error(what, error=type(error).__name__, place=place)
    return f"internal error ({type(error).__name__} at {place})"
