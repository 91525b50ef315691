"""The Structured Report: TID 1500 by highdicom, one measurement group a finding (PS3.16 TID 1500, 1501, 4019).

The root is titled "Chest CAD Report" and not "Imaging Measurement Report": OHIF draws the latter over the image
and fails where a group has no region, but shows every other title as a page of text. A reading for triage has no
regions. The sentence that a person wants to read comes first, what it must not be used for comes second.

highdicom is given a source with nothing in it but UIDs, and the patient is put in afterwards by `identity`: so
no header, however odd, makes highdicom stumble, and what the source's bytes were stays what they are.
"""

from typing import Any

from pydicom import Dataset
from pydicom.uid import UID

from model.card import Card
from model.classifier import Finding
from node.report import findings as words
from node.report.identity import Identity
from node.report.reading import (
    MANUFACTURER,
    InvalidResult,
    Reading,
    result_uid,
    series_uid,
    software_version,
    uid,
)
from node.wire.contexts import SR_CLASSES

SERIES_NUMBER = 9001
SERIES_DESCRIPTION = "Hilum AI findings (report)"

TITLE = words.Code("112000", "DCM", "Chest CAD Report")
COMMENT = words.Code("121106", "DCM", "Comment")
CERTAINTY = words.Code("111012", "DCM", "Certainty of Finding")
PRESENCE = words.Code("121052", "DCM", "Presence of property")
PRESENT = words.Code("52101004", "SCT", "Present")
ABSENT = words.Code("272519000", "SCT", "Absent")
PERCENT = words.Code("%", "UCUM", "Percent")
AI = words.Code("123110", "DCM", "Artificial Intelligence")
ENGLISH = words.Code("en", "RFC5646", "English")
CHEST_X_RAY = words.Code("399208008", "SCT", "Plain chest X-ray")
IMAGE_LIBRARY = words.Code("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = words.Code("126200", "DCM", "Image Library Group")
SOURCE = words.Code("260753009", "SCT", "Source")


class StructuredReport:
    """Writes the SR of one reading; `variant` is one of SR_CLASSES."""

    name = "sr"

    def write(self, reading: Reading, variant: str) -> Dataset:
        """The SR, still without the patient, whom `report.make` puts in; raises InvalidResult."""
        import highdicom.sr as hd  # a second of import: the worker pays it, no other process does

        if reading.intended_use != "triage":
            raise InvalidResult(f"no SR for the intended use {reading.intended_use!r} in this version")
        classes = {
            "comprehensive3d": hd.Comprehensive3DSR,
            "comprehensive": hd.ComprehensiveSR,
            "enhanced": hd.EnhancedSR,
        }
        if variant not in classes:
            raise InvalidResult(f"no SR variant {variant!r}; there are {', '.join(classes)}")
        instance = result_uid(reading, self.name, variant)
        card, identity = reading.card, reading.identity
        report: Dataset = classes[variant](
            evidence=[_bare(identity)],
            content=_content(hd, reading)[0],
            series_instance_uid=series_uid(instance),
            series_number=SERIES_NUMBER,
            sop_instance_uid=instance,
            instance_number=reading.revision,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MANUFACTURER,
            software_versions=software_version(),
            device_serial_number=card.sha256.removeprefix("sha256:")[:16],
            series_description=SERIES_DESCRIPTION,
            is_complete=True,
            is_final=False,
            is_verified=False,
            previous_versions=_predecessors(reading) or None,
        )
        if schemes := _coding_schemes(reading):
            report.CodingSchemeIdentificationSequence = schemes
        return report


def _bare(identity: Identity) -> Dataset:
    """The source as highdicom sees it."""
    source = Dataset()
    source.SOPClassUID = UID(identity.sop_class)
    source.SOPInstanceUID = UID(identity.sop_instance)
    source.StudyInstanceUID = UID(identity.study)
    source.SeriesInstanceUID = UID(identity.series)
    for keyword in [
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyID",
        "AccessionNumber",
    ]:
        setattr(source, keyword, "")
    source.StudyDate = source.StudyTime = None
    return source


def _predecessors(reading: Reading) -> list[Dataset]:
    """Our SRs that this one replaces; their series follows from their UID."""
    items = []
    for sop_class, instance in reading.predecessors:
        if sop_class in SR_CLASSES.values():
            item = Dataset()
            item.SOPClassUID, item.SOPInstanceUID = sop_class, instance
            item.StudyInstanceUID, item.SeriesInstanceUID = reading.identity.study, series_uid(instance)
            items.append(item)
    return items


def _coding_schemes(reading: Reading) -> list[Dataset]:
    """Our own scheme, where a finding is coded in it (PS3.3 C.12.1.1.1)."""
    if all(words.concept(f.label).finding.scheme != words.LOCAL_SCHEME for f in reading.findings):
        return []
    item = Dataset()
    item.CodingSchemeDesignator = words.LOCAL_SCHEME
    item.CodingSchemeName = "Hilum local codes"
    item.CodingSchemeResponsibleOrganization = MANUFACTURER
    return [item]


def _content(hd: Any, reading: Reading) -> Any:
    card, identity = reading.card, reading.identity
    model = f"{words.ascii_text(card.name)} {words.ascii_text(card.version)}"
    report = hd.MeasurementReport(
        title=_coded(TITLE),
        language_of_content_item_and_descendants=hd.LanguageOfContentItemAndDescendants(_coded(ENGLISH)),
        observation_context=hd.ObservationContext(
            observer_device_context=hd.ObserverContext(
                observer_type=_coded(words.Code("121007", "DCM", "Device")),
                observer_identifying_attributes=hd.DeviceObserverIdentifyingAttributes(
                    uid=uid("device", card.sha256),
                    name=MANUFACTURER,
                    manufacturer_name=MANUFACTURER,
                    model_name=model[:64],
                    serial_number=card.sha256.removeprefix("sha256:")[:16],
                ),
            )
        ),
        procedure_reported=_coded(identity.procedure or CHEST_X_RAY),
        imaging_measurements=[
            _group(hd, finding, card, identity) for finding in words.ordered(reading.findings)
        ],
    )
    root = report[0].ContentSequence
    root.insert(len(root) - 1, _image_library(hd, identity))
    # TID 1500 is extensible: the sentences stand before the template's rows, as OHIF shows all items in their order
    sentences = (
        words.headline(reading.findings, card),
        words.RESEARCH_USE,
        words.all_scores(reading.findings, card),
        f"Limits: {words.ascii_text(card.limits)}",
        f"Model: {model}. Weights: {card.sha256}.",
    )
    for place, sentence in enumerate(sentences):
        root.insert(place, _comment(hd, sentence))
    return report


def _group(hd: Any, finding: Finding, card: Card, identity: Identity) -> Any:
    """TID 1501: what, where, how sure, above the threshold or not."""
    concept = words.concept(finding.label)
    score, threshold = words.numbers(finding, decimals=4)
    parameters = f"threshold={threshold}; present if score >= threshold; score={score}; weights={card.sha256}"
    if rule := words.ascii_text(card.rule):
        parameters += f"; threshold rule: {rule}"
    certainty = hd.Measurement(
        name=_coded(CERTAINTY),
        value=round(float(score) * 100, words.MOST_DECIMALS - 2),
        unit=_coded(PERCENT),
        # on the NUM only and in one TEXT: dcmqi drops the algorithm of a group and all but the first parameter
        algorithm_id=hd.AlgorithmIdentification(
            name=words.ascii_text(card.name),
            version=words.ascii_text(card.version),
            family=_coded(AI),
            parameters=[parameters],
        ),
    )
    return hd.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.TrackingIdentifier(
            uid=uid("tracking", identity.sop_instance, card.sha256, finding.label),
            identifier=f"{MANUFACTURER} {words.name(finding, card)}",
        ),
        finding_type=_coded(concept.finding),
        finding_sites=[hd.FindingSite(anatomic_location=_coded(concept.site))],
        measurements=[certainty],
        qualitative_evaluations=[
            hd.QualitativeEvaluation(_coded(PRESENCE), _coded(PRESENT if finding.present else ABSENT))
        ],
    )


def _image_library(hd: Any, identity: Identity) -> Any:
    """TID 1600 with its required rows only: the descriptors that highdicom adds need a spacing that CR often lacks."""
    contains = hd.RelationshipTypeValues.CONTAINS
    image = hd.ImageContentItem(
        name=_coded(SOURCE),
        referenced_sop_class_uid=identity.sop_class,
        referenced_sop_instance_uid=identity.sop_instance,
        relationship_type=contains,
    )
    group = hd.ContainerContentItem(name=_coded(IMAGE_LIBRARY_GROUP), relationship_type=contains)
    group.ContentSequence = hd.ContentSequence([image])
    library = hd.ContainerContentItem(
        name=_coded(IMAGE_LIBRARY), relationship_type=contains, template_id="1600"
    )
    library.ContentSequence = hd.ContentSequence([group])
    return library


def _comment(hd: Any, text: str) -> Any:
    return hd.TextContentItem(
        name=_coded(COMMENT), value=text, relationship_type=hd.RelationshipTypeValues.CONTAINS
    )


def _coded(code: words.Code) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)
