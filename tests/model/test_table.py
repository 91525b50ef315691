import gzip
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from model import phantom
from model import table as tables
from model.errors import BadData
from model.table import NIH_FINDINGS, OPACITY, Table, missing, open_table, read, write
from model.table.layouts import KNOWN

NIH_2017 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
    "00000001_000.png,Cardiomegaly|Emphysema,0,1,58,M,PA,2682,2749,0.143,0.143,\n"
    "00000001_001.png,No Finding,1,1,411,F,AP,2500,2048,0.168,0.168,\n"
)
NIH_2020 = NIH_2017.replace("[x,y],", "[x,y]").replace("3,\n", "3\n").replace("8,\n", "8\n")
QUOTED = NIH_2020.replace("Gender", "Sex").replace(
    "OriginalImage[Width,Height]", '"OriginalImage[Width,Height]"'
)
KAGGLE = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImageWidth,OriginalImageHeight,OriginalImagePixelSpacing_x,OriginalImagePixelSpacing_y\n"
    "00000001_000.png,Cardiomegaly|Emphysema,000,00001,058Y,M,PA,2682,2749,0.143,0.143\n"
    "00000001_001.png,No Finding,001,00001,411Y,F,AP,2500,2048,0.168,0.168\n"
)


def table_of(tmp_path: Path, text: str, images: Path | None = None) -> Table:
    file = tmp_path / "table.csv"
    file.write_text(text, encoding="utf-8")
    return open_table(file, images)


def equal(one: Table, other: Table) -> bool:
    def same(a: object, b: object) -> bool:
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        return a == b

    return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(Table))


@pytest.mark.parametrize(
    "text", [NIH_2017, NIH_2020, QUOTED, KAGGLE], ids=["2017", "2020", "quoted", "kaggle"]
)
def test_every_spelling_of_nihs_table_says_the_same(tmp_path: Path, text: str) -> None:
    table = table_of(tmp_path, text)

    assert table.names == NIH_FINDINGS
    assert [name for name in NIH_FINDINGS if table[name][0]] == ["Cardiomegaly", "Emphysema"]
    assert not table.labels[1].any()
    assert table.ages.tolist() == [58, 411]
    assert table.patients.tolist() == ["00000001", "00000001"]
    assert (table.sexes.tolist(), table.views.tolist()) == (["M", "F"], ["PA", "AP"])
    assert table.follow_ups.tolist() == [0, 1]
    assert table.sizes is not None and table.sizes.tolist() == [[2682, 2749], [2500, 2048]]


def test_ages_of_children_in_months_and_days_are_years(tmp_path: Path) -> None:
    table = table_of(tmp_path, KAGGLE.replace("058Y", "013M").replace("411Y", "001D"))
    assert table.ages == pytest.approx([13 / 12, 1 / 365.25])


def test_nihs_real_table_is_read_whole(shared_data: Path) -> None:
    table = open_table(shared_data / "nih/metadata/Data_Entry_2017_v2020.csv.gz", None)

    assert (len(table), len(np.unique(table.patients))) == (112_120, 30_805)
    assert (table["Pneumonia"].sum(), table["Hernia"].sum()) == (1431, 227)


def test_a_real_table_has_the_labels_that_it_says_and_no_metadata(shared_data: Path) -> None:
    table = open_table(shared_data / "xray/labels.csv", shared_data / "xray/images")

    assert table.names == (*NIH_FINDINGS, OPACITY)
    assert (np.nansum(table[OPACITY]), np.isnan(table[OPACITY]).sum()) == (94, 1342)
    assert not missing(table).any()


def test_real_dicom_files_are_found_beside_their_table(shared_data: Path) -> None:
    table = open_table(shared_data / "dicom/chest.csv", shared_data / "dicom/chest")
    assert (table.names, len(table), missing(table).any()) == ((), 11, False)


def test_nihs_table_asked_for_lung_opacity_says_unknown(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text(NIH_2017)
    table = open_table(file, None, ["Emphysema", OPACITY])
    assert table["Emphysema"].tolist() == [1, 0]
    assert np.isnan(table[OPACITY]).all()


def test_columns_of_ones_and_zeros_are_labels_unless_they_are_known_to_be_something_else(
    tmp_path: Path,
) -> None:
    table = table_of(
        tmp_path,
        "image,patient,id_certain,Tube,Pneumonia,note,never,Lung Opacity\n"
        "a.png,1,1,1,0,fine,,1.0\n"
        "b.png,2,0,,1,1,,\n",
    )
    assert table.names == ("Pneumonia", OPACITY, "Tube")
    assert np.array_equal(table["Tube"], [1, np.nan], equal_nan=True)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (NIH_2017.replace("Emphysema", "Emphysemia"), "line 2, column 'Finding Labels': 'Emphysemia'"),
        (NIH_2017.replace("No Finding", ""), "line 3, column 'Finding Labels'"),
        (NIH_2017.replace("411", "old"), "line 3, column 'Patient Age': 'old' is not an age"),
        (NIH_2017.replace("411", "nan"), "line 3, column 'Patient Age'"),
        (NIH_2017.replace("View Position", "Viewpoint"), "column 'View Position' is missing"),
        (NIH_2017 + "00000002_000.png,Mass\n", "line 4: the row ends before column 'Follow-up #'"),
        (NIH_2017 + NIH_2017.splitlines()[1] + "\n", "line 4, column 'Image Index': .* is in line 2 already"),
        (NIH_2017 + "a" * 13 + ",Mass,0,2,5,M,PA,1,1,1,1,1,1\n", "line 4: more cells than the header"),
        ("image,patient,Mass\na.png,1,yes\n", "line 2, column 'Mass': 'yes' is no label|no table"),
        ("image,Mass\na.png,1\n", "column 'patient' is missing"),
        ("image,patient,image\na.png,1,b.png\n", "line 1: column 'image' is there twice"),
        ("image,patient\n,1\n", "line 2, column 'image': no image is named"),
        ('image,patient\n"a.png,1\n', "line 2: not a row of a CSV file"),
        ("picture,person\na.png,1\n", "line 1: no table that is known here"),
        ("image,patient\n", "no row below the header"),
        ("", "line 1: there is no header"),
    ],
)
def test_a_bad_table_is_refused_with_line_and_column(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(BadData, match=named) as refused:
        table_of(tmp_path, text)
    assert "table.csv" in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "table.csv.gz"
    for content in (b"\x89PNG\r\n\x1a\n\xff", gzip.compress(NIH_2017.encode())[:60], b"PK\x03\x04nothing"):
        file.write_bytes(content)
        with pytest.raises(BadData, match=r"table\.csv\.gz"):
            open_table(file, None)
    with pytest.raises(BadData, match="no such file"):
        open_table(tmp_path / "absent.csv", None)


def test_a_packed_table_says_what_the_plain_one_says(tmp_path: Path) -> None:
    plain = table_of(tmp_path, NIH_2017)
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(NIH_2017.encode()))
    with zipfile.ZipFile(tmp_path / "table.zip", "w") as archive:
        archive.writestr("inside/table.csv", "\ufeff" + NIH_2017)
        archive.writestr("__MACOSX/._table.csv", "rubbish")

    assert equal(open_table(tmp_path / "table.csv.gz", None), plain)
    assert equal(open_table(tmp_path / "table.zip", None), plain)


def test_images_are_found_in_subfolders_and_missing_ones_told(tmp_path: Path) -> None:
    images = tmp_path / "nih"
    for place in ("images_001/images/a.png", "images_002/images/b.png"):
        (images / place).parent.mkdir(parents=True)
        (images / place).touch()
    table = table_of(tmp_path, "image,patient\na.png,1\nb.png,2\nc.png,3\n", images)

    assert table.images == (
        images / "images_001/images/a.png",
        images / "images_002/images/b.png",
        images / "c.png",
    )
    assert missing(table).tolist() == [False, False, True]


def test_an_image_that_is_there_twice_must_be_named_with_its_folder(tmp_path: Path) -> None:
    images = tmp_path / "pictures"
    for place in ("one/a.png", "two/a.png"):
        (images / place).parent.mkdir(parents=True)
        (images / place).touch()

    with pytest.raises(BadData, match=r"line 2, column 'image': 'a.png' is one/a.png and two/a.png"):
        table_of(tmp_path, "image,patient\na.png,1\n", images)
    table = table_of(tmp_path, "image,patient\ntwo/a.png,1\none/a.png,2\n", images)
    assert table.images == (images / "two/a.png", images / "one/a.png")
    with pytest.raises(BadData, match="absent: not a folder"):
        table_of(tmp_path, "image,patient\na.png,1\n", tmp_path / "absent")


def small_dicom(file: Path, **header: str) -> None:
    dataset: Dataset = phantom.draw(1, patch=False)
    dataset.Rows = dataset.Columns = 32
    dataset.PixelData = dataset.PixelData[: 32 * 32 * 2]
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    dataset.save_as(file, enforce_file_format=True)


def test_what_a_table_beside_dicom_files_lacks_comes_from_their_headers(tmp_path: Path) -> None:
    small_dicom(tmp_path / "a.dcm", PatientID="P1", PatientAge="018M", PatientSex="F", ViewPosition="AP")
    (tmp_path / "b.dcm").write_bytes(b"not DICOM")
    table = table_of(tmp_path, "file,sex,Pneumonia\na.dcm,M,1\nb.dcm,F,0\nc.dcm,M,\n", tmp_path)

    assert table.patients.tolist() == ["P1", "", ""]
    assert table.ages[0] == 1.5 and np.isnan(table.ages[1:]).all()
    assert table.views.tolist() == ["AP", "", ""]
    assert table.sexes.tolist() == ["M", "F", "M"]
    assert np.array_equal(table["Pneumonia"], [1, 0, np.nan], equal_nan=True)


PLAIN = st.characters(exclude_categories=("Cs", "Cc"))
WORDS = st.text(PLAIN, max_size=8)
NAMES = st.text(PLAIN, min_size=1, max_size=12).filter(
    lambda name: name == name.strip() and name not in KNOWN and not name.startswith("OriginalImage")
)
IMAGES = st.from_regex(r"([a-z0-9 ,\"é_-]{1,5}/){0,2}[A-Za-z0-9 ,\"é_-]{1,8}\.png", fullmatch=True)


@st.composite
def any_table(draw: st.DrawFn) -> Table:
    images = draw(st.lists(IMAGES, min_size=1, max_size=5, unique=True))
    names = draw(st.lists(NAMES, max_size=4, unique=True))
    n = len(images)

    def texts() -> np.ndarray:
        return np.array(draw(st.lists(WORDS, min_size=n, max_size=n)), np.str_)

    def floats(count: int, *, low: float = -99, high: float = 999) -> np.ndarray:
        value = st.one_of(
            st.just(float("nan")), st.floats(low, high, width=32), st.integers(0, 99).map(float)
        )
        return np.array(draw(st.lists(value, min_size=count, max_size=count)), np.float32)

    labels = draw(
        st.lists(st.sampled_from([0.0, 1.0, float("nan")]), min_size=n * len(names), max_size=n * len(names))
    )
    return Table(
        names=tuple(names),
        labels=np.array(labels, np.float32).reshape(n, len(names)),
        images=tuple(Path("pictures") / image for image in images),
        patients=texts(),
        views=texts(),
        ages=floats(n),
        sexes=texts(),
        collections=texts(),
        follow_ups=floats(n),
        splits=texts(),
        sizes=draw(st.one_of(st.none(), st.just(floats(2 * n).reshape(n, 2)))),
    )


@given(any_table())
def test_what_is_written_is_read_back_equal(tmp_path_factory: pytest.TempPathFactory, table: Table) -> None:
    file = tmp_path_factory.mktemp("table", numbered=True) / "labels.csv"
    write(file, table, Path("pictures"))
    assert equal(read(file, Path("pictures"), table.names), table)


def test_a_table_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    table = table_of(tmp_path, "image,patient,Mass\na.png,1,1\n", tmp_path)
    file = tmp_path / "labels.csv"
    write(file, table, tmp_path)
    before = file.read_bytes()

    with pytest.raises(BadData, match="not all images lie in"):
        write(file, table, tmp_path / "elsewhere")
    with pytest.raises(BadData, match="a label can't be called 'view'"):
        write(file, Table(**{**vars(table), "names": ("view",)}), tmp_path)
    assert file.read_bytes() == before
    assert tables.open_table(file, tmp_path).images == table.images
