"""The Structured Report: TID 1500 by highdicom, one measurement group a finding (PS3.16 TID 1500, 1501, 4019).

OHIF draws what is titled "Imaging Measurement Report" over the image, and fails where one of its groups has no region
or where there is none; every other title it shows as a page of text. Hence two arrangements:

- the page, "Chest CAD Report": a group for each finding of each image. For triage always, without any region; for
  marks where nothing is above its threshold, or where something is that has no region;
- the drawing, "Imaging Measurement Report": a group for each finding above its threshold, with its region.

In both, the sentence that a person wants to read comes first, what it must not be used for second, and all scores
stand in the sentences.
"""

from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes

from model.card import Card
from model.classifier import Finding
from node.report import findings as words
from node.report import regions, sentences
from node.report.check import hold, present
from node.report.image_library import image_library
from node.report.parts import (
    CHEST_X_RAY,
    COMMENT,
    TITLE,
    bare,
    coded,
    described,
    evidence,
    hold_flags,
    named,
    observer,
)
from node.report.reading import (
    MANUFACTURER,
    InvalidResult,
    Report,
    result_uid,
    series_uid,
    uid,
)
from node.wire.contexts import SR_CLASSES

SERIES_NUMBER = 9001
SERIES_DESCRIPTION = "Hilum AI findings (report)"

DRAWING = words.Code("126000", "DCM", "Imaging Measurement Report")
CERTAINTY = words.Code("111012", "DCM", "Certainty of Finding")
PRESENCE = words.Code("121052", "DCM", "Presence of property")
PRESENT = words.Code("52101004", "SCT", "Present")
ABSENT = words.Code("272519000", "SCT", "Absent")
PERCENT = words.Code("%", "UCUM", "Percent")
AI = words.Code("123110", "DCM", "Artificial Intelligence")
ENGLISH = words.Code("en", "RFC5646", "English")
REGION_SOURCE = words.Code("121112", "DCM", "Source of Measurement")
OHIF_TOOL = "Cornerstone3DTools@^0.1.0:PlanarFreehandROI:"
"""A region whose tracking identifier begins so gets a row in OHIF's measurements panel; others are drawn only."""

_IN_SR = [
    "CompletionFlag",
    "VerificationFlag",
    "PreliminaryFlag",
    "ContentDate",
    "ContentTime",
    "ValueType",
    "ConceptNameCodeSequence",
    "ContentTemplateSequence",
    "ContentSequence",
    "CurrentRequestedProcedureEvidenceSequence",
]
_ROOT = [
    "ConceptNameCodeSequence",
    "ContentSequence",
    "ValueType",
    "ContinuityOfContent",
    "ContentTemplateSequence",
]


class StructuredReport:
    """Writes the SR of a report; `variant` is one of SR_CLASSES."""

    name = "sr"
    each_image = False

    def write(self, report: Report, variant: str, image: int) -> Dataset:
        """The SR, still without the patient, whom `report.make` puts in; raises InvalidResult."""
        import highdicom.sr as hd  # a second of import: the worker pays it, no other process does

        classes = {
            "comprehensive3d": hd.Comprehensive3DSR,
            "comprehensive": hd.ComprehensiveSR,
            "enhanced": hd.EnhancedSR,
        }
        if variant not in classes:
            raise InvalidResult(f"no SR variant {variant!r}; there are {', '.join(classes)}")
        instance = result_uid(report, self.name, variant)
        root = _content(hd, report)[0]
        made: Dataset = classes[variant](
            evidence=[bare(reading.identity) for reading in report.readings],
            content=_trunk(root),
            **described(report, instance, SERIES_NUMBER, SERIES_DESCRIPTION),
            is_complete=True,
            is_final=False,
            is_verified=False,
            previous_versions=_predecessors(report) or None,
        )
        made.ContentSequence = root.ContentSequence
        if schemes := _coding_schemes(report):
            made.CodingSchemeIdentificationSequence = schemes
        return made

    def check(self, result: Dataset, report: Report, image: int) -> None:
        """Flags, evidence, the content tree read back by highdicom, its regions, its words; raises InvalidResult."""
        from highdicom.sr import MeasurementReport

        present(result, _IN_SR)
        hold_flags(result)
        sources = sorted(named(reading.identity) for reading in report.readings)
        hold(evidence(result) == sources, "the evidence is not what was analyzed")
        seen = {(sop_class, instance) for _, sop_class, instance in sources}
        hold(_referenced(result) <= seen, "it refers to what was not analyzed")
        root = Dataset()
        for keyword in _ROOT:
            root[keyword] = result[keyword]
        tree = MeasurementReport.from_sequence([root], copy=False)
        groups = [
            group
            for container in tree[0].ContentSequence
            if container.name == codes.DCM.ImagingMeasurements
            for group in container.ContentSequence
            if group.name == codes.DCM.MeasurementGroup
        ]
        hold(len(groups) == len(_told(report)), "findings are missing from the content tree")
        title = DRAWING if _draws(report) else TITLE
        hold(
            result.ConceptNameCodeSequence[0].CodeValue == title.value,
            "the title is that of another arrangement",
        )
        places = [_regions(group) for group in groups]
        if report.intended_use == "triage":
            hold(_regions(result) == 0, "a report for triage marks a place")
        if title == DRAWING:
            hold(bool(places) and set(places) == {1}, "a finding has no region in a report that is drawn")
        texts = [item.TextValue for item in tree[0].ContentSequence if item.ValueType == "TEXT"]
        hold(sentences.headline(report) in texts, "it does not say what was found")
        hold(words.RESEARCH_USE in texts, "it does not say that it is for research use")


def _trunk(root: Dataset) -> Dataset:
    """The root without what stands under it. highdicom's document copies its content, makes items of it again and walks
    it thrice, 120 ms for 15 findings; what it looks for there, `check` asks of the bytes."""
    trunk = Dataset()
    for keyword in _ROOT:
        if keyword != "ContentSequence":
            trunk[keyword] = root[keyword]
    trunk.ContentSequence = []
    return trunk


def _predecessors(report: Report) -> list[Dataset]:
    """Our SRs that this one replaces; their series follows from their UID."""
    items = []
    for sop_class, instance in report.predecessors:
        if sop_class in SR_CLASSES.values():
            item = Dataset()
            item.SOPClassUID, item.SOPInstanceUID = sop_class, instance
            item.StudyInstanceUID, item.SeriesInstanceUID = report.identity.study, series_uid(instance)
            items.append(item)
    return items


def _coding_schemes(report: Report) -> list[Dataset]:
    """Our own scheme, where a finding is coded in it (PS3.3 C.12.1.1.1)."""
    if all(words.concept(f.label).finding.scheme != words.LOCAL_SCHEME for _, f in _told(report)):
        return []
    item = Dataset()
    item.CodingSchemeDesignator = words.LOCAL_SCHEME
    item.CodingSchemeName = "Hilum local codes"
    item.CodingSchemeResponsibleOrganization = MANUFACTURER
    return [item]


def _draws(report: Report) -> bool:
    """Whether each finding above its threshold has a region, and there is one."""
    above = [
        (image, f) for image, reading in enumerate(report.readings) for f in reading.findings if f.present
    ]
    return bool(above) and all(f.label in regions.marks(report, image) for image, f in above)


def _told(report: Report) -> list[tuple[int, Finding]]:
    """The findings that get a group, with the image that each belongs to; most important first in each image."""
    draws = _draws(report)
    return [
        (image, finding)
        for image, reading in enumerate(report.readings)
        for finding in words.ordered(reading.findings)
        if finding.present or not draws
    ]


def _regions(item: Dataset) -> int:
    """How many regions stand under a content item."""
    under = item.get("ContentSequence") or []
    return sum((one.ValueType in ("SCOORD", "SCOORD3D")) + _regions(one) for one in under)


def _referenced(item: Dataset) -> set[tuple[str, str]]:
    """(SOP class, SOP instance) of all that the content items under this one refer to."""
    found = set()
    for one in item.get("ContentSequence") or []:
        hold(one.ValueType != "SCOORD3D", "a place in space is marked, and a radiograph has none")
        for reference in one.get("ReferencedSOPSequence") or []:
            found.add((str(reference.ReferencedSOPClassUID), str(reference.ReferencedSOPInstanceUID)))
        found |= _referenced(one)
    return found


def _content(hd: Any, report: Report) -> Any:
    tree = hd.MeasurementReport(
        title=coded(DRAWING if _draws(report) else TITLE),
        language_of_content_item_and_descendants=hd.LanguageOfContentItemAndDescendants(coded(ENGLISH)),
        observation_context=hd.ObservationContext(observer_device_context=observer(report.card)),
        procedure_reported=coded(report.identity.procedure or CHEST_X_RAY),
        imaging_measurements=[_group(hd, report, image, finding) for image, finding in _told(report)],
    )
    root = tree[0].ContentSequence
    root.insert(len(root) - 1, image_library(report))
    # TID 1500 is extensible: the sentences stand before the template's rows, as OHIF shows all items in their order
    for place, sentence in enumerate(_sentences(report)):
        root.insert(place, _comment(hd, sentence))
    return tree


def _sentences(report: Report) -> list[str]:
    card, images = report.card, range(len(report.readings))
    said = [sentences.headline(report), words.RESEARCH_USE, sentences.amended(report)]
    said += sentences.unlike(report)
    if any(regions.marks(report, image) for image in images):
        said.append(f"A region shows {sentences.WHERE_FROM}. It is not a segmentation.")
    for image in images:
        which = f"{sentences.image_name(report, image)}. " if len(images) > 1 else ""
        said.append(which + words.all_scores(report.readings[image].findings, card))
        if open_calls := words.unsettled(report.readings[image].findings, card):
            said.append(which + open_calls)
        if missing := _without_region(report, image):
            said.append(f"{which}No region could be found for: {', '.join(missing)}.")
    said.append(words.calibration(card))
    said.append(sentences.limits(report))
    said.append(f"Model: {sentences.model(report)}. Weights: {card.sha256}.")
    return [sentence for sentence in said if sentence]


def _without_region(report: Report, image: int) -> list[str]:
    """What a report with marks can't mark, though it is above its threshold."""
    if report.intended_use != "marks":
        return []
    marked = regions.marks(report, image)
    found = words.ordered(report.readings[image].findings)
    return [words.name(f, report.card) for f in found if f.present and f.label not in marked]


def _group(hd: Any, report: Report, image: int, finding: Finding) -> Any:
    """TID 1501: what, where, how sure, above the threshold or not, seen in which image."""
    card, reading = report.card, report.readings[image]
    concept, identity = words.concept(finding.label), reading.identity
    score, _ = words.numbers(finding, decimals=4)
    mark = regions.marks(report, image).get(finding.label)
    source = {
        "referenced_sop_class_uid": identity.sop_class,
        "referenced_sop_instance_uid": identity.sop_instance,
    }
    origin: dict[str, Any] = {"referenced_images": [hd.SourceImageForMeasurement(**source)]}
    tracked = f"{MANUFACTURER} {words.name(finding, card)}"
    if mark is not None:
        origin = {"referenced_coordinates": [_region(hd, regions.outline(reading, mark), source)]}
        tracked = f"{OHIF_TOOL}{tracked} ({sentences.WHERE_FROM})"
    certainty = hd.Measurement(
        name=coded(CERTAINTY),
        value=round(float(score) * 100, words.MOST_DECIMALS - 2),
        unit=coded(PERCENT),
        # on the NUM only and in one TEXT: dcmqi drops the algorithm of a group and all but the first parameter
        algorithm_id=hd.AlgorithmIdentification(
            name=words.ascii_text(card.name),
            version=words.ascii_text(card.version),
            family=coded(AI),
            parameters=[_parameters(finding, card)],
        ),
        **origin,
    )
    group = hd.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.TrackingIdentifier(
            uid=uid("tracking", identity.sop_instance, card.sha256, finding.label), identifier=tracked
        ),
        finding_type=coded(concept.finding),
        finding_sites=[hd.FindingSite(anatomic_location=coded(concept.site))],
        measurements=[certainty],
        qualitative_evaluations=[
            hd.QualitativeEvaluation(coded(PRESENCE), coded(PRESENT if finding.present else ABSENT))
        ],
    )
    if mark is not None:
        # OHIF writes it beside the region, which would else say a number and not of what; TID 1501 is extensible
        group[0].ContentSequence.append(_comment(hd, _label(finding, card)))
    return group


def _label(finding: Finding, card: Card) -> str:
    score, threshold = words.numbers(finding)
    return f"{words.name(finding, card)} {score} (threshold {threshold})"


def _parameters(finding: Finding, card: Card) -> str:
    score, threshold = words.numbers(finding, decimals=4)
    parameters = f"threshold={threshold}; present if score >= threshold; score={score}; weights={card.sha256}"
    if rule := words.ascii_text(card.rule):
        parameters += f"; threshold rule: {rule}"
    return f"{parameters}; calibration: {words.calibration_of(finding, card)}"


def _region(hd: Any, outline: list[regions.Point], source: dict[str, str]) -> Any:
    return hd.CoordinatesForMeasurement(
        graphic_type=hd.GraphicTypeValues.POLYLINE,
        graphic_data=np.array(outline, np.float32),
        source_image=hd.SourceImageForRegion(**source),
        purpose=coded(REGION_SOURCE),
    )


def _comment(hd: Any, text: str) -> Any:
    return hd.TextContentItem(
        name=coded(COMMENT), value=text, relationship_type=hd.RelationshipTypeValues.CONTAINS
    )
