import re
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model import card, ship, ship_tables
from model import table as tables
from model.card_text import toml
from model.errors import BadData
from model.evaluate import auroc as evaluate
from model.evaluate.judge import Folded, judge
from model.table import Table
from model.train import linear as train
from model.train.recipe import Exact, Recipe, read_recipe

HEADER = "image,patient,view,age,sex,collection,Mass,Lung Opacity"


def invented(n: int = 400, *, seed: int = 0) -> tuple[Table, np.ndarray]:
    """A table of n images of n / 2 patients, and features of which the first tells Mass; a third is unknown."""
    random = np.random.default_rng(seed)
    x = random.normal(3, 2, (n, 256)).astype(np.float32)
    x[:, 1:] /= 20
    mass = (x[:, 0] + random.normal(0, 1, n) > 4).astype(np.float32)
    mass[random.random(n) < 0.33] = np.nan
    patients = np.array([f"{i // 2:04d}" for i in range(n)])
    return (
        Table(
            names=("Mass", "Hernia"),
            labels=np.stack([mass, (np.arange(n) % 9 == 0).astype(np.float32)], axis=1),
            images=tuple(Path(f"{i}.png") for i in range(n)),
            patients=patients,
            views=np.full(n, "PA"),
            ages=np.full(n, 40, np.float32),
            sexes=np.full(n, "F"),
            collections=np.full(n, "c2"),
            follow_ups=np.zeros(n, np.float32),
            splits=np.full(n, ""),
        ),
        x,
    )


def short(strengths: tuple[float, ...] = (0.3, 3.0)) -> Recipe:
    """Recipe hilum for the invented table: one pool of 256 averages."""
    whole = read_recipe("hilum")
    return replace(
        whole,
        labels=("Mass", "Hernia"),
        network=replace(whole.network, pools=("block3_pool",)),
        exact=Exact(strengths, {}),
    )


def test_the_shipped_model_is_the_recipes() -> None:
    recipe, shipped = read_recipe("hilum"), card.load(card.SHIPPED)
    assert (recipe.name, recipe.version, recipe.labels) == (shipped.name, shipped.version, shipped.labels)
    assert (recipe.size, recipe.network.pools) == (shipped.size, shipped.pools)
    assert recipe.network.head == shipped.head


def test_no_patient_is_in_two_folds(shared_data: Path) -> None:
    table = tables.read(
        shared_data / "xray/labels.csv", shared_data / "xray/images", ["Mass", "Lung Opacity"]
    )

    folds = [set(table.patients[table.folds == fold]) for fold in range(tables.FOLDS)]
    assert sum(map(len, folds)) == len(set(table.patients)) == 1532
    assert set.union(*folds) == set(table.patients)
    assert all(len(fold) > 250 for fold in folds)


def test_an_empty_label_is_unknown_and_not_absent(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(f"{HEADER}\na.png,1,PA,50,M,c1,0,\nb.png,2,AP,61,F,c1,1,1\n")
    table = tables.read(file, tmp_path, ["Mass", "Lung Opacity"])

    assert np.isnan(table["Lung Opacity"][0]) and table["Lung Opacity"][1] == 1
    assert table["Mass"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "named"),
    [(HEADER.replace("Mass", "Mess"), "'Mass' is missing"), (f"{HEADER}\na,1,PA,5,M,c1,yes,0", "line 2")],
)
def test_a_bad_table_names_its_line_or_column(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(BadData, match=named):
        tables.read(file, tmp_path, ["Mass", "Lung Opacity"])


def test_the_patients_kept_back_decide_nothing() -> None:
    table, x = invented()
    kept_back = table.folds == 0
    labels = table.labels.copy()
    labels[kept_back, 0] = 1 - labels[kept_back, 0]
    upset = Table(**{**vars(table), "labels": labels})

    one = train.train(x, table, short(), test_fold=0)
    two = train.train(np.where(kept_back[:, None], 99, x).astype(np.float32), upset, short(), test_fold=0)

    assert np.array_equal(one.head.kernel, two.head.kernel)
    assert (one.strength, one.curves, one.thresholds) == (two.strength, two.curves, two.thresholds)
    assert np.isnan(one.inner[kept_back]).all() and not np.isnan(one.inner[~kept_back]).any()


def test_every_row_is_judged_by_a_model_without_its_patient() -> None:
    table, x = invented()
    judged = train.cross_validate(x, table, short((1.0,)))
    scores, calls = judged.scores, judged.calls

    fold = table.folds == 3
    alone = train.train(x, table, short((1.0,)), test_fold=3)
    assert np.array_equal(scores[fold], alone.scores(x[fold]))
    assert np.array_equal(judged.raw[fold], alone.head.scores(x[fold]))
    assert np.array_equal(calls[fold, 0] == 1, scores[fold, 0] >= alone.thresholds["Mass"])
    assert not np.isnan(scores).any()


def test_several_models_images_are_ranked_as_said_and_called_each_by_its_own_threshold() -> None:
    table, x = invented()
    raw = np.tile(1 / (1 + np.exp(-x[:, :1].astype(float))), (1, 2))
    shifted = np.where((np.arange(len(raw)) % 2 == 0)[:, None], raw / 10, raw)
    calls = (raw >= 0.97).astype(float)
    judged = judge(
        table,
        shifted,
        dict.fromkeys(table.names, 0.97),
        {},
        prevalences=[],
        folded=Folded(raw, calls),
        resamples=20,
        seed=0,
    )
    plain = judge(table, raw, dict.fromkeys(table.names, 0.97), {}, prevalences=[], resamples=20, seed=0)

    one, other = judged.labels["Mass"], plain.labels["Mass"]
    assert one.auroc == other.auroc and one.roc == other.roc
    assert one.at_threshold == other.at_threshold
    assert one.calibration != other.calibration


def test_thresholds_leave_the_share_of_absent_ones_below() -> None:
    table, x = invented()
    scores = np.tile(1 / (1 + np.exp(-x[:, :1].astype(float))), (1, 2))
    absent = table["Mass"] == 0

    threshold = train.thresholds(table, scores, "specificity=0.9")["Mass"]

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
    few = table.only(np.arange(len(table)) < 20)
    assert evaluate.auroc(few, scores[:20], ["Hernia"]) is None


def test_a_card_survives_its_own_toml() -> None:
    tree = {
        "a": 'quotes " and \\ and é',
        "t": {"long": "word " * 60, "rows": [{"x": 1.5, "y": "z"}], "list": [1, 2]},
        "findings": [{"label": "A", "ok": True}, {"label": "B", "ok": False}],
    }
    read = tomllib.loads(toml(tree))
    assert read["t"]["long"] == ("word " * 60).strip()
    assert (
        read["findings"] == tree["findings"]
        and read["a"] == tree["a"]
        and read["t"]["rows"] == tree["t"]["rows"]
    )


def test_the_page_about_the_model_shows_the_cards_figures() -> None:
    page = (Path(ship.__file__).parents[1] / "docs/model.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- figures -->\n(.*?)<!-- end of figures -->", page, re.DOTALL)
    tree = tomllib.loads((card.SHIPPED / card.CARD).read_text(encoding="utf-8"))
    assert shown and shown[1] == ship_tables.table_of_figures(tree)
