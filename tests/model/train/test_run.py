import csv
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model import card, network, pixels
from model.classifier import Classifier
from model.errors import BadData, BadModel
from model.train import checkpoint, tuned
from model.train.recipe import RECIPES, read_recipe
from model.train.run import train
from model.train.tuned import MIDDLE

Written = Callable[..., Path]

CHILD = """
import os, signal, sys
from pathlib import Path
from model.train.run import train
from model import network
backend, steps, images, weights, recipe, out, cache = sys.argv[1:]

def dies(count, work):
    left = [int(count)]
    def instead(*given, **named):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return work(*given, **named)
    return instead

model = network.keras(backend).Model
model.train_on_batch = dies(steps, model.train_on_batch)
images, out, weights, cache = Path(images), Path(out), Path(weights), Path(cache)
train(images / "labels.csv", images, out, recipe=recipe, weights=weights, backend=backend, cache=cache)
"""
"""A training that is killed at the step of that number."""

NEVER = 10**9


def final(out: Path) -> dict[str, np.ndarray]:
    return network.read_weights(out / "model" / "weights.npz")


def history(out: Path) -> list[dict[str, str]]:
    with (out / "history.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def child(
    backend: str, drawn: Path, imagenet: Path, recipe: Path, out: Path, cache: Path, steps: int = NEVER
) -> int:
    """Its exit status; `steps`: at which step of all epochs it is killed."""
    places = [str(place) for place in (drawn, imagenet, recipe, out, cache)]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, backend, str(steps), *places],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(network.__file__).parents[1])},
    )
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


def test_a_run_leaves_a_model_that_the_node_can_load(whole: Path, drawn: Path) -> None:
    loaded = Classifier.load(whole / "model")
    report = json.loads((whole / "report.json").read_text(encoding="utf-8"))

    assert loaded.card.labels == ("Mass", "Lung Opacity")
    assert "maximal F1 on the 12 validation images" in loaded.card.rule
    assert loaded.card.thresholds == report["thresholds"]
    # 12 images are too few for a temperature: only the share of positives goes over
    curves = loaded.card.calibrations
    assert set(curves) == {"Mass", "Lung Opacity"} and curves["Mass"].temperature == 1.0  # type: ignore[union-attr]
    assert loaded.card.prevalence["Mass"] == 0.5
    assert "on the 12 validation images (6 patients)" in loaded.card.calibrated_how
    assert "Mass 6 of 12" in loaded.card.calibrated_how
    assert "Scores are calibrated on these validation images" in loaded.card.limits
    images = [pixels.read(pixels.wrap(drawn / f"{number}.png")) for number in range(24, 36)]
    batch = np.stack([pixels.prepare(image, loaded.card) for image in images])
    called = [findings[0].present for findings in loaded.predict(batch)]
    assert sum(one == bool(number % 2) for number, one in zip(range(24, 36), called, strict=True)) >= 10
    assert (whole / "report.html").stat().st_size > 10_000


def test_standardization_is_folded_into_the_shipped_head(whole: Path) -> None:
    best = checkpoint.load_best(whole / "checkpoints")
    recipe = read_recipe(str(whole.parent / "tiny.toml"))
    shipped = tuned.shipped(recipe, best)
    features = np.random.default_rng(0).uniform(0, 50, (5, len(best[MIDDLE]))).astype(np.float32)

    standard = (features - best[MIDDLE]) / best[tuned.SPREAD]
    logits = standard @ best["head/kernel"] + best["head/bias"]

    assert np.allclose(features @ shipped["head/kernel"] + shipped["head/bias"], logits, rtol=1e-3, atol=1e-2)
    assert not {"age/kernel", "sex/kernel", "view/kernel", MIDDLE} & set(shipped)


def test_only_the_layers_of_a_stage_change(whole: Path, imagenet: Path) -> None:
    before, after = network.read_weights(imagenet), checkpoint.load(whole / "checkpoints")
    assert after is not None
    changed = {name for name in before if not np.array_equal(before[name], after.weights[name])}
    assert changed <= {"block5_conv3/kernel", "block5_conv3/bias"}


def test_each_epoch_stands_in_the_history_and_for_tensorboard(whole: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    rows = history(whole)
    assert [(row["epoch"], row["stage"]) for row in rows] == [
        ("1", "head"),
        ("2", "head"),
        ("3", "block5"),
        ("4", "block5"),
    ]
    for figure in ("auroc", "accuracy", "precision", "recall", "f1"):
        for label in ("Mass", "Lung Opacity", "mean"):
            for split in ("training", "validation"):
                assert 0 <= float(rows[-1][f"{split}/{label}/{figure}"]) <= 1
    files = sorted((whole / "tensorboard").iterdir())
    assert len(files) == 4
    event = Event.FromString(list(RawEventFileLoader(str(files[-1])).Load())[-1])
    told = {value.tag: value.simple_value for value in event.summary.value}
    assert event.step == 4
    assert told["training/loss"] == pytest.approx(float(rows[-1]["training/loss"]), rel=1e-5)


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_been(
    whole: Path, drawn: Path, imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of epoch 2 (of three steps); then stopped between best weights and their checkpoint."""
    recipe, out = whole.parent / "tiny.toml", tmp_path / "run"

    def goes_on() -> None:
        train(drawn / "labels.csv", drawn, out, recipe=str(recipe), weights=imagenet, cache=whole / "cache")

    assert child("tensorflow", drawn, imagenet, recipe, out, whole / "cache", steps=5) == -9
    assert len(history(out)) == 1
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(checkpoint, "save", interrupted)
        goes_on()
    assert checkpoint.load(out / "checkpoints").total == 1 and not (out / "model").exists()  # type: ignore[union-attr]
    goes_on()

    assert (out / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()
    assert (out / "model/weights.npz").read_bytes() == (whole / "model/weights.npz").read_bytes()
    assert (out / "model/card.toml").read_bytes() == (whole / "model/card.toml").read_bytes()


def test_jax_comes_to_the_same_scores(whole: Path, drawn: Path, imagenet: Path, tmp_path: Path) -> None:
    pytest.importorskip("jax")
    assert child("jax", drawn, imagenet, whole.parent / "tiny.toml", tmp_path / "run", whole / "cache") == 0

    # Fixed views come from one cache; JAX runs the frozen layers too when it scores validation images at the end.
    for ours, theirs in zip(history(whole), history(tmp_path / "run"), strict=True):
        for name in ("training/loss", "validation/loss", "validation/mean/auroc"):
            assert float(theirs[name]) == pytest.approx(float(ours[name]), abs=0.01), name
    one, other = card.load(whole / "model"), card.load(tmp_path / "run/model")
    assert other.thresholds == pytest.approx(one.thresholds, abs=0.01)
    batch = np.random.default_rng(0).uniform(-100, 100, (4, 32, 32, 3)).astype(np.float32)
    ours_of, theirs_of = (network.load(each).predict_on_batch(batch) for each in (one, other))
    assert np.abs(theirs_of - ours_of).max() < 0.01


def test_two_runs_do_not_write_into_one_folder(whole: Path, drawn: Path, imagenet: Path) -> None:
    recipe = str(whole.parent / "tiny.toml")
    with (whole / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BadData, match="another training is at work"):
            train(drawn / "labels.csv", drawn, whole, recipe=recipe, weights=imagenet)


@pytest.mark.parametrize("other", ["recipe", "seed", "table", "weights"])
def test_another_run_does_not_go_on_in_a_runs_folder(
    whole: Path, drawn: Path, imagenet: Path, tmp_path: Path, other: str
) -> None:
    recipe, table, seed, weights = whole.parent / "tiny.toml", drawn / "labels.csv", 0, imagenet
    if other == "recipe":
        recipe = tmp_path / "tiny.toml"
        recipe.write_text((whole.parent / "tiny.toml").read_text() + "# another\n")
    elif other == "table":
        table = tmp_path / "labels.csv"
        table.write_text((drawn / "labels.csv").read_text().replace("p0,PA,20", "p0,PA,21"))
    elif other == "weights":
        weights = tmp_path / "vgg16.npz"
        network.write_weights(
            weights, {**network.read_weights(imagenet), "block1_conv1/bias": np.ones(64, np.float32)}
        )
    else:
        seed = 1
    before = (whole / "run.json").read_bytes()

    with pytest.raises(BadData, match=f"another {other}|other --{other}|another --{other}") as error:
        train(table, drawn, whole, recipe=str(recipe), weights=weights, cache=whole / "cache", seed=seed)

    assert "choose another --out" in str(error.value)
    assert (whole / "run.json").read_bytes() == before


def test_udacity_freezes_the_first_17_layers(drawn: Path, imagenet: Path, tmp_path: Path) -> None:
    """Keras's VGG16.layers[0:17], its input counted, are what the project froze; all others learn."""
    text = (RECIPES / "udacity.toml").read_text(encoding="utf-8")
    file = tmp_path / "udacity.toml"
    for old, new in (
        ("size = 224", "size = 32"),
        ("epochs = 30", "epochs = 1"),
        ('["Pneumonia"]', '["Mass"]'),
        ("hidden = [1024, 512, 256]", "hidden = [16, 8]"),
        ("batch = 32", "batch = 8"),
    ):
        assert old in text
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")

    train(drawn / "labels.csv", drawn, tmp_path / "run", recipe=str(file), weights=imagenet)

    layers = [
        layer.name for layer in network.keras().applications.VGG16(include_top=False, weights=None).layers
    ]
    before, after = network.imagenet(imagenet), final(tmp_path / "run")
    for layer in layers[:17]:
        for part in ("kernel", "bias"):
            name = f"{layer}/{part}"
            assert name not in before or np.array_equal(before[name], after[name]), name
    assert not np.array_equal(before["block5_conv3/kernel"], after["block5_conv3/kernel"])
    assert layers[17:] == ["block5_conv3", "block5_pool"]
    written = card.load(tmp_path / "run/model")
    assert (written.head, written.hidden, written.pools) == ("flatten", (16, 8), ("block5_pool",))
    Classifier.load(tmp_path / "run/model")


def test_early_stopping_ends_a_stage_and_restores_the_best(
    whole: Path, drawn: Path, imagenet: Path, recipe: Written, tmp_path: Path
) -> None:
    """Rates that are far too high make later epochs worse than the best one."""
    text = recipe(("epochs = 2\nrate = 1e-2", "epochs = 9\nrate = 9.0"), ("patience = 10", "patience = 2"))
    alone = text.read_text()
    text.write_text(alone[: alone.rindex("[[stages]]")])
    train(drawn / "labels.csv", drawn, tmp_path / "run", recipe=str(text), weights=imagenet)

    state = checkpoint.load(tmp_path / "run/checkpoints")
    assert state is not None
    means = [row["validation"]["labels"]["mean"]["auroc"] for row in state.history]
    assert len(means) == state.best_epoch + 2 < 9 and max(means) == means[state.best_epoch - 1]
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["validation"]["labels"]["mean"]["auroc"] == pytest.approx(max(means), abs=0.03)


def test_an_unreadable_image_is_named_and_left_out_and_many_end_the_run(
    drawn: Path, imagenet: Path, recipe: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(drawn, folder)
    (folder / "03.png").write_bytes(b"no picture")
    file = recipe()
    text = file.read_text()
    file.write_text(text[: text.rindex("[[stages]]")])

    train(folder / "labels.csv", folder, tmp_path / "run", recipe=str(file), weights=imagenet)

    assert capsys.readouterr().err.count("03.png: left out") == 1
    assert json.loads((tmp_path / "run/report.json").read_text())["unreadable"][0][0] == "03.png"
    (folder / "04.png").unlink()
    with pytest.raises(BadData, match=r"2 of 35 images can't be read.*03\.png"):
        train(folder / "labels.csv", folder, tmp_path / "other", recipe=str(file), weights=imagenet)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",validation\n", ",test\n", "make splits with `hilum model data split`"),
        ("p12,", "p0,", "p"),
        ("Lung Opacity", "Opacity", "Lung Opacity"),
    ],
)
def test_a_table_that_can_not_be_used_is_one_line(
    drawn: Path, imagenet: Path, recipe: Written, tmp_path: Path, old: str, new: str, said: str
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text((drawn / "labels.csv").read_text().replace("\r\n", "\n").replace(old, new))
    with pytest.raises(BadData, match=said) as error:
        train(table, drawn, tmp_path / "run", recipe=str(recipe()), weights=imagenet)
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_weights_of_something_else_are_one_line(
    drawn: Path, imagenet: Path, recipe: Written, tmp_path: Path
) -> None:
    other = tmp_path / "other.npz"
    weights = network.read_weights(imagenet)
    network.write_weights(other, {name: array for name, array in weights.items() if "block5" not in name})
    for file, said in (
        (other, "block5_conv1/bias is missing"),
        (tmp_path / "absent.npz", "is no readable .npz"),
    ):
        with pytest.raises(BadModel, match=said) as error:
            train(drawn / "labels.csv", drawn, tmp_path / "run", recipe=str(recipe()), weights=file)
        assert str(file) in str(error.value) and not (tmp_path / "run").exists()
