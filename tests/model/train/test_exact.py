import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from model.classifier import Classifier
from model.evaluate.auroc import auroc
from model.table import Table
from model.train.exact import borrow, lesson, solve
from model.train.run import train

NAMES = ("Mass", "Nodule", "Lung Opacity")


def invented(n: int = 240, features: int = 6, seed: int = 0) -> tuple[Table, np.ndarray]:
    """n images: the first feature tells Mass, the second Nodule; an opacity is nearly always where a Mass is."""
    random = np.random.default_rng(seed)
    x = random.normal(3, 2, (n, features)).astype(np.float32)
    mass = x[:, 0] + random.normal(0, 1, n) > 3
    nodule = x[:, 1] + random.normal(0, 1, n) > 3
    opacity = np.where(random.random(n) < 0.9, mass, ~mass).astype(np.float32)
    opacity[random.random(n) < 0.8] = np.nan
    return (
        Table(
            names=NAMES,
            labels=np.stack([mass, nodule, opacity], axis=1).astype(np.float32),
            images=tuple(Path(f"{i}.png") for i in range(n)),
            patients=np.array([f"{i // 2:04d}" for i in range(n)]),
            views=np.where(np.arange(n) % 3 == 0, "AP", "PA"),
            ages=np.full(n, 40, np.float32),
            sexes=np.full(n, "F"),
            collections=np.full(n, "c1"),
            follow_ups=np.zeros(n, np.float32),
            splits=np.full(n, ""),
        ),
        x,
    )


def everyone(table: Table) -> np.ndarray:
    return np.ones(len(table), np.bool_)


@pytest.mark.parametrize("features", [6, 400])
def test_it_is_the_logistic_regression_whether_images_or_features_are_more(features: int) -> None:
    table, x = invented(features=features)
    head = solve(x, [features], lesson(table, everyone(table), {}), [0.5])[0]

    scaled = (x - x.mean(axis=0)) / x.std(axis=0) / np.sqrt(features)
    peer = LogisticRegression(C=0.5, tol=1e-8, max_iter=5000).fit(scaled, table["Nodule"])
    assert np.abs(head.scores(x)[:, 1] - peer.predict_proba(scaled)[:, 1]).max() < 5e-3


def test_each_pool_counts_the_same_however_many_features_it_has() -> None:
    table, x = invented()
    given = lesson(table, everyone(table), {})
    once = solve(x, [3, 3], given, [1.0])[0].scores(x)
    doubled = np.concatenate([x, x[:, 3:]], axis=1)
    assert np.abs(solve(doubled, [3, 6], given, [1.0])[0].scores(doubled) - once).max() < 2e-3


def test_an_image_of_which_nothing_is_known_does_not_touch_the_head() -> None:
    table, x = invented()
    labels = table.labels.copy()
    labels[:40] = np.nan
    blind = Table(**{**vars(table), "labels": labels})
    seen = np.arange(len(table)) >= 40

    one = solve(x[seen], [6], lesson(blind, seen, {}), [1.0])[0]
    other = solve(x[seen], [6], lesson(table, seen, {}), [1.0])[0]
    given = lesson(blind, everyone(blind), {})
    assert not given.weights[:40].any()
    assert np.array_equal(one.kernel, other.kernel)


def test_a_label_without_positives_becomes_a_small_constant() -> None:
    table, x = invented()
    labels = table.labels.copy()
    labels[:, 1] = 0
    head = solve(x, [6], lesson(Table(**{**vars(table), "labels": labels}), everyone(table), {}), [1.0])[0]
    assert not head.kernel[:, 1].any()
    assert 0 < head.scores(x)[0, 1] < 0.01


def test_a_collection_that_tells_a_label_is_not_learnt_from_the_pictures() -> None:
    table, x = invented()
    random = np.random.default_rng(1)
    first = np.arange(len(table)) % 2 == 0
    x[:, 5] = first + random.normal(0, 0.3, len(table))  # the look of a collection
    labels = table.labels.copy()
    labels[:, 0] = np.where(first, random.random(len(table)) < 0.8, random.random(len(table)) < 0.1)
    apart = {**vars(table), "labels": labels, "collections": np.where(first, "c1", "c2")}
    alike = {**apart, "collections": np.full(len(table), "c1")}

    knowing = solve(x, [6], lesson(Table(**apart), everyone(table), {}), [3.0])[0]
    fooled = solve(x, [6], lesson(Table(**alike), everyone(table), {}), [3.0])[0]
    assert abs(knowing.kernel[5, 0]) < 0.5 * abs(fooled.kernel[5, 0])


@pytest.mark.parametrize("strength", [0.3, 30.0])
def test_scores_are_shares_of_the_images_read_also_where_a_collection_never_has_the_label(
    strength: float,
) -> None:
    table, x = invented(n=600)
    never = np.where(table["Nodule"] == 1, "c1", np.where(np.arange(600) % 2 == 0, "c1", "c3"))
    apart = Table(**{**vars(table), "collections": never})
    scores = solve(x, [6], lesson(apart, everyone(apart), {}), [strength])[0].scores(x)
    assert scores[:, 1].mean() == pytest.approx(table["Nodule"].mean(), abs=0.01)


def test_what_nobody_read_is_borrowed_from_the_other_labels() -> None:
    table, x = invented(n=600)
    truth, unread = table["Mass"], np.isnan(table["Lung Opacity"])
    shares = borrow(table, 2)
    assert shares is not None
    assert shares[truth == 1].mean() > 0.7 > 0.3 > shares[truth == 0].mean()

    given = lesson(table, everyone(table), {"Lung Opacity": 0.5})
    assert (given.weights[unread, 2] == 0.5).all() and (given.weights[~unread, 2] == 1).all()
    assert np.array_equal(given.targets[~unread, 2], table["Lung Opacity"][~unread])

    asked = Table(**{**vars(table), "labels": np.column_stack([table.labels[:, :2], truth])})
    areas = [
        auroc(asked, solve(x, [6], lesson(table, everyone(table), lent), [1.0])[0].scores(x), [NAMES[2]])
        for lent in ({}, {"Lung Opacity": 0.5})
    ]
    assert areas[0] and areas[1] and areas[1].auroc > areas[0].auroc


def test_a_recipe_with_an_exact_head_trains_and_is_taken_up_again(
    drawn: Path, imagenet: Path, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    text = recipe().read_text(encoding="utf-8")
    text = text[: text.index("[[stages]]")].replace('"averages"', '"roots"')
    text = text.replace('"block4_pool", "block5_pool"', '"block3_pool", "block3_pool/2"')
    file = tmp_path / "exact.toml"
    file.write_text(text + '[exact]\nstrengths = [1.0, 10.0]\nborrowed = { "Lung Opacity" = 0.5 }\n')
    given = {"recipe": str(file), "weights": imagenet, "cache": tmp_path / "cache"}

    train(drawn / "labels.csv", drawn, tmp_path / "run", **given)
    weights = (tmp_path / "run/model/weights.npz").read_bytes()
    report = json.loads((tmp_path / "run/report.json").read_text(encoding="utf-8"))
    train(drawn / "labels.csv", drawn, tmp_path / "run", **given)

    assert Classifier.load(tmp_path / "run/model").card.head == "roots"
    assert (tmp_path / "run/model/weights.npz").read_bytes() == weights
    assert "exact" in json.dumps(report)
