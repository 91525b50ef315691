"""What a table holds, and which fold a patient falls into."""

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDS = 5

NIH_FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
"""Spelled and ordered as in NIH ChestX-ray14; the table also has `No Finding`, which is no finding."""

OPACITY = "Lung Opacity"
"""As read from the picture by the radiologists of the RSNA Pneumonia Detection Challenge."""


@dataclass(frozen=True)
class Table:
    """n images in the order of the file."""

    names: tuple[str, ...]
    """The labels."""
    labels: NDArray[np.float32]
    """(n, names): 1, 0, or NaN where nobody looked."""
    images: tuple[Path, ...]
    """Where each image lies; none was opened."""
    patients: NDArray[np.str_]
    """NIH's numbers with eight digits, as in its image names. Empty where a DICOM header names none."""
    views: NDArray[np.str_]
    """PA, AP, another word, or empty."""
    ages: NDArray[np.float32]
    """Years as the file has them, impossible ones too; NaN where it says none."""
    sexes: NDArray[np.str_]
    """M, F, another word, or empty."""
    collections: NDArray[np.str_]
    """Which public set or hospital the image came from; empty where the file does not say."""
    follow_ups: NDArray[np.float32]
    """0 the patient's first image; NaN where the file does not say."""
    splits: NDArray[np.str_]
    """train, validation, test, or empty."""
    sizes: NDArray[np.float32] | None = None
    """(n, 2): width and height in pixels of the image as it was taken, NaN where unknown; None where the file has
    no such columns. Never an input of a model: sizes tell sources apart."""

    def __len__(self) -> int:
        return len(self.images)

    def only(self, rows: NDArray[np.bool_]) -> "Table":
        """The rows where `rows` is true."""
        chosen = np.flatnonzero(rows)

        def part(value: Any) -> Any:
            if value is None:
                return None
            return tuple(value[i] for i in chosen) if isinstance(value, tuple) else value[chosen]

        kept = {f.name: part(getattr(self, f.name)) for f in fields(self) if f.name != "names"}
        return Table(names=self.names, **kept)

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """The column of one label."""
        return self.labels[:, self.names.index(name)]

    @property
    def folds(self) -> NDArray[np.int64]:
        """Each row's fold, 0 to FOLDS - 1, by its patient."""
        people, person = np.unique(self.patients, return_inverse=True)
        return np.array([fold_of(str(patient)) for patient in people], np.int64)[person]


def fold_of(patient: str) -> int:
    """0 to FOLDS - 1: one patient's images are always in the same fold, on whatever machine.

    The hash is that of the data's own baselines, so that figures stand beside theirs on the same folds.
    """
    return int(hashlib.sha256(f"fold:{patient}".encode()).hexdigest(), 16) % FOLDS
