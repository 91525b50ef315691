"""What is asked, what is written, and what a person is told who got something wrong."""

import io
import os
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import keras2
from foreign.keras2 import Udacity, noise
from PIL import Image

from model import card, pixels
from model.card import Card
from model.errors import BadData, BadModel
from model.imports import preprocess, run
from model.imports.run import Asked, import_model
from node.cli import main

Bring = Callable[..., Card]


@pytest.fixture
def files(tmp_path: Path, udacity: Udacity) -> tuple[Path, Path]:
    return udacity.write(tmp_path)


def test_the_card_says_what_is_known_and_that_the_rest_is_not(
    files: tuple[Path, Path], bring: Bring, udacity: Udacity
) -> None:
    loaded = bring(
        *files, thresholds=("0.35",), display=("Pneumonia=Looks like pneumonia",), name="ours", version="7"
    )

    card.verify(loaded)
    tree = tomllib.loads((loaded.folder / card.CARD).read_text(encoding="utf-8"))
    assert (loaded.name, loaded.version, loaded.thresholds) == ("ours", "7", {"Pneumonia": 0.35})
    assert loaded.display == {"Pneumonia": "Looks like pneumonia"}
    assert "not known" in loaded.limits and "Not judged" in loaded.intended_use and not loaded.is_calibrated
    assert tree["imported"]["files"] == [path.name for path in files]
    measured = tree["self_check"]
    assert measured["pictures"] == 8 and measured["written_differs_by"] <= 1e-5
    assert 0 <= measured["least_score"] < measured["largest_score"] <= 1


def test_without_a_threshold_the_card_says_that_nobody_chose_it(
    files: tuple[Path, Path], bring: Bring
) -> None:
    loaded = bring(*files)

    assert loaded.thresholds == {"Pneumonia": 0.5} and "nobody chose it" in loaded.rule


def test_at_a_terminal_the_rest_is_asked_for(tmp_path: Path, files: tuple[Path, Path]) -> None:
    questions: list[str] = []

    def ask(question: str) -> str:
        questions.append(question)
        return "vgg16" if "prepared" in question else "Pneumonia"

    import_model(files[0], tmp_path / "model", files[1], Asked(), ask)

    loaded = card.load(tmp_path / "model")
    assert len(questions) == 2 and all(name in questions[0] for name in preprocess.NAMED)
    assert (loaded.scale, loaded.mean, loaded.labels) == (255.0, (103.939, 116.779, 123.68), ("Pneumonia",))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"labels": ""}, "--labels is needed"),
        ({"preprocess": ""}, "--preprocess is needed"),
        ({"preprocess": "caffe"}, "must be vgg16, unit"),
        ({"preprocess": "scale=0"}, "must be vgg16, unit"),
        ({"labels": "A,B"}, "2 given, the model has 1"),
        ({"labels": "-"}, "at least one"),
        ({"labels": "a\nb"}, "must be 1 to 64"),
        ({"thresholds": ("2",)}, "from 0 to 1"),
        ({"thresholds": ("nan",)}, "from 0 to 1"),
        ({"thresholds": ("Edema=0.2",)}, "the labels are Pneumonia"),
        ({"thresholds": ("0.1", "0.2")}, "given twice"),
        ({"display": ("Pneumonia= ",)}, "can be printed"),
        ({"size": 64}, "takes 32 x 32"),
        ({"logits": True}, "ends in a sigmoid already"),
    ],
)
def test_what_a_person_gets_wrong_is_one_line_and_leaves_nothing(
    tmp_path: Path, files: tuple[Path, Path], bring: Bring, said: dict[str, Any], told: str
) -> None:
    before = sorted(tmp_path.iterdir())

    with pytest.raises(BadData, match=told) as error:
        bring(*files, **said)

    assert "\n" not in str(error.value).replace("a\nb", "") and sorted(tmp_path.iterdir()) == before


def test_two_labels_must_not_be_the_same() -> None:
    with pytest.raises(BadData, match="once"):
        run._labels("A,A,-", 3)


def test_files_that_are_missing_are_named(tmp_path: Path, files: tuple[Path, Path], bring: Bring) -> None:
    with pytest.raises(BadData, match="name their file with --weights"):
        bring(files[0])
    with pytest.raises(BadData, match="no such file"):
        bring(files[0], tmp_path / "absent.h5")
    with pytest.raises(BadModel, match="weights only: name the model's JSON file first"):
        bring(files[1])
    with pytest.raises(BadModel, match=r"holds no saved_model\.pb"):
        bring(tmp_path)


def test_a_folder_that_is_there_is_never_written_over(
    tmp_path: Path, files: tuple[Path, Path], bring: Bring
) -> None:
    (tmp_path / "model").mkdir()

    with pytest.raises(BadData, match="is there already"):
        bring(*files)
    assert not list((tmp_path / "model").iterdir())


def test_a_full_disk_is_told_before_and_leaves_nothing_during(
    tmp_path: Path, files: tuple[Path, Path], bring: Bring, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(tmp_path.iterdir())

    def full(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as small:
        small.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
        with pytest.raises(BadModel, match="MB are free there"):
            bring(*files)
    monkeypatch.setattr(run, "check", full)
    with pytest.raises(OSError, match="No space left"):
        bring(*files)
    assert sorted(tmp_path.iterdir()) == before


def test_scores_that_never_change_are_warned_of(tmp_path: Path, udacity: Udacity) -> None:
    dead = udacity.layers | {
        "dense_2": {"dense_2/kernel:0": np.zeros((5, 1), "f4"), "dense_2/bias:0": np.full(1, 9, "f4")}
    }
    source = keras2.write_json(tmp_path / "m.json", udacity.tree)
    asked = Asked(labels="Pneumonia", preprocess="unit")

    told = import_model(
        source, tmp_path / "model", keras2.write_weights(tmp_path / "w.h5", dead), asked, None
    )

    assert "warning: Pneumonia: nearly the same score for every picture" in told


def test_a_network_that_leaves_0_to_1_is_told_about_logits(tmp_path: Path, udacity: Udacity) -> None:
    tree = keras2.functional((32, 32, 3), keras2.layer("Flatten", "f"), keras2.dense("d", 1, "softplus"))
    arrays = {"d": {"d/kernel:0": np.full((3072, 1), 0.1, "f4"), "d/bias:0": np.full(1, 3, "f4")}}
    source = keras2.write_json(tmp_path / "m.json", tree)
    asked = Asked(labels="Pneumonia", preprocess="unit")

    with pytest.raises(BadModel, match="no probabilities"):
        import_model(source, tmp_path / "model", keras2.write_weights(tmp_path / "w.h5", arrays), asked, None)
    assert not list(tmp_path.glob("*model*"))


def test_images_of_ones_own_go_through_the_self_check(
    tmp_path: Path, files: tuple[Path, Path], bring: Bring
) -> None:
    (tmp_path / "images").mkdir()
    for n in range(3):
        Image.fromarray((noise(64, 1)[n, ..., 0] * 255).astype("u1")).save(tmp_path / f"images/{n}.png")
    (tmp_path / "images/broken.png").write_bytes(b"no picture")

    loaded = bring(*files, images=tmp_path / "images")

    tree = tomllib.loads((loaded.folder / card.CARD).read_text(encoding="utf-8"))
    assert tree["self_check"]["own_images"] == 3


def test_each_named_preprocessing_makes_what_it_says(files: tuple[Path, Path], bring: Bring) -> None:
    loaded = bring(*files)
    grey = pixels.Image(np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64))

    def seen(words: str) -> Any:
        given = preprocess.named(words, 3)
        fields = {"scale": given.scale, "mean": given.mean, "spread": given.spread}
        changed = {**loaded.__dict__, **fields, "each_picture": given.each_picture}
        return pixels.prepare(grey, Card(**changed))

    levels = seen("unit")[..., 0]
    assert 0 < levels.min() < 0.05 and 0.95 < levels.max() < 1
    assert np.allclose(seen("raw"), 255 * seen("unit"), atol=1e-3)
    assert np.allclose(seen("signed"), 2 * seen("unit") - 1, atol=1e-5)
    assert np.allclose(seen("vgg16"), seen("raw") - [103.939, 116.779, 123.68], atol=1e-3)
    assert np.allclose(seen("imagenet-unit")[..., 1], (levels - 0.456) / 0.224, atol=1e-5)
    assert np.allclose([seen("each-picture").mean(), seen("each-picture").std()], [0, 1], atol=1e-4)
    assert np.allclose(seen("scale=255,mean=128,spread=1/2/4")[..., 2], (255 * levels - 128) / 4, atol=1e-3)


def test_means_of_three_colours_need_three_channels() -> None:
    with pytest.raises(BadData, match="this model takes one"):
        preprocess.named("vgg16", 1)


def test_the_command_writes_a_folder_that_predict_takes(
    tmp_path: Path,
    files: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Image.fromarray((noise(200, 1)[0, ..., 0] * 255).astype("u1")).save(tmp_path / "one.png")
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # nobody can be asked
    given = ["model", "import", str(files[0]), "--weights", str(files[1]), "--out", str(tmp_path / "model")]

    refused = main(given)
    line = capsys.readouterr().err
    done = main([*given, "--labels", "Pneumonia", "--preprocess", "unit"])
    told = capsys.readouterr().out
    scores = tmp_path / "scores.csv"
    model = ["--model", str(tmp_path / "model"), "--no-scope", "--runtime", "tensorflow"]
    predicted = main(["model", "predict", str(tmp_path / "one.png"), "--csv", str(scores), *model])

    assert refused == 2 and line.count("\n") == 1 and "--preprocess is needed" in line
    assert done == 0 and "self-check" in told and "hilum model evaluate" in told
    assert predicted == 0 and ",analyzed," in scores.read_text()
