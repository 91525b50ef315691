import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from model import phantom


@pytest.mark.parametrize("patch", [False, True])
@pytest.mark.peer
def test_dciodvfy_finds_no_error_in_a_phantom(
    program: Callable[[str], str], tmp_path: Path, patch: bool
) -> None:
    file = tmp_path / "phantom.dcm"
    phantom.draw(7, patch=patch).save_as(file, enforce_file_format=True)

    done = subprocess.run([program("dciodvfy"), "-new", str(file)], capture_output=True, text=True)

    told = done.stdout + done.stderr
    assert "DXImageForPresentation" in told
    assert [line for line in told.splitlines() if line.startswith(("Error", "Warning"))] == []


def test_the_same_seed_draws_the_same_data_set() -> None:
    assert phantom.draw(3, patch=True) == phantom.draw(3, patch=True)


def test_two_phantoms_differ_in_picture_and_identity() -> None:
    plain, dense = phantom.draw(3, patch=False), phantom.draw(3, patch=True)

    for uid in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID"):
        assert plain[uid].value != dense[uid].value
    lung = (slice(600, 660), slice(280, 340))
    assert dense.pixel_array[lung].mean() > 1.2 * plain.pixel_array[lung].mean()


def test_a_phantom_looks_like_a_chest(tmp_path: Path) -> None:
    file = tmp_path / "phantom.dcm"
    phantom.draw(5, patch=False).save_as(file, enforce_file_format=True)
    read = dcmread(file)
    picture = read.pixel_array / 4095

    air, lungs = picture[10:60, 10:60].mean(), picture[350:650, [300, 720]].mean()
    spine, belly = picture[850:1000, 500:524].mean(), picture[850:1000, 250:750].mean()
    assert air < 0.1 < lungs < 0.45 < 0.7 < belly < spine
    assert str(read.PatientName).startswith("Phantom^Chest^")
    assert read.SOPInstanceUID.startswith("2.25.") and len(read.SOPInstanceUID) <= 64
