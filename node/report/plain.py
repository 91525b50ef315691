"""Plain JSON: a report for a site's own programs, with every number as the Structured Report has it.

One object, UTF-8, keys always in the same order. What a field means stands in docs/results.md; SCHEMA is raised when
a field changes its meaning or goes, not when one is added.
"""

import json
from collections.abc import Sequence
from typing import Any

from model.classifier import Finding
from model.errors import Undecodable
from model.explain import Mark
from model.pixels import stored_points
from node.report import findings as words
from node.report import sentences, subject
from node.report.check import hold
from node.report.findings import Code
from node.report.reading import InvalidResult, Reading, Report, result_uid
from node.report.subject import Subject

FORMAT = "hilum.report"
SCHEMA = 1
STATUS = "preliminary"
SHARES, PIXELS = 5, 1
"""Decimals of an outline's points."""


class PlainJson:
    """Writes the JSON of a report."""

    name = "json"

    def write(self, report: Report) -> bytes:
        """The JSON's bytes. Raises InvalidResult."""
        return (json.dumps(_tree(report), ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()

    def check(self, data: bytes, report: Report) -> None:
        """Patient, study, images and findings are the report's; it says what it must not be used for."""
        tree = json.loads(data)
        of = subject.of(report.identity)
        hold(tree["patient"]["id"] == of.patient_id, "the patient is another")
        hold(tree["study"]["uid"] == of.study, "the study is another")
        hold(tree["research_use"] == words.RESEARCH_USE, "it does not say that it is for research use")
        hold(
            [image["sop_instance"] for image in tree["images"]]
            == [reading.identity.sop_instance for reading in report.readings],
            "the images are not those that were analyzed",
        )
        for image, reading in zip(tree["images"], report.readings, strict=True):
            told = {finding["label"]: finding["present"] for finding in image["findings"]}
            hold(told == {f.label: f.present for f in reading.findings}, "the findings are others")
        marks = any("marks" in image for image in tree["images"])
        hold(report.intended_use == "marks" or not marks, "a report for triage must not localize")


def _tree(report: Report) -> dict[str, Any]:
    of = subject.of(report.identity)
    card = report.card
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "uid": result_uid(report, PlainJson.name, ""),
        "status": STATUS,
        "research_use": words.RESEARCH_USE,
        "intended_use": report.intended_use,
        "made_at": report.local_time.isoformat(timespec="seconds"),
        "revision": report.revision,
        "predecessors": [
            {"sop_class": sop_class or None, "uid": instance} for sop_class, instance in report.predecessors
        ],
        "patient": _patient(of),
        "study": {
            "uid": of.study,
            "accession_number": of.accession,
            "id": of.study_id,
            "date": of.study_date,
            "time": of.study_time,
            "description": of.description,
        },
        "model": {
            "name": card.name,
            "version": card.version,
            "sha256": card.sha256,
            "limits": card.limits,
            "threshold_rule": card.rule,
        },
        "headline": sentences.headline(report),
        "images": [_image(report, reading) for reading in report.readings],
    }


def _patient(of: Subject) -> dict[str, Any]:
    parts = ("family", "given", "middle", "prefix", "suffix")
    names = [dict(zip(parts, group, strict=True)) for group in of.names]
    return {
        "id": of.patient_id,
        "issuer": of.issuer,
        "names": dict(zip(("alphabetic", "ideographic", "phonetic"), names, strict=False)),
        "birth_date": of.birth_date,
        "sex": of.sex,
    }


def _image(report: Report, reading: Reading) -> dict[str, Any]:
    identity = reading.identity
    image: dict[str, Any] = {
        "sop_class": identity.sop_class,
        "sop_instance": identity.sop_instance,
        "series": identity.series,
        "content_hash": reading.content_hash,
        "findings": [_finding(report, finding) for finding in words.ordered(reading.findings)],
    }
    if report.intended_use == "marks":
        image["marks"] = [
            _mark(reading, finding.label, reading.marks[finding.label])
            for finding in words.ordered(reading.findings)
            if finding.present and finding.label in reading.marks
        ]
    if reading.unlike:
        image["unlike"] = reading.unlike
    return {**image, "notes": list(identity.notes)}


def _finding(report: Report, finding: Finding) -> dict[str, Any]:
    concept = words.concept(finding.label)
    score, threshold = words.numbers(finding, decimals=4)
    return {
        "label": finding.label,
        "display": report.card.display.get(finding.label, finding.label.replace("_", " ")),
        "score": float(score),
        "threshold": float(threshold),
        "present": finding.present,
        "code": _code(concept.finding),
        "site": _code(concept.site),
    }


def _code(code: Code) -> dict[str, str]:
    return code._asdict()


def _mark(reading: Reading, label: str, mark: Mark) -> dict[str, Any]:
    try:
        pixels = stored_points(reading.source, mark.outline)
    except Undecodable as e:
        raise InvalidResult("a mark has no place in the stored pixels") from e
    return {
        "label": label,
        "outline": {"pixels": _rounded(pixels, PIXELS), "shares": _rounded(mark.outline, SHARES)},
        "means": sentences.WHERE_FROM,
    }


def _rounded(points: Sequence[tuple[float, float]], decimals: int) -> list[list[float]]:
    return [[round(float(x), decimals), round(float(y), decimals)] for x, y in points]
