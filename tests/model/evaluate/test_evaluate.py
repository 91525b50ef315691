import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from model import card
from model.errors import BadData
from model.evaluate.run import evaluate
from model.evaluate.scores import score
from node.cli_model import model as commands

Row = dict[str, Any]

SPLITS = ("train",) * 3 + ("validation",) * 3 + ("test",) * 4


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, draw: Callable[[Path, float], None]) -> Path:
    """120 pictures, some brighter than others; 012.png is no picture."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(3)
    for i in range(120):
        draw(folder / f"{i:03d}.png", random.uniform(0.1, 0.9))
    (folder / "012.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def scored(
    images: Path, make_model: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What an earlier run left: the scores of all pictures, so that the network is loaded once for all that follows."""
    out = tmp_path_factory.mktemp("scored")
    folder = make_model(tmp_path_factory.mktemp("models") / "model")
    score(card.load(folder), tuple(sorted(images.iterdir())), images, out)
    return out


@pytest.fixture
def out(scored: Path, tmp_path: Path) -> Path:
    return shutil.copytree(scored, tmp_path / "out")


@pytest.fixture
def rows() -> list[Row]:
    """60 patients, two pictures each: Mass is the likelier the brighter, Hernia is on two, Edema no model knows."""
    brightness, random = np.random.default_rng(3).uniform(0.1, 0.9, 120), np.random.default_rng(4)
    return [
        {
            "image": f"{i:03d}.png", "patient": f"p{i // 2}", "view": "AP" if i % 3 else "PA",
            "age": int(random.integers(10, 95)) if i % 7 else "", "sex": "MF"[i // 2 % 2],
            "collection": f"c{1 + i % 2}", "split": SPLITS[i // 2 % 10],
            "Mass": int(random.random() < brightness[i] ** 2 * 1.2), "Hernia": int(i in (12, 30)), "Edema": i % 2,
        }
        for i in range(120)
    ]  # fmt: skip


def table(tmp_path: Path, rows: list[Row]) -> Path:
    file = tmp_path / "labels.csv"
    with file.open("w", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def figures(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def test_a_model_is_judged_on_the_test_split_and_against_floors(
    tmp_path: Path, model: Path, images: Path, out: Path, rows: list[Row]
) -> None:
    done = CliRunner().invoke(
        commands,
        ["evaluate", str(model), str(table(tmp_path, rows)), "--images", str(images), "--out",
         str(out), "--prevalence", "0.05", "--resamples", "100"],
        catch_exceptions=False,
        standalone_mode=False,
    )  # fmt: skip

    assert "47 images of 24 patients, split test; 1 more could not be read" in done.stdout
    assert "too few positives or negatives: Hernia" in done.stdout
    found = figures(out)
    assert found["unreadable"].keys() == {"012.png"} and found["labels"].keys() == {"Mass", "Hernia"}
    mass = found["labels"]["Mass"]
    assert mass["auroc"]["low"] < mass["auroc"]["value"] < mass["auroc"]["high"]
    assert mass["auroc"]["value"] > 0.7 and found["labels"]["Hernia"]["auroc"] is None
    assert mass["at_threshold"]["threshold"] == 0.875
    assert mass["at_threshold"]["elsewhere"][0]["prevalence"] == 0.05
    rarer = mass["elsewhere"][0]
    assert rarer["prevalence"] == 0.05 and rarer["fitted"] == mass["positive"] / mass["images"]
    assert rarer["calibration"]["ece"]["low"] <= rarer["calibration"]["ece"]["value"]
    pooled = found["calibration_of_all_labels_pooled"]
    assert sum(each["images"] for each in pooled["bins"]) == 94
    assert f"ECE of all labels pooled: {pooled['ece']['value']:.3f}" in done.stdout
    assert found["floors"].keys() == {"age, sex and view", "32 x 32 thumbnail", "collection"}
    assert found["floors"]["collection"]["c1"]["labels"]["Mass"]["auroc"]["value"] == 0.5
    assert set(found["parts"]) == {"all", "view", "sex", "age", "collection"}
    assert "under 18" in found["parts"]["age"] and "unknown" in found["parts"]["age"]
    assert any("Prevalence is that of these images" in sentence for sentence in found["limits"])
    page = (out / "report.html").read_text()
    assert page.count("<img") == 3 and "What may not be concluded" in page and "012.png" in page
    assert "Calibration at a prevalence of 0.05" in page and "The card has no calibration" in page


def test_the_same_seed_writes_the_same_report(
    tmp_path: Path, model: Path, images: Path, out: Path, rows: list[Row]
) -> None:
    file = table(tmp_path, rows)
    pages = []
    for _ in range(2):
        evaluate(model, file, images, out, resamples=20)
        pages.append([(out / name).read_bytes() for name in ("report.html", "report.json")])
    assert pages[0] == pages[1]


def test_thresholds_come_from_validation_alone_and_go_into_the_card(
    tmp_path: Path, model: Path, images: Path, out: Path, rows: list[Row]
) -> None:
    before = (model / "card.toml").read_text()
    chosen = []
    for turned in (False, True):
        (model / "card.toml").write_text(before)
        told = [
            row | ({"Mass": 1 - row["Mass"]} if turned and row["split"] != "validation" else {})
            for row in rows
        ]
        said = evaluate(
            model, table(tmp_path, told), images, out, rule="youden", write_card=True,
            resamples=5,
        )  # fmt: skip
        assert "split validation, threshold kept: Hernia" in said
        chosen.append(card.load(model))

    one, two = chosen
    assert one.thresholds == two.thresholds and one.rule == two.rule
    assert one.thresholds["Mass"] != 0.875 and one.thresholds["Hernia"] == 0.125
    positive = sum(row["Mass"] for row in rows if row["split"] == "validation")
    assert (
        "Youden" in one.rule
        and f"36 images of 18 patients; images where the finding is known/positive: Mass 36/{positive})"
        in one.rule
    )
    assert figures(out)["labels"]["Mass"]["at_threshold"]["threshold"] == one.thresholds["Mass"]
    assert (model / "card.toml").read_text().startswith(before[: before.index("[thresholds]")])


def test_without_a_split_all_rows_are_judged_and_floors_are_five_fold(
    tmp_path: Path, model: Path, images: Path, out: Path, rows: list[Row]
) -> None:
    file = table(tmp_path, [row | {"split": ""} for row in rows])
    with pytest.raises(BadData, match=r"labels\.csv.*hilum model data split.*--split all"):
        evaluate(model, file, images, out)

    evaluate(model, file, images, out, split="all", resamples=5)

    found = figures(out)
    assert found["images"] == 119 and "five folds" in found["floors_fitted_on"]
    assert any("trained on such images" in sentence for sentence in found["limits"])


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"split": "tset"}, r"'tset'; there are test, train, validation"),
        ({"rule": "f1", "validation": "test"}, "not judged"),
        ({"rule": "f1", "split": "all"}, "not judged"),
        ({"rule": "f1", "validation": "dev"}, "'dev'"),
        ({"rule": "f3"}, "no such rule"),
        ({"write_card": True}, "--rule"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_written(
    tmp_path: Path, model: Path, images: Path, out: Path, rows: list[Row], asked: dict[str, Any], named: str
) -> None:
    with pytest.raises(BadData, match=named):
        evaluate(model, table(tmp_path, rows), images, out, **asked)
    assert not (out / "report.html").exists()


def test_a_patient_in_two_splits_and_a_table_without_the_models_labels_are_refused(
    tmp_path: Path, model: Path, images: Path, out: Path, rows: list[Row]
) -> None:
    leaking = [dict(row) for row in rows]
    leaking[0]["split"] = "test"
    with pytest.raises(BadData, match="two splits"):
        evaluate(model, table(tmp_path, leaking), images, out)

    other = [{key: row[key] for key in row if key not in ("Mass", "Hernia")} for row in rows]
    with pytest.raises(BadData, match="none of the model's labels; they are Mass, Hernia"):
        evaluate(model, table(tmp_path, other), images, out)


def test_labels_that_the_table_lacks_are_named_and_left_out(
    tmp_path: Path, model: Path, images: Path, out: Path, rows: list[Row]
) -> None:
    some = [{key: row[key] for key in row if key != "Hernia"} for row in rows]
    said = evaluate(model, table(tmp_path, some), images, out, resamples=5)
    assert "not in the table, left out: Hernia" in said


def test_a_folder_without_the_images_is_one_line(
    tmp_path: Path, model: Path, images: Path, out: Path, rows: list[Row]
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadData, match=r"none of the images of split test could be read; .*\.png"):
        evaluate(model, table(tmp_path, rows), tmp_path / "empty", tmp_path / "other")
