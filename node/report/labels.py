"""Where words stand beside what they name: boxes in a picture that don't hide each other.

All places are shares of the upright picture's width and height, 0 to 1.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from node.report.regions import Point

LINES = 40
"""A line of text is this part of the picture's longer side high; lower where there are many of them."""
ROUNDING = 1e-9
"""Boxes that touch don't overlap."""
LETTER = 0.6
"""A letter's width over its height, on the safe side."""


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "Box") -> bool:
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return min(across, down) > ROUNDING

    @property
    def middle(self) -> Point:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


def line_height(shape: tuple[int, int], lines: int) -> float:
    """Of one line, as a share of the picture's height; so low that `lines` lines stand below each other.

    `shape`: the picture's height and width.
    """
    height, width = shape
    return min(max(height, width) / LINES, height / (lines + 1)) / height


def place(
    texts: Sequence[str],
    outlines: Sequence[Sequence[Point]],
    shape: tuple[int, int],
    line: float,
    floor: float,
) -> list[Box]:
    """A box for each text, near its outline, inside the picture and above `floor`; none overlaps another.

    Where no place near an outline is free for one of them, all stand in a column at the left.
    """
    placed: list[Box] = []
    for text, outline in zip(texts, outlines, strict=True):
        wide = _width(text, shape, line)
        free = (box for box in _near(outline, wide, line, floor) if not any(box.overlaps(p) for p in placed))
        box = next(free, None)
        if box is None:
            return [_box(0, n * line, _width(t, shape, line), line, floor) for n, t in enumerate(texts)]
        placed.append(box)
    return placed


def nearest(box: Box, outline: Sequence[Point]) -> Point:
    """The corner of the outline that the box is nearest to: where a line from the words to it ends."""
    x, y = box.middle
    return min(outline, key=lambda point: (point[0] - x) ** 2 + (point[1] - y) ** 2)


def _width(text: str, shape: tuple[int, int], line: float) -> float:
    height, width = shape
    return min(1.0, line * height * LETTER * len(text) / width)


def _box(left: float, top: float, wide: float, line: float, floor: float) -> Box:
    """Moved into the picture."""
    left, top = min(max(left, 0.0), 1.0 - wide), min(max(top, 0.0), floor - line)
    return Box(left, top, left + wide, top + line)


def _near(outline: Sequence[Point], wide: float, line: float, floor: float) -> Iterator[Box]:
    """Above and below the outline, from its left edge or to its right; beside it; then line by line away from it."""
    left, right = min(x for x, _ in outline), max(x for x, _ in outline)
    top, bottom = min(y for _, y in outline), max(y for _, y in outline)
    middle = (top + bottom - line) / 2
    close = [(x, y) for x in (left, right - wide) for y in (top - line, bottom)]
    corners = [*close, (right, middle), (left - wide, middle)]
    for step in range(1, LINES):
        corners += [(left, top - line * (step + 1)), (left, bottom + line * step)]
    for x, y in corners:
        if 0 <= y <= floor - line or (x, y) in close:
            yield _box(x, y, wide, line, floor)
