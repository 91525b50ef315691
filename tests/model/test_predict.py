"""hilum model predict: the table that scripts outside read, and that a file's kind does not change its scores."""

import csv
import math
import shutil
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from pydicom import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from model import card
from model import predict as of_files
from model.card_text import toml
from model.classifier import Classifier
from model.classifier import Seen as Looked
from model.errors import BadData, BadModel
from model.guard import Scoped
from model.pixels import open_dataset, prepare, read, wrap
from model.predict import find, predict
from model.reader import Reader
from model.runtime import Running, Said
from model.train import linear
from model.train.augment import AS_IT_IS
from model.train.pictures import Pictures
from model.train.recipe import read_recipe

SHIPPED = card.load(card.SHIPPED)
CHEST = {"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA", "PatientAge": "040Y"}


def drawn(seed: int = 0, *, low: int = 0, high: int = 255) -> np.ndarray:
    """A picture of smooth and coarse grey from `low` to `high`, 230 x 310, uint8."""
    rng = np.random.default_rng(seed)
    coarse = Pillow.fromarray(rng.random((9, 12), np.float32)).resize((310, 230), Pillow.Resampling.BICUBIC)
    grey = np.asarray(coarse) + 0.1 * rng.random((230, 310), np.float32)
    grey = (grey - grey.min()) / np.ptp(grey)
    return np.rint(low + grey * (high - low)).astype(np.uint8)


def dicom(values: np.ndarray, **changes: Any) -> Dataset:
    """A chest X-ray, Secondary Capture, MONOCHROME2, with these stored values and no window."""
    dataset = Dataset()
    dataset.file_meta = Dataset()  # type: ignore[assignment]
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    dataset.SOPInstanceUID = UID("1.2.3.4")
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * values.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = values.tobytes()
    dataset["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"
    for keyword, value in {**CHEST, **changes}.items():
        setattr(dataset, keyword, value)
    return dataset


def save(dataset: Dataset, file: Path) -> Path:
    dataset.save_as(file, enforce_file_format=True)
    return file


def table(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@dataclass(frozen=True)
class Ran:
    rows: list[dict[str, str]]
    none_failed: bool


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chest X-rays, four that are out of scope, two broken files, and what is passed over."""
    folder = tmp_path_factory.mktemp("images")
    Pillow.fromarray(drawn(0)).save(folder / "a.png")
    Pillow.fromarray(np.full((230, 310), 99, np.uint8)).save(folder / "blank.png")
    Pillow.fromarray(np.dstack([drawn(1)] * 3)).save(folder / "color.jpg", quality=92)
    save(dicom(drawn(2)), folder / "dicom-without-suffix")
    save(dicom(drawn(3), ViewPosition="LL"), folder / "lateral.dcm")
    (folder / "half.png").write_bytes((folder / "a.png").read_bytes()[:9000])
    (folder / "rubbish").write_bytes(b"no picture at all, this")
    (folder / "small").mkdir()
    Pillow.fromarray(drawn(4)[:64, :64]).save(folder / "small" / "a.png")
    for passed_over in ("labels.csv", "README.md", ".hidden.png", "DICOMDIR"):
        (folder / passed_over).write_text("x")
    return folder


@pytest.fixture(scope="module")
def unguarded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model without what it knows of looks, to which drawn pictures are strange."""
    folder = tmp_path_factory.mktemp("models") / "unguarded"
    folder.mkdir()
    tree = tomllib.loads((card.SHIPPED / card.CARD).read_text(encoding="utf-8"))
    for part in ("scope", "doubt"):
        tree.pop(part, None)
    (folder / card.CARD).write_text(toml(tree), encoding="utf-8")
    (folder / SHIPPED.weights).symlink_to(SHIPPED.weights_path)
    return folder


@pytest.fixture(scope="module")
def scored(unguarded: Path) -> Callable[..., bool]:
    """`predict` by the unguarded model, by TensorFlow whatever else is here: its scores of one input never differ."""

    def run(paths: list[Path], out: Path, *, scope: bool = True) -> bool:
        return predict(paths, out, unguarded, scope=scope, runtime="tensorflow", guards=None)

    return run


@pytest.fixture(scope="module")
def ran(
    folder: Path, scored: Callable[..., bool], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[bool], Ran]:
    out = tmp_path_factory.mktemp("tables")

    def run(scope: bool) -> Ran:
        held = scored([folder], out / f"{scope}.csv", scope=scope)
        return Ran(table(out / f"{scope}.csv"), held)

    once = {scope: run(scope) for scope in (True, False)}
    return once.__getitem__


def test_columns_are_image_the_cards_labels_status_and_reason(ran: Callable[[bool], Ran]) -> None:
    assert list(ran(True).rows[0]) == ["image", *SHIPPED.labels, "status", "reason"]
    assert {"Pleural_Thickening", "Lung Opacity"} <= set(SHIPPED.labels)


def test_every_file_has_a_row_in_the_order_of_the_files_and_repeated_names_their_folder(
    ran: Callable[[bool], Ran],
) -> None:
    for scope in (True, False):
        assert [row["image"] for row in ran(scope).rows] == [
            "a.png", "blank.png", "color.jpg", "dicom-without-suffix", "half.png", "lateral.dcm", "rubbish",
            "small/a.png",
        ]  # fmt: skip


def test_images_out_of_scope_are_skipped_and_broken_ones_failed_with_a_reason(
    ran: Callable[[bool], Ran],
) -> None:
    rows = {row["image"]: row for row in ran(True).rows}
    assert {name: row["status"] for name, row in rows.items()} == {
        "a.png": "analyzed",
        "blank.png": "skipped",
        "color.jpg": "analyzed",
        "dicom-without-suffix": "analyzed",
        "half.png": "failed",
        "lateral.dcm": "skipped",
        "rubbish": "failed",
        "small/a.png": "skipped",
    }
    assert all(bool(row["reason"]) == (row["status"] != "analyzed") for row in rows.values())
    assert rows["lateral.dcm"]["reason"].startswith("Lateral view")
    assert not ran(True).none_failed


def test_without_scope_all_that_can_be_decoded_is_scored(ran: Callable[[bool], Ran]) -> None:
    statuses = {row["image"]: row["status"] for row in ran(False).rows}
    assert {name for name, status in statuses.items() if status == "failed"} == {"half.png", "rubbish"}
    assert set(statuses.values()) == {"analyzed", "failed"}


def test_scores_are_numbers_from_0_to_1_with_every_digit_and_only_where_analyzed(
    ran: Callable[[bool], Ran],
) -> None:
    for row in [*ran(True).rows, *ran(False).rows]:
        scores = [row[label] for label in SHIPPED.labels]
        if row["status"] == "analyzed":
            assert all(0 <= float(score) <= 1 for score in scores)
            assert max(len(score) for score in scores) > 10
        else:
            assert scores == [""] * len(scores)


def test_a_score_is_the_same_with_and_without_scope(ran: Callable[[bool], Ran]) -> None:
    without = {row["image"]: row for row in ran(False).rows}
    analyzed = [row for row in ran(True).rows if row["status"] == "analyzed"]
    assert analyzed
    for row in analyzed:
        for label in SHIPPED.labels:
            assert math.isclose(float(row[label]), float(without[row["image"]][label]), abs_tol=1e-5)


def test_an_older_table_stays_until_the_new_one_is_whole(folder: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "scores.csv", tmp_path / "model"
    out.write_text("old")
    shutil.copytree(card.SHIPPED, model)
    (model / SHIPPED.weights).write_bytes(b"no weights")
    with pytest.raises(BadModel):
        predict([folder], out, model)
    assert out.read_text() == "old"


@pytest.mark.parametrize(
    ("paths", "out", "says"),
    [
        (["a.png", "nowhere.png"], "scores.csv", "nowhere.png: there is no such file or folder"),
        (["empty"], "scores.csv", "empty: no image lies there"),
        (["a.png"], "no/folder/scores.csv", "no/folder does not exist"),
        (["a.png"], "empty", "no plain file"),
    ],
)
def test_what_cannot_work_is_said_in_one_line_before_the_model_is_loaded(
    paths: list[str], out: str, says: str, tmp_path: Path
) -> None:
    Pillow.fromarray(drawn()).save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(BadData, match=says) as error:
        predict([tmp_path / path for path in paths], tmp_path / out, tmp_path / "no model here")
    assert "\n" not in str(error.value)


class Guarded(Reader):
    """A model of 64 pixels a side and what guards it, of 32, to which bright pictures are strange; no network in
    either."""

    def __init__(self, note: str = "") -> None:
        silent = Running(
            "openvino", lambda batch: Said(np.full((len(batch), len(SHIPPED.labels)), 0.5, np.float32)), note
        )
        first, second = (
            replace(SHIPPED, size=size, scope="", doubt="", calibrations={}) for size in (64, 32)
        )
        super().__init__(Classifier(first, silent), Classifier(second, silent))

    def look(self, batches: Sequence[np.ndarray]) -> list[Looked]:
        assert [batch.shape[1:] for batch in batches] == [(64, 64, 3), (32, 32, 3)]
        bright = [float(picture.mean()) > 0 for picture in batches[1]]
        marks = [
            Scoped(float(b), b, "photograph" if b else "", "It looks like a photograph" if b else "")
            for b in bright
        ]
        return [replace(seen, scoped=mark) for seen, mark in zip(super().look(batches), marks, strict=True)]


@pytest.fixture
def bright_and_dark(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, (low, high) in {"a-dark": (0, 120), "b-bright": (140, 255), "c-dark": (10, 130)}.items():
        Pillow.fromarray(drawn(low=low, high=high)).save(folder / f"{name}.png")
    return folder


def test_a_picture_that_looks_like_something_else_is_skipped_with_the_guards_reason(
    bright_and_dark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_files.Reader, "load", lambda *arguments, **named: Guarded())
    assert predict([bright_and_dark], tmp_path / "scores.csv", None)
    dark, bright, other = table(tmp_path / "scores.csv")
    assert [row["status"] for row in (dark, bright, other)] == ["analyzed", "skipped", "analyzed"]
    assert "photograph" in bright["reason"]
    assert {bright[label] for label in SHIPPED.labels} == {""}
    assert {dark[label] for label in SHIPPED.labels} == {"0.5"}


def test_without_scope_no_guard_is_loaded_and_every_picture_scored(
    bright_and_dark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def load(folder: Path, runtime: str, *, guards: Path | None) -> Reader:
        asked.update(runtime=runtime, guards=guards)
        return Guarded()

    monkeypatch.setattr(of_files.Reader, "load", load)
    assert predict([bright_and_dark], tmp_path / "scores.csv", None, scope=False)
    assert {row["status"] for row in table(tmp_path / "scores.csv")} == {"analyzed"}
    assert asked == {"runtime": "auto", "guards": None}


def test_what_computed_the_scores_is_told(
    bright_and_dark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(of_files.Reader, "load", lambda *arguments, **named: Guarded("A note on how."))
    predict([bright_and_dark], tmp_path / "scores.csv", None)
    *_, note, _, last = capsys.readouterr().err.splitlines()
    assert note == "hilum: A note on how."
    assert last.endswith("runtime openvino")


def test_names_that_repeat_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    for name in ("x/one/a.png", "y/one/a.png", "y/two/a.png", "y/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    sources, _ = find([tmp_path / "x", tmp_path / "y"])
    assert [source.name for source in sources] == [
        (tmp_path / "x/one/a.png").as_posix(),
        "b.png",
        (tmp_path / "y/one/a.png").as_posix(),
        "two/a.png",
    ]


parts = st.sampled_from(["a", "b", "a.png"])


@settings(max_examples=40, deadline=None)
@given(
    files=st.lists(st.lists(parts, min_size=1, max_size=4), min_size=1, max_size=12),
    wanted=st.data(),
)
def test_every_file_is_read_once_under_a_name_of_its_own(
    files: list[list[str]], wanted: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("tree")
    made = []
    for inner in files:
        file = root.joinpath(*inner, "f" if wanted.draw(st.booleans()) else "g")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
        made.append(file)
    above = [folder for file in made for folder in (file, *file.parents) if root in (folder, *folder.parents)]
    paths = wanted.draw(st.lists(st.sampled_from(above), min_size=1, max_size=4))

    sources, _ = find(paths)

    meant = {file for file in made if any(path in (file, *file.parents) for path in paths)}
    assert sorted(source.path for source in sources) == sorted(meant)
    assert len({source.name for source in sources}) == len(sources)
    assert all(source.path.as_posix().endswith(source.name) for source in sources)


# the same picture in other files: training reads the PNG, a hospital sends the DICOM file


def mono1(values: np.ndarray) -> Dataset:
    return dicom(255 - values, PhotometricInterpretation="MONOCHROME1", WindowCenter=128, WindowWidth=256)


def deep(values: np.ndarray) -> Dataset:
    scaled = values.astype("<u2") * 257
    return dicom(scaled, WindowCenter=32768, WindowWidth=65536)


def rescaled(values: np.ndarray) -> Dataset:
    """12 bits stored, raw values that rescale turns into grey levels."""
    return dicom(
        values.astype("<u2") * 16, BitsStored=12, HighBit=11, RescaleSlope="0.0625", RescaleIntercept="-40",
        WindowCenter=88, WindowWidth=256,
    )  # fmt: skip


def compressed(syntax: UID) -> Callable[[np.ndarray], Dataset]:
    def make(values: np.ndarray) -> Dataset:
        dataset = dicom(values)
        dataset.compress(syntax, generate_instance_uid=False)
        return dataset

    return make


SAME = {
    "no window": dicom,
    "identity window": lambda values: dicom(values, WindowCenter=128, WindowWidth=256),
    "MONOCHROME1": mono1,
    "16 bits": deep,
    "12 bits, rescaled": rescaled,
    "JPEG 2000 lossless": compressed(JPEG2000Lossless),
    "JPEG-LS lossless": compressed(JPEGLSLossless),
    "RLE": compressed(RLELossless),
}


def jpeg_lossless(file: Path, out: Path, process: UID) -> Path:
    """JPEG Lossless by GDCM, which pydicom can't write."""
    import gdcm

    source = gdcm.ImageReader()
    source.SetFileName(str(file))
    assert source.Read()
    change = gdcm.ImageChangeTransferSyntax()
    kind = "JPEGLosslessProcess14_1" if process == JPEGLosslessSV1 else "JPEGLosslessProcess14"
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, kind)))
    change.SetInput(source.GetImage())
    assert change.Change()
    target = gdcm.ImageWriter()
    target.SetFile(source.GetFile())
    target.SetImage(change.GetOutput())
    target.SetFileName(str(out))
    assert target.Write()
    assert open_dataset(out).file_meta.TransferSyntaxUID == process
    return out


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One picture, black to white, as a PNG and as all kinds of DICOM files."""
    folder, values = tmp_path_factory.mktemp("same"), drawn()
    Pillow.fromarray(values).save(folder / "picture.png")
    for name, make in SAME.items():
        save(make(values), folder / f"{name}.dcm")
    for process in (JPEGLossless, JPEGLosslessSV1):
        jpeg_lossless(folder / "no window.dcm", folder / f"{process.name[:50]} {process[-2:]}.dcm", process)
    return folder


def as_trained(picture: Path) -> np.ndarray:
    """The network's input for a PNG or JPEG by the way that `hilum model train` takes, in shares of black to white."""
    pictures = Pictures([picture], SHIPPED, read_recipe("hilum").augmentation, seed=0)
    batch = next(pictures.batches([(np.array([0]), np.array([AS_IT_IS]))], 1))
    return batch[0] / SHIPPED.scale


def as_served(file: Path) -> np.ndarray:
    return prepare(read(open_dataset(file)), SHIPPED) / SHIPPED.scale


def test_the_network_sees_the_same_in_a_dicom_file_as_in_trainings_png(same: Path) -> None:
    trained = as_trained(same / "picture.png")
    assert np.array_equal(linear.prepare(same / "picture.png", SHIPPED) / SHIPPED.scale, trained)
    files = sorted(same.glob("*.dcm"))
    assert len(files) == 10
    far = {file.name: float(np.abs(as_served(file) - trained).max()) for file in files}
    assert {name: d for name, d in far.items() if d > 1e-5} == {}


def test_a_dicom_file_gets_the_scores_of_trainings_png(
    same: Path, scored: Callable[..., bool], tmp_path: Path
) -> None:
    assert scored([same], tmp_path / "scores.csv")
    rows = {row.pop("image"): row for row in table(tmp_path / "scores.csv")}
    assert {row["status"] for row in rows.values()} == {"analyzed"}
    png = rows["picture.png"]
    for row in rows.values():
        assert all(abs(float(row[label]) - float(png[label])) < 1e-5 for label in SHIPPED.labels)


def test_a_picture_of_few_greys_is_the_same_input_without_a_window_and_in_that_of_all_8_bits(
    tmp_path: Path,
) -> None:
    values = drawn(low=30, high=190)
    Pillow.fromarray(values).save(tmp_path / "picture.png")
    trained = as_trained(tmp_path / "picture.png")
    for dataset in (dicom(values), dicom(values, WindowCenter=128, WindowWidth=256)):
        assert np.abs(as_served(save(dataset, tmp_path / "x.dcm")) - trained).max() < 1e-5


def test_a_real_x_ray_as_dicom_gets_the_scores_of_its_jpeg(
    shared_data: Path, scored: Callable[..., bool], tmp_path: Path
) -> None:
    picture = min((shared_data / "xray/images").iterdir())
    dataset = wrap(picture)
    save(dataset, tmp_path / "plain.dcm")
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    save(dataset, tmp_path / "j2k.dcm")

    assert scored([picture, tmp_path], tmp_path / "scores.csv")

    of_jpeg, *of_dicom = table(tmp_path / "scores.csv")
    assert [row["image"] for row in of_dicom] == ["j2k.dcm", "plain.dcm"]
    for row in of_dicom:
        assert all(abs(float(row[label]) - float(of_jpeg[label])) < 1e-5 for label in SHIPPED.labels)
    assert np.abs(as_served(tmp_path / "j2k.dcm") - as_trained(picture)).max() < 1e-5
