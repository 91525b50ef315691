"""A mark drawn over a picture: heat in colour, the outline as a line. What is under it stays readable.

The colours go from violet over red and orange to light yellow in equal steps of lightness (L* 42 to 94 in CIELAB), so
that more heat is lighter on a grey monitor and in print too, and for every kind of colour vision. Darker ones would
make a dark ring around what is hot.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from model.explain import Mark

COLOURS = (
    (157, 46, 182), (212, 25, 159), (249, 34, 130), (255, 87, 101), (255, 127, 91),
    (255, 158, 93), (255, 186, 106), (255, 213, 124), (255, 241, 70),
)  # fmt: skip
STRONGEST = 0.55
"""How much of the picture the hottest place hides."""
FAINTEST = 0.2
"""Heat up to which nothing is painted: the coolest part of every heat map is noise."""

Colours = npt.NDArray[np.uint8]


def marked(picture: Image.Image, mark: Mark) -> Image.Image:
    """`picture` (mode L, any size) with the mark over it, RGB."""
    heat = Image.fromarray(np.asarray(mark.heat, np.float32)).resize(picture.size, Image.Resampling.BICUBIC)
    grey = np.repeat(np.asarray(picture, np.float32)[..., None], 3, axis=2)
    painted = Image.fromarray(_blended(grey, np.asarray(heat).clip(0, 1)))
    width, height = picture.size
    outline(painted, [(x * width, y * height) for x, y in mark.outline], max(2, min(picture.size) // 200))
    return painted


def bar(width: int, height: int) -> Image.Image:
    """The colours of heat 0 (left) to 1 (right), as they look over a middle grey."""
    heat = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    return Image.fromarray(_blended(np.full((height, width, 3), 128, np.float32), heat))


def outline(picture: Image.Image, points: Sequence[tuple[float, float]], thickness: int) -> None:
    """A closed white line with dark edges, seen on black and on white; `points` in pixels."""
    pen = ImageDraw.Draw(picture)
    closed = [(round(x), round(y)) for x, y in [*points, *points[:2]]]
    light, dark = (255, 0) if picture.mode == "L" else ((255, 255, 255), (0, 0, 0))
    pen.line(closed, fill=dark, width=thickness * 2, joint="curve")
    pen.line(closed, fill=light, width=thickness, joint="curve")


def _blended(grey: npt.NDArray[np.float32], heat: npt.NDArray[np.float32]) -> Colours:
    """`grey` H×W×3, `heat` H×W."""
    table = np.array(COLOURS, np.float32)
    at = heat * (len(table) - 1)
    colour = np.stack([np.interp(at, range(len(table)), table[:, c]) for c in range(3)], axis=2)
    share = (STRONGEST * (heat - FAINTEST).clip(0) / (1 - FAINTEST))[..., None]
    blended: Colours = np.rint(grey * (1 - share) + colour * share).astype(np.uint8)
    return blended
