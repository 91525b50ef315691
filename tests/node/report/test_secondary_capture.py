"""The picture with the findings in words beneath."""

import copy
import dataclasses
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread

from model.explain import Mark
from node import report
from node.report import InvalidResult, overlay, sheet
from node.report.secondary_capture import SecondaryCapture
from node.report.sheet import LONGEST, NARROWEST, draw

MARKS = {
    label: Mark(
        np.outer(np.hanning(16), np.hanning(16)).astype(np.float32), ((0.3, 0.3), (0.7, 0.3), (0.5, 0.7))
    )
    for label in ("Lung Opacity", "Effusion")
}


@pytest.fixture
def sc(read) -> Dataset:
    return dcmread(BytesIO(report.make("sc", read())[0].data))


@pytest.mark.peer
def test_dciodvfy_finds_no_error(read, errors) -> None:
    assert errors(report.make("sc", read())[0].data) == []


def test_it_says_that_it_is_derived_from_which_image_and_bears_text(sc, source) -> None:
    assert (sc.BurnedInAnnotation, sc.BodyPartExamined, sc.Manufacturer) == ("YES", "CHEST", "Hilum")
    assert sc.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert list(sc.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
    assert "research use" in sc.DerivationDescription
    assert "Lung Opacity 0.83" in sc.ImageComments


@pytest.mark.parametrize("shape", [(240, 200), (100, 3000), (3408, 2800), (1501, 1001), (2000, 50)])
def test_the_picture_keeps_its_aspect_and_the_panel_its_width(read, shape) -> None:
    drawn = draw(read(picture=np.full(shape, 128, np.uint8)))
    picture = drawn == 128
    height, width = picture.any(axis=1).sum(), picture[:5].any(axis=0).sum()
    assert NARROWEST <= drawn.shape[1] <= max(LONGEST, NARROWEST)
    assert max(height, width) <= LONGEST + drawn.shape[0] - height
    assert width / shape[1] == pytest.approx(
        picture[: drawn.shape[0]][:, drawn.shape[1] // 2].sum() / shape[0], rel=0.1
    )


def test_no_name_is_burned_in(source, read) -> None:
    source.PatientName, source.PatientID = "Aaaa", "1"
    one = draw(read())
    source.PatientName, source.PatientID = "Wwwwwwwww", "99999"
    assert np.array_equal(one, draw(read()))


def test_the_words_are_as_bright_as_the_screen_allows_and_stay_legible_when_shrunk(read) -> None:
    drawn = draw(read(picture=np.zeros((768, 768), np.uint8)))
    panel = drawn[768:]
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
    result = report.make("sc", read(findings=findings))[0]
    assert errors(result.data) == []


# marks


def test_in_marks_each_finding_has_a_picture_in_colour_and_words_that_limit_it(read, errors) -> None:
    made = report.make("sc", read(intended_use="marks", marks=MARKS))[0]
    sc = dcmread(BytesIO(made.data))
    assert errors(made.data) == []
    assert (sc.SamplesPerPixel, sc.PhotometricInterpretation, sc.PlanarConfiguration) == (3, "RGB", 0)
    assert "where the score comes from, not an outline of disease" in sc.DerivationDescription
    pixels = np.frombuffer(sc.PixelData, np.uint8)[: sc.Rows * sc.Columns * 3].reshape(sc.Rows, sc.Columns, 3)
    coloured = (pixels.max(axis=2).astype(int) - pixels.min(axis=2) > 40).sum(axis=0)
    # three pictures, two in a row: the first is plain, the second and the third are not
    assert coloured[: sc.Columns // 2].any() and coloured[sc.Columns // 2 :].any()


@pytest.mark.parametrize("use", ["triage", "marks"])
def test_nothing_is_marked_in_triage_and_nothing_that_is_below_its_threshold(read, finding, use) -> None:
    calm = [finding("Effusion", 0.2), finding("Lung Opacity", 0.3)]
    findings = calm if use == "marks" else read().first.findings
    plain = draw(read(findings=findings))
    assert plain.ndim == 2
    assert np.array_equal(draw(read(intended_use=use, findings=findings, marks=MARKS)), plain)


def test_the_check_stops_colour_in_triage(read) -> None:
    coloured = dcmread(BytesIO(report.make("sc", read(intended_use="marks", marks=MARKS))[0].data))
    with pytest.raises(InvalidResult, match="intended use"):
        SecondaryCapture().check(coloured, read(marks=MARKS), 0)


def test_more_heat_is_lighter_on_a_grey_monitor_too() -> None:
    lightness = [_lightness(colour) for colour in overlay.COLOURS]
    steps = np.diff(lightness)
    assert (steps > 0).all() and steps.max() < 1.2 * steps.min()
    grey = np.asarray(overlay.bar(256, 1).convert("L"))[0].astype(int)
    # violet begins a shade darker than the grey under it
    assert grey[-1] > grey[0] + 40 and (np.diff(grey) >= -1).all() and grey.min() >= grey[0] - 2


def test_the_picture_under_the_hottest_place_stays_readable() -> None:
    stripes = Image.fromarray(np.tile(np.repeat(np.array([60, 200], np.uint8), 8), (64, 4)))
    hot = Mark(np.ones((8, 8), np.float32), ())
    shown = np.asarray(overlay.marked(stripes, hot).convert("L")).astype(int)
    assert shown[:, 8:16].mean() - shown[:, :8].mean() > 50


def test_heat_and_outline_lie_where_the_mark_says_at_any_aspect() -> None:
    heat = np.zeros((10, 10), np.float32)
    heat[7, 2] = 1
    corner = Mark(heat, ((0.15, 0.65), (0.35, 0.65), (0.35, 0.85), (0.15, 0.85)))
    shown = np.asarray(overlay.marked(Image.new("L", (300, 100), 50), corner)).astype(int)
    rows, columns = np.nonzero(np.ptp(shown, axis=2) > 60)
    assert (rows.mean() / 100, columns.mean() / 300) == (
        pytest.approx(0.75, abs=0.02),
        pytest.approx(0.25, abs=0.02),
    )
    rows, columns = np.nonzero((shown == 255).all(axis=2))
    assert (columns.min(), columns.max()) == (pytest.approx(45, abs=2), pytest.approx(105, abs=2))
    assert (rows.min(), rows.max()) == (pytest.approx(65, abs=2), pytest.approx(85, abs=2))


@pytest.mark.parametrize("shape", [(1, 1), (100, 3000), (3000, 100), (1, 9000), (10_000, 10_000)])
@pytest.mark.parametrize("use", ["triage", "marks"])
def test_any_size_of_picture_makes_a_sheet_that_a_screen_can_show(read, errors, shape, use) -> None:
    made = report.make("sc", read(picture=np.full(shape, 90, np.uint8), intended_use=use, marks=MARKS))[0]
    sc = dcmread(BytesIO(made.data))
    assert errors(made.data) == []
    assert NARROWEST <= sc.Columns <= LONGEST and sc.Rows <= 2 * LONGEST


def test_the_largest_scores_have_pictures_and_the_others_are_counted_in_words(read, finding) -> None:
    labels = [f"Finding {n}" for n in range(12)]
    many = read(
        findings=[finding(label, 0.5 + n / 100) for n, label in enumerate(labels)],
        marks=dict.fromkeys(labels, MARKS["Effusion"]),
        intended_use="marks",
    )
    assert [f.label for f in sheet.marked(many, 0)][:3] == ["Finding 11", "Finding 10", "Finding 9"]
    assert sheet.legend(many, 0) == (
        "Colour and line: where the score comes from, not an outline of disease. "
        "7 more above threshold: see the table."
    )
    fewer = dataclasses.replace(many.first, findings=many.first.findings[-5:])
    assert draw(dataclasses.replace(many, readings=(fewer,))).shape[1] == draw(many).shape[1]


def test_each_image_of_a_study_has_its_sheet_in_one_series(read, source) -> None:
    other = copy.deepcopy(source)
    other.SOPInstanceUID += ".2"
    whole = read()
    both = dataclasses.replace(whole, readings=(whole.first, dataclasses.replace(whole.first, source=other)))
    made = report.make("sc", both)
    one, two = (dcmread(BytesIO(result.data)) for result in made)
    assert one.SeriesInstanceUID == two.SeriesInstanceUID and one.SOPInstanceUID != two.SOPInstanceUID
    assert (one.InstanceNumber, two.InstanceNumber) == (1, 2)
    assert two.SourceImageSequence[0].ReferencedSOPInstanceUID == other.SOPInstanceUID
    assert [result.variant for result in made] == ["", "#2"]


def test_findings_without_end_make_no_picture(read, finding) -> None:
    with pytest.raises(InvalidResult, match="more findings than a picture"):
        report.make("sc", read(findings=[finding(f"Finding {n}", 0.1) for n in range(2000)]))


def _lightness(colour: tuple[int, int, int]) -> float:
    """L* of CIELAB."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in colour)]
    y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * y ** (1 / 3) - 16
