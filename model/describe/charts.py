"""Curves as pictures: a small chart for each finding, and lines over epochs or numbers of images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from model.describe.drawing import (
    ACCENT,
    GREY,
    INK,
    PALE,
    Dot,
    Drawable,
    Letters,
    Line,
    Picture,
    Point,
    shortened,
)

WIDTH = 500.0
ACROSS, DOWN = 5, 4
"""Small charts beside and below each other in one picture: what a page holds."""
COLORS = (ACCENT, "#b4491f", "#3d7a3d", "#7a4f9c", INK, GREY)


@dataclass(frozen=True)
class Small:
    """A curve in the unit square. `at`: the point of the threshold; `level`: a dotted line across, or None for the
    diagonal."""

    title: str
    under: str
    points: Sequence[Point]
    at: Point | None = None
    level: float | None = None


@dataclass(frozen=True)
class Series:
    name: str
    points: Sequence[Point]


def small(charts: Sequence[Small], x_name: str, y_name: str) -> list[Picture]:
    """Small charts, ACROSS x DOWN of them a picture."""
    each = ACROSS * DOWN
    return [_page(charts[first : first + each], x_name, y_name) for first in range(0, len(charts), each)]


def _page(charts: Sequence[Small], x_name: str, y_name: str) -> Picture:
    room = WIDTH / ACROSS
    side, high = room - 24, room + 12
    shapes: list[Drawable] = []
    for number, chart in enumerate(charts):
        row, column = divmod(number, ACROSS)
        shapes += _small(chart, column * room + 16, row * high + 24, side)
    rows = -(-len(charts) // ACROSS)
    shapes.append(
        Letters(16, rows * high + 9, f"across: {x_name}; up: {y_name}; both from 0 to 1", 6.5, color=GREY)
    )
    says = "; ".join(f"{chart.title}: {chart.under}" for chart in charts)
    return Picture(WIDTH, rows * high + 14, shapes, f"{y_name} against {x_name}. {says}")


def _small(chart: Small, left: float, top: float, side: float) -> list[Drawable]:
    def place(point: Point) -> Point:
        return left + point[0] * side, top + (1 - point[1]) * side

    found: list[Drawable] = [
        Letters(left, top - 11, shortened(chart.title, side, 7, is_bold=True), 7, is_bold=True),
        Letters(left, top - 3, shortened(chart.under, side + 6, 6), 6, color="#444444"),
    ]
    for share in (0.0, 0.5, 1.0):
        (x, bottom), (_, y) = place((share, 0)), place((0, share))
        found += [
            Line([(x, top), (x, bottom)], PALE, 0.4),
            Line([(left, y), (left + side, y)], PALE, 0.4),
            Letters(x, bottom + 7, f"{share:g}", 5.5, "middle", color=GREY),
            Letters(left - 3, y + 2, f"{share:g}", 5.5, "end", color=GREY),
        ]
    if chart.level is None:
        found.append(Line([place((0, 0)), place((1, 1))], GREY, 0.6, is_dashed=True))
    else:
        found.append(Line([place((0, chart.level)), place((1, chart.level))], GREY, 0.6, is_dashed=True))
    found.append(Line([place(point) for point in chart.points], ACCENT, 1.0))
    if chart.at is not None:
        x, y = place(chart.at)
        found.append(Dot(x, y, 2.2, COLORS[1]))
    return found


def lines(series: Sequence[Series], x_name: str, y_name: str, *, is_log: bool = False) -> Picture:
    """Curves in one frame, with what each is beside it. `is_log`: twice as much is one step to the right."""
    kept = [Series(each.name, [p for p in each.points if all(map(math.isfinite, p))]) for each in series]
    kept = [each for each in kept if each.points]
    xs = [x for each in kept for x, _ in each.points]
    ys = [y for each in kept for _, y in each.points]
    left, top, wide, high = 40.0, 8.0, 310.0, 170.0
    ends = _ticks(min(ys), max(ys))
    low, top_value = ends[0], ends[-1]
    first, last = min(xs), max(xs)

    def across(x: float) -> float:
        if first == last:
            return left + wide / 2
        if is_log:
            return left + wide * (math.log(x) - math.log(first)) / (math.log(last) - math.log(first))
        return left + wide * (x - first) / (last - first)

    def up(y: float) -> float:
        return top + high * (1 - (y - low) / (top_value - low))

    shapes: list[Drawable] = []
    for tick in ends:
        shapes += [
            Line([(left, up(tick)), (left + wide, up(tick))], PALE, 0.4),
            Letters(left - 4, up(tick) + 2.4, f"{tick:.4g}", 6.5, "end", color="#444444"),
        ]
    for x in sorted(set(xs)) if len(set(xs)) <= 8 else [t for t in _ticks(first, last) if first <= t <= last]:
        shapes += [
            Line([(across(x), top + high), (across(x), top + high + 3)], GREY, 0.5),
            Letters(across(x), top + high + 11, f"{x:.6g}", 6.5, "middle", color="#444444"),
        ]
    shapes.append(Letters(left + wide / 2, top + high + 22, x_name, 7, "middle"))
    shapes.append(Letters(left + wide + 14, top + 6, y_name, 7, is_bold=True))
    for number, each in enumerate(kept):
        color = COLORS[number % len(COLORS)]
        points = [(across(x), up(y)) for x, y in each.points]
        shapes.append(Line(points, color, 1.2, is_dashed=number >= len(COLORS)))
        shapes += [Dot(x, y, 1.8, color) for x, y in points if len(points) <= 40]
        y = top + 20 + 11 * number
        shapes += [
            Line(
                [(left + wide + 14, y - 2.4), (left + wide + 28, y - 2.4)], color, 1.4, number >= len(COLORS)
            ),
            Letters(left + wide + 32, y, shortened(each.name, WIDTH - left - wide - 34, 7), 7),
        ]
    says = "; ".join(f"{each.name}: {each.points[0][1]:.3g} to {each.points[-1][1]:.3g}" for each in kept)
    return Picture(
        WIDTH, max(top + high + 28, top + 24 + 11 * len(kept)), shapes, f"{y_name} by {x_name}. {says}"
    )


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers around low and high, four to seven of them."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step = next(step * by for by in (1, 2, 5, 10) if (high - low) / (step * by) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 10) for n in range(first, last + 1)]
