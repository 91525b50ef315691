"""Fitting and measuring a guard, on features drawn by chance."""

from pathlib import Path

import numpy as np
import pytest

from model.errors import BadData
from model.guard import CHILD, SHOWN, UNLIKE
from model.train import guard
from model.train.guard import cross_validate, fit, wilson, write
from model.train.scope_pictures import (
    CHANGED,
    NEVER_SHOWN,
    RIGHT,
    Pictures,
    listed,
    pictures,
    together,
)

WIDTHS = [20, 10]
MOVED = {"rotated": 0, "inverted": 1, "cropped": 2}
"""Kind -> the feature that gives it away."""


def drawn(count: int, random: np.random.Generator, moved: int | None = None, by: float = 4.5) -> np.ndarray:
    features = random.normal(0, 1, (count, sum(WIDTHS)))
    features[:, 3] += np.log(40) * 3
    if moved is not None:
        features[:, moved] += by
    return features.astype(np.float32)


@pytest.fixture(scope="module")
def given() -> Pictures:
    random = np.random.default_rng(2)

    def folds(count: int) -> np.ndarray:
        return np.arange(count) % 5

    ages = random.uniform(18, 80, 400)
    adults = drawn(400, random)
    adults[:, 3] += np.log(np.minimum(ages, 50) / 40) * 3
    young = np.full(40, 5.0)
    children = drawn(40, random)
    children[:, 3] += np.log(young / 40) * 3
    parts = [
        pictures(adults, RIGHT, "here", folds(400), ages),
        pictures(drawn(60, random), CHANGED, "changed", folds(60)),
        pictures(children, CHILD, "here", folds(40), young),
        *(pictures(drawn(60, random, at), kind, "made", folds(60)) for kind, at in MOVED.items()),
        pictures(drawn(30, random, 9, 60.0), "photograph", "elsewhere"),
    ]
    return together(parts)


def test_the_same_pictures_make_the_same_file(given: Pictures, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(fit(given, WIDTHS), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_it_tells_the_kinds_it_was_shown_from_right_ones_and_loses_few(given: Pictures) -> None:
    excess = fit(given, WIDTHS).excess(given.features)
    for column, kind in enumerate(SHOWN):
        assert (excess[given.kinds == kind, column] >= 0).mean() > 0.9
    assert (excess[given.kinds == "photograph", len(SHOWN)] >= 0).all()
    assert (excess[given.kinds == RIGHT].max(axis=1) >= 0).mean() < 0.03


def test_rows_name_kind_set_and_number_and_what_was_never_shown(given: Pictures) -> None:
    rows = cross_validate(given, WIDTHS)
    of = {(row["kind"], row["fitted_on"]): row for row in rows}
    assert of[RIGHT, "the other folds of patients"]["images"] == 400
    assert of["photograph", "nothing of this set"]["stopped"] == 30
    alone = of["inverted", "not shown inverted"]
    assert alone["images"] == 60
    assert alone["share"] < of["inverted", "the other folds of patients"]["share"]
    for row in rows:
        assert row["low"] <= row["share"] <= row["high"]


def test_no_picture_is_judged_by_a_guard_that_saw_its_fold(
    given: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[set[int], set[int]]] = []
    scores = guard._Fits._scores

    def watched(
        self: guard._Fits, out: frozenset[int], shown: tuple[str, ...], rows: np.ndarray
    ) -> np.ndarray:
        inside = self._inside(out)
        seen.append((set(given.folds[inside].tolist()), set(given.folds[rows].tolist())))
        return scores(self, out, shown, rows)

    monkeypatch.setattr(guard._Fits, "_scores", watched)
    guard._Fits(given, WIDTHS).excess(SHOWN)
    assert seen
    assert all(not fitted & judged for fitted, judged in seen)
    assert all(NEVER_SHOWN not in fitted for fitted, _ in seen)


def test_a_kind_without_pictures_is_never_named(given: Pictures) -> None:
    rows = given.kinds != "cropped"
    part = Pictures(*(getattr(given, name)[rows] for name in Pictures.__dataclass_fields__))
    excess = fit(part, WIDTHS).excess(given.features)
    assert (excess[:, SHOWN.index("cropped")] < 0).all()


def test_every_kind_has_its_part_of_what_may_be_lost() -> None:
    assert set(guard.LOST) == {*SHOWN, UNLIKE}
    assert sum(guard.LOST.values()) <= 0.02
    assert set(guard.MEANT) <= set(SHOWN)


def test_wilsons_interval_of_eight_in_ten() -> None:
    assert wilson(8, 10) == pytest.approx((0.490, 0.943), abs=0.001)
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10)[1] == pytest.approx(1)


def test_a_list_that_is_not_there_or_lacks_a_column_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"pictures\.csv: can't be read"):
        listed(tmp_path, None)  # type: ignore[arg-type]
    (tmp_path / "pictures.csv").write_text("file,kind\na.png,photograph\n")
    with pytest.raises(BadData, match="column set is missing"):
        listed(tmp_path, None)  # type: ignore[arg-type]
