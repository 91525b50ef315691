"""Images through scope, decode, predict and report. Knows no queue and no network.

Everything that touches untrusted pixels runs in the decoder processes; here only small headers, pictures and scores
are handled.
"""

import hashlib
import importlib
import os
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydicom import Dataset

from model.card import SHIPPED, Card
from model.classifier import Classifier, Finding, Seen
from model.explain import Mark
from model.guard import Scoped
from model.reader import Reader, cards_of
from model.runtime import Floats
from model.scope import Policy, flagged, judge_looks, with_age
from node import active, log
from node.analyze.decoders import Decoders, Failed, Ready, Skipped
from node.report import Reading, Report, Result, make
from node.report.reading import Earlier
from node.settings import Settings

# a 43 x 35 cm detector at 0.1 mm decodes in 0.5 s; 64 megapixels at 16 bits need 1.2 GB
DECODER_MEMORY_BYTES = 2 * 2**30
DECODER_SECONDS = 30.0
MOST_DECODERS = 8
NOT_ANALYZED = "not-analyzed"
"""The one kind of result that is made of images that were skipped, and of no others."""

Status = Literal["analyzed", "skipped", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of one image.

    `trouble` is set on failures: "image" (this image can't be read: park it) or "io" (our disk or process: again).
    `header`: of a skipped image, where somebody may want to be told that it was. `scoped`: what the guard said, where
    one was asked.
    """

    status: Status
    reason: str = ""
    trouble: Literal["", "image", "io"] = ""
    findings: list[Finding] = field(default_factory=list)
    ready: Ready | None = None
    header: Dataset | None = None
    predict_seconds: float = 0.0
    """Of all that were predicted together."""
    scoped: Scoped | None = None

    @cached_property
    def picture_hash(self) -> str:
        """SHA-256 of the upright 8-bit picture and its shape; empty where there is none."""
        if self.ready is None:
            return ""
        picture = self.ready.picture
        found = hashlib.sha256(repr(picture.shape).encode())
        found.update(np.ascontiguousarray(picture).data)
        return "sha256:" + found.hexdigest()

    @property
    def milliseconds(self) -> dict[str, int]:
        """What reading it took, for the audit log."""
        decode = 0.0 if self.ready is None else self.ready.seconds
        return {"decode": round(1000 * decode), "predict": round(1000 * self.predict_seconds)}

    @property
    def looks(self) -> dict[str, object]:
        """How strange the picture looked, for the audit log; nothing where nobody was asked."""
        if self.scoped is None:
            return {}
        strange = {"looks": self.scoped.kind or "strange"} if self.scoped.is_strange else {}
        return {"strangeness": round(self.scoped.strangeness, 4), **strange}


@dataclass(frozen=True)
class Occasion:
    """When and as which revision a report is made, and what was before it.

    `predecessors`: (SOP class, SOP instance) of the results that it replaces.
    """

    made_at: datetime
    revision: int = 1
    predecessors: tuple[tuple[str, str], ...] = ()
    earlier: tuple[Earlier, ...] = ()


class Pipeline:
    """A loaded model, its guard and its decoder processes. Slow to open (TensorFlow); close it."""

    def __init__(self, settings: Settings, reader: Reader, decoders: Decoders) -> None:
        """`decoders`: for the reader's cards first; what they prepare beyond these is for others."""
        self.reader = reader
        self._decoders = decoders
        self._learned = settings.scope.learned
        self._intended_use = settings.report.intended_use
        self._zone: tzinfo | None = settings.report.zone

    @classmethod
    def open(cls, settings: Settings, others: Sequence[Card] = (), cache: Path | None = None) -> Self:
        """Everything that the first image would wait for is loaded here. Raises BadModel.

        `others`: cards of models beside the first, for which each picture is prepared too (`Ready.inputs`). `cache`:
        where converted networks are kept, the node's folder or, None, the user's own.
        """
        folder, lent = active.folder(settings), guards(settings)
        # started first: they import their libraries while TensorFlow loads
        decoders = Decoders(
            workers=min(os.cpu_count() or 1, MOST_DECODERS),
            memory_bytes=DECODER_MEMORY_BYTES,
            seconds=DECODER_SECONDS,
            policy=policy(settings),
            cards=(*cards_of(folder, lent), *others),
        )
        try:
            reader = Reader.load(folder, settings.analyze.runtime, cache, lent)
        except BaseException:
            decoders.close()
            raise
        importlib.import_module("highdicom")
        return cls(settings, reader, decoders)

    @property
    def classifier(self) -> Classifier:
        return self.reader.classifier

    @property
    def card(self) -> Card:
        return self.classifier.card

    def read(self, paths: Sequence[Path], *, view: str = "PA", age: int = 40) -> list[Outcome]:
        """One outcome a path, in order. A bad image never raises and never costs another one."""
        examined = self._decoders.examine(list(paths), view=view, age=age)
        ready = [e for e in examined if isinstance(e, Ready)]
        began = time.monotonic()
        seen = iter(self.reader.look(self._batches(ready)) if ready else [])
        seconds = time.monotonic() - began
        outcomes = []
        for one in examined:
            match one:
                case Ready():
                    outcomes.append(self._outcome(one, next(seen), seconds))
                case Skipped(reason, header):
                    outcomes.append(Outcome("skipped", reason, header=header))
                case Failed(reason, kind):
                    outcomes.append(Outcome("failed", reason, "io" if kind == "io" else "image"))
        return outcomes

    def _batches(self, ready: Sequence[Ready]) -> list[Floats]:
        """One for each of the reader's cards."""
        return [np.stack([one.inputs[n] for one in ready]) for n in range(len(self.reader.cards))]

    def _outcome(self, ready: Ready, seen: Seen, seconds: float) -> Outcome:
        """Analyzed, or skipped by the guard's word: where the site wants that, or where the header left it to it."""
        asked = self._learned != "off" or ready.doubt
        scoped = with_age(seen.scoped, ready.header) if asked and seen.scoped else None
        reason = judge_looks(scoped, ready.doubt) if scoped else ready.doubt
        if reason and (self._learned == "skip" or ready.doubt):
            return Outcome("skipped", reason, header=ready.header, predict_seconds=seconds, scoped=scoped)
        return Outcome(
            "analyzed", findings=seen.findings, ready=ready, predict_seconds=seconds, scoped=scoped
        )

    def report(
        self,
        images: Sequence[tuple[str, Outcome]],
        wanted: Iterable[tuple[str, str]],
        occasion: Occasion,
    ) -> list[Result]:
        """The result objects of analyzed images of one study and patient, of each wanted (writer, variant).

        `images`: content hash and outcome, in the report's order. Raises InvalidResult where an object does
        not pass its check.
        """
        whole = self._report(tuple(self._reading(*image) for image in images), occasion)
        return [
            result
            for writer, variant in wanted
            if writer != NOT_ANALYZED
            for result in make(writer, whole, variant)
        ]

    def not_analyzed(
        self, content_hash: str, outcome: Outcome, wanted: Iterable[tuple[str, str]], occasion: Occasion
    ) -> list[Result]:
        """What says that an image was skipped, and why; none where nobody wants it. Raises InvalidResult."""
        if outcome.header is None:
            return []
        reading = Reading(outcome.header, content_hash, np.zeros((1, 1), np.uint8), [])
        whole = self._report((reading,), occasion, outcome.reason)
        return [
            result
            for writer, variant in wanted
            if writer == NOT_ANALYZED
            for result in make(writer, whole, variant)
        ]

    def _report(self, readings: tuple[Reading, ...], occasion: Occasion, reason: str = "") -> Report:
        return Report(
            readings=readings,
            card=self.card,
            made_at=occasion.made_at,
            intended_use=self._intended_use,
            revision=occasion.revision,
            timezone=self._zone,
            predecessors=occasion.predecessors,
            earlier=occasion.earlier,
            reason=reason,
        )

    def _reading(self, content_hash: str, outcome: Outcome) -> Reading:
        assert outcome.ready is not None
        return Reading(
            source=outcome.ready.header,
            content_hash=content_hash,
            picture=outcome.ready.picture,
            findings=outcome.findings,
            unlike=flagged(outcome.scoped) if outcome.scoped else "",
            marks=self._marks(outcome.ready, outcome.findings),
        )

    def _marks(self, ready: Ready, findings: Sequence[Finding]) -> Mapping[str, Mark]:
        """Where the findings above their thresholds come from; nothing at all in triage, which must not localize."""
        present = [finding.label for finding in findings if finding.present]
        if self._intended_use != "marks" or not present:
            return {}
        (marks,) = self.classifier.explain(ready.inputs[0][np.newaxis], [present])
        return marks

    def close(self) -> None:
        self._decoders.close()


def guards(settings: Settings) -> Path | None:
    """The folder of the model that guards one without a scope of its own; None where nobody would listen to it."""
    return SHIPPED if settings.scope.learned != "off" or settings.scope.asks_guard else None


def is_guarded(settings: Settings) -> bool:
    """Whether the model that runs, or the one that guards it, knows what it was made for. Raises BadModel."""
    return any(each.scope for each in cards_of(active.folder(settings), guards(settings)))


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
    if not settings.destinations:
        return {("sr", "comprehensive3d"): (), ("sc", ""): ()}
    wanted: dict[tuple[str, str], tuple[str, ...]] = {}
    for destination in settings.destinations:
        for writer in destination.results:
            variant = getattr(destination, "sr_class", "") if writer == "sr" else ""
            wanted[writer, variant] = (*wanted.get((writer, variant), ()), destination.name)
    return wanted


def tell_fault(what: str, error: BaseException) -> str:
    """Logs a fault of our own by type and place; its text might hold a value of the image's header."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    log.get().error(what, error=type(error).__name__, place=place)
    return f"internal error ({type(error).__name__} at {place})"
