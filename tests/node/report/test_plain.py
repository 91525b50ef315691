"""The JSON: what a site's own program reads in it."""

import copy
import dataclasses
import hashlib
import json

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from model.explain import Mark
from node import report
from node.report import InvalidResult
from node.report.plain import PlainJson

KINDS = ["json", "fhir", "oru"]


def put(source: Dataset, tag: int, vr: str, value: bytes) -> None:
    """A value as it comes off the wire."""
    source[tag] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True, True)


def tree(made: report.Report) -> dict:
    (result,) = report.make("json", made)
    return json.loads(result.data)


@pytest.fixture
def two(read, source, finding):
    """A report on two images of a study, the second without a finding."""
    other = copy.deepcopy(source)
    other.SOPInstanceUID = source.SOPInstanceUID + "2"
    whole = read()
    calm = dataclasses.replace(
        whole.first, source=other, findings=[finding("Effusion", 0.2), finding("Lung Opacity", 0.3)]
    )
    return dataclasses.replace(whole, readings=(whole.first, calm))


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_no_dicom_object_and_has_a_uid_a_type_and_the_same_bytes_each_time(read, kind) -> None:
    (result,) = report.make(kind, read())
    assert (result,) == tuple(report.make(kind, read()))
    assert result.sop_class == "" and result.sop_instance.startswith("2.25.")
    assert result.content_hash == "sha256:" + hashlib.sha256(result.data).hexdigest()
    assert (result.media, result.suffix) == {
        "json": ("application/json", ".json"),
        "fhir": ("application/fhir+json", ".fhir.json"),
        "oru": ("x-application/hl7-v2+er7", ".hl7"),
    }[kind]
    assert b"research use" in result.data


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_report_and_another_model_make_another_text(read, card, kind) -> None:
    made = [read(), read(revision=2), read(card=dataclasses.replace(card, sha256="sha256:" + "11" * 32))]
    assert len({report.make(kind, one)[0].sop_instance for one in made}) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_not_analyzed_and_whom_nobody_can_name_get_no_text(read, source, kind) -> None:
    with pytest.raises(InvalidResult):
        report.make(kind, read(findings=[], reason="lateral view"))
    put(source, 0x00100020, "LO", b"P-1" * 40)
    with pytest.raises(InvalidResult, match="PatientID"):
        report.make(kind, read(source=source))


def test_patient_study_and_model_stand_in_it_as_the_source_and_the_card_say(read, source) -> None:
    source.AccessionNumber, source.IssuerOfPatientID = "A-1", "HOSPITAL"
    found = tree(read())
    assert found["patient"]["id"] == "P-1" and found["patient"]["issuer"] == "HOSPITAL"
    assert found["patient"]["names"]["alphabetic"]["family"] == "Phantom"
    assert found["study"]["uid"] == source.StudyInstanceUID and found["study"]["accession_number"] == "A-1"
    assert found["model"]["sha256"] == "sha256:" + "ab" * 32
    assert (found["format"], found["schema"], found["status"]) == ("hilum.report", 1, "preliminary")
    assert found["made_at"] == "2026-11-21T22:30:15+00:00"


def test_a_name_in_three_scripts_is_read_in_its_own_character_set(read, source) -> None:
    put(source, 0x00080005, "CS", b"\\ISO 2022 IR 87 ")
    put(
        source,
        0x00100010,
        "PN",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    )
    names = tree(read())["patient"]["names"]
    assert [(n["family"], n["given"]) for n in names.values()] == [
        ("Yamada", "Tarou"),
        ("山田", "太郎"),
        ("やまだ", "たろう"),
    ]
    assert "山田^太郎".encode() in report.make("oru", read())[0].data
    assert b"Yamada, Tarou" in report.make("fhir", read())[0].data


def test_the_numbers_agree_with_the_flags_however_close_they_are(read, finding) -> None:
    close = [finding("Effusion", 0.49996), finding("Mass", 0.5000004, 0.5000001), finding("Hernia", 0.5)]
    for one in tree(read(findings=close))["images"][0]["findings"]:
        assert (one["score"] >= one["threshold"]) == one["present"]


def test_each_image_of_a_study_has_its_own_findings(two) -> None:
    found = tree(two)
    assert [i["sop_instance"] for i in found["images"]] == [r.identity.sop_instance for r in two.readings]
    assert [[f["label"] for f in i["findings"] if f["present"]] for i in found["images"]] == [
        ["Lung Opacity", "Effusion"],
        [],
    ]
    assert "image 1: Lung Opacity 0.83" in found["headline"] and "image 2: none" in found["headline"]


def test_what_could_not_be_passed_on_is_told_without_its_value(read, source) -> None:
    put(source, 0x00080050, "SH", b"SECRET" * 10)
    (result,) = report.make("json", read())
    assert result.notes and b"SECRET" not in result.data
    assert json.loads(result.data)["images"][0]["notes"] == list(result.notes)


def test_what_it_replaces_is_named(read) -> None:
    before = (("1.2.840.10008.5.1.4.1.1.7", "2.25.1"), ("", "2.25.2"))
    assert tree(read(revision=2, predecessors=before))["predecessors"] == [
        {"sop_class": "1.2.840.10008.5.1.4.1.1.7", "uid": "2.25.1"},
        {"sop_class": None, "uid": "2.25.2"},
    ]


MARK = Mark(heat=np.zeros((2, 2), np.float32), outline=((0.25, 0.1), (0.5, 0.1), (0.5, 0.4)))


def test_a_mark_is_told_as_shares_and_in_stored_pixels_that_lie_otherwise(read, source) -> None:
    source.Columns, source.Rows, source.PatientOrientation = 400, 1000, ["R", "F"]  # mirrored
    image = tree(read(intended_use="marks", marks={"Effusion": MARK}))["images"][0]
    (mark,) = image["marks"]
    assert mark["label"] == "Effusion" and "not an outline of disease" in mark["means"]
    assert mark["outline"] == {
        "pixels": [[300.0, 100.0], [200.0, 100.0], [200.0, 400.0]],
        "shares": [[0.25, 0.1], [0.5, 0.1], [0.5, 0.4]],
    }


@pytest.mark.parametrize("kind", KINDS)
def test_triage_localizes_nothing_even_where_marks_are_handed_over(read, kind) -> None:
    marked = read(marks={"Effusion": MARK})
    assert report.make(kind, marked)[0].data == report.make(kind, read())[0].data


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t["patient"].update(id="P-2"),
        lambda t: t["study"].update(uid="1.2.3"),
        lambda t: t.update(research_use=""),
        lambda t: t["images"].pop(),
        lambda t: t["images"][0]["findings"].pop(),
        lambda t: t["images"][0]["findings"][0].update(present=False),
        lambda t: t["images"][0].update(marks=[]),
    ],
)
def test_the_check_stops_what_is_wrong(read, change) -> None:
    found = tree(read())
    change(found)
    with pytest.raises(InvalidResult):
        PlainJson().check(json.dumps(found).encode(), read())
