import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from model.explore import explore
from model.explore.figures import DECADES, figures, share
from model.explore.intensity import NONE, draw, intensity
from model.table import Table, open_table

N = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images of 60 patients. Pneumonia is bright and in collection `clinic` only; Lung Opacity was looked at
    in the first 40 images; ages 411 and -3 are impossible; one file is no picture, one is missing."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    lines = ["image,patient,view,age,sex,follow_up,collection,Mass,Pneumonia,Hernia,Lung Opacity"]
    for i in range(N):
        clinic = i % 2
        pneumonia = int(clinic and i % 3 == 0)
        age = {7: "411", 8: "-3", 9: ""}.get(i, str(20 + i % 60))
        opacity = str(pneumonia) if i < 40 else ""
        view, sex, place = "AP" if i % 4 else "PA", "MF"[i // 2 % 2], "clinic" if clinic else "street"
        labels = f"{int(i % 5 == 0)},{pneumonia},{int(i == 0)},{opacity}"
        lines.append(f"{i:03}.png,p{i // 2},{view},{age},{sex},{i % 2},{place},{labels}")
        levels = random.integers(0, 100, (24, 20)) + 120 * pneumonia
        levels[0, :2] = 0, 255  # without a window the reader stretches from the least to the greatest value
        Image.fromarray(levels.astype(np.uint8)).save(folder / f"{i:03}.png")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "010.png").write_text("no picture")
    (folder / "011.png").unlink()
    return folder


@pytest.fixture(scope="module")
def table(folder: Path) -> Table:
    return open_table(folder / "labels.csv", folder)


@pytest.fixture(scope="module")
def report(folder: Path) -> tuple[str, dict[str, Any], str]:
    """What was printed, report.json, report.html."""
    said = explore(folder / "labels.csv", folder, folder / "out", pixels=0, seed=0)
    found = json.loads((folder / "out/report.json").read_text())
    return said, found, (folder / "out/report.html").read_text()


def test_impossible_ages_are_counted_named_and_left_out(report: tuple[str, dict[str, Any], str]) -> None:
    said, found, page = report
    ages = found["ages"]

    assert ages["impossible"]["count"] == 2 and ages["impossible"]["greatest"] == 411
    assert ages["impossible"]["images"] == [{"image": "007.png", "age": 411}, {"image": "008.png", "age": -3}]
    assert (ages["unknown"], ages["known"], ages["most"]) == (1, N - 3, 79)
    assert sum(map(sum, ages["by_sex"].values())) == N - 3 and len(ages["by_sex"]["M"]) == len(DECADES)
    assert "Impossible ages (below 0 or above 120 years): 2, the greatest 411." in said
    assert "the greatest 411" in page


def test_an_unreadable_picture_is_listed_and_does_not_stop(report: tuple[str, dict[str, Any], str]) -> None:
    said, found, page = report
    pixels = found["pixels"]

    assert [each["image"] for each in pixels["unreadable"]] == ["010.png"]
    assert (pixels["drawn"], pixels["read"]) == (N - 1, N - 2)
    assert found["missing_files"] == {"count": 1, "images": ["011.png"]}
    for text in (said, page):
        assert "010.png" in text and "011.png" in text


def test_the_page_loads_nothing_from_anywhere(report: tuple[str, dict[str, Any], str]) -> None:
    loaded: list[str] = []

    class Loads(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "link", "iframe", "object")
            loaded.extend(value or "" for name, value in attributes if name in ("src", "href", "srcset"))

    Loads().feed(report[2])
    assert len(loaded) >= 8
    assert all(address.startswith("data:image/png;base64,") for address in loaded)
    assert "http://" not in report[2] and "https://" not in report[2] and "url(" not in report[2]


def test_patients_repeats_and_files_are_counted(report: tuple[str, dict[str, Any], str]) -> None:
    _, found, _ = report
    assert (found["images"], found["patients"]) == (N, N // 2)
    assert found["follow_up"]["images_per_patient"]["2"] == N // 2
    assert found["follow_up"]["first_images"] == N // 2
    assert sum(found["findings"]["per_patient"].values()) == N // 2
    assert sum(found["findings"]["per_image"].values()) == N


def test_unknown_is_not_absent(report: tuple[str, dict[str, Any], str], table: Table) -> None:
    said, found, _ = report
    opacity = found["prevalence"]["Lung Opacity"]
    names, together = found["together"]["names"], found["together"]
    row, column = names.index("Pneumonia"), names.index("Lung Opacity")
    with_both = int(np.nansum(table["Lung Opacity"]))

    assert (opacity["known"], opacity["unknown"], opacity["positive"]) == (40, 80, with_both)
    assert together["images"][row][column] == together["known"][row][column] == with_both
    assert together["known"][row][names.index("Mass")] == table["Pneumonia"].sum()
    assert together["beside_subject"]["Lung Opacity"]["with"]["share"] == 1
    assert "Lung Opacity is unknown in 80 of 120 images" in said


def test_a_finding_that_only_one_collection_has_is_called_a_shortcut(
    report: tuple[str, dict[str, Any], str],
) -> None:
    _, found, page = report
    first = found["strong_differences"][0]

    assert (first["finding"], first["by"], first["most"], first["least"]) == (
        "Pneumonia", "collection", "clinic", "street",
    )  # fmt: skip
    assert first["ratio"] is None
    traps = {(each["finding"], each["by"]) for each in found["strong_differences"]}
    assert ("Pneumonia", "collection") in traps and ("Mass", "view") not in traps
    assert "never in the latter" in page


def test_groups_alike_are_not_called_different(table: Table) -> None:
    every_second = np.tile([[1.0], [0.0]], (N // 2, 4)).astype(np.float32)
    groups = {
        "views": np.repeat(["PA", "AP"], N // 2),
        "sexes": np.full(N, "M"),
        "collections": np.full(N, "c"),
    }
    alike = Table(**{**vars(table), **groups, "labels": every_second})
    assert figures(alike, files=False)["strong_differences"] == []


@pytest.mark.parametrize(("positive", "known"), [(0, 50), (1, 3), (17, 421), (50, 50), (1431, 112_120)])
def test_the_interval_is_wilsons(positive: int, known: int) -> None:
    label = np.full(known + 5, np.nan, np.float32)
    label[:known] = 0
    label[:positive] = 1
    interval = binomtest(positive, known).proportion_ci(0.95, method="wilson")
    found = share(label)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high), abs=1e-6)


def test_brightness_is_that_of_the_pixels(
    folder: Path, table: Table, report: tuple[str, dict[str, Any], str]
) -> None:
    groups = report[1]["pixels"]["groups"]
    pictures = [
        np.asarray(Image.open(path)) / 255 for path in table.images if path.name not in ("010.png", "011.png")
    ]
    expected = np.mean([[p.mean(), p.std(), *np.percentile(p, (5, 50, 95))] for p in pictures], axis=0)

    assert [groups["all"][m] for m in ("mean", "deviation", "p5", "median", "p95")] == pytest.approx(
        expected, abs=1e-4
    )
    assert groups["Pneumonia"]["mean"] - groups[NONE]["mean"] == pytest.approx(120 / 255, abs=0.01)
    assert groups["Pneumonia"]["effect"] > 3
    assert sum(groups["Pneumonia"]["histogram"]) == pytest.approx(1, abs=1e-3)


def test_a_sample_has_some_of_each_finding_and_is_drawn_by_its_seed(table: Table) -> None:
    rows = draw(table, 24, seed=3)

    assert len(rows) == len(set(rows)) == 24
    assert (np.nansum(table.labels[rows], axis=0) > 0).all()
    assert 11 not in rows, "a missing file is not drawn"
    assert np.array_equal(rows, draw(table, 24, seed=3))
    assert not np.array_equal(rows, draw(table, 24, seed=4))
    assert len(draw(table, 1, seed=0)) == 1


def test_an_empty_picture_is_told(tmp_path: Path) -> None:
    for name, level in (("a.png", 7), ("b.png", 90)):
        Image.new("L", (8, 8), level).save(tmp_path / name)
    (tmp_path / "t.csv").write_text("image,patient,Mass\na.png,1,0\nb.png,2,1\n")
    found = intensity(open_table(tmp_path / "t.csv", tmp_path), 0, 0)
    assert found["blank"] == {"count": 2, "images": ["a.png", "b.png"]}


def test_a_table_alone_is_explored_without_a_word_on_pixels(folder: Path, tmp_path: Path) -> None:
    explore(folder / "labels.csv", None, tmp_path, pixels=0, seed=0)
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["pixels"] is None and found["missing_files"] is None
    assert "Brightness" not in (tmp_path / "report.html").read_text()


def test_the_same_seed_gives_the_same_report(
    folder: Path, tmp_path: Path, report: tuple[str, dict[str, Any], str]
) -> None:
    explore(folder / "labels.csv", folder, tmp_path, pixels=0, seed=0)
    assert json.loads((tmp_path / "report.json").read_text()) == report[1]
    assert (tmp_path / "report.html").read_text() == report[2]


def test_a_patient_in_two_splits_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,patient,split,Mass\na,1,train,0\nb,1,test,1\nc,2,test,0\n")
    said = explore(tmp_path / "t.csv", None, tmp_path / "out", pixels=0, seed=0)
    assert "Patients in two splits: 1. That leaks." in said


def test_a_folder_of_dicom_files_with_a_table_is_explored(shared_data: Path, tmp_path: Path) -> None:
    dicom = shared_data / "dicom"
    (tmp_path / "t.csv").write_text(
        "file\n" + "\n".join(path.name for path in sorted((dicom / "chest").glob("*.dcm")))
    )

    explore(tmp_path / "t.csv", dicom / "chest", tmp_path / "out", pixels=3, seed=0)

    found = json.loads((tmp_path / "out/report.json").read_text())
    assert (found["images"], found["labels"], found["subject"]) == (11, [], None)
    assert found["pixels"]["read"] == 3
    assert found["ages"]["known"] == 11 and set(found["views"]) == {"PA", "AP"}


def test_nihs_real_table_gives_the_known_figures(shared_data: Path) -> None:
    table = open_table(shared_data / "nih/metadata/Data_Entry_2017_v2020.csv.gz", None)
    found = figures(table, files=False)

    assert (found["images"], found["patients"]) == (112_120, 30_805)
    assert found["prevalence"]["Pneumonia"]["positive"] == 1431
    assert found["findings"]["none"] == 60_361
    assert found["follow_up"]["patients_with_several"] == 13_302
    assert found["ages"]["impossible"]["count"] == 0
