"""Reports to be written and judged: one image or several, no finding above its threshold or all fifteen, marked or not,
from headers that are whole and from headers that are odd.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydicom import Dataset

from model.card import Card
from model.classifier import Finding
from model.explain import Mark
from node.report import Reading, Report

LABELS = (
    *(
        "Atelectasis",
        "Cardiomegaly",
        "Effusion",
        "Infiltration",
        "Mass",
        "Nodule",
        "Pneumonia",
        "Pneumothorax",
    ),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia", "Lung Opacity"),
)
CARD = Card(
    name="test model",
    version="1.2",
    intended_use="marks",
    limits="Adults, one frontal view.",
    folder=Path("nowhere"),
    weights="weights.npz",
    sha256="sha256:" + "ab" * 32,
    architecture="vgg16",
    pools=("block5_pool",),
    size=224,
    fit="stretch",
    scale=255.0,
    mean=(0.0, 0.0, 0.0),
    labels=LABELS,
    display={label: label.replace("_", " ") for label in LABELS},
    thresholds=dict.fromkeys(LABELS, 0.5),
    rule="the largest sum of sensitivity and specificity",
)
AT = datetime(2026, 11, 21, 22, 30, 15, 250000, tzinfo=UTC)


def report(
    source: Dataset, above: int, *, images: int = 1, use: str = "marks", unmarked: tuple[str, ...] = ()
) -> Report:
    """`above` of fifteen findings above their thresholds in each image; `unmarked`: labels without a mark."""
    readings = tuple(_reading(_of_study(source, n), n, above, use, unmarked) for n in range(images))
    made = Report(readings=readings, card=CARD, made_at=AT, timezone=UTC)
    return dataclasses.replace(made, intended_use=use)


def outline(place: int) -> tuple[tuple[float, float], ...]:
    """A hexagon, at another place for each of fifteen."""
    x, y = 0.14 + 0.18 * (place % 5), 0.15 + 0.3 * (place // 5)
    angles = [math.pi / 3 * corner for corner in range(6)]
    return tuple((x + 0.08 * math.cos(a), y + 0.1 * math.sin(a)) for a in angles)


def _reading(source: Dataset, number: int, above: int, use: str, unmarked: tuple[str, ...]) -> Reading:
    scores = [0.98 - 0.01 * n if n < above else 0.4 - 0.01 * n for n in range(len(LABELS))]
    findings = [
        Finding(label=label, raw=score, score=score, threshold=0.5, present=score >= 0.5)
        for label, score in zip(LABELS, scores, strict=True)
    ]
    heat = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    marks = {
        f.label: Mark(heat=heat, outline=outline(place))
        for place, f in enumerate(findings)
        if use == "marks" and f.present and f.label not in unmarked
    }
    return Reading(
        source=source,
        content_hash=f"sha256:{number:064x}",
        picture=np.tile(np.arange(200, dtype=np.uint8), (240, 1)),
        findings=findings,
        marks=marks,
    )


def _of_study(source: Dataset, number: int) -> Dataset:
    """The source itself, and further images: the third in a series of its own."""
    if number == 0:
        return source
    one = copy.deepcopy(source)
    one.SOPInstanceUID = f"{source.SOPInstanceUID}.{number}"
    one.InstanceNumber = number + 1
    if number > 1:
        one.SeriesInstanceUID, one.SeriesNumber = f"{source.SeriesInstanceUID}.{number}", number
    return one


def _cr_without_spacing(source: Dataset) -> None:
    source.SOPClassUID, source.Modality = "1.2.840.10008.5.1.4.1.1.1", "CR"
    del source.ImagerPixelSpacing, source.PatientOrientation, source.ViewCodeSequence
    source.WindowCenter, source.WindowWidth = ["2000", "1500"], ["4096", "2000"]


def _monochrome1(source: Dataset) -> None:
    source.PhotometricInterpretation, source.PresentationLUTShape = "MONOCHROME1", "INVERSE"


def _pixels_not_square(source: Dataset) -> None:
    source.ImagerPixelSpacing = ["0.2", "0.1"]
    source.Rows = source.Columns // 2


def _on_its_side(source: Dataset) -> None:
    source.PatientOrientation = ["F", "R"]
    source.Rows = source.Columns // 2


def _broken_words(source: Dataset) -> None:
    """Half of everything: a window without its width, a slope that is 0, numbers that are none."""
    del source.WindowWidth, source.RescaleSlope
    source.PatientOrientation = "FRONT"
    source.SeriesNumber, source.ViewPosition = None, "UNKNOWN"
    source.ImagerPixelSpacing = ["0", "0"]


ODD: Mapping[str, Callable[[Dataset], None]] = {
    "CR without spacing and orientation": _cr_without_spacing,
    "MONOCHROME1": _monochrome1,
    "pixels that are not square": _pixels_not_square,
    "on its side": _on_its_side,
    "half of everything": _broken_words,
}
