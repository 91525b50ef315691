"""The training table: one row an image, with what is known about it, apart by patient.

The file is a CSV with a row an image and at least the columns `image`, `patient`, `view`, `age`, `sex`, `collection`
and one a label: 1 present, 0 absent, empty unknown. Unknown is not absent: it is NaN here and counts nowhere.
"""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import Unreadable

FOLDS = 5


@dataclass(frozen=True)
class Table:
    """n images in the order of the file."""

    names: tuple[str, ...]
    labels: NDArray[np.float32]
    """(n, names): 1, 0, or NaN where nobody looked."""
    images: tuple[Path, ...]
    patients: NDArray[np.str_]
    views: NDArray[np.str_]
    ages: NDArray[np.float32]
    sexes: NDArray[np.str_]
    collections: NDArray[np.str_]
    folds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    def only(self, rows: NDArray[np.bool_]) -> "Table":
        """The rows where `rows` is true."""
        return Table(
            self.names,
            self.labels[rows],
            tuple(image for image, kept in zip(self.images, rows, strict=True) if kept),
            self.patients[rows],
            self.views[rows],
            self.ages[rows],
            self.sexes[rows],
            self.collections[rows],
            self.folds[rows],
        )

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """The column of one label."""
        return self.labels[:, self.names.index(name)]


def read(file: Path, images: Path, names: Sequence[str]) -> Table:
    """Reads the labels `names` of all rows of `file`; the images lie in the folder `images` and are not opened.

    Raises Unreadable naming the line and the column that is missing or holds what it can't.
    """
    values: list[list[float]] = []
    kept: list[dict[str, str]] = []
    with file.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines)
        wanted = ["image", "patient", "view", "age", "sex", "collection", *names]
        for column in wanted:
            if column not in (rows.fieldnames or ()):
                raise Unreadable(f"{file}: column {column!r} is missing")
        for number, row in enumerate(rows, 2):
            try:
                values.append([{"1": 1.0, "0": 0.0, "": np.nan}[row[name]] for name in names])
                float(row["age"])
            except (KeyError, ValueError, TypeError) as error:
                raise Unreadable(f"{file}: line {number}: labels are 1, 0 or empty, ages numbers") from error
            kept.append(row)

    def of(name: str) -> NDArray[np.str_]:
        return np.array([row[name] for row in kept], dtype=np.str_)

    return Table(
        names=tuple(names),
        labels=np.array(values, np.float32).reshape(len(kept), len(names)),
        images=tuple(images / row["image"] for row in kept),
        patients=of("patient"),
        views=of("view"),
        ages=of("age").astype(np.float32),
        sexes=of("sex"),
        collections=of("collection"),
        folds=np.array([fold_of(row["patient"]) for row in kept], np.int64),
    )


def fold_of(patient: str) -> int:
    """0 to FOLDS - 1: one patient's images are always in the same fold, on whatever machine.

    The hash is that of the data's own baselines, so that figures stand beside theirs on the same folds.
    """
    return int(hashlib.sha256(f"fold:{patient}".encode()).hexdigest(), 16) % FOLDS
