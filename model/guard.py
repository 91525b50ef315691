"""Does a picture look like what the model was made for? A learned score beside the header rules of `model.scope`.

Asked of the features that the model's head reads: no pass through the network more, under a millisecond an image.
Two kinds of questions (`model.train.guard` fits both):

- Does it look like one of the wrong kinds that the guard was shown, or like a child? A regression a kind.
- Is it unlike all right pictures, in whatever way? How far it is from their mean, in the directions in which they
  differ most and by the measure of how much they differ there (Mahalanobis 1936). It stops what nobody thought of.

Each has a limit of its own, which the file holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model.calibrate import sigmoid
from model.card import Card
from model.errors import BadModel
from model.npz import read_arrays

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

FILE = "scope.npz"
CHILD, UNLIKE = "child", "unlike"
REASONS = {
    "rotated": "The picture looks rotated: stored, not analyzed",
    "inverted": "The picture looks inverted, air white and bone black: stored, not analyzed",
    "cropped": "The picture looks like a part of a chest only: stored, not analyzed",
    CHILD: "The patient looks like a child: stored, not analyzed",
    UNLIKE: "The picture looks unlike a frontal chest radiograph: stored, not analyzed",
}
"""Kind -> what a radiographer is told, in the order of a file's limits."""
SHOWN = tuple(kind for kind in REASONS if kind != UNLIKE)
"""Those with a regression; the child's is of the age."""
LEAST = 1e-12
"""Added to a distance before its logarithm."""
FAR = 1.5
"""Steps above the limit of `unlike` from which on a picture is no chest at all: 268 of 272 photographs, drawings and
screens are as far, and 32 of 850 turned or inverted chests."""
CLEAR = 30.0
"""Steps from a limit beyond which the strangeness does not change."""


@dataclass(frozen=True)
class Scoped:
    """What the guard says of one picture."""

    strangeness: float
    """0 to 1; `is_strange` from 0.5 on."""
    is_strange: bool
    kind: str = ""
    """What it looks like instead (one of REASONS); empty where it is not strange."""
    reason: str = ""
    """Why there is no result, in a sentence for a radiographer; empty where it is not strange."""
    grown: "Scoped | None" = None
    """Where the kind is `child`: what would be said, were it known that the patient is none."""


@dataclass(frozen=True)
class Fitted:
    """What a scope file holds; f features, d directions, k kinds shown."""

    center: Floats
    """(f,): the right pictures' mean."""
    scale: Floats
    """(f,): by what a feature less its mean is multiplied; 0 or more."""
    basis: Floats
    """(f, d): directions in which the scaled features of right pictures differ most, each with a spread of 1."""
    kernel: Floats
    """(f, k): of the regressions, on scaled features, in the order of SHOWN."""
    bias: Floats
    """(k,)"""
    limits: Floats
    """(k + 1,): from which on a picture is strange, in the order of REASONS."""
    steps: Floats
    """(k + 1,), over 0: how far above its limit a score is clearly strange (strangeness 0.73)."""

    def scores(self, features: Floats) -> Doubles:
        """(n, f) -> (n, k + 1): what the regressions say, then the distance's logarithm."""
        scaled = (features - self.center) * self.scale
        inside = scaled @ self.basis
        far = np.log(np.einsum("nd,nd->n", inside, inside) + LEAST)
        return np.column_stack([scaled @ self.kernel + self.bias, far]).astype(np.float64)

    def excess(self, features: Floats) -> Doubles:
        """(n, k + 1): by how many steps each score is above its limit."""
        return (self.scores(features) - self.limits) / self.steps


class Guard:
    """A model folder's scope file, loaded."""

    def __init__(self, path: Path, fitted: Fitted) -> None:
        self._path, self._fitted = path, fitted

    @classmethod
    def load(cls, card: Card) -> Self:
        """Reads the file that `card.scope` names (its hash is `card.verify`'s affair). Raises BadModel."""
        path = card.folder / card.scope
        try:
            return cls(path, read(path))
        except BadModel as error:
            raise BadModel(f"{path}: {error}") from error

    def judge(self, features: Floats) -> list[Scoped]:
        """`features`: (n, features), as the network's head reads them. One that is no number is strange.

        Raises BadModel where they are not as many as the guard was fitted to.
        """
        wanted = len(self._fitted.center)
        if features.shape[1] != wanted:
            raise BadModel(f"{self._path}: is for {wanted} features, the network has {features.shape[1]}")
        return [_scoped(row) for row in self._fitted.excess(features)]


def read(path: Path) -> Fitted:
    """A scope file. Raises BadModel, which does not name the file."""
    arrays = read_arrays(path)
    names = set(Fitted.__dataclass_fields__)
    if arrays.keys() != names:
        raise BadModel(f"must hold {', '.join(sorted(names))}, and nothing else")
    fitted = Fitted(**arrays)
    f, k = fitted.center.size, len(SHOWN)
    directions = fitted.basis.shape[-1] if fitted.basis.ndim == 2 else 0
    shapes = {
        "center": (f,),
        "scale": (f,),
        "basis": (f, directions),
        "kernel": (f, k),
        "bias": (k,),
        "limits": (k + 1,),
        "steps": (k + 1,),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not arrays[name].size:
            raise BadModel(f"{name} has shape {arrays[name].shape}, the guard's kinds need {shape}")
    if (fitted.scale < 0).any() or (fitted.steps <= 0).any():
        raise BadModel("scale must be 0 or more, and steps over 0")
    return fitted


def _scoped(excess: Doubles) -> Scoped:
    """One picture's: strange where any score reaches its limit."""
    if not np.isfinite(excess).all():
        return Scoped(1.0, True, UNLIKE, REASONS[UNLIKE])
    strangeness = float(sigmoid(np.clip(excess, -CLEAR, CLEAR)).max())
    if excess.max() < 0:
        return Scoped(strangeness, False)
    kind = _kind(dict(zip(REASONS, excess.tolist(), strict=True)))
    grown = _scoped(np.where(np.array(list(REASONS)) == CHILD, -CLEAR, excess)) if kind == CHILD else None
    return Scoped(strangeness, True, kind, REASONS[kind], grown)


def _kind(excess: Mapping[str, float]) -> str:
    """The name of what is strange. What is far from every chest has none of the kinds that are made of chests; and
    where a picture was turned or cut, its age can't be read from it."""
    made = max((kind for kind in SHOWN if kind != CHILD), key=lambda kind: excess[kind])
    if excess[UNLIKE] >= FAR:
        return UNLIKE
    if excess[made] >= 0:
        return made
    return UNLIKE if excess[UNLIKE] >= 0 else CHILD
