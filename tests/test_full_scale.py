"""The synthetic set of scripts/full-scale is shaped like NIH's, and the commands read it as one."""

import csv
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from model.data.split import split_table
from model.explore import explore

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.append(str(SCRIPTS))  # the drawing processes find it by that too
    try:
        import full_scale
    finally:
        sys.path.remove(str(SCRIPTS))
    return full_scale


@pytest.fixture(scope="module")
def nih(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 images."""
    folder = tmp_path_factory.mktemp("set") / "nih"
    sys.path.append(str(SCRIPTS))
    try:
        script.write(script.draw(200, 1), folder, 1)
    finally:
        sys.path.remove(str(SCRIPTS))
    return folder


def names(file: Path) -> set[str]:
    return set(file.read_text().split())


def test_the_full_set_has_nihs_numbers(script: ModuleType) -> None:
    drawn = script.draw(script.IMAGES, 0)
    assert (len(drawn), len(np.unique(drawn.patients)), drawn.tests.sum()) == (112_120, 30_805, 25_596)
    assert len(set(drawn.names)) == 112_120
    shares = dict(zip(script.SHARES, drawn.findings.mean(axis=0), strict=True))
    assert shares == pytest.approx(script.SHARES, abs=1e-5)
    assert (drawn.ages > 120).sum() == 16
    assert not set(drawn.patients[drawn.tests]) & set(drawn.patients[~drawn.tests])


def test_the_same_seed_draws_the_same_bytes(script: ModuleType, nih: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images_007" / "images"
    drawn = script.draw(200, 1)
    part = np.array_split(np.arange(200), script.FOLDERS)[6]
    script._pictures(folder, ([drawn.names[i] for i in part], drawn.findings[part], drawn.portable[part]), 1)
    pictures = sorted(folder.iterdir())
    assert len(pictures) == 17
    assert all(one.read_bytes() == (nih / "images_007/images" / one.name).read_bytes() for one in pictures)


def test_it_lies_there_as_nihs_archives_unpack(nih: Path) -> None:
    pictures = {file.name for file in nih.glob("images_0??/images/*.png")}
    with (nih / "Data_Entry_2017.csv").open(newline="") as lines:
        rows = list(csv.reader(lines))
    assert rows[0][:2] == ["Image Index", "Finding Labels"]
    assert {row[0] for row in rows[1:]} == pictures
    assert names(nih / "train_val_list.txt") | names(nih / "test_list.txt") == pictures
    assert not names(nih / "train_val_list.txt") & names(nih / "test_list.txt")


def test_explore_finds_what_was_drawn(nih: Path, tmp_path: Path) -> None:
    said = explore(nih / "Data_Entry_2017.csv", nih, tmp_path / "explore", pixels=0, seed=0)
    assert "200 images" in said
    assert (tmp_path / "explore/report.html").exists()
    figures = json.loads((tmp_path / "explore/report.json").read_text(encoding="utf-8"))
    assert figures["ages"]["impossible"]["count"] == 1


def test_split_follows_the_lists(nih: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "labels.csv"
    split_table(
        nih / "Data_Entry_2017.csv",
        nih,
        out,
        train_list=nih / "train_val_list.txt",
        test_list=nih / "test_list.txt",
        validation=0.2,
        test=0.2,
        finding="Pneumonia",
        training_rate="natural",
        validation_rate="natural",
        min_age=0,
        seed=0,
    )
    with out.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 200
    assert {Path(row["image"]).name for row in rows if row["split"] == "test"} == names(nih / "test_list.txt")
    assert json.loads((tmp_path / "labels.csv.json").read_text())["sizes"]
    assert "train" in capsys.readouterr().out
