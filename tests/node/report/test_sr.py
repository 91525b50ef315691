"""The Structured Report's content, and what other programs say of it."""

import subprocess
from io import BytesIO

import highdicom as hd
import pytest
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes

from node import report
from node.report import InvalidResult

VARIANTS = ["comprehensive3d", "comprehensive", "enhanced"]


@pytest.fixture
def sr(read) -> Dataset:
    return dcmread(BytesIO(report.make("sr", read(), "comprehensive3d").data))


def items(parent: Dataset, name: str) -> list[Dataset]:
    return [i for i in parent.ContentSequence if i.ConceptNameCodeSequence[0].CodeMeaning == name]


@pytest.mark.peer
@pytest.mark.parametrize("variant", VARIANTS)
def test_dciodvfy_and_dsrdump_find_no_error(read, errors, program, tmp_path, variant) -> None:
    data = report.make("sr", read(), variant).data
    path = tmp_path / "sr.dcm"
    path.write_bytes(data)
    dump = subprocess.run([program("dsrdump"), "+U8", "+Pl", path], capture_output=True, check=False)
    assert errors(data) == []
    assert dump.returncode == 0 and b"E:" not in dump.stderr
    assert b"Lung Opacity 0.83, Effusion 0.61." in dump.stdout


@pytest.mark.peer
def test_source_and_results_describe_one_patient_and_one_study(
    read, phantom, source, program, tmp_path
) -> None:
    whole = Dataset(phantom)
    whole.update(source)
    whole.file_meta = phantom.file_meta
    whole.save_as(tmp_path / "source.dcm", enforce_file_format=True)
    for name, variant in (("sr", "comprehensive3d"), ("sc", "")):
        (tmp_path / f"{name}.dcm").write_bytes(report.make(name, read(), variant).data)
    files = [tmp_path / f"{name}.dcm" for name in ("source", "sr", "sc")]
    run = subprocess.run([program("dcentvfy"), *files], capture_output=True, text=True, check=False)
    assert [line for line in run.stderr.splitlines() if line.startswith("Error")] == []


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
    assert errors(report.make(kind, read(), "comprehensive3d" if kind == "sr" else "").data) == []


def test_the_source_s_own_procedure_code_is_reported(source, read) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "THX1", "99LOCAL", "Chest one view"
    source.ProcedureCodeSequence = [code]
    sr = dcmread(BytesIO(report.make("sr", read(), "comprehensive3d").data))
    assert items(sr, "Procedure reported")[0].ConceptCodeSequence[0].CodeValue == "THX1"


def test_an_amended_report_names_the_one_that_it_replaces(read, errors) -> None:
    old = report.make("sr", read(), "comprehensive3d")
    picture = report.make("sc", read())
    before = ((old.sop_class, old.sop_instance), (picture.sop_class, picture.sop_instance))
    new = report.make("sr", read(revision=2, predecessors=before), "comprehensive3d")
    sr, first = dcmread(BytesIO(new.data)), dcmread(BytesIO(old.data))
    (study,) = sr.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert [i.ReferencedSOPInstanceUID for i in series.ReferencedSOPSequence] == [old.sop_instance]
    assert series.SeriesInstanceUID == first.SeriesInstanceUID != sr.SeriesInstanceUID
    assert errors(new.data) == []


def test_marks_are_not_promised_before_they_are_built(read) -> None:
    for name in ("sr", "sc"):
        with pytest.raises(InvalidResult, match="marks"):
            report.make(name, read(intended_use="marks"), "comprehensive3d" if name == "sr" else "")


def test_a_variant_that_does_not_exist_is_refused(read) -> None:
    with pytest.raises(InvalidResult, match="variant"):
        report.make("sr", read(), "basic")
