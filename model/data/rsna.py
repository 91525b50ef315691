"""`hilum model data rsna`: the RSNA Pneumonia Detection Challenge's set, as it comes from Kaggle -> a label file.

    DIR/stage_2_train_images/….dcm            an image a file, named by RSNA's id of the image
    DIR/stage_2_train_labels.csv              patientId, x, y, width, height, Target; a row a box
    DIR/stage_2_detailed_class_info.csv       patientId, class

`Lung Opacity` is the challenge's Target, as its radiologists read it from the picture (G. Shih et al., Radiology:
Artificial Intelligence 2019, 1(1):e180041). Age, sex and view are the DICOM headers'.

All pictures are NIH's. RSNA's `patientId` names an image, not a person: who several images belong to is known only
through NIH's set, and a split by RSNA's id alone can put one person on both sides.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import dcmread

from model import header
from model.errors import BadData
from model.page import replace
from model.progress import steps
from model.scope import age_in_years
from model.table import NIH_FINDINGS, OPACITY, open_table
from model.table.sheet import Sheet, open_sheet

IMAGES = "stage_2_train_images"
LABELS = "stage_2_train_labels.csv"
CLASSES = "stage_2_detailed_class_info.csv"
CLASS_NAMES = (OPACITY, "No Lung Opacity / Not Normal", "Normal")
BOX = ("x", "y", "width", "height")
BOXES = "boxes.csv"
COLUMNS = ("image", "patient", "view", "age", "sex", OPACITY, "rsna_class")

MOST_ERROR = 10.0
"""Mean squared error in grey levels of RSNA's picture against NIH's: above it there is no true match (98 of 26,684)."""

HEADER = ["PatientAge", "PatientSex", "ViewPosition", "PatientBirthDate", "StudyDate"]
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
NIH_NAME = re.compile(r"(\d{8})_\d+\.png")


@dataclass
class Reading:
    """What the radiologists said of one image."""

    target: str
    boxes: list[list[str]]
    kind: str = ""


@dataclass(frozen=True)
class Match:
    """The same image in NIH's set."""

    image: str
    patient: str


def rsna(folder: Path, out: Path, *, nih: Path | None, nih_table: Path | None) -> None:
    """Reads the set in `folder` into the label file `out`, which names images from `folder` on, and `boxes.csv` beside
    it (pixels of the original picture).

    `nih`: a CSV of patientId, nih_image and mse; then the patient is NIH's. `nih_table`: NIH's Data_Entry_2017*.csv;
    then its 14 findings are there too. Where there is no true match the patient is RSNA's id and the findings are
    empty. Prints what there is. Raises BadData naming file and line.
    """
    if nih_table and not nih:
        raise BadData("--nih-table needs --nih: nobody knows else which of NIH's images an RSNA image is")
    if not (folder / IMAGES).is_dir():
        raise BadData(f"{folder}: has no folder {IMAGES}; unpack the challenge's images there")
    for file, columns in ((out, COLUMNS), (out.with_name(BOXES), ("image", *BOX))):
        _check_out(file, columns)
    readings = _readings(_table(folder, LABELS), _table(folder, CLASSES))
    matches = _matches(nih) if nih else {}
    findings = _findings(nih_table) if nih_table else {}
    rows: list[list[str]] = []
    boxes: list[list[str]] = []
    left_out: dict[str, list[str]] = {"no DICOM file": [], "a file that is no DICOM file": []}
    for image, reading in steps("DICOM headers", sorted(readings.items())):
        file = folder / IMAGES / f"{image}.dcm"
        known = _header(file) if file.is_file() else []
        if not known:
            left_out["no DICOM file" if known == [] else "a file that is no DICOM file"].append(file.name)
            continue
        name, match = f"{IMAGES}/{file.name}", matches.get(image)
        row = [name, match.patient if match else image, *known, reading.target, reading.kind]
        if nih_table:
            row += findings.get(match.image if match else "", [""] * len(NIH_FINDINGS))
        rows.append(row)
        boxes += [[name, *box] for box in reading.boxes]
    if not rows:
        raise BadData(
            f"{folder / IMAGES}: none of the {len(readings):,} images of {LABELS} can be read there"
        )
    _write(out, [*COLUMNS, *(NIH_FINDINGS if nih_table else ())], rows)
    _write(out.with_name(BOXES), ["image", *BOX], boxes)
    _say(rows, left_out)
    _say_whose(rows, nih)
    print(f"Written: {out}, for --images {folder}; {len(boxes):,} boxes: {out.with_name(BOXES)}")


def _check_out(file: Path, columns: Sequence[str]) -> None:
    if file.exists() and not file.read_bytes().startswith(",".join(columns).encode()):
        raise BadData(f"{file}: is there already and was not made by this command; name another --out")


def _table(folder: Path, name: str) -> Sheet:
    """Kaggle's file, plain, .gz or .zip."""
    for file in (folder / name, folder / f"{name}.gz", folder / f"{name}.zip"):
        if file.exists():
            return open_sheet(file)
    raise BadData(f"{folder}: has no {name} (nor {name}.gz or {name}.zip)")


def _readings(labels: Sheet, classes: Sheet) -> dict[str, Reading]:
    """By RSNA's id; the two tables agree on every image."""
    labels.require("patientId", *BOX, "Target")
    classes.require("patientId", "class")
    readings: dict[str, Reading] = {}
    sides = [labels.numbers(column) for column in BOX]
    cells = [labels.words(column) for column in BOX]
    for row, (image, target) in enumerate(
        zip(labels.words("patientId"), labels.words("Target"), strict=True)
    ):
        if not PLAIN.fullmatch(image):
            raise labels.wrong(row, "patientId", "is no plain name of an image")
        if target not in ("0", "1"):
            raise labels.wrong(row, "Target", f"{target!r} is neither 0 nor 1")
        known = [not np.isnan(side[row]) for side in sides]
        if not all(known) if target == "1" else any(known):
            raise labels.wrong(row, "Target", "a row with Target 1 has a box, one with Target 0 has none")
        reading = readings.setdefault(image, Reading(target, []))
        if reading.target != target:
            raise labels.wrong(row, "Target", "an earlier row of the same image says otherwise")
        if target == "1":
            reading.boxes.append([column[row] for column in cells])
    for row, (image, kind) in enumerate(zip(classes.words("patientId"), classes.words("class"), strict=True)):
        if kind not in CLASS_NAMES:
            raise classes.wrong(row, "class", f"{kind!r} is none of {', '.join(CLASS_NAMES)}")
        if image not in readings:
            raise classes.wrong(row, "patientId", f"the image is not in {labels.file.name}")
        reading = readings[image]
        if (kind == OPACITY) != (reading.target == "1"):
            raise classes.wrong(
                row, "class", f"{kind!r}, but Target is {reading.target} in {labels.file.name}"
            )
        if reading.kind not in ("", kind):
            raise classes.wrong(row, "class", "an earlier row of the same image says otherwise")
        reading.kind = kind
    for row, image in enumerate(labels.words("patientId")):
        if not readings[image].kind:
            raise labels.wrong(row, "patientId", f"the image is not in {classes.file.name}")
    return readings


def _matches(file: Path) -> dict[str, Match]:
    """By RSNA's id, the images that have a true match in NIH's set."""
    sheet = open_sheet(file)
    sheet.require("patientId", "nih_image", "mse")
    errors = sheet.numbers("mse")
    matches = {}
    for row, (image, nih) in enumerate(zip(sheet.words("patientId"), sheet.words("nih_image"), strict=True)):
        found = NIH_NAME.fullmatch(nih)
        if not found:
            raise sheet.wrong(row, "nih_image", "is no name of an NIH image, such as 00000001_000.png")
        if errors[row] <= MOST_ERROR:
            matches[image] = Match(nih, found[1])
    return matches


def _findings(file: Path) -> dict[str, list[str]]:
    """NIH's 14 findings by image."""
    table = open_table(file, None, NIH_FINDINGS)
    cells = np.where(np.isnan(table.labels), "", np.where(table.labels == 1, "1", "0"))
    return {image.name: row for image, row in zip(table.images, cells.tolist(), strict=True)}


def _header(file: Path) -> list[str] | None:
    """View, age in whole years (PatientAge has no unit here) and sex, empty where unknown; None if it is no DICOM
    file."""
    with header.quietly():
        try:
            dataset = dcmread(file, stop_before_pixels=True, specific_tags=HEADER)
        except Exception:  # whatever pydicom raises on rubbish
            return None
        years = age_in_years(dataset)
        age = header.text(dataset, "PatientAge") if years is None else str(int(years))
        return [
            header.text(dataset, "ViewPosition"),
            age if age.isdigit() else "",
            header.text(dataset, "PatientSex"),
        ]


def _write(file: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A CSV file, whole or the old one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    replace(file, text.getvalue())


def _say(rows: Sequence[Sequence[str]], left_out: dict[str, list[str]]) -> None:
    opacities = sum(row[COLUMNS.index(OPACITY)] == "1" for row in rows)
    print(f"Read: {len(rows):,} images, {opacities:,} of them with {OPACITY}.")
    for why, files in left_out.items():
        if files:
            print(f"Left out, {why}: {len(files):,} (the first is {files[0]}).")


def _say_whose(rows: Sequence[Sequence[str]], nih: Path | None) -> None:
    """How far the patients are known: what a split by patient is worth."""
    if not nih:
        print(
            f"Patients: RSNA's id names an image ({len(rows):,}), not a person. Several images may be of one person: "
            "a split by these ids may put a person into two splits. --nih tells whose they are."
        )
        return
    alone = sum(row[1] in row[0] for row in rows)
    people = len({row[1] for row in rows}) - alone
    print(f"Patients: {people:,} of NIH's, on {len(rows) - alone:,} images.")
    if alone:
        print(
            f"Without a true match in NIH's set: {alone:,} images, each under RSNA's id as a patient of its own. It "
            "may be one of the others: a split may put that person into two splits."
        )
