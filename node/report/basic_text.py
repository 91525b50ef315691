"""A Basic Text SR by plain pydicom: TEXT, CODE, UIDREF and IMAGE items under one root (PS3.3 A.35.1).

Viewers show its items one after the other as `name: value`, so the order of the items is the order of the page. What
describes the document (language, observer, procedure) comes last: nobody reads it first.
"""

from collections.abc import Sequence

from pydicom import Dataset

from node.report.check import hold, present
from node.report.findings import Code
from node.report.head import coded, head
from node.report.identity import Identity
from node.report.parts import CHEST_X_RAY, FLAGS, SOURCE, TITLE, evidence, hold_flags, named
from node.report.reading import MANUFACTURER, Report, serial_number, series_uid, uid
from node.report.sentences import model
from node.wire.kinds import BASIC_TEXT_SR

FINDING = Code("121071", "DCM", "Finding")
PREVIOUS = Code("121069", "DCM", "Previous Finding")
ALGORITHM = Code("111001", "DCM", "Algorithm Name")

_IN_DOCUMENT = [
    *FLAGS,
    "ContentDate",
    "ContentTime",
    "ValueType",
    "ConceptNameCodeSequence",
    "ContinuityOfContent",
    "ContentSequence",
    "CurrentRequestedProcedureEvidenceSequence",
]


def document(
    report: Report, writer: str, series_number: int, description: str, content: Sequence[Dataset]
) -> Dataset:
    """The whole document but for the patient and the times (PS3.3 C.17.1, C.17.2, C.17.3)."""
    sr = head(
        report,
        writer,
        0,
        sop_class=BASIC_TEXT_SR,
        modality="SR",
        series_number=series_number,
        description=description,
    )
    sr.InstanceNumber = report.revision
    sr.ReferencedPerformedProcedureStepSequence = []
    sr.PerformedProcedureCodeSequence = []
    for keyword, value in FLAGS.items():
        setattr(sr, keyword, value)
    readings = [r.identity for r in report.readings]
    sr.CurrentRequestedProcedureEvidenceSequence = [
        _instances(report, [(i.series, i.sop_class, i.sop_instance) for i in readings])
    ]
    ours = [(series_uid(i), c, i) for c, i in report.predecessors if c == BASIC_TEXT_SR]
    if ours:
        sr.PredecessorDocumentsSequence = [_instances(report, ours)]
    sr.ValueType = "CONTAINER"
    sr.ConceptNameCodeSequence = [coded(TITLE)]
    sr.ContinuityOfContent = "SEPARATE"
    sr.ContentSequence = [*content, *_circumstances(report)]
    return sr


def text(name: Code, value: str, relationship: str = "CONTAINS") -> Dataset:
    """Lines in `value` are parted by LF; in the item by CR LF (PS3.5 6.2, UT)."""
    item = _item("TEXT", relationship, name)
    item.TextValue = value.replace("\n", "\r\n")
    return item


def image(identity: Identity) -> Dataset:
    item = _item("IMAGE", "CONTAINS", SOURCE)
    item.ReferencedSOPSequence = [_instance(identity.sop_class, identity.sop_instance)]
    return item


def texts(document: Dataset) -> list[str]:
    """What the items of a document say, with LF between lines."""
    return [str(i.TextValue).replace("\r\n", "\n") for i in document.ContentSequence if i.ValueType == "TEXT"]


def hold_document(result: Dataset, report: Report) -> None:
    """Flags, evidence and images are what `document` promises; raises InvalidResult."""
    present(result, _IN_DOCUMENT)
    hold(result.SOPClassUID == BASIC_TEXT_SR, "it is no Basic Text SR")
    hold_flags(result)
    sources = sorted(named(reading.identity) for reading in report.readings)
    hold(evidence(result) == sources, "the evidence is not what was analyzed")
    images = [
        i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for i in result.ContentSequence
        if i.ValueType == "IMAGE"
    ]
    hold(images == [r.identity.sop_instance for r in report.readings], "the images are not those analyzed")


def _circumstances(report: Report) -> list[Dataset]:
    """TID 1204, TID 1002 and 1004 (a device), and the procedure."""
    card = report.card
    device = _item("UIDREF", "HAS OBS CONTEXT", Code("121012", "DCM", "Device Observer UID"))
    device.UID = uid("device", card.sha256)
    observer = [
        ("121013", "Device Observer Name", MANUFACTURER),
        ("121014", "Device Observer Manufacturer", MANUFACTURER),
        ("121015", "Device Observer Model Name", model(report)[:64]),
        ("121016", "Device Observer Serial Number", serial_number(card)),
    ]
    return [
        _code(Code("121058", "DCM", "Procedure reported"), report.identity.procedure or CHEST_X_RAY),
        _code(
            Code("121049", "DCM", "Language of Content Item and Descendants"),
            Code("en", "RFC5646", "English"),
        ),
        _code(Code("121005", "DCM", "Observer Type"), Code("121007", "DCM", "Device"), "HAS OBS CONTEXT"),
        device,
        *(text(Code(value, "DCM", what), told, "HAS OBS CONTEXT") for value, what, told in observer),
    ]


def _code(name: Code, value: Code, relationship: str = "HAS CONCEPT MOD") -> Dataset:
    item = _item("CODE", relationship, name)
    item.ConceptCodeSequence = [coded(value)]
    return item


def _item(value_type: str, relationship: str, name: Code) -> Dataset:
    item = Dataset()
    item.RelationshipType = relationship
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [coded(name)]
    return item


def _instance(sop_class: str, sop_instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
    return item


def _instances(report: Report, listed: Sequence[tuple[str, str, str]]) -> Dataset:
    """Instances (series, SOP class, SOP instance) of the report's study, by series (PS3.3 C.17.2.1)."""
    study = Dataset()
    study.StudyInstanceUID = report.identity.study
    by_series: dict[str, list[Dataset]] = {}
    for series, sop_class, sop_instance in listed:
        by_series.setdefault(series, []).append(_instance(sop_class, sop_instance))
    study.ReferencedSeriesSequence = []
    for series, instances in by_series.items():
        item = Dataset()
        item.SeriesInstanceUID, item.ReferencedSOPSequence = series, instances
        study.ReferencedSeriesSequence.append(item)
    return study
