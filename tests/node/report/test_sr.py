"""The Structured Report's content, and what other programs say of it."""

import dataclasses
from io import BytesIO

import highdicom as hd
import numpy as np
import pytest
import studies
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes

from node import report
from node.report import InvalidResult

VARIANTS = ["comprehensive3d", "comprehensive", "enhanced"]


@pytest.fixture
def sr(read) -> Dataset:
    return dcmread(BytesIO(report.make("sr", read(), "comprehensive3d")[0].data))


def items(parent: Dataset, name: str) -> list[Dataset]:
    return [i for i in parent.ContentSequence if i.ConceptNameCodeSequence[0].CodeMeaning == name]


def test_each_finding_has_its_code_site_score_presence_and_tracking(sr) -> None:
    groups = items(items(sr, "Imaging Measurements")[0], "Measurement Group")
    told = [
        (
            items(g, "Finding")[0].ConceptCodeSequence[0].CodeMeaning,
            items(g, "Finding Site")[0].ConceptCodeSequence[0].CodeMeaning,
            float(items(g, "Certainty of Finding")[0].MeasuredValueSequence[0].NumericValue),
            items(g, "Presence of property")[0].ConceptCodeSequence[0].CodeMeaning,
        )
        for g in groups
    ]
    assert told == [
        ("Opacity", "Lung", 83.12, "Present"),
        ("Pleural effusion", "Pleural structure", 61.0, "Present"),
        ("Atelectasis", "Lung", 12.0, "Absent"),
        ("Pleural thickening", "Pleural structure", 49.96, "Absent"),
    ]
    tracking = {items(g, "Tracking Unique Identifier")[0].UID for g in groups}
    assert len(tracking) == len(groups)
    assert all(items(g, "Tracking Identifier")[0].TextValue.startswith("Hilum ") for g in groups)


def test_the_algorithm_its_version_weights_and_threshold_hang_on_the_number(sr, card) -> None:
    group = items(items(sr, "Imaging Measurements")[0], "Measurement Group")[0]
    number = items(group, "Certainty of Finding")[0]
    assert items(number, "Algorithm Name")[0].TextValue == "test model"
    assert items(number, "Algorithm Version")[0].TextValue == "1.2"
    (parameters,) = items(number, "Algorithm Parameters")
    assert parameters.TextValue.startswith("threshold=0.5000; present if score >= threshold; score=0.8312")
    assert card.sha256 in parameters.TextValue
    assert items(group, "Algorithm Name") == []


def test_the_first_thing_to_read_is_the_sentence_and_the_second_what_it_is_not_for(sr) -> None:
    first, second = sr.ContentSequence[:2]
    assert first.TextValue == "Findings above threshold: Lung Opacity 0.83, Effusion 0.61."
    assert "research use" in second.TextValue and "Not a diagnosis" in second.TextValue
    assert "Pleural Thickening 0.4996 (0.5000)" in sr.ContentSequence[2].TextValue
    assert any("Adults, one frontal view." in c.TextValue for c in items(sr, "Comment"))


def test_it_is_preliminary_unverified_and_written_by_a_device(sr) -> None:
    assert (sr.PreliminaryFlag, sr.CompletionFlag, sr.VerificationFlag) == (
        "PRELIMINARY",
        "COMPLETE",
        "UNVERIFIED",
    )
    assert items(sr, "Observer Type")[0].ConceptCodeSequence[0].CodeMeaning == "Device"
    assert items(sr, "Language of Content Item and Descendants")[0].ConceptCodeSequence[0].CodeValue == "en"


def test_a_report_without_regions_does_not_bear_the_title_that_ohif_draws(sr) -> None:
    assert sr.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert sr.ConceptNameCodeSequence[0].CodeValue == "112000"
    assert "SCOORD" not in str(sr)


def test_the_image_is_the_evidence(sr, source) -> None:
    study = sr.CurrentRequestedProcedureEvidenceSequence[0]
    series = study.ReferencedSeriesSequence[0]
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (
        source.StudyInstanceUID,
        source.SeriesInstanceUID,
    )
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    group = items(items(sr, "Image Library")[0], "Image Library Group")[0]
    assert group.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_highdicom_reads_it_back(sr) -> None:
    report_ = hd.sr.Comprehensive3DSR.from_dataset(sr)
    groups = report_.content.get_image_measurement_groups()
    assert len(groups) == 4
    assert groups[0].finding_type == codes.DCM.Opacity


@pytest.mark.parametrize("kind", ["sr", "sc"])
def test_a_cr_without_spacing_and_orientation_gets_its_results(source, read, errors, kind) -> None:
    source.SOPClassUID, source.Modality = "1.2.840.10008.5.1.4.1.1.1", "CR"
    del source.ImagerPixelSpacing, source.PatientOrientation
    assert errors(report.make(kind, read(), "comprehensive3d" if kind == "sr" else "")[0].data) == []


def test_the_source_s_own_procedure_code_is_reported(source, read) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "THX1", "99LOCAL", "Chest one view"
    source.ProcedureCodeSequence = [code]
    sr = dcmread(BytesIO(report.make("sr", read(), "comprehensive3d")[0].data))
    assert items(sr, "Procedure reported")[0].ConceptCodeSequence[0].CodeValue == "THX1"


def test_an_amended_report_names_the_one_that_it_replaces(read, errors) -> None:
    old = report.make("sr", read(), "comprehensive3d")[0]
    picture = report.make("sc", read())[0]
    before = ((old.sop_class, old.sop_instance), (picture.sop_class, picture.sop_instance))
    new = report.make("sr", read(revision=2, predecessors=before), "comprehensive3d")[0]
    sr, first = dcmread(BytesIO(new.data)), dcmread(BytesIO(old.data))
    (study,) = sr.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert [i.ReferencedSOPInstanceUID for i in series.ReferencedSOPSequence] == [old.sop_instance]
    assert series.SeriesInstanceUID == first.SeriesInstanceUID != sr.SeriesInstanceUID
    assert errors(new.data) == []


def test_what_the_header_says_of_the_image_stands_in_the_library_and_nothing_is_invented(
    source, read
) -> None:
    def library() -> dict[str, str]:
        sr = dcmread(BytesIO(report.make("sr", read(), "comprehensive3d")[0].data))
        [image] = items(items(sr, "Image Library")[0], "Image Library Group")[0].ContentSequence
        return {i.ConceptNameCodeSequence[0].CodeMeaning: _said(i) for i in image.get("ContentSequence", [])}

    whole = library()
    assert whole["Modality"] == "Digital Radiography" and whole["Image View"] == "postero-anterior"
    assert (whole["Patient Orientation Row"], whole["Vertical Pixel Spacing"]) == ("L", "0.4")
    source.Modality, source.ViewPosition, source.ImageLaterality = "OT", "MILLER", "L"
    del source.ImagerPixelSpacing, source.PatientOrientation, source.Rows
    assert library() == {"Image Laterality": "Left", "Pixel Data Columns": f"{float(source.Columns)}"}


def test_each_group_says_from_which_image_its_score_comes(source) -> None:
    whole = studies.report(source, 2, images=3, use="triage")
    sr = dcmread(BytesIO(report.make("sr", whole, "comprehensive3d")[0].data))
    groups = items(items(sr, "Imaging Measurements")[0], "Measurement Group")
    seen = [
        items(items(g, "Certainty of Finding")[0], "Source of Measurement")[0]
        .ReferencedSOPSequence[0]
        .ReferencedSOPInstanceUID
        for g in groups
    ]
    assert seen == [r.identity.sop_instance for r in whole.readings for _ in r.findings]
    assert len({items(g, "Tracking Unique Identifier")[0].UID for g in groups}) == len(groups) == 45
    sentences = [c.TextValue for c in items(sr, "Comment")]
    assert sentences[0].startswith(
        "Findings above threshold in image 1: Atelectasis 0.98, Cardiomegaly 0.97; in image 2:"
    )
    assert sentences[4].startswith(
        "Image 3 (series 2, image 3, PA). Scores, thresholds in brackets: Atelectasis 0.98 (0.50)"
    )


def test_with_marks_the_findings_above_their_thresholds_have_a_region_each_and_are_all_that_is_drawn(
    source,
) -> None:
    whole = studies.report(source, 2, images=2)
    sr = dcmread(BytesIO(report.make("sr", whole, "comprehensive3d")[0].data))
    assert sr.ConceptNameCodeSequence[0].CodeValue == "126000"
    groups = items(items(sr, "Imaging Measurements")[0], "Measurement Group")
    regions = [items(items(g, "Certainty of Finding")[0], "Source of Measurement")[0] for g in groups]
    assert [(r.ValueType, r.GraphicType) for r in regions] == [("SCOORD", "POLYLINE")] * 4
    assert [r.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID for r in regions] == [
        r.identity.sop_instance for r in whole.readings for _ in range(2)
    ]
    corner = np.array(studies.outline(0)[0]) * (source.Columns, source.Rows)
    assert regions[0].GraphicData[:2] == pytest.approx(list(corner), abs=0.01)
    assert regions[0].GraphicData[:2] == regions[0].GraphicData[-2:]
    assert len({tuple(r.GraphicData) for r in regions[:2]}) == 2
    assert {items(g, "Presence of property")[0].ConceptCodeSequence[0].CodeMeaning for g in groups} == {
        "Present"
    }


def test_a_region_is_said_to_be_no_outline_of_disease_wherever_it_stands(source) -> None:
    sr = dcmread(BytesIO(report.make("sr", studies.report(source, 1), "comprehensive3d")[0].data))
    [group] = items(items(sr, "Imaging Measurements")[0], "Measurement Group")
    assert "not an outline of disease" in items(group, "Tracking Identifier")[0].TextValue
    assert items(group, "Comment")[0].TextValue == "Atelectasis 0.98 (threshold 0.50)"
    assert any(
        "not an outline of disease. It is not a segmentation." in c.TextValue for c in items(sr, "Comment")
    )


@pytest.mark.parametrize(("above", "unmarked"), [(0, ()), (2, ("Atelectasis",)), (1, ("Atelectasis",))])
def test_with_marks_a_report_that_can_t_be_drawn_whole_is_a_page(source, above, unmarked) -> None:
    whole = studies.report(source, above, unmarked=unmarked)
    sr = dcmread(BytesIO(report.make("sr", whole, "comprehensive3d")[0].data))
    assert sr.ConceptNameCodeSequence[0].CodeValue == "112000"
    assert len(items(items(sr, "Imaging Measurements")[0], "Measurement Group")) == 15
    told = any("No region could be found for: Atelectasis." in c.TextValue for c in items(sr, "Comment"))
    assert told == bool(unmarked)


@pytest.mark.parametrize("variant", VARIANTS)
def test_for_triage_nothing_is_marked_even_where_marks_are_at_hand(source, variant) -> None:
    whole = dataclasses.replace(studies.report(source, 3), intended_use="triage")
    sr = dcmread(BytesIO(report.make("sr", whole, variant)[0].data))
    assert "Graphic Data" not in str(sr) and "SCOORD" not in str(sr)
    assert sr.ConceptNameCodeSequence[0].CodeValue == "112000"


def test_the_check_stops_a_place_in_a_report_for_triage(source) -> None:
    marked = studies.report(source, 15)
    triage = dataclasses.replace(marked, intended_use="triage")
    sr = dcmread(BytesIO(report.make("sr", marked, "comprehensive3d")[0].data))
    with pytest.raises(InvalidResult, match="title"):
        report.WRITERS["sr"].check(sr, triage, 0)
    sr.ConceptNameCodeSequence[0].CodeValue = "112000"
    with pytest.raises(InvalidResult, match="place"):
        report.WRITERS["sr"].check(sr, triage, 0)


def test_scores_of_a_card_without_calibration_are_called_uncalibrated(sr) -> None:
    assert any("uncalibrated" in c.TextValue for c in items(sr, "Comment"))
    number = items(
        items(items(sr, "Imaging Measurements")[0], "Measurement Group")[0], "Certainty of Finding"
    )[0]
    assert items(number, "Algorithm Parameters")[0].TextValue.endswith(
        "calibration: none, uncalibrated score"
    )


def test_a_variant_that_does_not_exist_is_refused(read) -> None:
    with pytest.raises(InvalidResult, match="variant"):
        report.make("sr", read(), "basic")[0]


def _said(item: Dataset) -> str:
    if item.ValueType == "CODE":
        return str(item.ConceptCodeSequence[0].CodeMeaning)
    return str(item.TextValue if item.ValueType == "TEXT" else item.MeasuredValueSequence[0].NumericValue)


def test_the_check_stops_a_report_that_refers_to_another_image(read) -> None:
    sr = dcmread(BytesIO(report.make("sr", read(), "comprehensive3d")[0].data))
    group = items(items(sr, "Imaging Measurements")[0], "Measurement Group")[0]
    number = items(group, "Certainty of Finding")[0]
    (source,) = [item for item in number.ContentSequence if item.ValueType == "IMAGE"]
    source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3.4"
    with pytest.raises(InvalidResult, match="not analyzed"):
        report.WRITERS["sr"].check(sr, read(), 0)
