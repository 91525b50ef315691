"""A model folder, loaded: batches of pictures in, findings out; and, where wanted, why.

A picture's scores don't depend on its neighbours beyond float rounding (measured: 1e-6 by TensorFlow;
docs/performance.md for the others).

One process owns one Classifier and calls it from one thread. What computes it (`model.runtime`) is imported in `load`;
how many threads it takes is its own affair (TF_NUM_INTRAOP_THREADS, TF_NUM_INTEROP_THREADS; all cores by default).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model import card, network, runtime
from model.calibrate import shares
from model.card import VGG16, Card
from model.doubt import Doubt
from model.errors import BadModel
from model.explain import Explainer, Mark
from model.guard import Guard, Scoped
from model.runtime import Floats, Running, Wanted


@dataclass(frozen=True)
class Finding:
    """What the model says about one label on one picture."""

    label: str
    raw: float
    """The network's output, 0 to 1."""
    score: float
    """Calibrated; a card without a calibration leaves the raw score as it is."""
    threshold: float
    """The card's."""
    present: bool
    """The score is not below the threshold."""
    low: float | None = None
    """The least that heads fitted without a part of the patients say (`model.doubt`); None where there are none."""
    high: float | None = None

    @property
    def is_unsettled(self) -> bool:
        """Whether these heads say both, present and absent."""
        return self.low is not None and self.high is not None and self.low < self.threshold <= self.high


@dataclass(frozen=True)
class Seen:
    """One picture, looked at."""

    findings: list[Finding]
    """In the card's order of labels."""
    scoped: Scoped | None = None
    """Whether it looks like what the model was made for; None where the model's folder does not know."""


class Classifier:
    """A verified model folder's network, ready."""

    def __init__(
        self, card: Card, running: Running, guard: Guard | None = None, doubt: Doubt | None = None
    ) -> None:
        self.card = card
        self.runtime = running.name
        self.note = running.note
        self._run = running.run
        self._guard = guard
        self._doubt = doubt
        self._explainer: Explainer | None = None

    @classmethod
    def load(cls, folder: Path, wanted: Wanted = "tensorflow", cache: Path | None = None) -> Self:
        """Reads the card, verifies the files' hashes, readies the network, runs it once.

        Takes some seconds, most of them TensorFlow's import. `wanted` and `cache`: as for `runtime.start`.
        Raises BadModel.
        """
        loaded = card.load(folder)
        card.verify(loaded)
        running = runtime.start(loaded, wanted, cache)
        guard = Guard.load(loaded) if loaded.scope else None
        classifier = cls(loaded, running, guard, Doubt.load(loaded) if loaded.doubt else None)
        classifier.look(np.zeros((1, loaded.size, loaded.size, loaded.channels), np.float32))
        return classifier

    def predict(self, batch: Floats) -> list[list[Finding]]:
        """Findings of each picture, in the card's order of labels; see `look`."""
        return [seen.findings for seen in self.look(batch)]

    def look(self, batch: Floats) -> list[Seen]:
        """What is found in each picture, and whether it looks like what the model was made for.

        `batch`: (n, size, size, channels) as `pixels.prepare` makes them; n may be 0. Another shape, or a number that
        is not finite (its scores would read as "absent"), is a ValueError. Raises BadModel where the network says
        something else than a number from 0 to 1 for each label, which no card can tell beforehand.
        """
        batch = self._checked(batch)
        if not len(batch):
            return []
        said = self._run(batch)
        raw = self._labels(said.scores)
        scoped: Sequence[Scoped | None] = [None] * len(batch)
        if self._guard is not None and said.features is not None:
            scoped = self._guard.judge(said.features)
        scores = shares(self.card.calibrations, self.card.labels, raw)
        found = [self._findings(*pair) for pair in zip(raw, scores, strict=True)]
        if self._doubt is not None and said.features is not None:
            found = [_ranged(*each) for each in zip(found, *self._doubt.ranges(said.features), strict=True)]
        return [Seen(*pair) for pair in zip(found, scoped, strict=True)]

    def explain(self, batch: Floats, labels: Sequence[Sequence[str]]) -> list[dict[str, Mark]]:
        """Where the scores of each picture's `labels` come from; a label may have no mark (see `model.explain`).

        Each picture goes through the network once more, whatever the number of its labels; without labels it does not.
        What that takes, TensorFlow among it, is loaded at the first call. An imported model has no marks at all.
        `batch` as for `predict`; raises KeyError for an unknown label.
        """
        batch = self._checked(batch)
        if self.card.architecture != VGG16:
            return [{} for _ in batch]
        if self._explainer is None:
            self._explainer = Explainer(network.load(self.card), self.card)
        return self._explainer.explain(batch, labels)

    def _checked(self, batch: Floats) -> Floats:
        side, channels = self.card.size, self.card.channels
        if batch.ndim != 4 or batch.shape[1:] != (side, side, channels):
            raise ValueError(f"a batch has the shape (n, {side}, {side}, {channels}), not {batch.shape}")
        if not np.isfinite(batch).all():
            raise ValueError("a batch holds finite numbers only")
        return np.ascontiguousarray(batch, np.float32)

    def _labels(self, outputs: Floats) -> NDArray[np.float64]:
        """The labels' columns of what the network says; (n, labels)."""
        columns = list(self.card.columns) or list(range(len(self.card.labels)))
        wide = outputs.shape[1] if outputs.ndim == 2 else 0
        if max(columns) >= wide or not (self.card.columns or wide == len(columns)):
            raise BadModel(
                f"{self.card.weights_path}: has {wide} outputs a picture, the card {len(columns)} labels"
            )
        scores = outputs[:, columns].astype(np.float64)
        if not ((scores >= 0) & (scores <= 1)).all():  # NaN is neither
            raise BadModel(f"{self.card.weights_path}: says something else than numbers from 0 to 1")
        return scores

    def _findings(self, raw: NDArray[np.float64], scores: NDArray[np.float64]) -> list[Finding]:
        found = []
        for label, said, score in zip(self.card.labels, map(float, raw), map(float, scores), strict=True):
            threshold = self.card.thresholds[label]
            found.append(Finding(label, said, score, threshold, present=score >= threshold))
        return found


def _ranged(findings: list[Finding], low: NDArray[np.float64], high: NDArray[np.float64]) -> list[Finding]:
    """With what the other heads say; the score itself lies in its range."""
    return [
        replace(finding, low=min(finding.score, float(least)), high=max(finding.score, float(most)))
        for finding, least, most in zip(findings, low, high, strict=True)
    ]
