"""Two models on the same images."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score, roc_auc_score
from typer.testing import CliRunner

from model import card
from model.classifier import Classifier
from model.compare.judge import FIGURES, agreement, judge
from model.compare.run import compare
from model.errors import BadData
from model.evaluate.scores import score
from model.table import Table
from node.cli_model import model as commands

Make = Callable[[Path], Path]
Draw = Callable[[Path, float], None]


def table_of(labels: np.ndarray, patients: list[str]) -> Table:
    n = len(labels)
    return Table(
        names=tuple("ABCDE"[: labels.shape[1]]),
        labels=labels.astype(np.float32),
        images=tuple(Path(f"{i}.png") for i in range(n)),
        patients=np.array(patients),
        views=np.full(n, "PA"),
        ages=np.full(n, 40, np.float32),
        sexes=np.full(n, "F"),
        collections=np.full(n, ""),
        follow_ups=np.zeros(n, np.float32),
        splits=np.full(n, "test"),
    )


@pytest.fixture(scope="module")
def invented() -> tuple[Table, np.ndarray]:
    """Two labels on 400 images of 200 patients, and scores that are right as often as they say; A is partly unknown."""
    random = np.random.default_rng(0)
    score = random.beta(1, 2, (400, 2))
    labels = (random.random((400, 2)) < score).astype(np.float32)
    labels[::5, 0] = np.nan
    return table_of(labels, [f"p{i // 2}" for i in range(400)]), score


BOTH = {"A": 0.3, "B": 0.4}


def test_a_model_against_itself_differs_by_nothing(invented: tuple[Table, np.ndarray]) -> None:
    table, score = invented
    found = judge(table, score, score, (BOTH, BOTH), resamples=50, seed=0)
    for pairs in (found.mean, *(label.figures for label in found.labels.values())):
        assert list(pairs) == list(FIGURES)
        for pair in pairs.values():
            assert (pair.difference.value, pair.difference.low, pair.difference.high) == (0, 0, 0)
            assert pair.first == pair.second and pair.verdict == "not told apart"
    for label in found.labels.values():
        same = label.agreement
        assert (same.only_first, same.only_second, same.p, label.holm, label.apart) == (0, 0, 1, 1, ())
        assert label.correlation == pytest.approx(1)


def test_shuffled_scores_lose(invented: tuple[Table, np.ndarray]) -> None:
    table, score = invented
    shuffled = np.random.default_rng(1).permutation(score)
    found = judge(table, score, shuffled, (BOTH, BOTH), resamples=200, seed=0)
    turned = judge(table, shuffled, score, (BOTH, BOTH), resamples=200, seed=0)

    for label in found.labels.values():
        assert label.figures["AUROC"].verdict == "over zero"
        assert label.figures["Brier"].verdict == label.figures["ECE"].verdict == "under zero"
        assert label.agreement.first_right > label.agreement.second_right and label.holm < 0.001
    assert found.mean["AUROC"].difference.value == pytest.approx(-turned.mean["AUROC"].difference.value)
    assert turned.mean["AUROC"].verdict == "under zero"


def test_figures_are_scikit_learns_at_each_ones_own_thresholds(invented: tuple[Table, np.ndarray]) -> None:
    table, score = invented
    other = np.clip(score + np.random.default_rng(2).normal(0, 0.2, score.shape), 0, 1)
    found = judge(table, score, other, (BOTH, {"A": 0.5, "B": 0.6}), resamples=20, seed=0)

    seen = ~np.isnan(table["A"])
    truth, a, b = table["A"][seen], score[seen, 0], other[seen, 0]
    label = found.labels["A"]
    assert (label.images, label.positive) == (320, int(truth.sum()))
    area = label.figures["AUROC"]
    assert area.difference.value == pytest.approx(roc_auc_score(truth, a) - roc_auc_score(truth, b))
    f1 = label.figures["F1"]
    assert (f1.first.value, f1.second.value) == pytest.approx(
        (f1_score(truth, a >= 0.3), f1_score(truth, b >= 0.5))
    )
    assert label.figures["Brier"].difference.value == pytest.approx(
        ((a - truth) ** 2).mean() - ((b - truth) ** 2).mean()
    )
    calls = (score[:, 0] >= 0.3).sum(), (other[:, 0] >= 0.5).sum()
    same = label.agreement
    assert (same.both + same.only_first, same.both + same.only_second) == calls
    far = np.abs(score[:, 0] - other[:, 0])
    assert [each.row for each in label.apart] == np.argsort(-far)[:5].tolist()
    assert all(np.isnan(each.truth) == np.isnan(table["A"][each.row]) for each in label.apart)


def test_who_is_right_is_counted_where_they_differ_and_the_truth_is_known() -> None:
    truth = np.float32([1, 1, 0, 0, 1, np.nan, 0])
    first = np.array([1, 1, 0, 1, 0, 1, 0], bool)
    second = np.array([0, 1, 1, 1, 1, 0, 1], bool)
    found = agreement(truth, first, second)
    assert (found.both, found.only_first, found.only_second, found.none) == (2, 2, 3, 0)
    assert (found.first_right, found.second_right) == (3, 1)
    assert found.p == pytest.approx(binomtest(3, 4).pvalue)


def test_holm_corrects_for_the_number_of_labels() -> None:
    random = np.random.default_rng(3)
    truth = random.integers(0, 2, (300, 3)).astype(np.float32)
    first = np.where(random.random((300, 3)) < [0.3, 0.42, 0.5], 1 - truth, truth) * 0.8 + 0.1
    second = np.where(random.random((300, 3)) < 0.5, 1 - truth, truth) * 0.8 + 0.1
    half = dict.fromkeys("ABC", 0.5)
    found = judge(
        table_of(truth, [str(i) for i in range(300)]), first, second, (half, half), resamples=5, seed=0
    )

    p = sorted((label.agreement.p, label.holm) for label in found.labels.values())
    by_hand = np.minimum(1, np.maximum.accumulate([p[0][0] * 3, p[1][0] * 2, p[2][0]]))
    assert [holm for _, holm in p] == pytest.approx(by_hand)


def test_too_few_positives_make_no_figure_but_agreement_is_counted() -> None:
    labels = np.column_stack([np.arange(60) < 2, np.arange(60) % 2])
    scores = np.random.default_rng(4).random((60, 2))
    found = judge(
        table_of(labels, [str(i) for i in range(60)]), scores, 1 - scores, (BOTH, BOTH), resamples=5, seed=0
    )
    assert found.labels["A"].figures == {} and found.labels["B"].figures
    one = found.labels["A"].agreement
    assert one.both + one.only_first + one.only_second + one.none == 60
    assert found.mean["AUROC"] == found.labels["B"].figures["AUROC"]


# Folders


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, draw: Draw) -> Path:
    """60 pictures, one brighter than the other; 59.png is no picture."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(60):
        draw(folder / f"{i:02d}.png", 0.1 + i / 80)
    (folder / "59.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def scored(images: Path, make_model: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scored")
    folder = make_model(tmp_path_factory.mktemp("models") / "model")
    score(card.load(folder), tuple(sorted(images.iterdir())), images, out / "a")
    return out


@pytest.fixture
def out(scored: Path, tmp_path: Path) -> Path:
    return shutil.copytree(scored, tmp_path / "out")


def labels(folder: Path, **more: Any) -> Path:
    random = np.random.default_rng(5)
    rows = [
        {"image": f"{i:02d}.png", "patient": f"p{i // 2}", "split": "test", "Mass": int(random.random() < i / 60),
         "Hernia": int(i in (3, 20)), "Edema": i % 2} | more
        for i in range(60)
    ]  # fmt: skip
    file = folder / "labels.csv"
    with file.open("w", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def changed(folder: Path, to: Path, *changes: tuple[str, str]) -> Path:
    shutil.copytree(folder, to)
    text = (to / "card.toml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (to / "card.toml").write_text(text)
    return to


def test_two_folders_are_compared_and_what_may_be_said_stands_first(
    model: Path, images: Path, out: Path, tmp_path: Path
) -> None:
    """The second looks at pictures as if they were darker, which orders them the same."""
    file = labels(tmp_path)
    other = changed(
        model, tmp_path / "other", ("scale = 255.0", "scale = 200.0"), ('version = "1"', 'version = "2"')
    )
    done = CliRunner().invoke(
        commands,
        ["compare", str(model), str(other), str(file), "--images", str(images), "--out", str(out),
         "--resamples", "50"],
        catch_exceptions=False,
        standalone_mode=False,
    )  # fmt: skip

    assert "A is brightness 1, B is brightness 2" in done.stdout
    assert "59 images of 30 patients, split test; 1 more could not be read" in done.stdout
    assert "mean AUROC, A less B: +0.000 [+0.000, +0.000], not told apart" in done.stdout
    assert "too few positives or negatives: Hernia" in done.stdout
    assert done.stdout.count("can't be known") == 2
    found = json.loads((out / "report.json").read_text())
    mass = found["labels"]["Mass"]
    assert mass["figures"]["sensitivity"]["a_less_b"]["value"] > 0 and not found["one_network"]
    assert mass["agreement"]["only_first"] > 0 == mass["agreement"]["only_second"]
    assert len(mass["apart"]) == 5 and mass["apart"][0]["image"].endswith(".png")
    assert found["unreadable"].keys() == {"59.png"}
    page = (out / "report.html").read_text()
    assert page.index("What may be concluded") < page.index("<table") and "would miss zero by chance" in page
    assert (out / "b/scores.csv").exists()


def test_other_thresholds_on_the_same_weights_are_scored_once(
    model: Path, images: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> Classifier:
        raise AssertionError("nothing had to be scored")

    monkeypatch.setattr(Classifier, "load", never)
    other = changed(model, tmp_path / "other", ("0.875", "0.5"))
    said = compare(model, other, labels(tmp_path), images, out, resamples=20)
    found = json.loads((out / "report.json").read_text())

    assert "both are one network" in said and not (out / "b").exists()
    mass = found["labels"]["Mass"]["figures"]
    assert mass["AUROC"]["a_less_b"] == {"value": 0, "low": 0, "high": 0}
    assert mass["sensitivity"]["a_less_b"]["value"] < 0 < mass["specificity"]["a_less_b"]["value"]


def test_a_card_that_names_the_table_tells_whether_it_was_trained_on_it(
    model: Path, images: Path, out: Path, tmp_path: Path
) -> None:
    import hashlib

    file = labels(tmp_path)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    other = changed(
        model, tmp_path / "other", ("[thresholds]", f'[data]\ntable = "sha256:{digest}"\n\n[thresholds]')
    )
    assert "took no part in its training" in compare(model, other, file, images, out, resamples=0)
    said = compare(model, other, file, images, out, split="all", resamples=0)
    assert "was trained on images of split all of this very table" in said


def test_models_without_a_label_in_common_are_one_line(
    model: Path, images: Path, out: Path, tmp_path: Path
) -> None:
    other = changed(model, tmp_path / "other", ('"Mass"', '"Edema"'), ('"Hernia"', '"Fibrosis"'))
    with pytest.raises(BadData, match="no label in common") as error:
        compare(model, other, labels(tmp_path), images, out)
    assert "\n" not in str(error.value)
    with pytest.raises(BadData, match=r"none of the images of split test could be read; .*\.png"):
        (tmp_path / "empty").mkdir()
        compare(model, model, labels(tmp_path), tmp_path / "empty", tmp_path / "none")
