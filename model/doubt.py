"""How far would a score have moved, had other patients trained the model?

Beside the head there are some more, each fitted without a part of the training patients, on the same features: a
multiplication more an image, and no pass through the network (a cross-validated committee: Krogh and Vedelsby, 1995).
Where their scores lie on both sides of a threshold, the training does not settle on which side a finding is. The range
is that of these heads, and says nothing of what none of them learnt: another hospital, wrong labels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model.calibrate import shares, sigmoid
from model.card import Card
from model.errors import BadModel
from model.npz import read_arrays, write_arrays

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
FILE = "doubt.npz"


class Doubt:
    """A model folder's other heads."""

    def __init__(self, card: Card, kernels: Floats, biases: Floats) -> None:
        """kernels (heads, features, labels), biases (heads, labels), labels in the card's order."""
        self._card, self._kernels, self._biases = card, kernels, biases

    @classmethod
    def load(cls, card: Card) -> Self:
        """Reads the file that `card.doubt` names (its hash is `card.verify`'s affair). Raises BadModel."""
        path = card.folder / card.doubt
        try:
            arrays = read_arrays(path)
        except BadModel as error:
            raise BadModel(f"{path}: {error}") from error
        if arrays.keys() != {"kernels", "biases"}:
            raise BadModel(f"{path}: must hold kernels and biases, and nothing else")
        kernels, biases = arrays["kernels"], arrays["biases"]
        heads = len(kernels)
        if kernels.ndim != 3 or not heads or biases.shape != (heads, len(card.labels)):
            raise BadModel(f"{path}: its arrays do not fit {len(card.labels)} labels")
        return cls(card, kernels, biases)

    def ranges(self, features: Floats) -> tuple[Doubles, Doubles]:
        """The least and the largest calibrated score of these heads, (n, labels) each; `features` (n, features).

        Raises BadModel where the features are not as many as the heads were fitted to.
        """
        if features.shape[1] != self._kernels.shape[1]:
            raise BadModel(
                f"{self._card.folder / self._card.doubt}: is for {self._kernels.shape[1]} features, the network has "
                f"{features.shape[1]}"
            )
        said = np.einsum("nf,kfl->knl", features, self._kernels, optimize=True) + self._biases[:, None]
        raw = sigmoid(said.astype(np.float64))
        scores = np.stack([shares(self._card.calibrations, self._card.labels, head) for head in raw])
        return scores.min(axis=0), scores.max(axis=0)


def write(path: Path, heads: Sequence[tuple[Floats, Floats]]) -> None:
    """`heads`: kernel (features, labels) and bias (labels,) each. The same heads give the same bytes."""
    kernels, biases = (np.stack(each) for each in zip(*heads, strict=True))
    write_arrays(path, {"kernels": kernels.astype(np.float16), "biases": biases.astype(np.float32)})
