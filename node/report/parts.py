"""What several kinds of documents have in common; the functions as highdicom wants it.

highdicom is given a source with nothing in it but UIDs, and the patient is put in afterwards by `identity`: so
no header, however odd, makes highdicom stumble, and what the source's bytes were stays what they are.
"""

from typing import Any

from pydicom import Dataset
from pydicom.uid import UID

from model.card import Card
from node.report import findings as words
from node.report.check import hold
from node.report.identity import Identity
from node.report.reading import MANUFACTURER, Report, serial_number, series_uid, software_version, uid

TITLE = words.Code("112000", "DCM", "Chest CAD Report")
"""Of each document whose title is not asked for by its kind: nothing that heads a result calls it diagnostic."""
COMMENT = words.Code("121106", "DCM", "Comment")
SOURCE = words.Code("260753009", "SCT", "Source")
CHEST_X_RAY = words.Code("399208008", "SCT", "Plain chest X-ray")
FLAGS = {"CompletionFlag": "COMPLETE", "VerificationFlag": "UNVERIFIED", "PreliminaryFlag": "PRELIMINARY"}
"""Of every Structured Report (PS3.3 C.17.2)."""
DEVICE = words.Code("121007", "DCM", "Device")


def bare(identity: Identity) -> Dataset:
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


def coded(code: words.Code) -> Any:
    """A highdicom CodedConcept."""
    from highdicom.sr import CodedConcept

    return CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


def observer(card: Card) -> Any:
    """Who says so: a device (TID 1002, TID 1004)."""
    import highdicom.sr as hd

    return hd.ObserverContext(
        observer_type=coded(DEVICE),
        observer_identifying_attributes=hd.DeviceObserverIdentifyingAttributes(
            uid=uid("device", card.sha256),
            name=MANUFACTURER,
            manufacturer_name=MANUFACTURER,
            model_name=f"{words.ascii_text(card.name)} {words.ascii_text(card.version)}"[:64],
            serial_number=serial_number(card),
        ),
    )


def described(report: Report, instance: str, series_number: int, description: str) -> dict[str, Any]:
    """Series and equipment of a document with the UID `instance`, as highdicom's constructors name them."""
    return {
        "series_instance_uid": series_uid(instance),
        "series_number": series_number,
        "sop_instance_uid": instance,
        "instance_number": report.revision,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER,
        "software_versions": software_version(),
        "device_serial_number": serial_number(report.card),
        "series_description": description,
    }


def hold_flags(result: Dataset) -> None:
    """Raises InvalidResult where a flag is not as FLAGS says."""
    for keyword, value in FLAGS.items():
        hold(result[keyword].value == value, f"{keyword} is not {value}")


def evidence(result: Dataset) -> list[tuple[str, str, str]]:
    """(series, SOP class, SOP instance) of all that a result names as its evidence, sorted."""
    return sorted(
        (series.SeriesInstanceUID, instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID)
        for study in result.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    )


def named(identity: Identity) -> tuple[str, str, str]:
    """An image as `evidence` lists it."""
    return identity.series, identity.sop_class, identity.sop_instance
