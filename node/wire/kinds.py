"""The kinds of results: media types, how their files end, and the SOP classes of those that are DICOM objects."""

from dataclasses import dataclass

from node.wire.contexts import SECONDARY_CAPTURE, SR_CLASSES

BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"

SOP_CLASSES = {
    "text-sr": BASIC_TEXT_SR,
    "sc": SECONDARY_CAPTURE,
    "gsps": "1.2.840.10008.5.1.4.1.1.11.1",
    "ko": "1.2.840.10008.5.1.4.1.1.88.59",
    "pdf": "1.2.840.10008.5.1.4.1.1.104.1",
    "not-analyzed": BASIC_TEXT_SR,
}
"""PS3.4 B.5; `sr` has the class that a destination's `sr_class` names."""


@dataclass(frozen=True)
class Kind:
    media: str
    """The media type, as HTTP's Content-Type says it."""
    suffix: str
    """How its files' names end, in the spool and in a folder."""
    dicom: bool = False


DICOM = Kind("application/dicom", ".dcm", dicom=True)
TEXTS = {
    "json": Kind("application/json", ".json"),
    "fhir": Kind("application/fhir+json", ".fhir.json"),
    "oru": Kind("x-application/hl7-v2+er7", ".hl7"),
}


def class_of(writer: str, sr_class: str) -> str:
    """The SOP class of what a writer makes for a destination with this `sr_class`."""
    return SR_CLASSES[sr_class] if writer == "sr" else SOP_CLASSES[writer]


def kind_of(writer: str) -> Kind:
    """The kind of what a writer (`sr`, `json`, …) makes."""
    return TEXTS.get(writer, DICOM)
