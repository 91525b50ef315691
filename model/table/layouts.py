"""The layouts of label tables, told apart by their headers.

Label file (ours)   image, patient; view, age, sex, follow_up, collection, split where known; a column a label,
                    1, 0 or empty.
CSV beside DICOM    the same, with files that end in .dcm; the first column may be called `file`. A column patient,
                    view, age or sex that the table lacks is read from the files' headers.
NIH                 Data_Entry_2017.csv, Data_Entry_2017_v2020.csv and Kaggle's sample_labels.csv: Image Index, and
                    Finding Labels with the findings joined by |, or `No Finding`.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from model import header
from model.errors import BadData
from model.progress import steps
from model.table.folder import located
from model.table.sheet import Sheet, age, open_sheet
from model.table.table import NIH_FINDINGS, OPACITY, Table

NO_FINDING = "No Finding"
SIZES = (
    ("original_width", "original_height"),
    ("width", "height"),
    ("OriginalImage[Width", "Height]"),
    ("OriginalImageWidth", "OriginalImageHeight"),
)
"""Width and height, in the layouts' spellings; the first pair that a table has is taken."""

COLUMNS = ("image", "patient", "view", "age", "sex", "follow_up", "collection", "split")
"""Of a label file, in the order in which they are written; then the labels."""

KNOWN = frozenset((
    *COLUMNS, *SIZES[0], *SIZES[1], "file", "source", "id", "id_certain", "official_split", "rsna_id", "rsna_class",
    NO_FINDING,
))  # fmt: skip
"""Columns that are no labels even if they hold nothing but 1 and 0."""

VALUES = {"1": 1.0, "0": 0.0, "": np.nan, "1.0": 1.0, "0.0": 0.0}
"""What a label may be; with a dot where a program has taken a column with empty cells for one of decimals."""

HEADERS = {"patient": "PatientID", "view": "ViewPosition", "age": "PatientAge", "sex": "PatientSex"}
"""Columns that DICOM files can stand in for -> their attribute (PS3.6)."""


def open_table(file: Path, images: Path | None, names: Sequence[str] | None = None) -> Table:
    """Reads the table `file` of whatever layout; `images` is searched, subfolders too, for the images it names.

    `names`: the labels wanted. Without them: of a label file NIH's findings and `Lung Opacity` as far as they are
    columns, then every other column that holds 1, 0 and empty cells only; of an NIH table the 14 findings. NIH's
    radiologists never said `Lung Opacity`: asked of an NIH table it is unknown in all rows.

    Without `images` each path is what the table says. Images that are not found are no error: see `missing`.
    Raises BadData naming file, line and column.
    """
    sheet = open_sheet(file)
    if not len(sheet):
        raise BadData(f"{file}: there is no row below the header")
    if "Image Index" in sheet.columns:
        return _nih(sheet, images, names)
    if "image" not in sheet.columns and "file" not in sheet.columns:
        raise BadData(
            f"{file}: line 1: no table that is known here: a label file has the columns image and patient, "
            f"NIH's Image Index and Finding Labels, one beside DICOM files the column file"
        )
    column = "image" if "image" in sheet.columns else "file"
    paths = located(sheet, column, images)
    return _labelled(sheet, paths, _labels_of(sheet) if names is None else names, images is not None)


def read(file: Path, images: Path, names: Sequence[str]) -> Table:
    """Reads the labels `names` of all rows of the label file `file`; the images lie in the folder `images`, in
    subfolders if the file says so. Looks for no file.

    Raises BadData naming the line and the column that is missing or holds what it can't.
    """
    sheet = open_sheet(file)
    sheet.require("image", "patient", *names)
    paths = tuple(images / path for path in located(sheet, "image", None))
    return _labelled(sheet, paths, names, headers=False)


def write(file: Path, table: Table, root: Path) -> None:
    """Writes a label file that `read(file, root, table.names)` reads back equal, whole or not at all.

    Raises BadData where an image lies outside `root`, or a label is called like another column.
    """
    if clash := [name for name in table.names if name in KNOWN]:
        raise BadData(
            f"{file}: a label can't be called {clash[0]!r}, a label file has another column of that name"
        )
    try:
        images = [path.relative_to(root).as_posix() for path in table.images]
    except ValueError as error:
        raise BadData(f"{file}: not all images lie in {root}, so that it can't say where they are") from error
    cells: list[Iterable[str]] = [
        images, table.patients, table.views, _figures(table.ages), table.sexes, _figures(table.follow_ups),
        table.collections, table.splits,
    ]  # fmt: skip
    columns: tuple[str, ...] = COLUMNS
    if table.sizes is not None:
        columns += SIZES[0]
        cells += [_figures(table.sizes[:, 0]), _figures(table.sizes[:, 1])]
    cells += [_figures(table[name]) for name in table.names]
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(file.name + ".part")
    with half.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((*columns, *table.names))
        writer.writerows(zip(*cells, strict=True))
    half.replace(file)


def _figures(values: NDArray[np.float32]) -> list[str]:
    """As short as can be and still the same float32; empty where unknown."""
    return ["" if np.isnan(v) else str(int(v)) if v == int(v) else str(v) for v in values]


def _labels_of(sheet: Sheet) -> list[str]:
    known = [name for name in (*NIH_FINDINGS, OPACITY) if name in sheet.columns]
    others = [name for name in sheet.columns if name and name not in KNOWN and name not in known]
    cells = ((name, set(sheet.words(name))) for name in others)
    return known + [name for name, found in cells if found != {""} and found and found <= VALUES.keys()]


def _labelled(sheet: Sheet, paths: tuple[Path, ...], names: Sequence[str], headers: bool) -> Table:
    """A label file, or a CSV beside DICOM files."""
    sheet.require(*names)
    labels = np.empty((len(sheet), len(names)), np.float32)
    for at, name in enumerate(names):
        for row, cell in enumerate(sheet.words(name)):
            if cell not in VALUES:
                raise sheet.wrong(row, name, f"{cell!r} is no label; labels are 1, 0 or empty")
            labels[row, at] = VALUES[cell]

    said = {column: sheet.words(column) for column in HEADERS if column in sheet.columns}
    lacking = [column for column in HEADERS if column not in said]
    dicom = [row for row, path in enumerate(paths) if path.suffix.lower() == ".dcm"]
    if "patient" in lacking and not (headers and dicom):
        raise BadData(
            f"{sheet.file}: column 'patient' is missing; it is read from headers only where the images are "
            "DICOM files (.dcm) and their folder is given"
        )
    ages = sheet.ages("age")
    for column in lacking:
        said[column] = [""] * len(sheet)
    if lacking and headers:
        for row in steps("DICOM headers", dicom):
            for column, value in _header(paths[row]).items():
                if column in lacking:
                    said[column][row] = value
        if "age" in lacking:
            ages = np.array([_age(value) for value in said["age"]], np.float32)
    return Table(
        names=tuple(names),
        labels=labels,
        images=paths,
        patients=_texts(said["patient"]),
        views=_texts(said["view"]),
        ages=ages,
        sexes=_texts(said["sex"]),
        collections=_texts(sheet.words("collection")),
        follow_ups=sheet.numbers("follow_up"),
        splits=_texts(sheet.words("split")),
        sizes=_sizes(sheet),
    )


def _header(path: Path) -> dict[str, str]:
    """What a DICOM file says of patient, view, age and sex; nothing where it is absent or can't be read: that is
    said where its picture is opened."""
    with header.quietly():
        try:
            dataset = dcmread(path, stop_before_pixels=True, specific_tags=list(HEADERS.values()))
        except Exception:  # whatever pydicom raises on rubbish
            return {}
        return {column: header.text(dataset, keyword) for column, keyword in HEADERS.items()}


def _age(text: str) -> float:
    """A header that says rubbish says nothing."""
    try:
        return age(text) if text else np.nan
    except ValueError:
        return np.nan


def _nih(sheet: Sheet, images: Path | None, names: Sequence[str] | None) -> Table:
    sex = "Patient Sex" if "Patient Sex" in sheet.columns else "Patient Gender"
    sheet.require("Finding Labels", "Follow-up #", "Patient ID", "Patient Age", sex, "View Position")
    labels = np.zeros((len(sheet), len(NIH_FINDINGS)), np.float32)
    for row, cell in enumerate(sheet.words("Finding Labels")):
        if cell == NO_FINDING:
            continue
        for word in cell.split("|"):
            if word not in NIH_FINDINGS:
                raise sheet.wrong(row, "Finding Labels", f"{word!r} is none of NIH's 14 findings")
            labels[row, NIH_FINDINGS.index(word)] = 1
    table = Table(
        names=NIH_FINDINGS,
        labels=labels,
        images=located(sheet, "Image Index", images),
        patients=_texts([patient.strip().zfill(8) for patient in sheet.words("Patient ID")]),
        views=_texts(sheet.words("View Position")),
        ages=sheet.ages("Patient Age"),
        sexes=_texts(sheet.words(sex)),
        collections=_texts([""] * len(sheet)),
        follow_ups=sheet.numbers("Follow-up #"),
        splits=_texts([""] * len(sheet)),
        sizes=_sizes(sheet),
    )
    return table if names is None else _chosen(table, sheet, names)


def _chosen(table: Table, sheet: Sheet, names: Sequence[str]) -> Table:
    """The labels `names` of an NIH table."""
    labels = np.full((len(table), len(names)), np.nan, np.float32)
    for at, name in enumerate(names):
        if name in table.names:
            labels[:, at] = table[name]
        elif name != OPACITY:
            raise BadData(f"{sheet.file}: {name!r} is none of NIH's 14 findings")
    return replace(table, names=tuple(names), labels=labels)


def _sizes(sheet: Sheet) -> NDArray[np.float32] | None:
    pair = next((pair for pair in SIZES if set(pair) <= set(sheet.columns)), None)
    return np.stack([sheet.numbers(column) for column in pair], axis=1) if pair else None


def _texts(words: Sequence[str]) -> NDArray[np.str_]:
    return np.array(words, dtype=np.str_)
