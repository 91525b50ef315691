"""Pictures as shapes, in points of 1/72 inch from the top left corner: SVG and PDF draw the same ones.

Words are measured in Bitstream Vera, which is wide: in a browser's own type they take less room, hardly ever more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

from model import typeset

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]

INK, GREY, PALE, FILL, ACCENT, BAND = "#1a1a1a", "#6b7680", "#c9d1d8", "#f1f5f8", "#1f5f8b", "#c9dcea"


@dataclass(frozen=True)
class Line:
    """Straight from point to point."""

    points: Sequence[Point]
    color: str = INK
    width: float = 0.8
    is_dashed: bool = False


@dataclass(frozen=True)
class Shape:
    """A closed polygon, filled."""

    points: Sequence[Point]
    fill: str = INK


@dataclass(frozen=True)
class Box:
    x: float
    y: float
    width: float
    height: float
    fill: str = "#ffffff"
    color: str = INK
    is_dashed: bool = False


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    radius: float = 2.2
    color: str = ACCENT


@dataclass(frozen=True)
class Letters:
    """One line of words; `y` is its baseline."""

    x: float
    y: float
    text: str
    size: float = 7.0
    anchor: Anchor = "start"
    is_bold: bool = False
    color: str = INK


Drawable: TypeAlias = Line | Shape | Box | Dot | Letters


@dataclass(frozen=True)
class Picture:
    """`says`: what is to be seen, for those who don't see it."""

    width: float
    height: float
    shapes: Sequence[Drawable]
    says: str


def arrow(start: Point, end: Point, color: str = INK) -> list[Drawable]:
    """Straight down, or straight to the right."""
    (x, y), size = end, 3.2
    if start[0] == x:
        head = [(x - size, y - 1.8 * size), (x + size, y - 1.8 * size), end]
        return [Line([start, (x, y - size)], color), Shape(head, color)]
    head = [(x - 1.8 * size, y - size), (x - 1.8 * size, y + size), end]
    return [Line([start, (x - size, y)], color), Shape(head, color)]


def wrapped(text: str, width: float, size: float, *, is_bold: bool = False) -> list[str]:
    """Lines that are no wider than `width`, but for a single word that is."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, size, is_bold=is_bold) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def shortened(text: str, width: float, size: float, *, is_bold: bool = False) -> str:
    """The text, or as much of it as fits, with an ellipsis."""
    if width_of(text, size, is_bold=is_bold) <= width:
        return text
    while text and width_of(f"{text}…", size, is_bold=is_bold) > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def width_of(text: str, size: float, *, is_bold: bool = False) -> float:
    """In points. A letter that Vera lacks counts as an M."""
    widths, other = _widths(typeset.BOLD if is_bold else typeset.TEXT)
    return sum(widths.get(ord(letter), other) for letter in text) * size / 1000


@cache
def _widths(font: str) -> tuple[dict[int, float], float]:
    from reportlab.pdfbase import pdfmetrics

    typeset.load()
    face = pdfmetrics.getFont(font).face
    return dict(face.charWidths), float(face.charWidths[ord("M")])
