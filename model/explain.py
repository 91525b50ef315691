"""Where in a picture a finding's score comes from: a heat map, and the outline of what is hot.

A place is hot where it speaks for the finding more than the picture's average place does. That is told with the
*slope* of the finding's logit (not of its sigmoid) by each number that the head reads; through hidden layers it is the
gradient:

    heat(place) = sum over pools and channels of slope * (root(activation(place)) - root(the picture's mean activation))

without roots where the head has none; each pool's map is enlarged to the input's resolution, all are added, what is
below 0 (evidence against) is cut off, and the hottest place becomes 1. For a head that reads averages this is Grad-CAM
(Selvaraju et al., 2017) and HiResCAM (Draelos and Carin, 2020), which are one there, over all pools that the head
reads as in LayerCAM (Jiang et al., 2021), less the picture's mean; for a head that reads a pool whole it is
HiResCAM less the mean.

Chosen by measurement (`scripts/explain`; docs/explanation.md has all of it with intervals), with heads that had not
seen the patient: the pointing game against radiologists' boxes on 86 images, and how far the logit falls when the
hottest place is washed out (at a random point: 0.10 and 0.08).

    way                                          hottest place in a box    logit falls by
    Grad-CAM, block 5                            0.02                      0.10
    HiResCAM, block 5                            0.24                      0.28
    HiResCAM, all pools                          0.08                      0.30
    LayerCAM, all pools                          0.00                      0.10
    HiResCAM, all pools, less the mean           0.38                      0.05
    this                                         0.50                      0.23

Without the mean, borders and the regions' constants win: a ReLU is never negative. With the root's slope at the mean,
channels that are silent nearly everywhere drown the others. The same point of every picture, low in the right lung,
reaches 0.59: a mark is no detector.

A map shows why a number is high. It does not show where a disease is, and one of a wrong score looks as good as
one of a right score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model import network
from model.card import Card

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Polygon = tuple[tuple[float, float], ...]

LEVELS = 255
"""Steps of a heat map, so that what is drawn or stored from it is the same in every run on one machine."""
GRID = 1000
"""Steps of an outline's coordinates, for the same reason."""
HOT = 0.5
"""An outline holds the places that are at least this hot, as far as they hang together with the hottest."""
CORNERS = 32
"""Most points of an outline."""
ROOM = 0.025
"""Radius, as a share of the picture, of what an outline holds around the hottest place, so that one can see it."""


@dataclass(frozen=True)
class Mark:
    """Why one finding got its score on one picture. Not where the disease is: where the score comes from."""

    heat: NDArray[np.float32]
    """(side, side), 0 to 1, 1 the hottest place; the whole upright picture, stretched to a square."""
    outline: Polygon
    """A simple polygon around the hottest region, (x, y) as shares of the upright picture's width and height, each 0 to
    1; at least three points, the first not repeated at the end."""


@dataclass(frozen=True)
class Look:
    """What the network sees in one picture."""

    pools: dict[str, Floats]
    """Layer -> (side, side, channels), of the layers that the head reads."""
    features: Floats
    """(features,), as the head reads them."""


class Explainer:
    """Marks of a loaded network's findings. Like the Classifier: one process, one thread."""

    def __init__(self, filled: Any, card: Card) -> None:
        """`filled`: as `network.load(card)` gives it. Its head is copied: what becomes of it later changes nothing."""
        self.card = card
        names = [*(f"hidden{number}" for number in range(1, len(card.hidden) + 1)), network.HEAD]
        dense = [filled.get_layer(name) for name in names]
        self._weights = [tuple(np.asarray(array) for array in layer.get_weights()) for layer in dense]
        self._layers = list(dict.fromkeys(network.layer_of(pool) for pool in card.pools))
        outputs = [filled.get_layer(name).output for name in self._layers]
        self._below = network.keras().Model(filled.inputs, [*outputs, dense[0].input])

    def explain(self, inputs: Floats, labels: Sequence[Sequence[str]]) -> list[dict[str, Mark]]:
        """The marks of each picture's wanted labels; a label without any evidence for it in the picture has none.

        That is so where the label was too rare to be learnt, or a picture is the same all over.
        `inputs`: (n, size, size, 3) as `pixels.prepare` makes them. Each picture goes through the network alone, so
        that its marks depend on no other. Raises KeyError for a label that the card does not have.
        """
        return [self._marks(picture, wanted) for picture, wanted in zip(inputs, labels, strict=True)]

    def _marks(self, picture: Floats, wanted: Sequence[str]) -> dict[str, Mark]:
        columns = {label: self._column(label) for label in wanted}
        if not columns:
            return {}
        look = self.look(picture)
        marks = {label: mark(self.map(look, column)) for label, column in columns.items()}
        return {label: made for label, made in marks.items() if made}

    def look(self, picture: Floats) -> Look:
        """`picture`: (size, size, 3)."""
        *pools, features = (np.asarray(said)[0] for said in self._below.predict_on_batch(picture[None]))
        return Look(dict(zip(self._layers, pools, strict=True)), features)

    def map(self, look: Look, column: int) -> Doubles:
        """(size, size): how much more each place speaks for the label than the picture's average place does."""
        slopes = self.slopes(look.features, column)
        total = np.zeros((self.card.size, self.card.size))
        for pool, part in zip(self.card.pools, self._parts(look, slopes), strict=True):
            at = look.pools[network.layer_of(pool)].astype(np.float64)
            here, mean = (self._read(values) for values in (at, at.mean(axis=(0, 1))))
            total += enlarged(((here - mean) * spread(part, pool, at.shape)).sum(axis=-1), self.card.size)
        return total

    def slopes(self, features: Floats, column: int) -> Doubles:
        """(features,): the slope of the label's logit by each number that the head reads."""
        *hidden, (head, _) = self._weights
        values, open_units = features, []
        for kernel, bias in hidden:
            values = np.maximum(values @ kernel + bias, 0)
            open_units.append(values > 0)
        slopes = head[:, column]
        for (kernel, _), units in zip(reversed(hidden), reversed(open_units), strict=True):
            slopes = kernel @ (slopes * units)
        return slopes.astype(np.float64)

    def _column(self, label: str) -> int:
        if label not in self.card.labels:
            raise KeyError(label)
        return self.card.labels.index(label)

    def _parts(self, look: Look, slopes: Doubles) -> list[Doubles]:
        """The slopes pool by pool."""
        if self.card.head == "flatten":
            return [slopes.reshape(look.pools[self._layers[0]].shape)]
        ends = np.cumsum([network.width_of(pool) for pool in self.card.pools])
        return np.split(slopes, ends[:-1])

    def _read(self, values: Doubles) -> Doubles:
        """Activations as the head reads their averages."""
        return np.sqrt(values + network.LEAST) if self.card.head == "roots" else values


def spread(part: Doubles, pool: str, shape: tuple[int, ...]) -> Doubles:
    """A pool's slopes over its places, (side, side, channels), so that the mean over the picture is the pool's share.

    `part`: a slope a channel, or a region and channel; or a place and channel, where the head reads the pool whole.
    """
    side, _, channels = shape
    if part.ndim == 3:
        return part * side**2
    count = network.regions_of(pool)
    step = side // count
    width = side - (count - 1) * step  # regions overlap where the side is no multiple, as the network's do
    over = np.zeros(shape)
    for number, slopes in enumerate(part.reshape(count**2, channels)):
        y, x = (step * place for place in divmod(number, count))
        over[y : y + width, x : x + width] += slopes * (side / width) ** 2
    return over


def enlarged(plane: Doubles, side: int) -> Doubles:
    """To side x side, linearly between the places' middles. Pillow's, in float32."""
    image = Image.fromarray(plane.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float64)


def mark(plane: Doubles) -> Mark | None:
    """The mark of a map, (side, side); None where nothing in it is above 0."""
    peak = plane.max()
    if not peak > 0:
        return None
    steps = np.rint(np.clip(plane / peak, 0, 1) * LEVELS)
    heat = (steps / LEVELS).astype(np.float32)
    return Mark(heat, outline(heat))


def outline(heat: Floats) -> Polygon:
    """The convex polygon of at most CORNERS points around the region that is HOT and holds the first hottest place.

    Convex, so that it is simple and one can look past it; with ROOM around the hottest place, so that a region of one
    pixel can be seen. Made of whole steps of 1 / GRID, in which its corners are exact.
    """
    side = len(heat)
    peak = np.unravel_index(int(heat.argmax()), heat.shape)
    rows, columns = np.nonzero(connected(heat >= HOT, peak))
    corners = [np.stack([columns + right, rows + down], axis=1) / side for right in (0, 1) for down in (0, 1)]
    turn = 2 * np.pi * np.arange(CORNERS) / CORNERS
    directions = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    middle = (np.array(peak[::-1]) + 0.5) / side
    points = np.concatenate([*corners, middle + ROOM * directions])
    steps = np.unique(np.rint(np.clip(points, 0, 1) * GRID), axis=0)
    furthest = dict.fromkeys((steps @ directions.T).argmax(axis=0).tolist())
    return tuple((float(x) / GRID, float(y) / GRID) for x, y in steps[list(furthest)])


def connected(hot: NDArray[np.bool_], start: tuple[Any, ...]) -> NDArray[np.bool_]:
    """The places of `hot` that hang together with `start` by their sides."""
    grown = np.zeros_like(hot)
    grown[start] = True
    while True:
        wider = grown.copy()
        wider[1:] |= grown[:-1]
        wider[:-1] |= grown[1:]
        wider[:, 1:] |= grown[:, :-1]
        wider[:, :-1] |= grown[:, 1:]
        wider &= hot
        if np.array_equal(wider, grown):
            return grown
        grown = wider
