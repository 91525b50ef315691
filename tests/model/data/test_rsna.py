import csv
import gzip
import zipfile
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from model.data.rsna import rsna
from model.errors import BadData
from model.header import quietly
from model.table import NIH_FINDINGS, OPACITY, open_table

A, B, C = "0a-1", "0b-2", "0c-3"
LABELS = f"""patientId,x,y,width,height,Target
{A},1.0,2.0,30.0,40.0,1
{A},50.0,2.0,30.0,40.0,1
{B},,,,,0
{C},,,,,0
"""
CLASSES = f"""patientId,class
{A},Lung Opacity
{A},Lung Opacity
{B},Normal
{C},No Lung Opacity / Not Normal
"""
NIH = f"""patientId,nih_image,mse,class
{A},00000007_000.png,1.5,Lung Opacity
{B},00000007_001.png,0.5,Normal
{C},00000009_000.png,51.0,No Lung Opacity / Not Normal
"""
NIH_TABLE = """Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position
00000007_000.png,Pneumonia|Edema,0,7,50,M,AP
00000007_001.png,No Finding,1,7,51,M,PA
00000009_000.png,Mass,0,9,61,F,PA
"""


def dicom(file: Path, *, age: str = "51", sex: str = "F", view: str = "PA") -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    dataset.PatientSex, dataset.ViewPosition = sex, view
    with quietly():  # a bare number is no age string by the standard; the challenge's files have it so
        dataset.PatientAge = age
    dataset.save_as(file, enforce_file_format=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "rsna" / "stage_2_train_images"
    images.mkdir(parents=True)
    dicom(images / f"{A}.dcm", age="51", sex="F", view="AP")
    dicom(images / f"{B}.dcm", age="151", sex="M")
    dicom(images / f"{C}.dcm", age="060Y", sex="M")
    (images.parent / "stage_2_train_labels.csv").write_text(LABELS)
    (images.parent / "stage_2_detailed_class_info.csv").write_text(CLASSES)
    (tmp_path / "nih.csv").write_text(NIH)
    (tmp_path / "entry.csv").write_text(NIH_TABLE)
    return images.parent


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_challenge_becomes_a_label_file_and_its_boxes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "labels.csv"
    rsna(folder, out, nih=None, nih_table=None)
    first, second, third = rows(out)
    assert first == {
        "image": f"stage_2_train_images/{A}.dcm", "patient": A, "view": "AP", "age": "51", "sex": "F",
        OPACITY: "1", "rsna_class": "Lung Opacity",
    }  # fmt: skip
    assert (second["age"], second[OPACITY], second["rsna_class"]) == ("151", "0", "Normal")
    assert third["age"] == "60"
    assert rows(out.with_name("boxes.csv"))[1] == {
        "image": f"stage_2_train_images/{A}.dcm", "x": "50.0", "y": "2.0", "width": "30.0", "height": "40.0",
    }  # fmt: skip
    assert "may put a person into two splits" in capsys.readouterr().out
    table = open_table(out, folder)
    assert table.names == (OPACITY,)
    assert all(path.is_file() for path in table.images)


def test_nihs_patient_and_findings_are_taken_where_the_picture_truly_matches(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels.csv"
    rsna(folder, out, nih=tmp_path / "nih.csv", nih_table=tmp_path / "entry.csv")
    first, second, third = rows(out)
    assert [row["patient"] for row in (first, second, third)] == ["00000007", "00000007", C]
    assert {name for name in NIH_FINDINGS if first[name] == "1"} == {"Pneumonia", "Edema"}
    assert {second[name] for name in NIH_FINDINGS} == {"0"}
    assert {third[name] for name in NIH_FINDINGS} == {""}
    said = capsys.readouterr().out
    assert "1 of NIH's, on 2 images" in said
    assert "Without a true match in NIH's set: 1 images" in said


def test_packed_tables_are_read_too(folder: Path, tmp_path: Path) -> None:
    labels, classes = folder / "stage_2_train_labels.csv", folder / "stage_2_detailed_class_info.csv"
    with zipfile.ZipFile(f"{labels}.zip", "w") as archive:
        archive.write(labels, labels.name)
    Path(f"{classes}.gz").write_bytes(gzip.compress(classes.read_bytes()))
    labels.unlink()
    classes.unlink()
    rsna(folder, tmp_path / "labels.csv", nih=None, nih_table=None)
    assert len(rows(tmp_path / "labels.csv")) == 3


def test_images_that_are_absent_or_no_dicom_are_counted_and_left_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "stage_2_train_images" / f"{A}.dcm").unlink()
    (folder / "stage_2_train_images" / f"{B}.dcm").write_bytes(b"no DICOM at all" * 20)
    rsna(folder, tmp_path / "labels.csv", nih=None, nih_table=None)
    assert [row["patient"] for row in rows(tmp_path / "labels.csv")] == [C]
    said = capsys.readouterr().out
    assert f"Left out, no DICOM file: 1 (the first is {A}.dcm)" in said
    assert f"Left out, a file that is no DICOM file: 1 (the first is {B}.dcm)" in said


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("class_info", f"{B},Normal", f"{B},Lung Opacity", "line 4, column 'class'"),
        ("class_info", f"{B},Normal\n", "", "line 4, column 'patientId': the image is not in"),
        ("class_info", f"{B},Normal", f"{B},Abnormal", "line 4, column 'class'"),
        ("labels", f"{B},,,,,0", f"{B},,,,,1", "line 4, column 'Target'"),
        ("labels", f"{B},,,,,0", f"{A},,,,,0", "line 4, column 'Target': an earlier row"),
        ("labels", f"{B},,,,,0", "../../etc,,,,,0", "line 4, column 'patientId'"),
        ("labels", "Target", "target", "column 'Target' is missing"),
    ],
)
def test_tables_that_disagree_are_refused_with_their_line(
    folder: Path, tmp_path: Path, name: str, old: str, new: str, said: str
) -> None:
    file = next(folder.glob(f"*{name}.csv"))
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(BadData, match=said):
        rsna(folder, tmp_path / "labels.csv", nih=None, nih_table=None)
    assert not (tmp_path / "labels.csv").exists()


def test_a_file_of_somebody_else_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("mine")
    with pytest.raises(BadData, match=r"boxes\.csv: is there already"):
        rsna(folder, tmp_path / "labels.csv", nih=None, nih_table=None)


def test_nine_real_files_with_the_real_tables(shared_data: Path, tmp_path: Path) -> None:
    metadata = shared_data / "nih" / "metadata"
    folder = tmp_path / "rsna"
    images = folder / "stage_2_train_images"
    images.mkdir(parents=True)
    for file in (shared_data / "dicom" / "chest").glob("rsna_*.dcm"):
        header = dcmread(file, stop_before_pixels=True, specific_tags=["PatientID"])
        (images / f"{header.PatientID}.dcm").symlink_to(file)
    for name in ("stage_2_train_labels.csv.zip", "stage_2_detailed_class_info.csv.gz"):
        (folder / name).symlink_to(metadata / f"rsna_{name}")
    out = tmp_path / "labels.csv"
    rsna(
        folder, out,
        nih=metadata / "rsna_to_nih.csv.gz", nih_table=metadata / "Data_Entry_2017_v2020.csv.gz",
    )  # fmt: skip
    table = open_table(out, folder)
    with (shared_data / "dicom" / "chest.csv").open(newline="") as lines:
        truth = {row["file"][5:13]: row for row in csv.DictReader(lines) if row["file"].startswith("rsna_")}
    assert len(table) == len(truth) == 9
    assert table.names == (*NIH_FINDINGS, OPACITY)
    for at, image in enumerate(table.images):
        row = truth[image.name[:8]]
        assert table.patients[at] == row["patient"]
        assert (table.views[at], table.sexes[at], table.ages[at]) == (
            row["view"],
            row["sex"],
            int(row["age"]),
        )
        assert table[OPACITY][at] == (row["label"] == "RSNA: Lung Opacity")
