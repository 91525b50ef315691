"""The page of paper, read by a program that is not ours."""

import copy
import dataclasses
from io import BytesIO

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pypdf import PdfReader

from model.explain import Mark
from node import report
from node.report import InvalidResult
from node.report.pdf import Page

MARK = Mark(np.eye(32, dtype=np.float32), ((0.1, 0.1), (0.9, 0.1), (0.5, 0.9)))


def page(made: list[report.Result]) -> PdfReader:
    found = dcmread(BytesIO(made[0].data))
    return PdfReader(BytesIO(found.EncapsulatedDocument[: found.EncapsulatedDocumentLength]), strict=True)


def words(made: list[report.Result]) -> str:
    (only,) = page(made).pages
    return " ".join(only.extract_text().split())


@pytest.fixture
def several(read, source, finding):
    """`several(n)` is a report on n images of a study, of which the last has a finding of its own."""

    def of(count: int):
        whole = read()
        readings = []
        for number in range(count):
            one = copy.deepcopy(source)
            one.SOPInstanceUID, one.InstanceNumber = f"{source.SOPInstanceUID}.{number}", number + 1
            last = number == count - 1
            scores = [finding("Effusion", 0.9 if last else 0.1), finding("Atelectasis", 0.2)]
            picture = whole.first.picture // (number + 1)
            readings.append(dataclasses.replace(whole.first, source=one, findings=scores, picture=picture))
        return dataclasses.replace(whole, readings=tuple(readings))

    return of


@pytest.mark.peer
@pytest.mark.parametrize("count", [1, 6])
def test_dciodvfy_finds_no_error(several, errors, count) -> None:
    assert errors(report.make("pdf", several(count))[0].data) == []


def test_one_page_says_what_was_found_with_all_scores_limits_and_model(read, card) -> None:
    told = words(report.make("pdf", read(revision=2)))
    assert told.startswith(
        "Findings above threshold: Lung Opacity 0.83, Effusion 0.61. AI result, research use, not for diagnosis."
    )
    assert "Pleural Thickening 0.4996 0.5000" in told and "Atelectasis 0.12 0.50" in told
    assert "Limits: Adults, one frontal view." in told
    assert f"Model test model 1.2, weights {card.sha256}." in told
    assert "Analyzed 2026-11-21 22:30 +0000. Report revision 2, replaces the earlier one." in told


def test_the_patient_is_named_in_the_header_and_not_on_the_page(source, read) -> None:
    source.PatientName, source.PatientID, source.PatientBirthDate = "Zwetschge^Ottokar", "PX7731", "19510223"
    made = report.make("pdf", read())
    found = dcmread(BytesIO(made[0].data))
    assert (found.PatientName, found.PatientID) == ("Zwetschge^Ottokar", "PX7731")
    told = words(made) + str(page(made).metadata)
    assert not any(secret in told for secret in ("Zwetschge", "Ottokar", "PX7731", "1951"))
    assert found.BurnedInAnnotation == "NO" and found.DocumentTitle == "Hilum AI findings"


def test_of_several_images_each_has_a_picture_and_a_column(several) -> None:
    made = report.make("pdf", several(3))
    told = words(made)
    assert "in image 1: none; in image 2: none; in image 3: Effusion 0.90" in told
    assert "finding image 1 image 2 image 3 threshold Effusion 0.10 0.10 0.90 0.50" in told
    assert len(page(made).pages[0].images) == 3
    assert len(dcmread(BytesIO(made[0].data)).SourceInstanceSequence) == 3


def test_of_many_images_the_page_shows_those_with_findings_and_says_what_is_missing(several) -> None:
    told = words(report.make("pdf", several(9)))
    assert "in image 9: Effusion 0.90" in told and "finding image 1 image 2 image 3 image 9 threshold" in told
    assert "5 more images were analyzed: their scores stand in the Structured Report." in told


def test_only_marks_put_colour_on_the_page_and_words_that_limit_it(read) -> None:
    def first_picture(**changes: object) -> tuple[str, str]:
        made = report.make("pdf", read(marks={"Lung Opacity": MARK}, **changes))
        return page(made).pages[0].images[0].image.mode, words(made)

    mode, told = first_picture(intended_use="marks")
    assert mode == "RGB" and "where the score comes from, not an outline of disease" in told
    mode, told = first_picture(intended_use="triage")
    assert mode == "L" and "where the score comes from" not in told


def test_many_findings_are_printed_smaller_and_too_many_make_no_page(read, finding) -> None:
    def made(count: int) -> list[report.Result]:
        return report.make("pdf", read(findings=[finding(f"Rare {n}", 0.1) for n in range(count)]))

    assert "Rare 99 0.10 0.50" in words(made(100))
    with pytest.raises(InvalidResult, match="more findings than a page"):
        made(400)


def test_the_same_report_gives_the_same_bytes_whatever_was_printed_before(read, finding) -> None:
    first = report.make("pdf", read())
    report.make("pdf", read(findings=[finding("Xylophone?", 0.9)]))
    assert report.make("pdf", read()) == first


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ds: setattr(ds, "EncapsulatedDocument", ds.EncapsulatedDocument[:-20]), "whole PDF"),
        (lambda ds: setattr(ds, "MIMETypeOfEncapsulatedDocument", "text/html"), "PDF"),
        (lambda ds: ds.SourceInstanceSequence.clear(), "sources"),
    ],
)
def test_the_check_stops_a_page_that_is_wrong(read, change, reason) -> None:
    found: Dataset = dcmread(BytesIO(report.make("pdf", read())[0].data))
    change(found)
    with pytest.raises(InvalidResult, match=reason):
        Page().check(found, read(), 0)
