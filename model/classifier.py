"""A model folder, loaded: batches of pictures in, findings out; and, where wanted, why.

The network runs as one graph with a free batch dimension, so that a lone image costs a lone image and no batch size
is traced twice. A picture's scores don't depend on its neighbours beyond float rounding (measured: 1e-6).

One process owns one Classifier and calls it from one thread. TensorFlow is imported in `load`; how many threads it
takes is TensorFlow's own affair (TF_NUM_INTRAOP_THREADS, TF_NUM_INTEROP_THREADS; all cores by default). In a process
that has trained with another backend, Keras's own call does what the graph does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from model import card, network
from model.card import Card
from model.explain import Explainer, Mark


@dataclass(frozen=True)
class Finding:
    """What the model says about one label on one picture."""

    label: str
    raw: float
    """The sigmoid's output, 0 to 1."""
    score: float
    """Calibrated; a card without a calibration leaves the raw score as it is."""
    threshold: float
    """The card's."""
    present: bool
    """The score is not below the threshold."""


class Classifier:
    """A verified model folder's network in memory."""

    def __init__(self, card: Card, filled: Any) -> None:
        """`filled`: the card's network, as `network.load` gives it."""
        self.card = card
        self._filled = filled
        self._scores = _compiled(filled, card.size)
        self._explainer: Explainer | None = None

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads the card, verifies the weights' hash, builds and fills the network, runs it once.

        Takes some seconds, most of them TensorFlow's import. Raises BadModel.
        """
        loaded = card.load(folder)
        card.verify(loaded)
        classifier = cls(loaded, network.load(loaded))
        classifier.predict(np.zeros((1, loaded.size, loaded.size, 3), np.float32))
        return classifier

    def predict(self, batch: NDArray[np.float32]) -> list[list[Finding]]:
        """Findings of each picture, in the card's order of labels.

        `batch`: (n, size, size, 3) as `pixels.prepare` makes them; n may be 0. Another shape, or a number that is
        not finite (its scores would read as "absent"), is a ValueError.
        """
        batch = self._checked(batch)
        return [self._findings(row) for row in self._scores(batch)] if len(batch) else []

    def explain(self, batch: NDArray[np.float32], labels: Sequence[Sequence[str]]) -> list[dict[str, Mark]]:
        """Where the scores of each picture's `labels` come from; a label may have no mark (see `model.explain`).

        Each picture goes through the network once more, whatever the number of its labels; without labels it does not.
        What that takes is built at the first call. `batch` as for `predict`; raises KeyError for an unknown label.
        """
        batch = self._checked(batch)
        if self._explainer is None:
            self._explainer = Explainer(self._filled, self.card)
        return self._explainer.explain(batch, labels)

    def _checked(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        side = self.card.size
        if batch.ndim != 4 or batch.shape[1:] != (side, side, 3):
            raise ValueError(f"a batch has the shape (n, {side}, {side}, 3), not {batch.shape}")
        if not np.isfinite(batch).all():
            raise ValueError("a batch holds finite numbers only")
        return np.ascontiguousarray(batch, np.float32)

    def _findings(self, scores: NDArray[np.float32]) -> list[Finding]:
        found = []
        for label, raw in zip(self.card.labels, map(float, scores), strict=True):
            threshold = self.card.thresholds[label]
            found.append(Finding(label, raw, raw, threshold, present=raw >= threshold))
        return found


def _compiled(filled: Any, size: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A batch's scores, (n, size, size, 3) -> (n, labels)."""
    if network.keras().backend.backend() != "tensorflow":
        return lambda batch: np.asarray(filled.predict_on_batch(batch))
    import tensorflow

    shape = tensorflow.TensorSpec((None, size, size, 3), tensorflow.float32)
    graph = tensorflow.function(
        lambda batch: filled(batch, training=False), input_signature=[shape], autograph=False
    )
    return lambda batch: graph(batch).numpy()
