"""The key object selection flags images, never a place, and is not there where nothing is to be flagged."""

import dataclasses
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
import studies
from pydicom import Dataset, dcmread

from node import report
from node.report import InvalidResult, Report


def flagged(of: Report) -> list[str]:
    """The images that the selection names; empty where there is none."""
    return [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for result in report.make("ko", of)
        for item in dcmread(BytesIO(result.data)).ContentSequence
        if item.ValueType == "IMAGE"
    ]


def second_only(of: Report) -> Report:
    """Nothing above its threshold but in the second image."""
    readings = [
        one
        if n == 1
        else dataclasses.replace(one, findings=[dataclasses.replace(f, present=False) for f in one.findings])
        for n, one in enumerate(of.readings)
    ]
    return dataclasses.replace(of, readings=tuple(readings))


def test_it_names_the_images_with_a_finding_above_its_threshold_and_no_other(source: Dataset) -> None:
    whole = studies.report(source, 2, images=3, use="triage")
    assert flagged(whole) == [r.identity.sop_instance for r in whole.readings]
    assert flagged(second_only(whole)) == [whole.readings[1].identity.sop_instance]


def test_the_evidence_is_what_is_flagged(source: Dataset) -> None:
    whole = second_only(studies.report(source, 2, images=3))
    selection = dcmread(BytesIO(report.make("ko", whole)[0].data))
    [study] = selection.CurrentRequestedProcedureEvidenceSequence
    named = [
        i.ReferencedSOPInstanceUID for s in study.ReferencedSeriesSequence for i in s.ReferencedSOPSequence
    ]
    assert named == flagged(whole)


@pytest.mark.parametrize("use", ["triage", "marks"])
def test_where_nothing_is_above_its_threshold_there_is_no_selection(source: Dataset, use: str) -> None:
    assert report.make("ko", studies.report(source, 0, images=3, use=use)) == []


def test_it_says_what_was_found_and_what_it_is_not_for(source: Dataset) -> None:
    selection = dcmread(BytesIO(report.make("ko", studies.report(source, 1))[0].data))
    description = _description(selection).TextValue
    assert description.startswith("Findings above threshold: Atelectasis 0.98.")
    assert "Not a diagnosis" in description
    assert "SCOORD" not in str(selection)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ds: ds.ContentSequence.pop(), "flagged"),
        (
            lambda ds: ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence.pop(),
            "evidence",
        ),
        (lambda ds: delattr(ds, "ContentTemplateSequence"), "ContentTemplateSequence"),
        (
            lambda ds: [
                ds.ContentSequence.remove(i) for i in list(ds.ContentSequence) if i.ValueType == "TEXT"
            ],
            "say why",
        ),
    ],
)
def test_the_check_stops_a_selection_that_is_wrong(
    source: Dataset, change: Callable[..., Any], reason: str
) -> None:
    whole = studies.report(source, 1, images=2)
    selection = dcmread(BytesIO(report.make("ko", whole)[0].data))
    change(selection)
    with pytest.raises(InvalidResult, match=reason):
        report.WRITERS["ko"].check(selection, whole, 0)


def _description(selection: Dataset) -> Dataset:
    [found] = [
        item
        for item in selection.ContentSequence
        if item.ValueType == "TEXT" and item.ConceptNameCodeSequence[0].CodeValue == "113012"
    ]
    return found
