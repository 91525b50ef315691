"""The picture with the findings in words beneath."""

from io import BytesIO

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from node import report
from node.report.secondary_capture import LONGEST, NARROWEST, draw


@pytest.fixture
def sc(read) -> Dataset:
    return dcmread(BytesIO(report.make("sc", read()).data))


@pytest.mark.peer
def test_dciodvfy_finds_no_error(read, errors) -> None:
    assert errors(report.make("sc", read()).data) == []


def test_it_says_that_it_is_derived_from_which_image_and_bears_text(sc, source) -> None:
    assert (sc.BurnedInAnnotation, sc.BodyPartExamined, sc.Manufacturer) == ("YES", "CHEST", "Hilum")
    assert sc.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert list(sc.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
    assert "research use" in sc.DerivationDescription
    assert "Lung Opacity 0.83" in sc.ImageComments


@pytest.mark.parametrize("shape", [(240, 200), (100, 3000), (3408, 2800), (1501, 1001), (2000, 50)])
def test_the_picture_keeps_its_aspect_and_the_panel_its_width(read, shape) -> None:
    sheet = draw(read(picture=np.full(shape, 128, np.uint8)))
    picture = sheet == 128
    height, width = picture.any(axis=1).sum(), picture[:5].any(axis=0).sum()
    assert NARROWEST <= sheet.shape[1] <= max(LONGEST, NARROWEST)
    assert max(height, width) <= LONGEST + sheet.shape[0] - height
    assert width / shape[1] == pytest.approx(
        picture[: sheet.shape[0]][:, sheet.shape[1] // 2].sum() / shape[0], rel=0.1
    )


def test_no_name_is_burned_in(source, read) -> None:
    source.PatientName, source.PatientID = "Aaaa", "1"
    one = draw(read())
    source.PatientName, source.PatientID = "Wwwwwwwww", "99999"
    assert np.array_equal(one, draw(read()))


def test_the_words_are_as_bright_as_the_screen_allows_and_stay_legible_when_shrunk(read) -> None:
    from PIL import Image

    sheet = draw(read(picture=np.zeros((768, 768), np.uint8)))
    panel = sheet[768:]
    assert panel.max() == 255 and panel.min() == 0
    small = Image.fromarray(panel).resize(
        (512, panel.shape[0] * 512 // panel.shape[1]), Image.Resampling.LANCZOS
    )
    assert np.asarray(small).max() > 230


def test_findings_change_the_picture(read, finding) -> None:
    calm = read(findings=[finding("Lung Opacity", 0.1)])
    alarming = read(findings=[finding("Lung Opacity", 0.9)])
    assert not np.array_equal(draw(calm), draw(alarming))


def test_very_many_findings_with_very_long_names_still_fit(read, finding, errors) -> None:
    findings = [finding(f"Something rare with a very long name, number {n}", 0.9) for n in range(60)]
    result = report.make("sc", read(findings=findings))
    assert errors(result.data) == []
