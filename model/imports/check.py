"""The self-check of an imported model: does what was written say what the source says, and does it look like scores?

It is no judgement. No figure of merit is in it: that takes labelled images, and `hilum model evaluate`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model import phantom, pixels
from model.card import Card
from model.classifier import Classifier
from model.errors import BadData, BadModel, ModelError
from model.files import is_picture, open_dataset, wrap
from model.pixels import Image, prepare
from model.predict import find
from model.runtime import Floats

SIDE = 256
"""Of the pictures that are no chests."""
CHESTS = 4
MOST_IMAGES = 32
SAME = 1e-5
"""By which what was written may differ from the source."""
NEIGHBOURS = 1e-4
"""By which a score may differ with the pictures that it is scored with; float rounding is some 1e-6."""
FLAT = 1e-3
"""Scores of different pictures that differ by less do not depend on the picture."""
SURE = 1e-3
"""Scores nearer to 0 or 1 than this, all of them, are saturated."""


@dataclass(frozen=True)
class Checked:
    """What was measured."""

    pictures: int
    """Blank, bright, noise, drawn chests and those of the person, together."""
    own: int
    """How many are the person's."""
    least: float
    largest: float
    """Scores of the chests, or of the person's images where there are any."""
    source_differs: float
    """Largest difference between the file that was written and the source."""
    neighbours_differ: float
    """Largest difference between a picture scored alone and with seven others."""
    warnings: tuple[str, ...]

    def tree(self) -> dict[str, object]:
        """For the card."""
        return {
            "why": "Run when the model was imported: does the written file say what the source says, in 0 to 1, "
            "whatever stands beside a picture? No figure of merit.",
            "pictures": self.pictures,
            "own_images": self.own,
            "least_score": _short(self.least),
            "largest_score": _short(self.largest),
            "written_differs_by": _short(self.source_differs),
            "neighbours_differ_by": _short(self.neighbours_differ),
            "warnings": list(self.warnings),
        }

    def lines(self) -> list[str]:
        shown = f"{self.own} of your images" if self.own else f"{CHESTS} drawn chests"
        return [
            f"self-check: {self.pictures} pictures, all scores from 0 to 1; {shown} {self.least:.3g} to "
            f"{self.largest:.3g}; written file and source differ by {self.source_differs:.1g}, neighbours by "
            f"{self.neighbours_differ:.1g}",
            *(f"warning: {line}" for line in self.warnings),
        ]


def check(card: Card, says: Callable[[Floats], Floats], images: Path | None) -> Checked:
    """`card`: of the written folder; `says`: the source, from a batch to (n, outputs).

    Raises BadModel where the model fails, BadData where none of `images` can be read.
    """
    own = _own(images) if images else []
    chests = [Image(phantom.picture(seed, patch=seed % 2 == 1)) for seed in range(CHESTS)]
    batch = np.stack([prepare(image, card) for image in [*_plain(), *chests, *own]])
    right = _scores(card, np.asarray(says(batch)))
    classifier = Classifier.load(card.folder)
    written = _raw(classifier, batch)
    differs = float(np.abs(written - right).max())
    if differs > SAME:
        raise BadModel(
            f"what was written differs from the source by {differs:.2g}, more than {SAME:g}: not imported"
        )
    together, alone = _raw(classifier, batch[:8]), [_raw(classifier, batch[n : n + 1]) for n in range(8)]
    apart = float(np.abs(together - np.concatenate(alone)).max())
    if apart > NEIGHBOURS:
        raise BadModel(
            f"scores of a picture change by {apart:.2g} with its neighbours in the batch: export the model for "
            "prediction, not training"
        )
    seen = written[-len(own) :] if own else written[len(_plain()) :]
    return Checked(
        pictures=len(batch),
        own=len(own),
        least=float(seen.min()),
        largest=float(seen.max()),
        source_differs=differs,
        neighbours_differ=apart,
        warnings=tuple(_warnings(seen, card)),
    )


def _plain() -> list[Image]:
    """Black, white, and noise of two grains."""
    random = np.random.default_rng(0)
    coarse = random.random((SIDE // 16, SIDE // 16)).repeat(16, 0).repeat(16, 1)
    planes = [np.zeros((SIDE, SIDE)), np.ones((SIDE, SIDE)), random.random((SIDE, SIDE)), coarse]
    return [Image(plane.astype(np.float32)) for plane in planes]


def _own(images: Path) -> list[Image]:
    """Up to MOST_IMAGES pictures, evenly spaced; what can't be read is passed over."""
    sources, _ = find([images])
    step = max(1, len(sources) // MOST_IMAGES)
    read = []
    for source in sources[::step][:MOST_IMAGES]:
        try:
            dataset = wrap(source.path) if is_picture(source.path) else open_dataset(source.path)
            read.append(pixels.read(dataset))
        except (ModelError, OSError):
            continue
    if not read:
        raise BadData(f"--images {images}: none of the files there is an image that can be read")
    return read


def _scores(card: Card, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """The labels' columns; raises BadModel where they are no probabilities."""
    columns = list(card.columns) or list(range(len(card.labels)))
    scores = outputs[:, columns].astype(np.float64)
    if not np.isfinite(scores).all():
        raise BadModel("says something that is no number: its weights are damaged")
    if scores.min() < 0 or scores.max() > 1:
        raise BadModel(
            f"says {scores.min():.3g} to {scores.max():.3g}, which are no probabilities: where these are logits, "
            "--logits puts a sigmoid behind them"
        )
    return scores


def _raw(classifier: Classifier, batch: Floats) -> NDArray[np.float64]:
    return np.array([[finding.raw for finding in findings] for findings in classifier.predict(batch)])


def _warnings(seen: NDArray[np.float64], card: Card) -> Sequence[str]:
    found = []
    for n, label in enumerate(card.labels):
        scores = seen[:, n]
        if np.ptp(scores) < FLAT:
            found.append(
                f"{label}: nearly the same score for every picture ({scores.min():.4g} to {scores.max():.4g}): wrong "
                "weights, or another --preprocess"
            )
        elif (np.minimum(scores, 1 - scores) < SURE).all():
            found.append(
                f"{label}: every score is next to 0 or 1: the network may have been trained with another --preprocess"
            )
    return found


def _short(number: float) -> float:
    return float(f"{number:.3g}")
