"""Where a mark lies in the stored picture: for all that is drawn on the original image. Only in `marks`."""

from collections.abc import Iterable, Mapping

from model import pixels
from model.errors import Undecodable
from model.explain import Mark
from node.report.reading import InvalidResult, Reading, Report

Point = tuple[float, float]

FINENESS = 2
"""Decimals of a pixel that are written."""


def marks(report: Report, image: int) -> Mapping[str, Mark]:
    """Label -> mark of one image; none where the intended use is to triage, whatever the reading holds."""
    return report.readings[image].marks if report.intended_use == "marks" else {}


def stored(reading: Reading, points: Iterable[Point]) -> list[Point]:
    """Shares of the upright picture -> (column, row) in the stored pixels, 0, 0 to Columns, Rows.

    Raises InvalidResult.
    """
    inside = [(min(max(float(x), 0.0), 1.0), min(max(float(y), 0.0), 1.0)) for x, y in points]
    try:
        found = pixels.stored_points(reading.source, inside)
    except Undecodable as error:
        raise InvalidResult(f"a region can't be placed: {error}") from error
    return [(round(column, FINENESS), round(row, FINENESS)) for column, row in found]


def outline(reading: Reading, mark: Mark) -> list[Point]:
    """The mark's outline in the stored pixels, closed: the first point again at the end. Raises InvalidResult."""
    points = stored(reading, mark.outline)
    if len(points) < 3:
        raise InvalidResult("a region has less than three points")
    return [*points, points[0]]
