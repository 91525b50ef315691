"""One reading of a drawn chest, to be varied, and the judges that look at what is made of it."""

import copy
import dataclasses
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import studies
from pydicom import Dataset

from model.card import Card
from model.classifier import Finding
from model.phantom import draw
from node.report import Reading, Report

LABELS = ("Atelectasis", "Effusion", "Pleural_Thickening", "Lung Opacity")
CARD = dataclasses.replace(
    studies.CARD,
    intended_use="triage",
    labels=LABELS,
    display={label: label.replace("_", " ") for label in LABELS},
    thresholds=dict.fromkeys(LABELS, 0.5),
)


def _finding(label: str, score: float, threshold: float = 0.5) -> Finding:
    return Finding(label=label, raw=score, score=score, threshold=threshold, present=score >= threshold)


FINDINGS = [
    _finding("Atelectasis", 0.12),
    _finding("Effusion", 0.61),
    _finding("Pleural_Thickening", 0.4996),
    _finding("Lung Opacity", 0.8312),
]
AT = datetime(2026, 11, 21, 22, 30, 15, 250000, tzinfo=UTC)


@pytest.fixture
def finding() -> Callable[..., Finding]:
    """`finding(label, score, threshold=0.5)`"""
    return _finding


@pytest.fixture
def card() -> Card:
    return CARD


@pytest.fixture(scope="session")
def phantom() -> Dataset:
    return draw(1, patch=True)


@pytest.fixture
def source(phantom: Dataset) -> Dataset:
    """The header of a whole DX image without an error; yours to change."""
    # copied: a value that is set is set in the element, and the phantom is everybody's
    kept = {tag: copy.deepcopy(phantom[tag]) for tag in phantom.keys() if tag != 0x7FE00010}  # noqa: SIM118
    header = Dataset(kept)
    header.PatientName, header.PatientID, header.PatientSex = "Phantom^Ada", "P-1", "F"
    return header


@pytest.fixture
def read(source: Dataset) -> Callable[..., Report]:
    """`read()` is a report on one image, `source`; keywords change it or its reading."""
    reading = Reading(
        source=source,
        content_hash="sha256:" + "cd" * 32,
        picture=np.tile(np.arange(200, dtype=np.uint8), (240, 1)),
        findings=FINDINGS,
    )
    of_image = {field.name for field in dataclasses.fields(Reading)}

    def changed(**changes: object) -> Report:
        first = dataclasses.replace(reading, **{k: v for k, v in changes.items() if k in of_image})
        report = Report(readings=(first,), card=CARD, made_at=AT, timezone=UTC)
        return dataclasses.replace(report, **{k: v for k, v in changes.items() if k not in of_image})

    return changed


@pytest.fixture(scope="session")
def dciodvfy(program: Callable[[str], str]) -> Callable[[Path], list[str]]:
    """What dciodvfy calls an error in a file."""
    command = program("dciodvfy")

    def judge(path: Path) -> list[str]:
        run = subprocess.run([command, path], capture_output=True, check=False)
        return [line for line in run.stderr.decode(errors="replace").splitlines() if line.startswith("Error")]

    return judge


@pytest.fixture
def errors(dciodvfy: Callable[[Path], list[str]], tmp_path: Path) -> Callable[[bytes], list[str]]:
    """What dciodvfy calls an error in a whole file's bytes."""

    def judge(data: bytes) -> list[str]:
        path = tmp_path / "judged.dcm"
        path.write_bytes(data)
        return dciodvfy(path)

    return judge
