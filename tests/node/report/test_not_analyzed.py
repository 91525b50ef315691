"""The word on an image that was not analyzed."""

import dataclasses
import subprocess
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread

from node import report
from node.report import InvalidResult, Report


@pytest.fixture
def skipped(read) -> Report:
    return read(findings=[], picture=np.zeros((0, 0), np.uint8), reason="The patient is under 18 years old.")


@pytest.mark.peer
def test_dciodvfy_and_dsrdump_find_no_error(skipped, errors, program, tmp_path) -> None:
    path = tmp_path / "not.dcm"
    path.write_bytes(report.make("not-analyzed", skipped)[0].data)
    dump = subprocess.run([program("dsrdump"), "+U8", path], capture_output=True, check=False)
    assert errors(path.read_bytes()) == []
    assert dump.returncode == 0 and b"E:" not in dump.stderr


def test_it_says_why_and_that_the_absence_of_a_result_means_nothing(skipped, source, card) -> None:
    found = dcmread(BytesIO(report.make("not-analyzed", skipped)[0].data))
    first, second, image, model = found.ContentSequence[:4]
    assert first.TextValue == "Not analyzed: The patient is under 18 years old."
    assert second.TextValue.startswith("There is no AI statement about this image. ")
    assert "does not mean that nothing was found" in second.TextValue
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert card.sha256 in model.TextValue
    assert found.SeriesNumber == 9007 and "threshold" not in str(found)


@pytest.mark.parametrize(
    ("name", "variant"), [("sr", "comprehensive3d"), ("sc", ""), ("text-sr", ""), ("pdf", "")]
)
def test_no_other_kind_is_made_of_what_was_not_analyzed(skipped, name, variant) -> None:
    with pytest.raises(InvalidResult, match="not analyzed"):
        report.make(name, skipped, variant)


def test_what_was_analyzed_is_never_called_not_analyzed(read) -> None:
    with pytest.raises(InvalidResult, match="was analyzed"):
        report.make("not-analyzed", read())
    with pytest.raises(InvalidResult, match="findings"):
        report.make("not-analyzed", read(reason="It is blank"))


def test_another_reason_is_another_object_and_odd_letters_stay_out(skipped) -> None:
    other = dataclasses.replace(skipped, reason="Körperteil \\ unknown\nto us")
    made = report.make("not-analyzed", other)[0]
    assert made.sop_instance != report.make("not-analyzed", skipped)[0].sop_instance
    assert (
        dcmread(BytesIO(made.data)).ContentSequence[0].TextValue
        == "Not analyzed: K?rperteil ? unknown to us."
    )
