"""How the source's stored values become grey, said again for a presentation state (PS3.4 N.2, PS3.3 C.11, C.7.6.11).

A presentation state overrides all that the image says of its greys: what is not in the state is not done. So the state
says what `model.pixels.read` does: Modality LUT or rescale, VOI LUT or the first window, polarity, shutter. What is
missing or can't be used in the source is missing here too.
"""

from typing import Any

from pydicom import Dataset

from model import pixels
from model.decode import whole
from model.errors import Undecodable
from model.header import numbers, quietly, text
from node.report.findings import ascii_text
from node.report.reading import InvalidResult

UNSPECIFIED = "US"
"""Rescale Type, Modality LUT Type (PS3.3 C.11.1.1.2)."""

FUNCTIONS = {"LINEAR", "LINEAR_EXACT", "SIGMOID"}

SHUTTERS = {
    "RECTANGULAR": {
        "ShutterLeftVerticalEdge": 1,
        "ShutterRightVerticalEdge": 1,
        "ShutterUpperHorizontalEdge": 1,
        "ShutterLowerHorizontalEdge": 1,
    },
    "CIRCULAR": {"CenterOfCircularShutter": 2, "RadiusOfCircularShutter": 1},
    "POLYGONAL": {"VerticesOfThePolygonalShutter": 0},
}
"""Shape -> what describes it, and how many numbers that are; 0: an even number of at least six."""


def carry(source: Dataset, state: Dataset) -> None:
    """Writes the grey transformations of `source` into `state`. Raises InvalidResult where it has no polarity."""
    with quietly():
        _carry_modality(source, state)
        _carry_voi(source, state)
        _carry_shutter(source, state)
        try:
            # the state overrides Photometric Interpretation (PS3.4 N.2.1.4): low values are black unless it says so
            state.PresentationLUTShape = "INVERSE" if pixels.inverted(source) else "IDENTITY"
        except Undecodable as error:
            raise InvalidResult(f"the image can't be shown: {error}") from error


def _carry_modality(source: Dataset, state: Dataset) -> None:
    found = pixels.lut(source, "ModalityLUTSequence", signed=_signed(source))
    if found is not None:
        item = _table(found)
        item.ModalityLUTType = UNSPECIFIED
        state.ModalityLUTSequence = [item]
        return
    slope, intercept = numbers(source, "RescaleSlope"), numbers(source, "RescaleIntercept")
    if slope or intercept:
        state.RescaleIntercept = _decimal(intercept[0] if intercept else 0.0)
        state.RescaleSlope = _decimal((slope[0] if slope else 1.0) or 1.0)
        state.RescaleType = ascii_text(text(source, "RescaleType"))[:64] or UNSPECIFIED


def _carry_voi(source: Dataset, state: Dataset) -> None:
    found = pixels.lut(source, "VOILUTSequence", signed=_signed(source))
    item = Dataset()
    if found is not None:
        item.VOILUTSequence = [_table(found)]
        state.SoftcopyVOILUTSequence = [item]
        return
    center, width = numbers(source, "WindowCenter")[:1], numbers(source, "WindowWidth")[:1]
    function = text(source, "VOILUTFunction").upper()
    if center and width and width[0] > (0 if function in ("LINEAR_EXACT", "SIGMOID") else 1):
        item.WindowCenter, item.WindowWidth = _decimal(center[0]), _decimal(width[0])
        if function in FUNCTIONS:
            item.VOILUTFunction = function
        state.SoftcopyVOILUTSequence = [item]


def _carry_shutter(source: Dataset, state: Dataset) -> None:
    shapes = []
    for shape in text(source, "ShutterShape").upper().split("\\"):
        parts = {keyword: numbers(source, keyword) for keyword in SHUTTERS.get(shape, {})}
        if parts and all(_whole(values, SHUTTERS[shape][keyword]) for keyword, values in parts.items()):
            shapes.append(shape)
            for keyword, values in parts.items():
                setattr(state, keyword, [str(int(n)) for n in values])
    if shapes:
        state.ShutterShape = shapes
        state.ShutterPresentationValue = 0  # black


def _whole(values: list[float], count: int) -> bool:
    right = len(values) == count if count else len(values) >= 6 and len(values) % 2 == 0
    return right and all(n == int(n) for n in values)


def _table(found: tuple[int, Any, int]) -> Dataset:
    first, table, bits = found
    item = Dataset()
    # 65,536 entries are written as 0; the words of a signed descriptor hold the same bits (PS3.3 C.11.1.1)
    count = len(table) & 0xFFFF
    if first < 0:
        item.add_new("LUTDescriptor", "SS", [count - 0x10000 if count > 0x7FFF else count, first, bits])
    else:
        item.add_new("LUTDescriptor", "US", [count, first, bits])
    item.add_new("LUTData", "OW", table.astype("<u2").tobytes())
    return item


def _signed(source: Dataset) -> bool:
    """Whether values may be negative, so that a table's first value is to be read as such."""
    intercept = numbers(source, "RescaleIntercept")[:1]
    return whole(source, "PixelRepresentation") == 1 or bool(intercept and intercept[0] < 0)


def _decimal(number: float) -> str:
    """At most 16 characters (PS3.5 6.2, DS)."""
    return f"{number:.9g}"
