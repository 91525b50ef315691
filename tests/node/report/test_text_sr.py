"""The page of text, and what other programs say of it."""

import copy
import dataclasses
import subprocess
from datetime import timedelta
from io import BytesIO

import pytest
from pydicom import Dataset, dcmread

from node import report
from node.report import InvalidResult
from node.report.reading import Earlier
from node.report.text_sr import TextReport


def page(made: list[report.Result]) -> list[str]:
    """What a reader sees of it, item by item, as `name: value`."""
    found = dcmread(BytesIO(made[0].data))
    return [
        f"{i.ConceptNameCodeSequence[0].CodeMeaning}: {i.get('TextValue', i.ValueType)}"
        for i in found.ContentSequence
        if i.RelationshipType == "CONTAINS"
    ]


@pytest.fixture
def two(read, source, finding):
    """A report on two images of a study, the second without a finding."""
    other = copy.deepcopy(source)
    other.SOPInstanceUID, other.InstanceNumber = source.SOPInstanceUID + ".2", 2
    whole = read()
    calm = dataclasses.replace(
        whole.first, source=other, findings=[finding("Effusion", 0.2), finding("Lung Opacity", 0.3)]
    )
    return dataclasses.replace(whole, readings=(whole.first, calm))


@pytest.mark.peer
@pytest.mark.parametrize("amended", [False, True])
def test_dciodvfy_and_dsrdump_find_no_error(read, two, errors, program, tmp_path, amended) -> None:
    whole = read()
    if amended:
        old = report.make("text-sr", whole)[0]
        whole = dataclasses.replace(two, revision=2, predecessors=((old.sop_class, old.sop_instance),))
    data = report.make("text-sr", whole)[0].data
    path = tmp_path / "text.dcm"
    path.write_bytes(data)
    dump = subprocess.run([program("dsrdump"), "+U8", "+Pl", path], capture_output=True, check=False)
    assert errors(data) == []
    assert dump.returncode == 0 and b"E:" not in dump.stderr
    assert b"Lung Opacity 0.83, Effusion 0.61" in dump.stdout


def test_the_page_begins_with_what_matters_and_what_it_must_not_be_used_for(read, card) -> None:
    shown = page(report.make("text-sr", read()))
    assert shown[:2] == [
        "Finding: Findings above threshold: Lung Opacity 0.83, Effusion 0.61.",
        "Comment: AI result for research use only. Not a diagnosis. Not verified by a physician.",
    ]
    assert shown[2].split("\r\n") == [
        "Finding: All scores:",
        "Lung Opacity        0.83  (ABOVE 0.50)",
        "Effusion            0.61  (ABOVE 0.50)",
        "Atelectasis         0.12  (below 0.50)",
        "Pleural Thickening  0.4996  (below 0.5000)",
    ]
    assert shown[3:] == [
        "Source: IMAGE",
        "Comment: Scores are uncalibrated: they order findings, they are no probabilities.",
        "Comment: Limits: Adults, one frontal view.",
        f"Algorithm Name: test model 1.2, weights {card.sha256}",
    ]


def test_of_several_images_each_has_its_table_and_the_headline_says_which(two) -> None:
    shown = page(report.make("text-sr", two))
    assert shown[0].endswith(
        "Findings above threshold in image 1: Lung Opacity 0.83, Effusion 0.61; in image 2: none."
    )
    assert [line.split("\r\n")[0] for line in shown[2:6]] == [
        "Finding: Image 1 (series 1, image 1, PA), all scores:",
        "Source: IMAGE",
        "Finding: Image 2 (series 1, image 2, PA), all scores:",
        "Source: IMAGE",
    ]


def test_nothing_of_the_header_but_plain_numbers_and_views_names_an_image(two, source) -> None:
    source.ViewPosition, source.InstanceNumber = "JANE DOE", 4
    second = two.readings[1].source
    second.ViewPosition = ["PA", "DOE"]
    shown = " ".join(page(report.make("text-sr", two)))
    assert "image 4)" in shown and "DOE" not in shown


def test_earlier_results_are_told_newest_first_with_the_score_then_and_now(read, card) -> None:
    at = read().made_at
    then = (("Atelectasis", 0.7, True), ("Effusion", 0.31, False), ("Lung Opacity", 0.9, True))
    earlier = (
        Earlier(at - timedelta(days=1), "2.25.5", then, card.sha256),
        Earlier(at - timedelta(days=30), "2.25.6", (("Effusion", 0.2, False),), "sha256:" + "11" * 32),
        Earlier(at - timedelta(days=60), "2.25.7", (("Lung Opacity", 0.6, True),), "sha256:" + "11" * 32),
    )
    shown = page(report.make("text-sr", read(earlier=earlier)))
    assert shown[-3:] == [
        "Previous Finding: 2026-11-20 22:30: findings above threshold: Lung Opacity 0.90 (now 0.83), "
        "Atelectasis 0.70 (now 0.12). Below threshold then, above it now: Effusion 0.31 (now 0.61).",
        "Previous Finding: 2026-10-22 22:30: none above threshold. "
        "By another model: its scores can't be compared with today's.",
        "Previous Finding: 2026-09-22 22:30: findings above threshold: Lung Opacity 0.60. "
        "By another model: its scores can't be compared with today's.",
    ]
    assert not any("Previous" in line for line in page(report.make("text-sr", read())))


def test_an_amended_page_names_the_one_that_it_replaces(read) -> None:
    old = report.make("text-sr", read())[0]
    new = dcmread(
        BytesIO(
            report.make("text-sr", read(revision=2, predecessors=((old.sop_class, old.sop_instance),)))[
                0
            ].data
        )
    )
    (series,) = new.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert series.SeriesInstanceUID == dcmread(BytesIO(old.data)).SeriesInstanceUID != new.SeriesInstanceUID
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == old.sop_instance
    assert "Comment: Report revision 2, replaces the earlier one." in page(
        [report.make("text-sr", read(revision=2))[0]]
    )


def test_it_is_preliminary_unverified_and_written_by_a_device(read) -> None:
    found = dcmread(BytesIO(report.make("text-sr", read())[0].data))
    assert (found.PreliminaryFlag, found.CompletionFlag, found.VerificationFlag) == (
        "PRELIMINARY",
        "COMPLETE",
        "UNVERIFIED",
    )
    codes = [i.ConceptCodeSequence[0].CodeValue for i in found.ContentSequence if i.ValueType == "CODE"]
    assert codes[1:] == ["en", "121007"]
    assert (found.SeriesNumber, found.Modality) == (9003, "SR")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ds: ds.ContentSequence.pop(0), "headline"),
        (lambda ds: ds.ContentSequence.pop(1), "research use"),
        (lambda ds: ds.ContentSequence.pop(2), "scores"),
        (lambda ds: ds.ContentSequence.pop(3), "images"),
        (lambda ds: setattr(ds, "VerificationFlag", "VERIFIED"), "VerificationFlag"),
        (
            lambda ds: ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence.clear(),
            "evidence",
        ),
    ],
)
def test_the_check_stops_a_page_that_is_wrong(read, change, reason) -> None:
    found: Dataset = dcmread(BytesIO(report.make("text-sr", read())[0].data))
    change(found)
    with pytest.raises(InvalidResult, match=reason):
        TextReport().check(found, read(), 0)


def test_the_same_report_gives_the_same_bytes(two) -> None:
    assert report.make("text-sr", two) == report.make("text-sr", copy.deepcopy(two))
