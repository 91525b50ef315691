import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.clean import clean
from model.data.split import assign, check_no_leak, read_list, split_table, thin
from model.errors import BadData
from model.table import Table, open_table

ROOT = Path("images")


def table_of(patients: list[str], labels: list[float], **columns: Any) -> Table:
    """One image a patient's name and label, called 0.png, 1.png …"""
    n = len(patients)
    known = {
        "names": ("Mass",),
        "labels": np.array(labels, np.float32).reshape(n, 1),
        "images": tuple(ROOT / f"{i}.png" for i in range(n)),
        "patients": np.array(patients, dtype=np.str_),
        "views": np.full(n, "PA"),
        "ages": np.full(n, 40, np.float32),
        "sexes": np.full(n, "F"),
        "collections": np.full(n, ""),
        "follow_ups": np.zeros(n, np.float32),
        "splits": np.full(n, ""),
    }
    return Table(**(known | columns))


OPTIONS: dict[str, Any] = {
    "train_list": None, "test_list": None, "validation": 0.2, "test": 0.2, "finding": "Mass",
    "training_rate": "natural", "validation_rate": "natural", "min_age": 0, "seed": 0,
}  # fmt: skip


def folder_of(tmp_path: Path, rows: list[str], header: str = "image,patient,age,Mass") -> Path:
    """A label file of these rows and an empty picture for each; returns the label file."""
    images = tmp_path / "images"
    images.mkdir(exist_ok=True)
    for row in rows:
        (images / row.partition(",")[0]).touch()
    file = tmp_path / "table.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def people(n: int) -> list[str]:
    """Rows of n patients of two images each; every fourth patient shows the finding."""
    return [f"{p:03}_{i}.png,{p:03},{20 + p % 60},{int(p % 4 == 0)}" for p in range(n) for i in range(2)]


def written(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


row_lists = st.lists(
    st.tuples(st.sampled_from("abcdefghijkl"), st.sampled_from([0.0, 1.0, np.nan])), min_size=1, max_size=60
)


@settings(deadline=None)
@given(rows=row_lists, seed=st.integers(0, 9), test=st.floats(0, 0.6), validation=st.floats(0, 0.6))
def test_no_patient_is_in_two_splits_and_no_row_is_lost(
    rows: list[tuple[str, float]], seed: int, test: float, validation: float
) -> None:
    table = table_of([p for p, _ in rows], [v for _, v in rows])
    try:
        done, _ = assign(table, train_list=None, test_list=None, validation=validation, test=test, seed=seed)
    except BadData as error:
        assert "train" in str(error)
        return
    assert done.images == table.images
    assert np.array_equal(done.labels, table.labels, equal_nan=True)
    for patient in set(table.patients):
        assert len(set(done.splits[done.patients == patient])) == 1
    assert set(done.splits) <= {"train", "validation", "test"}


@settings(deadline=None)
@given(rows=row_lists, seed=st.integers(0, 9), rate=st.sampled_from([1, 3]))
def test_a_rate_is_met_and_only_images_without_the_finding_leave(
    rows: list[tuple[str, float]], seed: int, rate: int
) -> None:
    table = table_of([p for p, _ in rows], [v for _, v in rows])
    table = replace(table, splits=np.array([["train", "test"][i % 3 == 0] for i in range(len(rows))]))
    before = table["Mass"][table.splits == "train"]
    if not (before == 1).any():
        with pytest.raises(BadData, match="no image of train shows Mass"):
            thin(table, ROOT, "train", "Mass", f"1:{rate}", seed)
        return
    done, said = thin(table, ROOT, "train", "Mass", f"1:{rate}", seed)
    after = done["Mass"][done.splits == "train"]
    positives, negatives = (before == 1).sum(), (before == 0).sum()
    assert (after == 1).sum() == positives
    assert (after == 0).sum() == min(negatives, rate * positives)
    assert np.isnan(after).sum() == np.isnan(before).sum()
    assert (done.splits == "test").sum() == (table.splits == "test").sum()
    gone = len(table) - len(done)
    assert (f": {gone} without it" in said[0]) == (gone > 0)


def test_a_patient_stays_in_its_split_when_the_table_grows() -> None:
    some = [f"{p}" for p in range(300)]
    more = [f"{p}" for p in range(-300, 600)]
    splits = []
    for patients in (some, more):
        done, _ = assign(
            table_of(patients, [0.0] * len(patients)),
            train_list=None, test_list=None, validation=0.2, test=0.2, seed=3,
        )  # fmt: skip
        splits.append(dict(zip(done.patients, done.splits, strict=True)))
    assert all(splits[1][patient] == split for patient, split in splits[0].items())
    shares = [np.mean([s == part for s in splits[1].values()]) for part in ("test", "validation")]
    assert shares == pytest.approx([0.2, 0.16], abs=0.04)


def test_the_label_file_has_the_splits_and_what_was_done_stands_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = folder_of(tmp_path, people(100)), tmp_path / "out" / "labels.csv"
    split_table(file, tmp_path / "images", out, **OPTIONS)
    read = open_table(out, tmp_path / "images")
    assert len(read) == 200
    assert set(read.splits) == {"train", "validation", "test"}
    check_no_leak(read)
    report = json.loads((tmp_path / "out" / "labels.csv.json").read_text())
    assert {size["split"]: size["images"] for size in report["sizes"]}["all"] == 200
    assert sum(size["images"] for size in report["sizes"]) == 400
    shown = capsys.readouterr().out
    assert all(line in shown for line in report["done"])
    assert "validation" in shown


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    file = folder_of(tmp_path, people(100))
    options = OPTIONS | {"training_rate": "1:1", "validation_rate": "1:3"}
    content = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        split_table(file, tmp_path / "images", tmp_path / f"{name}.csv", **(options | {"seed": seed}))
        content.append((tmp_path / f"{name}.csv").read_bytes())
    assert content[0] == content[1] != content[2]


def test_impossible_ages_become_unknown_and_their_images_stay(tmp_path: Path) -> None:
    file = folder_of(tmp_path, ["a.png,1,411,0", "b.png,2,-3,1", "c.png,3,120,0", "d.png,4,,0"])
    table, said = clean(open_table(file, tmp_path / "images"), tmp_path / "images")
    assert np.array_equal(table.ages, np.array([np.nan, np.nan, 120, np.nan], np.float32), equal_nan=True)
    assert "Ages below 0 or above 120 years, now unknown: 2." in said


def test_missing_files_and_children_are_left_out_and_counted(tmp_path: Path) -> None:
    file = folder_of(tmp_path, ["a.png,1,17,0", "b.png,2,18,1", "c.png,3,,0", "d.png,4,50,0", "e.png,,50,0"])
    (tmp_path / "images" / "d.png").unlink()
    table, said = clean(open_table(file, tmp_path / "images"), tmp_path / "images", min_age=18)
    assert [path.name for path in table.images] == ["b.png", "c.png"]
    text = "\n".join(said)
    assert "images: 1 (the first is d.png)" in text
    assert "younger than 18 years: 1 (the first is a.png)" in text
    assert "whose image it is: 1 (the first is e.png)" in text
    assert "Of unknown age, and therefore kept: 1." in text


def test_a_table_of_which_no_image_is_there_is_refused(tmp_path: Path) -> None:
    file = folder_of(tmp_path, ["a.png,1,17,0"])
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(BadData, match="no image is left to split"):
        split_table(file, tmp_path / "images", tmp_path / "out.csv", **OPTIONS)
    assert not (tmp_path / "out.csv").exists()


def test_an_image_in_two_rows_is_refused_with_its_line(tmp_path: Path) -> None:
    file = folder_of(tmp_path, ["a.png,1,40,0", "b.png,2,40,1", "a.png,1,40,0"])
    with pytest.raises(BadData, match="line 4"):
        split_table(file, tmp_path / "images", tmp_path / "out.csv", **OPTIONS)


def test_a_leak_is_told_by_the_images_and_not_by_the_patient() -> None:
    table = table_of(["secret", "other", "secret"], [0, 0, 0], splits=np.array(["train", "train", "test"]))
    with pytest.raises(BadData, match=r"a patient in two splits: 0\.png is in train, 2\.png") as told:
        check_no_leak(table)
    assert "secret" not in str(told.value)
    check_no_leak(replace(table, splits=np.array(["train", "test", ""])))
    with pytest.raises(BadData, match=r"1\.png names no patient"):
        check_no_leak(replace(table, patients=np.array(["a", "", "a"])))


def lists(tmp_path: Path, train: list[str], test: list[str]) -> dict[str, Path]:
    for name, names in (("train", train), ("test", test)):
        (tmp_path / f"{name}.txt").write_text("\n".join(names))
    return {"train_list": tmp_path / "train.txt", "test_list": tmp_path / "test.txt"}


def test_the_lists_say_who_tests_and_what_is_on_neither_is_left_out(tmp_path: Path) -> None:
    rows = people(40)
    names = [row.partition(",")[0] for row in rows]
    file, out = folder_of(tmp_path, rows), tmp_path / "labels.csv"
    # names on the list have another ending than the images, as when pictures were converted
    both = lists(tmp_path, [n.replace(".png", ".jpg") for n in names[20:78]], names[:20])
    split_table(file, tmp_path / "images", out, **(OPTIONS | both | {"validation": 0.5}))
    splits = {row["image"]: row["split"] for row in written(out)}
    assert {name for name, split in splits.items() if split == "test"} == set(names[:20])
    assert set(splits) == set(names[:78])
    assert {splits[name] for name in names[20:78]} == {"train", "validation"}
    assert "on neither list: 2" in (tmp_path / "labels.csv.json").read_text()


def test_one_list_alone_leaves_the_other_side_to_the_rest(tmp_path: Path) -> None:
    rows = people(40)
    names = [row.partition(",")[0] for row in rows]
    file, both = folder_of(tmp_path, rows), lists(tmp_path, names[20:], names[:20])
    for at, (name, alone) in enumerate(both.items()):
        out = tmp_path / f"{at}.csv"
        split_table(file, tmp_path / "images", out, **(OPTIONS | {name: alone}))
        tests = {row["image"] for row in written(out) if row["split"] == "test"}
        assert tests == set(names[:20])


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (slice(19, 80), slice(0, 19), r"a patient in two splits: 009_0\.png is in test, 009_1\.png"),
        (slice(18, 80), slice(0, 20), r"a patient in two splits: 009_0\.png is on both lists"),
        (slice(20, 80), slice(0, 0), "names none of the table's images"),
    ],
)
def test_lists_that_leak_or_belong_to_other_data_are_refused(
    tmp_path: Path, train: slice, test: slice, said: str
) -> None:
    rows = people(40)
    names = [row.partition(",")[0] for row in rows]
    file = folder_of(tmp_path, rows)
    with pytest.raises(BadData, match=said):
        split_table(
            file, tmp_path / "images", tmp_path / "out.csv",
            **(OPTIONS | lists(tmp_path, names[train], names[test])),
        )  # fmt: skip


def test_what_would_be_overwritten_is_refused(tmp_path: Path) -> None:
    file = folder_of(tmp_path, people(40))
    with pytest.raises(BadData, match="the table itself"):
        split_table(file, tmp_path / "images", file, **OPTIONS)
    (tmp_path / "mine.csv").write_text("mine")
    with pytest.raises(BadData, match="there already"):
        split_table(file, tmp_path / "images", tmp_path / "mine.csv", **OPTIONS)
    assert (tmp_path / "mine.csv").read_text() == "mine"


def test_a_finding_nobody_knows_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    file = folder_of(tmp_path, people(40))
    with pytest.raises(BadData, match="'Moss'; --finding takes one of Mass"):
        split_table(file, tmp_path / "images", tmp_path / "o.csv", **(OPTIONS | {"finding": "Moss"}))


def test_the_official_split_of_nih_is_apart_by_patient(shared_data: Path) -> None:
    metadata = shared_data / "nih" / "metadata"
    table = open_table(metadata / "Data_Entry_2017_v2020.csv.gz", None)
    done, _ = assign(
        table,
        train_list=metadata / "train_val_list.txt.gz", test_list=metadata / "test_list.txt.gz",
        validation=0.125, test=0.2, seed=0,
    )  # fmt: skip
    assert (done.splits == "test").sum() == 25_596
    assert (done.splits != "test").sum() == 86_524
    check_no_leak(done)
    validating = set(done.patients[done.splits == "validation"])
    assert len(validating) / len(set(done.patients[done.splits != "test"])) == pytest.approx(0.125, abs=0.01)
    thinned, _ = thin(done, Path(), "train", "Pneumonia", "1:1", 0)
    train = thinned["Pneumonia"][thinned.splits == "train"]
    assert train.mean() == 0.5
    assert (done["Pneumonia"][done.splits == "train"] == 1).sum() == (train == 1).sum()


def test_a_list_may_be_gzipped_and_rubbish_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt.gz").write_bytes(gzip.compress(b"a/1.png\r\n2.png\n\n"))
    assert read_list(tmp_path / "list.txt.gz") == {"1", "2"}
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"1.png\n")[:-5])
    for name in ("cut.gz", "absent.txt"):
        with pytest.raises(BadData, match=name):
            read_list(tmp_path / name)
