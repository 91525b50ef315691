"""Curves from raw scores to shares, and model folders that get new ones."""

import csv
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from model import card
from model.calibrate import (
    as_knots,
    at_prevalence,
    calibrated,
    carried,
    fit_isotonic,
    fit_shift,
    fit_temperature,
    moved,
)
from model.card import Curve, Knots, Temperature
from model.errors import BadData, BadModel
from model.evaluate.scores import score
from model.recalibrate.fit import fit
from model.recalibrate.run import Data, calibrate
from node.cli_model import model as commands

Make = Callable[[Path], Path]
Draw = Callable[[Path, float], None]

temperatures = st.builds(Temperature, st.floats(0.05, 20), st.floats(-8, 8))
float32s = st.floats(0, 1, width=32)


@st.composite
def isotonic(draw: Any) -> Knots:
    n = draw(st.integers(5, 60))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    raw = np.float32(random.random(n)).astype(np.float64)
    return fit_isotonic((random.random(n) < raw).astype(float), raw)


curves = st.one_of(st.none(), temperatures, isotonic(), temperatures.map(as_knots))


def said(curve: Curve | None, raw: np.ndarray) -> np.ndarray:
    return raw if curve is None else calibrated(curve, raw)


@settings(max_examples=150, deadline=None)
@given(curves, curves, st.floats(0, 1), st.lists(float32s, max_size=20), st.floats(0.001, 0.6))
def test_a_threshold_that_goes_with_its_curve_keeps_every_decision(
    old: Curve | None, new: Curve | None, threshold: float, raws: list[float], there: float
) -> None:
    if new is not None:
        new = moved(new, 0.2, there)
    found, apart = carried(threshold, old, new)
    near = np.float32([0.5, threshold])
    for _ in range(3):
        near = np.concatenate([near, np.nextafter(near, 0), np.nextafter(near, 1)])
    raw = np.concatenate([np.float32(raws), near]).astype(np.float64)

    before, after = said(old, raw) >= threshold, said(new, raw) >= found
    assert 0 <= found <= 1
    if apart:
        assert (before == after).all()
    else:  # the ends, where a curve says the same of several
        assert (after | ~before).all() or found == 1
        assert not ((raw > 2e-7) & (raw < 1 - 2e-7) & (before != after)).any() or isinstance(new, Temperature)


def test_the_threshold_between_two_images_is_found_behind_the_curve() -> None:
    curve = Temperature(2.0, -1.0)
    found, apart = carried(0.3, None, curve)
    assert apart and found == pytest.approx(float(calibrated(curve, np.array([0.3]))[0]), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(isotonic(), st.lists(st.integers(0, 2**20), min_size=2, max_size=30, unique=True))
def test_an_isotonic_curve_makes_no_two_scores_equal_and_nothing_impossible(
    curve: Knots, raws: list[int]
) -> None:
    raw = np.sort(np.float64(raws) / 2**20)
    found = calibrated(curve, raw)
    assert (np.diff(found) > 0).all() and found[0] > 0 and found[-1] < 1
    assert (curve.raw[0], curve.raw[-1]) == (0, 1)


def test_isotonic_regression_is_scikit_learns_but_for_a_tilt() -> None:
    from sklearn.isotonic import IsotonicRegression

    random = np.random.default_rng(0)
    raw = random.random(3000)
    truth = (random.random(3000) < raw**2).astype(float)
    fitted = IsotonicRegression(out_of_bounds="clip").fit(raw, truth)
    assert np.abs(calibrated(fit_isotonic(truth, raw), raw) - fitted.predict(raw)).max() < 3e-4


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_a_network_that_is_too_sure_is_brought_back(method: str) -> None:
    """Invented with a temperature of 2.5 and a shift of -1: both are found again, and shares are right."""
    random = np.random.default_rng(1)
    raw = 1 / (1 + np.exp(-random.normal(0, 3, 40_000)))
    right = calibrated(Temperature(2.5, -1.0), raw)
    truth = (random.random(40_000) < right).astype(np.float32)[:, None]
    found = fit(["Mass"], truth, raw[:, None], method).curves["Mass"]

    assert np.abs(calibrated(found, raw) - right).mean() < 0.02
    if isinstance(found, Temperature):
        assert (found.temperature, found.shift) == pytest.approx((2.5, -1.0), abs=0.08)


@settings(max_examples=60, deadline=None)
@given(st.one_of(temperatures, temperatures.map(as_knots)), st.floats(0.01, 0.9), st.floats(0.001, 0.9))
def test_a_moved_curve_says_what_bayes_rule_makes_of_it(curve: Curve, fitted: float, there: float) -> None:
    raw = np.linspace(0.001, 0.999, 400)
    wanted = at_prevalence(calibrated(curve, raw), fitted, there)
    assert np.abs(calibrated(moved(curve, fitted, there), raw) - wanted).max() < 0.02


def test_scores_that_part_the_images_do_not_become_certainties() -> None:
    truth = np.float32([0] * 40 + [1] * 20)[:, None]
    raw = np.concatenate([np.linspace(0.01, 0.3, 40), np.linspace(0.6, 0.9, 20)])[:, None]
    nearest = raw[[39, 40], 0]
    found = calibrated(fit(["Mass"], truth, raw).curves["Mass"], nearest)
    wild = fit_temperature(truth[:, 0], raw[:, 0])

    assert 0.05 < found[0] < 0.5 < found[1] < 0.9
    assert wild.temperature >= 0.05 and abs(wild.shift) <= 50
    certain = calibrated(wild, nearest)
    assert certain[0] < 1e-3 and certain[1] > 0.999


def test_few_positives_give_their_number_and_the_others_give_the_temperature() -> None:
    random = np.random.default_rng(2)
    raw = random.beta(1, 3, (900, 3))
    truth = (random.random((900, 3)) < raw).astype(np.float32)
    truth[:, 1] = np.arange(900) < 3
    truth[:, 2] = np.nan
    found = fit(["Mass", "Hernia", "Edema"], truth, raw)

    hernia, mass, edema = (found.curves[name] for name in ("Hernia", "Mass", "Edema"))
    assert isinstance(hernia, Temperature) and isinstance(mass, Temperature)
    assert hernia.temperature == mass.temperature
    assert calibrated(hernia, raw[:, 1]).mean() == pytest.approx(3.5 / 901, rel=1e-3)
    assert edema == Temperature(1.0, 0.0)
    assert found.prevalence["Edema"] == pytest.approx(raw[:, 2].mean(), abs=1e-4)
    how = found.how("these")
    assert "Hernia 3 of 900" in how and "Nobody looked for Edema" in how

    steps = fit(["Mass", "Hernia", "Edema"], truth, raw, "isotonic")
    assert all(isinstance(curve, Knots) for curve in steps.curves.values())
    drawn = calibrated(steps.curves["Hernia"], raw[:, 1])
    assert np.abs(drawn - calibrated(fit_shift(3.5 / 901, raw[:, 1]), raw[:, 1])).max() < 0.001

    kept = fit(["Mass", "Hernia", "Edema"], truth, raw, older={"Edema": (Temperature(3.0, 1.0), 0.3)})
    assert (kept.curves["Edema"], kept.prevalence["Edema"]) == (Temperature(3.0, 1.0), 0.3)


# Model folders


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, draw: Draw) -> Path:
    """80 pictures, one brighter than the other."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(80):
        draw(folder / f"{i:03d}.png", 0.1 + i / 100)
    return folder


@pytest.fixture(scope="module")
def pages(images: Path, make_model: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scores of all pictures, so that the network is loaded once for all that follows."""
    out = tmp_path_factory.mktemp("pages")
    folder = make_model(tmp_path_factory.mktemp("models") / "model")
    score(card.load(folder), tuple(sorted(images.iterdir())), images, out)
    return out


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """40 patients, two pictures each; Mass is the likelier the brighter, Hernia is on three."""
    random = np.random.default_rng(4)
    rows = [
        {"image": f"{i:03d}.png", "patient": f"p{i // 2}", "split": "validation" if i % 4 < 2 else "test",
         "Mass": int(random.random() < i / 90), "Hernia": int(i in (4, 12, 30))}
        for i in range(80)
    ]  # fmt: skip
    file = tmp_path / "labels.csv"
    with file.open("w", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def decisions(folder: Path, images: Path, out: Path) -> np.ndarray:
    about = card.load(folder)
    scored = score(about, tuple(sorted(images.iterdir())), images, out)
    return scored.scores >= [about.thresholds[label] for label in about.labels]


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_a_calibrated_model_says_shares_and_decides_as_before(
    model: Path, images: Path, pages: Path, table: Path, tmp_path: Path, method: str
) -> None:
    before = (model / "card.toml").read_text()
    (model / "WEIGHTS-LICENSE.md").write_text("as is")
    with (model / "card.toml").open("a") as text:
        text.write('\n[credits]\nwho = "somebody"\n\n[self_check]\nmean_score = 0.5\n')
    new = tmp_path / "new"
    said = calibrate(model, new, "2", data=Data(table, images), method=method, pages=pages, resamples=20)

    one, two = card.load(model), card.load(new)
    assert (two.version, two.is_calibrated, two.sha256) == ("2", True, one.sha256)
    assert "split `validation` of labels.csv (40 images of 20 patients)" in two.calibrated_how
    assert "Hernia 2 of 40" in two.calibrated_how and "every decision stays" in two.rule
    assert "can't be known" in said and "ECE of all labels pooled before" in said
    assert two.prevalence["Hernia"] == pytest.approx(2.5 / 41, abs=1e-4)
    assert (decisions(model, images, pages) == decisions(new, images, pages)).all()
    tree = tomllib.loads((new / "card.toml").read_text())
    assert tree["credits"] == {"who": "somebody"} and "self_check" not in tree
    assert (new / "WEIGHTS-LICENSE.md").read_text() == "as is"
    assert (model / "card.toml").read_text().startswith(before)
    card.verify(two)
    report = json.loads((pages / "report.json").read_text())
    assert report["pooled"]["before"]["ece"]["value"] > report["pooled"]["after_out_of_fold"]["ece"]["value"]
    assert "<img" in (pages / "report.html").read_text()

    moved_to = tmp_path / "moved"
    done = CliRunner().invoke(
        commands,
        ["calibrate", str(new), "--out", str(moved_to), "--version", "3", "--prevalence", "Mass=0.03"],
        catch_exceptions=False,
        standalone_mode=False,
    )
    three = card.load(moved_to)
    assert "Mass: moved from a prevalence of" in done.stdout
    assert three.prevalence == two.prevalence | {"Mass": 0.03}
    assert three.calibrations["Mass"] != two.calibrations["Mass"]
    assert three.calibrations["Hernia"] == two.calibrations["Hernia"]
    assert (decisions(moved_to, images, pages) == decisions(new, images, pages)).all()
    scored = score(three, tuple(sorted(images.iterdir())), images, pages)
    older = score(two, tuple(sorted(images.iterdir())), images, pages)
    wanted = at_prevalence(older.scores[:, 0], two.prevalence["Mass"], 0.03)
    assert scored.scores[:, 0] == pytest.approx(wanted, abs=0.003)
    assert "stated prevalences, which were not measured: Mass from" in three.calibrated_how


def test_a_second_calibration_is_of_the_raw_scores(
    model: Path, images: Path, pages: Path, table: Path, tmp_path: Path
) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    calibrate(model, once, "2", data=Data(table, images), pages=pages, resamples=0)
    calibrate(once, twice, "3", data=Data(table, images), pages=pages, resamples=0)
    assert card.load(once).calibrations == card.load(twice).calibrations
    assert card.load(twice).rule.count("every decision stays") == 1


@pytest.mark.parametrize(
    ("asked", "error", "named"),
    [
        (
            {"prevalences": ["Mass=0.05"]},
            BadModel,
            r"card\.toml: has no \[calibration\].*hilum model calibrate",
        ),
        ({}, BadData, "nothing to do"),
        ({"prevalences": ["Edema=0.05"]}, BadData, "labels are Mass, Hernia"),
        ({"prevalences": ["Mass=5"]}, BadData, "over 0 and under 1"),
        ({"version": "1"}, BadData, "another version than 1"),
        ({"method": "beta"}, BadData, "temperature, isotonic"),
    ],
)
def test_what_can_not_be_calibrated_is_one_line_and_leaves_nothing(
    model: Path, tmp_path: Path, asked: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named) as raised:
        calibrate(model, tmp_path / "new", **({"version": "2"} | asked))
    assert "\n" not in str(raised.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model"]


def test_a_card_that_can_not_be_written_again_and_a_folder_that_is_there_are_one_line(
    model: Path, images: Path, pages: Path, table: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadData, match="is there already"):
        calibrate(model, model, "2", data=Data(table, images), pages=pages)
    with (model / "card.toml").open("a") as text:
        text.write("\n[made]\non = 2024-05-01\n")
    with pytest.raises(BadModel, match="dates"):
        calibrate(model, tmp_path / "new", "2", data=Data(table, images), pages=pages, resamples=0)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["labels.csv", "model"]
