import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from model import card, data, evaluate, ship, train
from model.data import Table
from model.errors import BadModel, Unreadable

RECIPES = Path(train.__file__).parent / "recipes"
HEADER = "image,patient,view,age,sex,collection,Mass,Lung Opacity"


def invented(n: int = 400, *, seed: int = 0) -> tuple[Table, np.ndarray]:
    """A table of n images of n / 2 patients, and features of which the first tells Mass; a third is unknown."""
    random = np.random.default_rng(seed)
    x = random.normal(3, 2, (n, 4)).astype(np.float32)
    mass = (x[:, 0] + random.normal(0, 1, n) > 4).astype(np.float32)
    mass[random.random(n) < 0.33] = np.nan
    patients = np.array([f"{i // 2:04d}" for i in range(n)])
    return (
        Table(
            names=("Mass", "Hernia"),
            labels=np.stack([mass, np.zeros(n, np.float32)], axis=1),
            images=tuple(Path(f"{i}.png") for i in range(n)),
            patients=patients,
            views=np.full(n, "PA"),
            ages=np.full(n, 40, np.float32),
            sexes=np.full(n, "F"),
            collections=np.full(n, "c2"),
            folds=np.array([data.fold_of(patient) for patient in patients]),
        ),
        x,
    )


def recipe() -> train.Recipe:
    return train.read_recipe(RECIPES / "first-light.toml")


def test_the_shipped_recipe_is_the_cards() -> None:
    read, shipped = recipe(), card.load(card.SHIPPED)
    assert (read.name, read.version, read.labels) == (shipped.name, shipped.version, shipped.labels)
    assert (read.size, read.pools) == (shipped.size, shipped.pools)


def test_a_recipe_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text((RECIPES / "first-light.toml").read_text() + "\nmagic = true\n")
    with pytest.raises(BadModel, match="magic"):
        train.read_recipe(file)


def test_no_patient_is_in_two_folds(shared_data: Path) -> None:
    table = data.read(shared_data / "xray/labels.csv", shared_data / "xray/images", ["Mass", "Lung Opacity"])

    folds = [set(table.patients[table.folds == fold]) for fold in range(data.FOLDS)]
    assert sum(map(len, folds)) == len(set(table.patients)) == 1532
    assert set.union(*folds) == set(table.patients)
    assert all(len(fold) > 250 for fold in folds)


def test_an_empty_label_is_unknown_and_not_absent(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(f"{HEADER}\na.png,1,PA,50,M,c1,0,\nb.png,2,AP,61,F,c1,1,1\n")
    table = data.read(file, tmp_path, ["Mass", "Lung Opacity"])

    assert np.isnan(table["Lung Opacity"][0]) and table["Lung Opacity"][1] == 1
    assert table["Mass"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "named"),
    [(HEADER.replace("Mass", "Mess"), "'Mass' is missing"), (f"{HEADER}\na,1,PA,5,M,c1,yes,0", "line 2")],
)
def test_a_bad_table_names_its_line_or_column(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(Unreadable, match=named):
        data.read(file, tmp_path, ["Mass", "Lung Opacity"])


def test_images_whose_label_is_unknown_do_not_touch_its_head() -> None:
    table, x = invented()
    unknown = np.isnan(table["Mass"])
    every = np.ones(len(table), bool)

    head = train.fit_head(x, table.labels, every, 1.0)
    upset = train.fit_head(np.where(unknown[:, None], -99, x), table.labels, every, 1.0)
    known = ~unknown
    area = evaluate.auroc(table.only(known), head.scores(x)[known], ["Mass"], resamples=0)

    assert np.array_equal(head.kernel[:, 0], upset.kernel[:, 0])
    assert area is not None and area.auroc > 0.8


def test_a_label_without_positives_becomes_a_small_constant() -> None:
    table, x = invented()
    head = train.fit_head(x, table.labels, np.ones(len(table), bool), 1.0)
    assert not head.kernel[:, 1].any()
    assert 0 < head.scores(x)[0, 1] < 0.01


def test_standardization_is_folded_into_the_weights() -> None:
    table, x = invented()
    every = np.ones(len(table), bool)
    plain = train.fit_head(x, table.labels, every, 0.1)
    shifted = train.fit_head(x * 7 + 100, table.labels, every, 0.1)
    assert np.abs(plain.scores(x) - shifted.scores(x * 7 + 100)).max() < 1e-3


def test_the_patients_kept_back_decide_nothing() -> None:
    table, x = invented()
    short = train.Recipe(**{**vars(recipe()), "strengths": (0.01, 1.0), "labels": table.names})
    kept_back = table.folds == short.test_fold
    labels = table.labels.copy()
    labels[kept_back, 0] = 1 - labels[kept_back, 0]
    upset = Table(**{**vars(table), "labels": labels})

    one = train.train(x, table, short)
    two = train.train(np.where(kept_back[:, None], 99, x).astype(np.float32), upset, short)

    assert np.array_equal(one.head.kernel, two.head.kernel)
    assert (one.strength, one.thresholds) == (two.strength, two.thresholds)
    assert np.isnan(one.inner[kept_back]).all() and not np.isnan(one.inner[~kept_back]).any()


def test_thresholds_leave_the_share_of_absent_ones_below() -> None:
    table, x = invented()
    scores = np.tile(1 / (1 + np.exp(-x[:, :1].astype(float))), (1, 2))
    absent = table["Mass"] == 0

    threshold = train.thresholds(table, scores, 0.9)["Mass"]

    assert 0.89 <= (scores[absent, 0] < threshold).mean() <= 0.92


def test_auroc_is_that_of_pairs_and_its_interval_holds_it() -> None:
    from sklearn.metrics import roc_auc_score

    table, x = invented()
    scores = np.tile(np.round(x[:, :1].astype(float), 1), (1, 2))
    known = ~np.isnan(table["Mass"])

    figure = evaluate.auroc(table, scores, ["Mass"], resamples=200)

    assert figure is not None
    assert figure.auroc == round(roc_auc_score(table["Mass"][known], scores[known, 0]), 3)
    assert figure.low < figure.auroc < figure.high
    assert evaluate.auroc(table, scores, ["Hernia"]) is None


def test_a_card_survives_its_own_toml() -> None:
    tree = {
        "a": 'quotes " and \\ and é',
        "t": {"long": "word " * 60, "rows": [{"x": 1.5, "y": "z"}], "list": [1, 2]},
        "findings": [{"label": "A", "ok": True}, {"label": "B", "ok": False}],
    }
    read = tomllib.loads(ship.toml(tree))
    assert read["t"]["long"] == ("word " * 60).strip()
    assert (
        read["findings"] == tree["findings"]
        and read["a"] == tree["a"]
        and read["t"]["rows"] == tree["t"]["rows"]
    )


def test_the_page_about_the_model_shows_the_cards_figures() -> None:
    page = (Path(train.__file__).parents[1] / "docs/model.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- figures -->\n(.*?)<!-- end of figures -->", page, re.DOTALL)
    tree = tomllib.loads((card.SHIPPED / card.CARD).read_text(encoding="utf-8"))
    assert shown and shown[1] == ship.table_of_figures(tree)
