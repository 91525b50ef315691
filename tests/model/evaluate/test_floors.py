from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.evaluate.auroc import auroc
from model.evaluate.floors import as_found, fitted, five_fold, floors
from model.table import open_table


def test_floors_are_those_of_the_datas_own_baselines(shared_data: Path) -> None:
    """The README beside the data: AUROC of Lung Opacity, five-fold by patient, on all 426 images that were read."""
    file = shared_data / "xray/labels.csv"
    whole = open_table(file, shared_data / "xray/images", ["Lung Opacity"])
    read = ~np.isnan(whole["Lung Opacity"])
    table = whole.only(read)

    found = {}
    for name, (inputs, strength) in floors(table, as_found(file)[read]).items():
        figure = auroc(table, five_fold(inputs, strength, table), ["Lung Opacity"], resamples=0)
        found[name] = figure.auroc if figure else None

    assert found == pytest.approx(
        {"age, sex and view": 0.656, "32 x 32 thumbnail": 0.699, "collection and size as found": 0.642,
         "acquisition": 0.626},
        abs=0.003,
    )  # fmt: skip


def test_what_is_unknown_is_the_median_of_the_rows_that_fit() -> None:
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (60, 2))
    labels = (x[:, :1] > 0).astype(np.float32)
    rows = np.arange(60) < 50
    holes, filled = x.copy(), x.copy()
    holes[[3, 55], 0] = np.nan
    median = np.median(np.delete(x[:50, 0], 3))
    filled[[3, 55], 0] = median

    assert np.allclose(fitted(holes, 1.0, labels, rows), fitted(filled, 1.0, labels, rows))


def test_judged_rows_and_unknown_labels_fit_nothing() -> None:
    random = np.random.default_rng(1)
    x = random.normal(0, 1, (80, 3))
    labels = (x[:, :1] > 0).astype(np.float32)
    labels[70:] = np.nan
    rows = np.arange(80) >= 20
    upset = x.copy()
    upset[70:] = 50
    turned = labels.copy()
    turned[:20] = 1 - turned[:20]

    scores = fitted(x, 1.0, labels, rows)
    assert np.array_equal(scores[:70], fitted(upset, 1.0, turned, rows)[:70])
    assert (fitted(x, 1.0, np.zeros((80, 1), np.float32), rows) == 0.5).all()


def test_a_picture_that_cannot_be_read_is_no_thumbnail(shared_data: Path, tmp_path: Path) -> None:
    table = open_table(shared_data / "xray/labels.csv", shared_data / "xray/images").only(np.arange(1768) < 3)
    (tmp_path / "broken.jpg").write_text("no picture")
    broken = replace(table, images=(table.images[0], tmp_path / "broken.jpg", tmp_path / "absent.jpg"))
    thumbs = floors(broken)["32 x 32 thumbnail"][0]
    assert np.isnan(thumbs).all(axis=1).tolist() == [False, True, True]
    assert thumbs[0].mean() == pytest.approx(0, abs=1e-5)
