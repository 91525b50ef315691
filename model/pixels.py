"""Stored values -> the picture that a radiologist sees -> what the network sees. The only place for that.

`open_dataset` and `wrap` (model/files.py) come in, `read` and `prepare` go out. Training, evaluation,
`analyze`, the worker and the pictures call these and nothing else. What is drawn back onto the stored picture
(a report's regions, a presentation state) asks `stored_points`, `aspect`, `inverted` and `lut`, which are `read`'s own.

`read` goes the way of PS3.4 N.2: Modality LUT or rescale, VOI LUT or window (the first), presentation
polarity; then padding and shutter are painted black, the picture is made square-pixelled and turned upright.
It does not call pydicom's apply_voi_lut, which turns the picture over when Rescale Slope is negative.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw
from pydicom import Dataset

from model.card import Card
from model.decode import EXPLICIT_BE, Stored, stored_values, transfer_syntax, whole
from model.errors import Undecodable
from model.files import open_dataset, wrap
from model.header import numbers, orientation, quietly, text
from model.streams import MAX_PIXELS

__all__ = [
    "Image",
    "aspect",
    "inverted",
    "lut",
    "open_dataset",
    "prepare",
    "read",
    "stored_points",
    "to_uint8",
    "wrap",
]

Floats = np.ndarray[Any, np.dtype[np.float32]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
Rescale = Callable[[np.ndarray], np.ndarray]
"""Stored values -> what was measured, as numbers of any kind."""
Window = Callable[[Floats], None]
"""What was measured -> grey, 0 to 1, in place."""

BLOCK_PIXELS = 1 << 17
"""Half a megabyte of float32."""

LEAST_IN_WINDOW = 0.05
"""A window that leaves less than this share of the picture grey is not what anybody looked at."""

LEAST_SPREAD = 1e-3
"""Of grey levels, as the card scales them: a picture that is flat is not blown up where each gets a spread of 1."""

LEAST_IN_SHUTTER = 0.1
"""A shutter that would leave less than this share of the picture is ignored."""

MOST_STRETCH = 4.0
"""Pixels longer than this are a mistake in the header and taken as square."""


@dataclass(frozen=True)
class Image:
    """One picture as it is looked at. `pixels`: float32, H×W, 0 = air black … 1 = bone bright, square
    pixels, upright (the patient's left at the right, head up)."""

    pixels: Floats

    def varies(self, least: float) -> bool:
        """Whether the pixels' standard deviation is `least` or more."""
        # all rows together vary at least as much as one in sixteen makes them: that settles it for all but blank ones
        if float(self.pixels[::16].std()) / 4 > least:
            return True
        return float(np.std(self.pixels, dtype=np.float64)) >= least


def read(dataset: Dataset) -> Image:
    """The picture of a CR, DX or Secondary Capture data set. Raises Undecodable."""
    with quietly():
        low_is_bright = inverted(dataset)
        stored = stored_values(dataset)
        hidden = _hidden(dataset, stored)
        pixels = _windowed(dataset, stored, hidden)
        del stored
        if low_is_bright:
            np.subtract(1, pixels, out=pixels)
        if hidden is not None:
            np.copyto(pixels, 0, where=hidden)
        pixels = _upright(dataset, _square(dataset, pixels))
    return Image(np.ascontiguousarray(pixels, np.float32))


def prepare(image: Image, card: Card) -> Floats:
    """What the network sees: float32 (size, size, channels), grey scaled as the card says, brought to mean 0 and spread
    1 by itself where the card says so, once or thrice, minus the channels' means, over their spreads (Keras's VGG16
    'caffe' input: 0..255, blue, green, red means, spreads of 1).

    The picture is stretched to a square, as the NIH pictures of the training were, by Pillow's bilinear
    filter, whose support grows with the reduction (antialiasing).
    """
    levels = _resized(image.pixels, card.size) * np.float32(card.scale)
    if card.each_picture:
        levels = (levels - levels.mean()) / np.maximum(levels.std(), np.float32(LEAST_SPREAD))
    channels = zip(card.mean, card.spread, strict=True)
    seen = [(levels - np.float32(mean)) / np.float32(spread) for mean, spread in channels]
    return np.stack(seen[: card.channels], axis=-1)


def _resized(pixels: Floats, size: int) -> Floats:
    """To a square of `size`, as Pillow's bilinear filter would (they differ by 1e-7). Rows come first, since they lie
    one behind the other: 2 ms for 2500 x 2048, where Pillow, columns first, takes 11."""
    rows = np.empty((size, pixels.shape[1]), np.float32)
    for row, (first, weights) in zip(rows, _weights(pixels.shape[0], size), strict=True):
        np.dot(weights, pixels[first : first + len(weights)], out=row)
    return np.asarray(Pillow.fromarray(rows).resize((size, size), Pillow.Resampling.BILINEAR))


@lru_cache(maxsize=64)
def _weights(length: int, size: int) -> tuple[tuple[int, Floats], ...]:
    """Of each of `size` rows made of `length`: the first that it is made of, and the share of each from there on."""
    scale = length / size
    reach = max(scale, 1.0)
    found = []
    for n in range(size):
        center = (n + 0.5) * scale
        first, end = max(0, int(center - reach + 0.5)), min(length, int(center + reach + 0.5))
        shares = np.maximum(0, 1 - np.abs(np.arange(first, end) + 0.5 - center) / reach)
        found.append((first, (shares / shares.sum()).astype(np.float32)))
    return tuple(found)


def to_uint8(image: Image, longest: int = 4096) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The picture in grey levels 0..255, reduced where a side is longer than `longest` pixels."""
    levels = np.empty(image.pixels.shape, np.uint8)
    for rows in _blocks(image.pixels.shape):
        scaled = image.pixels[rows] * np.float32(255)
        levels[rows] = np.rint(scaled, out=scaled)
    height, width = image.pixels.shape
    if max(height, width) <= longest:
        return levels
    scale = longest / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Pillow.fromarray(levels).resize(size, Pillow.Resampling.BILINEAR))


def _blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows that fit into the processor's cache: what takes several steps a pixel goes block by block, which is three
    times as fast as each step over the whole picture."""
    rows = max(1, BLOCK_PIXELS // shape[1])
    return (slice(first, first + rows) for first in range(0, shape[0], rows))


def stored_points(dataset: Dataset, points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """(x, y) as shares of the upright picture, 0 to 1 -> (column, row) in the stored pixels.

    0, 0 is the top left corner of the first pixel, Columns, Rows the bottom right corner of the last: as SCOORD (PS3.3
    C.18.6.1.1) and a presentation state's PIXEL units (PS3.3 C.10.5) count. A displayed area counts pixels from 1
    (C.10.4). Raises Undecodable where the header names no size.
    """
    with quietly():
        columns, rows = whole(dataset, "Columns"), whole(dataset, "Rows")
        if not columns or not rows or min(columns, rows) < 1:
            raise Undecodable("The number of rows or columns can't be read")
        transposed, mirrored, on_head = _turns(dataset)
    found = []
    for x, y in points:
        x, y = (1 - x if mirrored else x), (1 - y if on_head else y)
        if transposed:
            x, y = y, x
        found.append((x * columns, y * rows))
    return found


def inverted(dataset: Dataset) -> bool:
    """Whether low values are bright: MONOCHROME1, or Presentation LUT Shape INVERSE. Both together, which is
    how DX writes MONOCHROME1 (PS3.3 C.8.11.3.1.2), are one inversion. Raises Undecodable."""
    photometric = text(dataset, "PhotometricInterpretation").upper()
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Undecodable("The header does not say whether low values are black or white")
    return photometric == "MONOCHROME1" or text(dataset, "PresentationLUTShape").upper() == "INVERSE"


def _hidden(dataset: Dataset, stored: Stored) -> Mask | None:
    """Where there is no picture, or none to be looked at; None where all of it is."""
    found = [
        mask for mask in (_padding(dataset, stored), _shuttered(dataset, stored.shape)) if mask is not None
    ]
    return reduce(np.logical_or, found) if found else None


def _padding(dataset: Dataset, stored: Stored) -> Mask | None:
    """Where there is no picture: Pixel Padding Value, or the range up to its limit (PS3.3 C.7.5.1.1.2)."""
    first = whole(dataset, "PixelPaddingValue")
    if first is None:
        return None
    limit = whole(dataset, "PixelPaddingRangeLimit")
    low, high = sorted((first, first if limit is None else limit))
    return (stored >= low) & (stored <= high)


def _shuttered(dataset: Dataset, shape: tuple[int, ...]) -> Mask | None:
    """What lies outside the display shutter (PS3.3 C.7.6.11), in rows and columns counted from 1."""
    rows, columns = shape
    shapes = text(dataset, "ShutterShape").upper()
    if not shapes:
        return None
    shown = np.ones((rows, columns), bool)
    if "RECTANGULAR" in shapes:
        edges = [
            whole(dataset, f"Shutter{side}Edge")
            for side in ("UpperHorizontal", "LowerHorizontal", "LeftVertical", "RightVertical")
        ]
        if None not in edges:
            top, bottom, left, right = (max(0, edge or 0) for edge in edges)
            inside = np.zeros_like(shown)
            inside[max(0, top - 1) : bottom, max(0, left - 1) : right] = True
            shown &= inside
    if "CIRCULAR" in shapes:
        center, radius = (
            numbers(dataset, "CenterOfCircularShutter"),
            whole(dataset, "RadiusOfCircularShutter"),
        )
        if len(center) == 2 and radius:
            y, x = np.ogrid[1 : rows + 1, 1 : columns + 1]
            shown &= (y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius**2
    if "POLYGONAL" in shapes:
        corners = numbers(dataset, "VerticesOfThePolygonalShutter")
        if len(corners) >= 6 and len(corners) % 2 == 0:
            mask = Pillow.new("1", (columns, rows))
            outline = [(x - 1, y - 1) for y, x in zip(corners[::2], corners[1::2], strict=True)]
            ImageDraw.Draw(mask).polygon(outline, fill=1)
            shown &= np.asarray(mask, bool)
    return ~shown if shown.mean() >= LEAST_IN_SHUTTER else None


def _modality(dataset: Dataset) -> Rescale:
    """Modality LUT, which wins, or rescale (PS3.3 C.11.1). A slope that is 0 or no number counts as 1."""
    found = lut(dataset, "ModalityLUTSequence", signed=bool(whole(dataset, "PixelRepresentation")))
    if found is not None:
        first, table, _ = found
        return lambda stored: table[np.clip(stored.astype(np.int64) - first, 0, len(table) - 1)]
    slope = next(iter(numbers(dataset, "RescaleSlope")), 1.0) or 1.0
    intercept = next(iter(numbers(dataset, "RescaleIntercept")), 0.0)
    if (slope, intercept) == (1.0, 0.0):
        return lambda stored: stored
    return lambda stored: stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _windowed(dataset: Dataset, stored: Stored, hidden: Mask | None) -> Floats:
    """VOI LUT, which wins, or the first window, or `_range` (PS3.3 C.11.2).

    A window that can't be used (no number, width 0 or less, width 1, or one that leaves nearly nothing grey)
    counts as absent.
    """
    values = _modality(dataset)
    # linear, or a table that holds nothing negative
    signed = bool(values(np.array([stored.min(), stored.max()])).min() < 0)
    shown = stored.size if hidden is None else stored.size - np.count_nonzero(hidden)
    enough = LEAST_IN_WINDOW * max(1, shown)
    for window in (_voi_lut(dataset, signed), _window(dataset)):
        if window is not None:
            pixels, grey = _seen(stored, values, window, hidden, enough)
            if grey >= enough:
                return pixels
    low, high = _range(dataset, stored, values, hidden)
    if high <= low:
        return np.zeros(stored.shape, np.float32)
    return _seen(stored, values, _line(low, high - low, 0.0))[0]


def _seen(
    stored: Stored, values: Rescale, window: Window, hidden: Mask | None = None, enough: float = 0
) -> tuple[Floats, float]:
    """The stored values as they are seen through a window, and how many are neither black nor white then: counted until
    there are `enough`."""
    pixels = np.empty(stored.shape, np.float32)
    grey = 0
    for rows in _blocks(stored.shape):
        seen = pixels[rows]
        seen[...] = values(stored[rows])
        window(seen)
        if grey < enough:
            between = (seen > 0.002) & (seen < 0.998)
            grey += int(np.count_nonzero(between if hidden is None else between & ~hidden[rows]))
    return pixels, grey


def _voi_lut(dataset: Dataset, signed: bool) -> Window | None:
    found = lut(dataset, "VOILUTSequence", signed=signed)
    if found is None:
        return None
    first, table, bits = found
    table = np.clip(table / np.float32((1 << bits) - 1), 0, 1)

    def look_up(values: Floats) -> None:
        values[...] = table[np.clip(np.rint(values).astype(np.int64) - first, 0, len(table) - 1)]

    return look_up


def _window(dataset: Dataset) -> Window | None:
    center = next(iter(numbers(dataset, "WindowCenter")), None)
    width = next(iter(numbers(dataset, "WindowWidth")), None)
    if center is None or width is None or width <= 0:
        return None
    function = text(dataset, "VOILUTFunction").upper()
    if function == "SIGMOID":
        return _sigmoid(center, width)
    if function == "LINEAR_EXACT":
        return _line(center, width, 0.5)
    return _line(center - 0.5, width - 1, 0.5) if width > 1 else None


def _sigmoid(center: float, width: float) -> Window:
    def bend(values: Floats) -> None:
        values[...] = 1 / (1 + np.exp(np.clip((values - center) * (-4 / width), -80, 80)))

    return bend


def _line(at: float, width: float, there: float) -> Window:
    """From black to white over the width; `there` is the grey of the value `at`."""

    def draw(values: Floats) -> None:
        values -= np.float32(at)
        values /= np.float32(width)
        if there:
            values += np.float32(there)
        np.clip(values, 0, 1, out=values)

    return draw


def _range(dataset: Dataset, stored: Stored, values: Rescale, hidden: Mask | None) -> tuple[float, float]:
    """What is black and what is white where nothing says so.

    A picture of 8 bits was windowed when it was made, as PNG and JPEG are: all that its bits can say, so that the same
    picture is the same input with a window of its full range, without one, and as a file to train with.
    """
    bits = whole(dataset, "BitsStored") or 16
    low, high = math.inf, -math.inf
    for rows in _blocks(stored.shape):
        inside = values(stored[rows] if hidden is None else stored[rows][~hidden[rows]])
        if inside.size:
            low, high = min(low, float(inside.min())), max(high, float(inside.max()))
    if low > high:
        return 0.0, 0.0
    most = float((1 << bits) - 1)
    if bits <= 8 and 0 <= low < high <= most:
        return 0.0, most
    return low, high


def lut(dataset: Dataset, keyword: str, *, signed: bool) -> tuple[int, Floats, int] | None:
    """First value mapped, table and depth of the first item of a LUT sequence; None where there is no usable one.

    Entries are words; where there are only as many bytes as entries, they are bytes (PS3.3 C.11.1.1.1).
    """
    try:
        item = next(iter(dataset.get(keyword) or ()), None)
        if item is None:
            return None
        count, first, bits = (int(n) for n in item.LUTDescriptor)
        data = item.LUTData
    except (AttributeError, TypeError, ValueError, KeyError, NotImplementedError, RecursionError):
        return None
    count, bits = (count & 0xFFFF) or 65536, bits & 0xFFFF
    if signed and first > 32767:
        first -= 65536
    if isinstance(data, bytes):
        order = ">" if transfer_syntax(dataset) == EXPLICIT_BE else "<"
        table = np.frombuffer(data[: count * 2], np.uint8 if len(data) < 2 * count else f"{order}u2")
    else:
        table = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
    if len(table) < 2 or not 1 <= bits <= 16:
        return None
    return first, table[:count].astype(np.float32), bits


def aspect(dataset: Dataset) -> float:
    """Height of a stored pixel over its width, as the picture is stretched; 1 where they count as square."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"):
        pair = numbers(dataset, keyword)
        if len(pair) == 2 and min(pair) > 0:
            ratio = pair[0] / pair[1]
            square = math.isclose(ratio, 1, rel_tol=0.01) or not 1 / MOST_STRETCH <= ratio <= MOST_STRETCH
            return 1.0 if square else ratio
    return 1.0


def _square(dataset: Dataset, pixels: Floats) -> Floats:
    """Pixels that are not square are made so, by stretching the coarser direction."""
    ratio = aspect(dataset)
    height, width = pixels.shape
    if ratio == 1:
        return pixels
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    if size[0] * size[1] > MAX_PIXELS:
        raise Undecodable("The image claims an impossible size")
    return np.asarray(Pillow.fromarray(pixels).resize(size, Pillow.Resampling.BILINEAR))


def _upright(dataset: Dataset, pixels: Floats) -> Floats:
    """Turned so that rows run to the patient's left and columns to the feet."""
    transposed, mirrored, on_head = _turns(dataset)
    if transposed:
        pixels = pixels.T
    if mirrored:
        pixels = pixels[:, ::-1]
    if on_head:
        pixels = pixels[::-1]
    return pixels


def _turns(dataset: Dataset) -> tuple[bool, bool, bool]:
    """What makes the picture upright, in this order: rows and columns changed, left and right, head and feet; where
    Patient Orientation (PS3.3 C.7.6.1.1.1) says how it lies.

    `R\\F` is mirrored, `R\\H` on its head, `F\\L` on its side.
    """
    directions = orientation(dataset)
    if directions is None:
        return False, False, False
    row, column = directions
    transposed = row in "HF" and column in "LR"
    if transposed:
        row, column = column, row
    return transposed, row == "R" and column in "HF", column == "H" and row in "LR"
