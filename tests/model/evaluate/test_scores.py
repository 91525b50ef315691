import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model import card, phantom
from model.classifier import Classifier
from model.errors import BadModel
from model.evaluate.scores import score

Draw = Callable[[Path, float], None]


@pytest.fixture
def images(tmp_path: Path, draw: Draw) -> tuple[Path, ...]:
    """Twenty pictures, the brighter the later; the last is no picture, the one before is DICOM."""
    folder = tmp_path / "images"
    folder.mkdir()
    paths = [folder / f"{i:02d}.png" for i in range(20)]
    for place, path in enumerate(paths[:18]):
        draw(path, 0.1 + place / 25)
    phantom.draw(1, patch=False).save_as(paths[18])
    paths[19].write_text("no picture")
    return tuple(paths)


def never_loaded(folder: Path) -> Classifier:
    raise AssertionError("nothing had to be scored")


def test_brighter_pictures_score_higher_and_what_is_no_picture_has_a_reason(
    model: Path, images: tuple[Path, ...], tmp_path: Path
) -> None:
    found = score(card.load(model), images, tmp_path / "images", tmp_path / "out")

    assert found.labels == ("Mass", "Hernia") and found.scores.shape == (20, 2)
    assert (np.diff(found.scores[:18, 0]) > 0).all() and np.allclose(found.scores[:19, 1], 0.5)
    assert np.isnan(found.scores[19]).all() and list(found.reasons) == ["19.png"]
    assert (tmp_path / "out/scores.csv").read_text().startswith("image,Mass,Hernia,bytes,reason\n00.png,0.")


def test_a_second_run_scores_nothing_again(
    model: Path, images: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about, out = card.load(model), tmp_path / "out"
    first = score(about, images, tmp_path / "images", out)
    file = (out / "scores.csv").read_bytes()
    monkeypatch.setattr(Classifier, "load", never_loaded)

    again = score(about, images[::-1], tmp_path / "images", out)

    assert np.array_equal(again.scores[::-1], first.scores, equal_nan=True)
    assert again.reasons == first.reasons and (out / "scores.csv").read_bytes() == file


def test_a_run_that_was_killed_in_a_row_goes_on_after_the_last_whole_one(
    model: Path, images: tuple[Path, ...], tmp_path: Path
) -> None:
    about, out = card.load(model), tmp_path / "out"
    first = score(about, images, tmp_path / "images", out)
    file = out / "scores.csv"
    whole = file.read_text()
    lines = whole.splitlines(keepends=True)
    file.write_text("".join(lines[:9]) + lines[9][:12])

    again = score(about, images, tmp_path / "images", out)

    assert np.abs(again.scores - first.scores)[:19].max() < 1e-6 and again.reasons == first.reasons
    assert file.read_text().splitlines()[:9] == whole.splitlines()[:9]
    assert [line[:6] for line in file.read_text().splitlines()] == [line[:6] for line in whole.splitlines()]


def test_another_model_or_another_picture_is_scored_anew_but_a_threshold_changes_nothing(
    model: Path, images: tuple[Path, ...], tmp_path: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, text = tmp_path / "out", (model / "card.toml").read_text()
    first = score(card.load(model), images, tmp_path / "images", out)

    images[0].write_bytes(images[17].read_bytes() + b"\0")
    changed = score(card.load(model), images, tmp_path / "images", out)
    assert changed.scores[0, 0] == pytest.approx(first.scores[17, 0], abs=1e-6)

    (model / "card.toml").write_text(text.replace("scale = 255.0", "scale = 128.0"))
    darker = score(card.load(model), images, tmp_path / "images", out)
    assert (darker.scores[:18, 0] < changed.scores[:18, 0]).all()

    (model / "card.toml").write_text((model / "card.toml").read_text().replace("0.875", "0.5"))
    monkeypatch.setattr(Classifier, "load", never_loaded)
    assert np.array_equal(
        score(card.load(model), images, tmp_path / "images", out).scores, darker.scores, equal_nan=True
    )


CALIBRATION = """[calibration]
method = "temperature"
how = "By dice."

[[findings]]"""


def test_a_new_calibration_needs_no_new_scores_and_older_files_are_not_taken_for_raw(
    model: Path, images: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, text = tmp_path / "out", (model / "card.toml").read_text()
    plain = score(card.load(model), images[:4], tmp_path / "images", out)
    file = (out / "scores.csv").read_bytes()
    text = text.replace("[[findings]]", CALIBRATION, 1)
    for threshold in ("threshold = 0.875", "threshold = 0.125"):
        text = text.replace(threshold, threshold + "\ntemperature = 2.0\nshift = -1.0\nprevalence = 0.1")
    (model / "card.toml").write_text(text)

    with monkeypatch.context() as patched:
        patched.setattr(Classifier, "load", never_loaded)
        found = score(card.load(model), images[:4], tmp_path / "images", out)
    wanted = 1 / (1 + np.exp(1 - np.log(plain.raw / (1 - plain.raw)) / 2))
    assert np.array_equal(plain.raw, plain.scores) and np.array_equal(found.raw, plain.raw)
    assert found.scores == pytest.approx(wanted) and (out / "scores.csv").read_bytes() == file

    assert json.loads((out / "scores.json").read_text())["scores"] == "raw"
    whose = json.loads((out / "scores.json").read_text())
    (out / "scores.json").write_text(json.dumps({"model": whose["model"]}))
    (out / "scores.csv").write_bytes(file.replace(b",0.", b",0.9"))
    again = score(card.load(model), images[:4], tmp_path / "images", out)
    assert again.raw == pytest.approx(plain.raw, abs=1e-6)


def test_weights_that_are_not_the_cards_are_refused_even_where_all_is_scored(
    model: Path, images: tuple[Path, ...], tmp_path: Path
) -> None:
    score(card.load(model), images, tmp_path / "images", tmp_path / "out")
    with (model / "weights.npz").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BadModel, match="weights"):
        score(card.load(model), images, tmp_path / "images", tmp_path / "out")
