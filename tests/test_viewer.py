"""Seen in a viewer: a study with our results, opened in OHIF as a radiologist opens it, shows them without an error.

One Orthanc, one browser. `scripts/screens` keeps what is seen here as the pictures of docs/results.md.
"""

import copy
import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from peers.ohif import Viewer, viewing
from PIL import Image
from pydicom import Dataset, dcmread

from model import card, phantom
from model.card import SHIPPED
from model.classifier import Finding
from model.explain import Mark
from node.render import render
from node.report import WRITERS, Reading, Report, Result, make, sentences
from node.report import findings as words

pytestmark = pytest.mark.peer

SCREENS = os.environ.get("HILUM_SCREENS", "")
"""A folder; where empty, the pictures lie in the test's own."""
AT = datetime(2026, 11, 21, 22, 30, 15, tzinfo=UTC)
CR = "1.2.840.10008.5.1.4.1.1.1"
CARD = card.load(SHIPPED)
FOUND = {"none": 0, "one": 1, "three": 3, "twelve": 12}
CASES = [(use, found) for use in ("triage", "marks") for found in ("none", "one", "twelve")]
KEPT = {
    *(("sr", use, "one") for use in ("triage", "marks")),
    *(("sc", use, "one") for use in ("triage", "marks")),
    ("text-sr", "triage", "one"),
    ("pdf", "marks", "one"),
}
NOT_SHOWN = {"ko", "gsps"}
"""OHIF 3.13 lists them with a warning sign."""


@dataclass(frozen=True)
class Study:
    """A drawn chest and all that is made of it."""

    source: Dataset
    report: Report
    results: dict[str, Result]

    @property
    def uid(self) -> str:
        return str(self.source.StudyInstanceUID)

    @property
    def above(self) -> list[Finding]:
        return [finding for finding in self.report.first.findings if finding.present]

    def result(self, kind: str) -> Dataset:
        return dcmread(BytesIO(self.results[kind].data))

    def series(self, *kinds: str) -> set[str]:
        return {str(self.result(kind).SeriesDescription) for kind in kinds}


@pytest.fixture(scope="module")
def viewer(
    program: Callable[[str], str], free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Viewer]:
    with viewing(program, free_port, tmp_path_factory.mktemp("viewer")) as viewer:
        yield viewer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where pictures are kept."""
    folder = Path(SCREENS) if SCREENS else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@cache
def chest() -> tuple[Dataset, npt.NDArray[np.uint8]]:
    """A drawn chest, and as it is looked at."""
    source = phantom.draw(1, patch=True)
    return source, (source.pixel_array >> (phantom.BITS - 8)).astype(np.uint8)


def source_of(number: int, modality: str) -> Dataset:
    """The drawn chest in a study of its own; as CR without what a CR need not have."""
    source = copy.deepcopy(chest()[0])
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(source, keyword, f"{source[keyword].value}.{number}")
    source.PatientName, source.PatientID = "Phantom^Ada", f"P-{number}"
    if modality == "CR":
        source.SOPClassUID, source.Modality = CR, "CR"
        for keyword in ("PresentationIntentType", "ImagerPixelSpacing", "DetectorType", "PositionerType"):
            del source[keyword]
    source.file_meta.MediaStorageSOPClassUID = source.SOPClassUID
    source.file_meta.MediaStorageSOPInstanceUID = source.SOPInstanceUID
    return source


def findings(found: int) -> list[Finding]:
    """Of the shipped model's labels so many above their thresholds, Lung Opacity first."""
    most_important = sorted(CARD.labels, key=lambda label: label != "Lung Opacity")
    scores = {}
    for number, label in enumerate(most_important):
        threshold = CARD.thresholds[label]
        above = threshold + (1 - threshold) * (14 - number) / 16
        scores[label] = above if number < found else threshold * 0.6
    return [
        Finding(
            label,
            scores[label],
            scores[label],
            CARD.thresholds[label],
            scores[label] >= CARD.thresholds[label],
        )
        for label in CARD.labels
    ]


def mark(number: int) -> Mark:
    """A warm spot, each elsewhere: on the drawn patch, in the other lung, on the heart, anywhere."""
    anywhere = (0.2 + 0.2 * (number % 4), 0.2 + 0.2 * (number // 4))
    x, y = {0: (0.31, 0.62), 1: (0.76, 0.68), 2: (0.56, 0.64)}.get(number, anywhere)
    across = (np.arange(224) + 0.5) / 224
    heat = np.exp(-(((across - x) / 0.1) ** 2) - ((across[:, np.newaxis] - y) / 0.1) ** 2)
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    outline = tuple((float(x + 0.08 * np.cos(turn)), float(y + 0.08 * np.sin(turn))) for turn in turns)
    return Mark(heat.astype(np.float32), outline)


def report_on(source: Dataset, use: str, found: str) -> Report:
    found_above = [f.label for f in findings(FOUND[found]) if f.present]
    found_above.sort(key=lambda label: label != "Lung Opacity")
    reading = Reading(
        source=Dataset({tag: source[tag] for tag in source.keys() if tag != 0x7FE00010}),  # noqa: SIM118
        content_hash="sha256:" + "cd" * 32,
        picture=chest()[1],
        findings=findings(FOUND[found]),
        marks={label: mark(n) for n, label in enumerate(found_above)} if use == "marks" else {},
    )
    intended = "marks" if use == "marks" else "triage"
    return Report(readings=(reading,), card=CARD, made_at=AT, intended_use=intended, timezone=UTC)


def study(viewer: Viewer, number: int, modality: str, use: str, found: str) -> Study:
    """The chest and all kinds of results of it, stored in the PACS behind the viewer."""
    source = source_of(number, modality)
    report = report_on(source, use, found)
    results = {}
    for kind in WRITERS:
        if kind != "not-analyzed" and (kind != "gsps" or use == "marks"):
            made = make(kind, report, "comprehensive3d" if kind == "sr" else "")
            results |= {kind: made[0]} if made else {}
    store(viewer, encoded(source), *(result.data for result in results.values()))
    return Study(source, report, results)


def store(viewer: Viewer, *files: bytes) -> None:
    for file in files:
        viewer.orthanc.post("/instances", file)


def encoded(dataset: Dataset) -> bytes:
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def labels(one: Study) -> set[str]:
    """What is written beside each region."""
    names = {f: CARD.display[f.label] for f in one.above}
    return {f"{name} {f.score:.2f} (threshold {f.threshold:.2f})" for f, name in names.items()}


def likeness(seen: Image.Image, picture: npt.NDArray[np.uint8]) -> float:
    """Correlation of what a viewport shows with a picture that was fitted into it; 1: the same."""
    made = Image.fromarray(picture).convert("L")
    scale = min(seen.width / made.width, seen.height / made.height)
    size = round(made.width * scale), round(made.height * scale)
    left, top = (seen.width - size[0]) // 2, (seen.height - size[1]) // 2
    part = np.asarray(seen.crop((left, top, left + size[0], top + size[1])), float)
    return float(np.corrcoef(part.ravel(), np.asarray(made.resize(size), float).ravel())[0, 1])


@pytest.mark.parametrize(("use", "found"), CASES)
def test_each_result_is_shown_without_an_error(viewer: Viewer, folder: Path, use: str, found: str) -> None:
    number = CASES.index((use, found))
    one = study(viewer, number, "CR" if number % 2 else "DX", use, found)
    viewer.open(one.uid, series=1 + len(one.results))
    assert viewer.series == one.series(*one.results) | {"Chest PA, drawn"}
    assert viewer.unsupported == one.series(*(NOT_SHOWN & set(one.results)))
    for kind in [kind for kind in one.results if kind not in NOT_SHOWN]:
        (description,) = one.series(kind)
        if kind == "pdf":
            viewer.show_paper(description)
        elif kind == "sc":
            viewer.show(description, until=description)
            assert likeness(viewer.picture(), one.result("sc").pixel_array) > 0.9
        elif kind == "sr" and use == "marks" and one.above:
            viewer.show(description, until="Certainty of Finding")
            assert {label for label in labels(one) if label in viewer.said()} == labels(one)
        else:
            said = viewer.show(description, until=words.RESEARCH_USE)
            assert sentences.headline(one.report) in said
            assert all(name in said for name in CARD.display.values())
        assert (kind, viewer.trouble()) == (kind, [])
        if (kind, use, found) in KEPT:
            viewer.photograph(folder / f"ohif-{kind}-{use}.png")


def test_the_measurements_panel_names_each_finding_that_has_a_region(viewer: Viewer, folder: Path) -> None:
    one = study(viewer, 10, "DX", "marks", "three")
    viewer.open(one.uid, series=1 + len(one.results), mode="viewer")
    viewer.click(*one.series("sr"))
    rows = " ".join("\n".join(viewer.measurements(rows=len(one.above))).split())
    assert {label for label in labels(one) if label in rows} == labels(one)
    assert viewer.trouble() == []
    viewer.photograph(folder / "ohif-measurements.png")


def test_key_images_and_presentation_states_are_refused_by_the_viewer(viewer: Viewer) -> None:
    """As docs/results.md says: so a change of the viewer is noticed."""
    one = study(viewer, 15, "DX", "marks", "one")
    for kind in sorted(NOT_SHOWN):
        viewer.open(one.uid, series=1 + len(one.results))
        viewer.click(*one.series(kind))
        assert any("could not be added to the viewport" in trouble for trouble in viewer.wait_for_trouble())


def test_the_marks_that_the_viewer_can_t_show_are_drawn_by_render(tmp_path: Path, folder: Path) -> None:
    source = source_of(40, "DX")
    state, image = tmp_path / "gsps.dcm", tmp_path / "image.dcm"
    state.write_bytes(make("gsps", report_on(source, "marks", "three"))[0].data)
    image.write_bytes(encoded(source))
    seen = Image.open(render(state, tmp_path / "gsps.png", image)).convert("L")
    # the picture, with outlines in it, and beneath it a strip of words
    above = seen.crop((0, 0, seen.width, seen.width))
    assert 0.9 < likeness(above, chest()[1]) < 0.999
    seen.resize((seen.width * 5 // 8, seen.height * 5 // 8)).quantize(64).save(
        folder / "render-gsps.png", optimize=True
    )


def test_an_image_that_was_not_analyzed_says_so(viewer: Viewer, folder: Path) -> None:
    source = source_of(20, "DX")
    report = report_on(source, "triage", "none")
    why = "the view is lateral"
    (made,) = make(
        "not-analyzed",
        dataclasses.replace(report, reason=why, readings=(dataclasses.replace(report.first, findings=[]),)),
    )
    store(viewer, encoded(source), made.data)
    viewer.open(str(source.StudyInstanceUID), series=2)
    said = viewer.show("Hilum AI: not analyzed", until="Not analyzed")
    assert why in said and "does not mean that nothing was found" in said
    assert viewer.trouble() == []
    viewer.photograph(folder / "ohif-not-analyzed.png")


def test_what_the_viewer_can_t_show_would_be_noticed(viewer: Viewer) -> None:
    """A report for triage under the title that OHIF draws: why it has another title."""
    source = source_of(30, "DX")
    report = dcmread(BytesIO(make("sr", report_on(source, "triage", "one"), "comprehensive3d")[0].data))
    report.ConceptNameCodeSequence[0].CodeValue = "126000"
    store(viewer, encoded(source), encoded(report))
    viewer.open(str(source.StudyInstanceUID), series=2)
    viewer.click(report.SeriesDescription)
    assert any("Something went wrong" in trouble for trouble in viewer.wait_for_trouble())
