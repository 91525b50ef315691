"""The floors that a model must beat: what the same rows give without reading the picture.

Whatever doesn't clear them has learnt the collection, the view or a thumbnail. Inputs and strengths are those of the
baselines that come with the project's data, so that figures stand beside theirs.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from model import pixels
from model.errors import ModelError
from model.evaluate.auroc import Scores
from model.files import is_picture
from model.progress import steps
from model.table import Table
from model.table.sheet import open_sheet

THUMBNAIL = "32 x 32 thumbnail"
SIDE = 32
MOST_FITTED = 20_000
"""Images that floors are fitted on, drawn by chance where there are more: each is opened for its thumbnail."""

AS_FOUND = ("width", "id_certain")
"""Columns that say how a file came into its collection, where a table has them."""

Features = NDArray[np.floating[Any]]
Rows = NDArray[np.bool_]


def floors(table: Table, found: Features | None = None) -> dict[str, tuple[Features, float]]:
    """Inputs that are no reading of the picture: name -> (features (n, f), strength C of the logistic regression).

    What is unknown is NaN. `found`: what `as_found` says of the table's file.
    """
    age = np.clip(table.ages.astype(np.float64), 0, 100)
    about = np.stack([age, age**2 / 100, table.sexes == "M", table.views == "AP"], axis=1).astype(np.float64)
    places = np.unique(table.collections)
    source = (table.collections[:, None] == places[None]).astype(np.float64)
    inputs: dict[str, tuple[Features, float]] = {
        "age, sex and view": (about, 1.0),
        THUMBNAIL: (thumbnails(table), 3e-4),
    }
    if found is not None and found.shape[1]:
        inputs["collection and size as found"] = (np.column_stack([source, found]), 1.0)
    elif len(places) > 1:
        inputs["collection"] = (source, 1.0)
    if table.sizes is not None:
        inputs["acquisition"] = (np.column_stack([table.sizes, file_sizes(table)]), 1.0)
    return inputs


def as_found(file: Path) -> Features:
    """(rows of the file, columns of AS_FOUND that it has)."""
    sheet = open_sheet(file)
    columns = [sheet.numbers(name) for name in AS_FOUND if name in sheet.columns]
    return np.stack(columns, axis=1).astype(np.float64) if columns else np.empty((len(sheet), 0))


def thumbnails(table: Table) -> NDArray[np.float32]:
    """(n, 1024): each picture as 32 x 32 averages, its own mean and spread taken out; NaN where it can't be read."""
    found = np.full((len(table), SIDE * SIDE), np.nan, np.float32)
    for row in steps("Thumbnails", range(len(table))):
        image = table.images[row]
        try:
            picture = pixels.read(pixels.wrap(image) if is_picture(image) else pixels.open_dataset(image))
        except (ModelError, OSError):
            continue
        small = Pillow.fromarray(picture.pixels).resize((SIDE, SIDE), Pillow.Resampling.BOX)
        thumb = np.asarray(small, np.float32).ravel()
        found[row] = (thumb - thumb.mean()) / (thumb.std() + 1e-6)
    return found


def file_sizes(table: Table) -> Features:
    """Bytes; NaN where there is no file."""
    return np.array([i.stat().st_size if i.is_file() else np.nan for i in table.images], np.float64)


def fitted(features: Features, strength: float, labels: NDArray[np.float32], rows: Rows) -> Scores:
    """The scores (n, labels) of a logistic regression a label, fitted on `rows` where the label is known.

    What is unknown of an image becomes the median of `rows`; one of which nothing is known is not fitted on. A label
    that is the same everywhere scores 0.5.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rows = rows & ~np.isnan(features).all(axis=1)
    whole = np.where(np.isnan(features), _medians(features[rows]), features)
    scores = np.full(labels.shape, 0.5)
    for column, truth in enumerate(labels.T):
        known = rows & ~np.isnan(truth)
        if len(np.unique(truth[known])) < 2:
            continue
        scaler = StandardScaler().fit(whole[known])
        regression = LogisticRegression(C=strength, max_iter=2000)
        regression.fit(scaler.transform(whole[known]), truth[known])
        scores[:, column] = regression.predict_proba(scaler.transform(whole))[:, 1]
    return scores


def five_fold(features: Features, strength: float, table: Table) -> Scores:
    """Each row scored by regressions that saw none of its fold's patients."""
    scores = np.full(table.labels.shape, np.nan)
    for fold in np.unique(table.folds):
        here = table.folds == fold
        scores[here] = fitted(features, strength, table.labels, ~here)[here]
    return scores


def _medians(features: Features) -> Features:
    """Of each column, what is unknown left out; 0 where all of it is."""
    known = ~np.isnan(features).all(axis=0)
    medians = np.zeros(features.shape[1])
    medians[known] = np.nanmedian(features[:, known], axis=0)
    return medians
