"""The FHIR bundle, read back by fhir.resources."""

import copy
import dataclasses
import json
from decimal import Decimal
from uuid import UUID

import pytest
from fhir.resources.R4B.bundle import Bundle

from node import report
from node.report import InvalidResult
from node.report.fhir import FhirBundle


def resources(made: report.Report) -> dict[str, list]:
    """By their types, as fhir.resources reads them."""
    (result,) = report.make("fhir", made)
    found: dict[str, list] = {}
    for entry in Bundle.model_validate_json(result.data).entry:
        found.setdefault(entry.resource.get_resource_type(), []).append(entry.resource)
    return found


def test_one_report_an_observation_a_finding_and_the_model(read) -> None:
    found = resources(read())
    assert {kind: len(those) for kind, those in found.items()} == {
        "DiagnosticReport": 1,
        "Observation": 4,
        "Device": 1,
    }
    (device,) = found["Device"]
    assert (device.deviceName[0].name, device.version[0].value) == ("test model", "1.2")
    assert device.property[0].valueCode[0].text == "sha256:" + "ab" * 32


def test_the_report_is_preliminary_and_names_patient_study_and_order_by_their_numbers(read, source) -> None:
    source.AccessionNumber, source.IssuerOfPatientID = "A-1", "HOSPITAL"
    (whole,) = resources(read())["DiagnosticReport"]
    assert whole.status == "preliminary" and whole.code.coding[0].code == "18748-4"
    patient = whole.subject
    assert patient.reference is None and patient.display == "Phantom, Ada"
    assert (patient.identifier.value, patient.identifier.assigner.display) == ("P-1", "HOSPITAL")
    study = whole.imagingStudy[0].identifier
    assert (study.system, study.value) == ("urn:dicom:uid", f"urn:oid:{source.StudyInstanceUID}")
    assert whole.identifier[1].type.coding[0].code == "ACSN" and whole.identifier[1].value == "A-1"
    assert "for research use only" in whole.conclusion and "Lung Opacity 0.83" in whole.conclusion
    assert [c.coding[0].code for c in whole.conclusionCode] == ["60046008"]


def test_an_observation_says_present_or_absent_with_score_and_threshold(read) -> None:
    first, *_, last = resources(read())["Observation"]
    assert first.valueCodeableConcept.coding[0].code == "52101004"
    assert first.interpretation[0].coding[0].code == "A"
    assert first.component[0].valueQuantity.value == Decimal("83.12")
    assert first.component[0].referenceRange[0].high.value == Decimal("50.0")
    assert last.valueCodeableConcept.coding[0].code == "272519000"
    # below a threshold is no "normal"
    assert last.valueCodeableConcept.text == "below threshold" and last.interpretation is None
    assert {o.status for o in (first, last)} == {"preliminary"}


def test_posted_twice_it_makes_nothing_twice(read) -> None:
    """Each entry is created on the condition that none has its identifier, which a repeat has too."""
    (result,) = report.make("fhir", read())
    entries = json.loads(result.data)["entry"]
    for entry in entries:
        own = entry["resource"]["identifier"][0]
        assert entry["request"]["ifNoneExist"] == f"identifier={own['system']}|{own['value']}"
        number = int(own["value"].removeprefix("urn:oid:2.25."))
        assert entry["fullUrl"] == f"urn:uuid:{UUID(int=number)}"
    assert len({entry["fullUrl"] for entry in entries}) == len(entries)


def test_each_reference_leads_to_a_resource_of_the_bundle(read) -> None:
    (result,) = report.make("fhir", read())
    entries = json.loads(result.data)["entry"]
    urls = {e["fullUrl"] for e in entries}
    wanted = [e["resource"]["device"] for e in entries if e["resource"]["resourceType"] == "Observation"]
    wanted += entries[0]["resource"]["result"]
    assert len(wanted) == 8 and {one["reference"] for one in wanted} <= urls


def test_a_model_is_one_device_whatever_it_reads(read, source) -> None:
    other = copy.deepcopy(source)
    other.SOPInstanceUID, other.PatientID = "2.25.7", "P-2"
    devices = [resources(read(**c))["Device"][0].identifier[0].value for c in ({}, {"source": other})]
    assert devices[0] == devices[1]


def test_observations_of_two_images_name_their_image(read, source) -> None:
    other = copy.deepcopy(source)
    other.SOPInstanceUID = "2.25.7"
    whole = read()
    whole = dataclasses.replace(whole, readings=(whole.first, dataclasses.replace(whole.first, source=other)))
    found = resources(whole)["Observation"]
    assert [o.derivedFrom[1].identifier.value for o in found[::4]] == [
        f"urn:oid:{source.SOPInstanceUID}",
        "urn:oid:2.25.7",
    ]
    assert len({o.identifier[0].value for o in found}) == 8


@pytest.mark.parametrize("empty", ["PatientID", "PatientName", "AccessionNumber", "StudyDate"])
def test_what_the_source_does_not_say_is_left_out(read, source, empty) -> None:
    setattr(source, empty, "")
    for entry in json.loads(report.make("fhir", read())[0].data)["entry"]:
        assert '""' not in json.dumps(entry) and "{}" not in json.dumps(entry)
    assert len(resources(read())["Observation"]) == 4


def test_markup_in_words_of_the_model_stays_text(read, card) -> None:
    odd = dataclasses.replace(card, display={**card.display, "Effusion": "<b>Effusion</b> & more"})
    (whole,) = resources(read(card=odd))["DiagnosticReport"]
    assert "&lt;b&gt;Effusion" in whole.text.div and "<b>" in whole.conclusion


@pytest.mark.parametrize(
    "change",
    [
        lambda whole, first: whole.update(status="no status"),
        lambda whole, first: whole.update(status="final"),
        lambda whole, first: whole.update(unknown="element"),
        lambda whole, first: whole["subject"]["identifier"].update(value="P-2"),
        lambda whole, first: first["subject"]["identifier"].update(value="P-2"),
        lambda whole, first: whole["imagingStudy"][0]["identifier"].update(value="urn:oid:1.2.3"),
        lambda whole, first: whole.update(conclusion="Effusion."),
        lambda whole, first: whole["result"].pop(),
        lambda whole, first: first["valueCodeableConcept"]["coding"][0].update(code="272519000"),
    ],
)
def test_the_check_stops_what_is_wrong(read, change) -> None:
    (result,) = report.make("fhir", read())
    tree = json.loads(result.data)
    change(tree["entry"][0]["resource"], tree["entry"][1]["resource"])
    with pytest.raises(InvalidResult) as stopped:
        FhirBundle().check(json.dumps(tree).encode(), read())
    assert "P-2" not in str(stopped.value)
