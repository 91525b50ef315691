"""FHIR R4: a transaction Bundle of one DiagnosticReport, an Observation a finding, and a Device, the model.

Each entry is created only where no resource has its identifier yet (`ifNoneExist`), so that posting a bundle twice is
harmless. Patient, study and order are named by their identifiers: whose resources they are is the server's to know.

fhir.resources has R4B and no R4; for these three resources and the elements used here both releases are the same
(a DiagnosticReport has no `device` in either: the Observations name it).
"""

import json
from html import escape
from typing import Any
from uuid import UUID

from model.classifier import Finding
from node.report import findings as words
from node.report import sentences, subject
from node.report.check import hold
from node.report.findings import LOCAL_SCHEME, Code
from node.report.reading import MANUFACTURER, InvalidResult, Report, result_uid, software_version, uid
from node.report.sr import ABSENT, AI, CERTAINTY, PRESENT
from node.report.subject import Subject

SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    LOCAL_SCHEME: f"urn:oid:{uid('coding scheme', LOCAL_SCHEME)}",
}
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
UCUM = "http://unitsofmeasure.org"
DICOM_UID = "urn:dicom:uid"
"""The system of an identifier that is a DICOM object's UID; its value is `urn:oid:` and the UID."""
URI = "urn:ietf:rfc:3986"
"""The system of an identifier that is a URI: our own."""
WEIGHTS = "sha256 of the weights"


class FhirBundle:
    """Writes the FHIR bundle of a report."""

    name = "fhir"

    def write(self, report: Report) -> bytes:
        """The bundle's bytes, JSON. Raises InvalidResult."""
        of = subject.of(report.identity)
        device = _device(report)
        observations = [
            _observation(report, of, image, finding, device)
            for image, reading in enumerate(report.readings)
            for finding in words.ordered(reading.findings)
        ]
        whole = _diagnostic_report(report, of, observations)
        bundle = {
            "resourceType": "Bundle",
            "type": "transaction",
            "entry": [_entry(resource) for resource in (whole, *observations, device)],
        }
        return (json.dumps(_without_empty(bundle), ensure_ascii=False, indent=1) + "\n").encode()

    def check(self, data: bytes, report: Report) -> None:
        """It holds to the resources' definitions; patient, study, findings and flags are the report's."""
        from fhir.resources.R4B.bundle import (
            Bundle,
        )  # 0.8 s of import: the worker pays it, no other process does

        try:
            entries = Bundle.model_validate_json(data).entry or []
        except ValueError as error:
            # its text quotes values
            raise InvalidResult("the bundle is not FHIR R4") from error
        tree = [entry["resource"] for entry in json.loads(data)["entry"]]
        hold(len(entries) == len(tree), "entries are missing")
        of = subject.of(report.identity)
        found = [r for r in tree if r["resourceType"] == "Observation"]
        (whole,) = (r for r in tree if r["resourceType"] == "DiagnosticReport")
        for resource in (whole, *found):
            patient = resource.get("subject", {}).get("identifier", {}).get("value", "")
            hold(patient == of.patient_id, "the patient is another")
            hold(resource["status"] == "preliminary", "it is not preliminary")
        hold(whole["imagingStudy"][0]["identifier"] == _dicom(of.study), "the study is another")
        hold(words.RESEARCH_USE in whole["conclusion"], "it does not say that it is for research use")
        hold(
            [r["valueCodeableConcept"]["coding"][0]["code"] == PRESENT.value for r in found]
            == [f.present for reading in report.readings for f in words.ordered(reading.findings)],
            "the findings are others",
        )
        hold(len(whole["result"]) == len(found), "findings are missing from the report")


def _entry(resource: dict[str, Any]) -> dict[str, Any]:
    (own,) = [one for one in resource["identifier"] if one.get("system") == URI]
    return {
        "fullUrl": _url(resource),
        "resource": resource,
        "request": {
            "method": "POST",
            "url": resource["resourceType"],
            "ifNoneExist": f"identifier={URI}|{own['value']}",
        },
    }


def _url(resource: dict[str, Any]) -> str:
    """The same UUID that the UID under 2.25 is (PS3.5 B.2)."""
    (own,) = [one["value"] for one in resource["identifier"] if one.get("system") == URI]
    return UUID(int=int(own.rsplit(".", 1)[1])).urn


def _diagnostic_report(report: Report, of: Subject, observations: list[dict[str, Any]]) -> dict[str, Any]:
    said = [sentences.headline(report), sentences.amended(report), words.RESEARCH_USE]
    conclusion = " ".join(part for part in (*said, *sentences.unlike(report)) if part)
    present = {f.label for reading in report.readings for f in reading.findings if f.present}
    concepts = [words.concept(label).finding for label in report.card.labels if label in present]
    return {
        "resourceType": "DiagnosticReport",
        "text": {
            "status": "generated",
            "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{escape(conclusion)}</div>',
        },
        "identifier": [_ours(result_uid(report, FhirBundle.name, "")), _accession(of)],
        "status": "preliminary",
        "category": [_concept(f"{TERMINOLOGY}/v2-0074", "RAD", "Radiology")],
        "code": _concept("http://loinc.org", "18748-4", "Diagnostic imaging study"),
        "subject": _patient(of),
        "effectiveDateTime": subject.date(of.study_date),
        "issued": report.local_time.isoformat(timespec="milliseconds"),
        "result": [{"reference": _url(observation)} for observation in observations],
        "imagingStudy": [{"type": "ImagingStudy", "identifier": _dicom(of.study)}],
        "conclusion": conclusion,
        "conclusionCode": [_coded(code) for code in concepts if code.scheme == "SCT"],
    }


def _observation(
    report: Report, of: Subject, image: int, finding: Finding, device: dict[str, Any]
) -> dict[str, Any]:
    concept, identity = words.concept(finding.label), report.readings[image].identity
    score, threshold = (_percent(number) for number in words.numbers(finding, decimals=4))
    own = uid("observation", result_uid(report, FhirBundle.name, ""), str(image), finding.label)
    return {
        "resourceType": "Observation",
        "identifier": [_ours(own)],
        "status": "preliminary",
        "category": [_concept(f"{TERMINOLOGY}/observation-category", "imaging", "Imaging")],
        "code": {**_coded(concept.finding), "text": words.name(finding, report.card)},
        "subject": _patient(of),
        "effectiveDateTime": subject.date(of.study_date),
        "issued": report.local_time.isoformat(timespec="milliseconds"),
        # no interpretation "normal" for the others: below a threshold is no such claim
        "valueCodeableConcept": {
            **_coded(PRESENT if finding.present else ABSENT),
            "text": f"{'above' if finding.present else 'below'} threshold",
        },
        "interpretation": [ABNORMAL] if finding.present else [],
        "note": [{"text": words.RESEARCH_USE}],
        "bodySite": _coded(concept.site),
        "device": {"reference": _url(device)},
        "derivedFrom": [
            {"type": "ImagingStudy", "identifier": _dicom(of.study)},
            # Media is R4's resource for one image
            {"type": "Media", "identifier": _dicom(identity.sop_instance)},
        ],
        "component": [
            {
                "code": _coded(CERTAINTY),
                "valueQuantity": _percentage(score),
                "referenceRange": [
                    {"high": _percentage(threshold), "text": f"present from {threshold} % on"}
                ],
            }
        ],
    }


def _device(report: Report) -> dict[str, Any]:
    """The model, whatever it reads: one resource for all of its reports."""
    card = report.card
    name, version = words.ascii_text(card.name), words.ascii_text(card.version)
    return {
        "resourceType": "Device",
        "identifier": [
            _ours(uid("fhir device", card.sha256, name, version, card.limits, software_version()))
        ],
        "manufacturer": MANUFACTURER,
        "deviceName": [{"name": name, "type": "model-name"}],
        "type": _coded(AI),
        "version": [
            {"type": {"text": "model"}, "value": version},
            {"type": {"text": "software"}, "value": software_version()},
        ],
        "property": [{"type": {"text": WEIGHTS}, "valueCode": [{"text": card.sha256}]}],
        "note": [{"text": sentences.limits(report)}],
    }


def _patient(of: Subject) -> dict[str, Any]:
    """By the number that the image has; a logical reference, since no server is asked."""
    identifier = {"value": of.patient_id, "assigner": {"display": of.issuer}} if of.patient_id else {}
    return {"type": "Patient", "identifier": identifier, "display": of.name} if identifier or of.name else {}


def _accession(of: Subject) -> dict[str, Any]:
    kind = _concept(f"{TERMINOLOGY}/v2-0203", "ACSN", "Accession ID")
    return {"type": kind, "value": of.accession} if of.accession else {}


def _ours(own: str) -> dict[str, str]:
    return {"system": URI, "value": f"urn:oid:{own}"}


def _dicom(instance: str) -> dict[str, str]:
    return {"system": DICOM_UID, "value": f"urn:oid:{instance}"}


def _coded(code: Code) -> dict[str, Any]:
    return _concept(SYSTEMS[code.scheme], code.value, code.meaning)


def _concept(system: str, code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": display}]}


ABNORMAL = _concept(f"{TERMINOLOGY}/v3-ObservationInterpretation", "A", "Abnormal")


def _percent(share: str) -> float:
    return round(float(share) * 100, words.MOST_DECIMALS - 2)


def _percentage(value: float) -> dict[str, Any]:
    return {"value": value, "unit": "%", "system": UCUM, "code": "%"}


def _without_empty(tree: Any) -> Any:
    """FHIR has no empty strings, lists or objects: what is empty is left out."""
    if isinstance(tree, dict):
        kept = {key: _without_empty(value) for key, value in tree.items()}
        return {key: value for key, value in kept.items() if value not in ("", None, [], {})}
    if isinstance(tree, list):
        kept_items = [_without_empty(item) for item in tree]
        return [item for item in kept_items if item not in ("", None, [], {})]
    return tree
