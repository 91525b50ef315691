"""How bright the pictures are: a sample is opened, one at a time, and only figures of each are kept.

Pixels are those that the network is fed from: `model.pixels.read`, 0 black to 1 white.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import pixels
from model.errors import Undecodable, Unreadable
from model.explore.figures import LISTED, kinds
from model.files import is_picture
from model.progress import steps
from model.table import Table, missing

BINS = 64
MEASURES = ("mean", "deviation", "p5", "median", "p95")
"""Of one picture: mean and standard deviation of its pixels, and three percentiles."""

BLANK = 0.02
"""A picture whose pixels deviate less than this is empty, or as good as empty. Chest films deviate by 0.15 to 0.3."""

NONE = "no finding"
"""Images without any label that is 1."""


@dataclass(frozen=True)
class Measured:
    """n pictures that could be read."""

    rows: NDArray[np.int64]
    """Of the table."""
    values: NDArray[np.float64]
    """(n, MEASURES), 0 to 1."""
    histograms: NDArray[np.float32]
    """(n, BINS): the share of each picture's pixels in each of BINS equal steps from 0 to 1."""
    sizes: list[tuple[int, int]]
    """Width and height as opened."""
    unreadable: list[dict[str, str]]
    """Image and reason of the others."""


def intensity(table: Table, most: int, seed: int) -> dict[str, Any]:
    """The figures of up to `most` pictures drawn by chance (0: of all), by finding, view and collection."""
    rows = draw(table, most, seed)
    measured = measure(table, rows)
    blank = measured.rows[measured.values[:, 1] < BLANK]
    none = ~(table.labels == 1).any(axis=1)
    members = {NONE: none} if table.names else {}
    members |= {name: table[name] == 1 for name in table.names}
    for kind, words in (("view", table.views), ("collection", table.collections)):
        members |= {f"{kind} {word}": words == word for word in kinds(words)[:4]}
    members = {"all": np.ones(len(table), bool), **members}
    found = {word: _group(measured, inside[measured.rows]) for word, inside in members.items()}
    reference = measured.values[none[measured.rows], 0]
    for word, inside in members.items():
        if found[word] and table.names:
            found[word]["effect"] = _effect(measured.values[inside[measured.rows], 0], reference)
    sizes, counts = np.unique(np.array(measured.sizes, np.int64).reshape(-1, 2), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:LISTED]
    return {
        "drawn": len(rows),
        "sampled": 0 < most < int((~missing(table)).sum()),
        "read": len(measured.rows),
        "unreadable": measured.unreadable,
        "blank": {"count": len(blank), "images": [table.images[i].name for i in blank[:LISTED]]},
        "sizes": [{"size": f"{sizes[i][0]} x {sizes[i][1]}", "images": int(counts[i])} for i in order],
        "groups": {word: figure for word, figure in found.items() if figure},
    }


def draw(table: Table, most: int, seed: int) -> NDArray[np.int64]:
    """Rows of pictures to open, in the order of the table: at most `most`, or all where that is 0.

    Half of them is shared out evenly among the findings (and no finding), rarest first, so that each has some; the
    others are drawn from all. Images whose file is missing are not drawn.
    """
    rng = np.random.default_rng(seed)
    there = np.flatnonzero(~missing(table))
    if most == 0 or most >= len(there):
        return there
    members = [table[name] == 1 for name in table.names] + [~(table.labels == 1).any(axis=1)]
    members.sort(key=lambda rows: int(rows.sum()))
    quota = max(1, most // (2 * len(members)))
    chosen = np.zeros(len(table), bool)
    for rows in members:
        left = min(quota - int((chosen & rows).sum()), most - int(chosen.sum()))
        candidates = there[rows[there] & ~chosen[there]]
        if left > 0:
            chosen[rng.permutation(candidates)[:left]] = True
    others = there[~chosen[there]]
    chosen[rng.permutation(others)[: most - int(chosen.sum())]] = True
    return np.flatnonzero(chosen)


def measure(table: Table, rows: NDArray[np.int64]) -> Measured:
    """Opens the rows' pictures, one at a time; what can't be read is listed and passed over."""
    unreadable: list[dict[str, str]] = []
    kept: list[int] = []
    values, histograms, sizes = [], [], []
    for row, picture in _pictures(table, rows, unreadable):
        kept.append(row)
        values.append((picture.mean(), picture.std(), *np.percentile(picture, (5, 50, 95))))
        level = np.minimum((picture * BINS).astype(np.int64), BINS - 1)
        histograms.append((np.bincount(level.ravel(), minlength=BINS) / picture.size).astype(np.float32))
        sizes.append((picture.shape[1], picture.shape[0]))
    return Measured(
        rows=np.array(kept, np.int64),
        values=np.array(values, np.float64).reshape(-1, len(MEASURES)),
        histograms=np.array(histograms, np.float32).reshape(-1, BINS),
        sizes=sizes,
        unreadable=unreadable,
    )


def _pictures(
    table: Table, rows: NDArray[np.int64], unreadable: list[dict[str, str]]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for row in steps("Pictures", [int(row) for row in rows]):
        path = table.images[row]
        try:
            yield row, opened(path)
        except (Unreadable, Undecodable) as error:
            unreadable.append({"image": path.name, "reason": str(error)})
        except OSError as error:
            unreadable.append({"image": path.name, "reason": error.strerror or "The file can't be opened"})


def opened(path: Path) -> NDArray[np.float32]:
    """The picture of a PNG, JPEG or DICOM file. Raises Unreadable, Undecodable, OSError."""
    return pixels.read(pixels.wrap(path) if is_picture(path) else pixels.open_dataset(path)).pixels


def _group(measured: Measured, inside: NDArray[np.bool_]) -> dict[str, Any]:
    """Means over the group's pictures; empty where there is none."""
    if not inside.any():
        return {}
    values = measured.values[inside]
    return {
        "pictures": int(inside.sum()),
        **dict(zip(MEASURES, (float(v) for v in values.mean(axis=0)), strict=True)),
        "between_pictures": float(values[:, 0].std()),
        "histogram": [round(float(v), 5) for v in measured.histograms[inside].mean(axis=0)],
    }


def _effect(group: NDArray[np.float64], reference: NDArray[np.float64]) -> float | None:
    """How far the pictures' mean brightness lies from that of pictures without a finding, in standard deviations
    (Cohen's d, pooled)."""
    if min(len(group), len(reference)) < 2:
        return None
    pooled = np.sqrt((group.var(ddof=1) + reference.var(ddof=1)) / 2)
    return float((group.mean() - reference.mean()) / pooled) if pooled else None
