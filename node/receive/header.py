"""What receiving keeps of a data set: who and what it is, and whether it is our own result come back.

No pydicom: the values come from the walk (`walk.py`), short ones only.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from node.errors import CannotUnderstand
from node.receive import text

# top-level values that are kept, and how many bytes of each
KEPT = {
    0x00080005: 256,  # SpecificCharacterSet
    0x00080016: 128,  # SOPClassUID
    0x00080018: 128,  # SOPInstanceUID
    0x00080050: 128,  # AccessionNumber
    0x00080060: 64,  # Modality
    0x00080068: 64,  # PresentationIntentType
    0x00080070: 128,  # Manufacturer
    0x00081090: 128,  # ManufacturerModelName
    0x00100010: 1024,  # PatientName
    0x00100020: 256,  # PatientID
    0x0020000D: 128,  # StudyInstanceUID
    0x0020000E: 128,  # SeriesInstanceUID
    0x00280008: 32,  # NumberOfFrames
}
OURS = b"hilum"

# digits and dots (PS3.5 9.1); or the hash of hex digits that de-identifiers write in a UID's place
_UID = re.compile(rb"[0-9]+(?:\.[0-9]+)*|[0-9a-f]{32,64}")


class Damaged(CannotUnderstand):
    """Not a whole, sane data set; the message says why and holds nothing of its values."""


@dataclass(frozen=True)
class Header:
    """Text is decoded for conflicts and the audit log only; `raw` keeps the bytes by tag."""

    sop_class: str
    sop_instance: str
    study: str
    series: str
    patient_id: str
    patient_name: str
    accession: str
    modality: str
    presentation_intent: str
    has_pixels: bool
    # why it is one of our own results: "" or the mark that says so
    own_mark: str
    raw: dict[int, bytes] = field(repr=False)


def build(values: Mapping[int, bytes], has_pixels: bool, our_block: bool, our_contribution: bool) -> Header:
    """The header of the values at top level. Raises Damaged where a UID is missing or unsafe.

    `our_block`: it has a private block HILUM; `our_contribution`: Hilum is among its contributing equipment.
    """
    character_sets = values.get(0x00080005, b"")

    def shown(tag: int) -> str:
        return text.decode(values.get(tag, b""), character_sets)

    return Header(
        sop_class=uid(values.get(0x00080016), "SOP Class UID"),
        sop_instance=uid(values.get(0x00080018), "SOP Instance UID"),
        study=uid(values.get(0x0020000D), "Study Instance UID"),
        series=uid(values.get(0x0020000E), "Series Instance UID"),
        patient_id=shown(0x00100020),
        patient_name=shown(0x00100010),
        accession=shown(0x00080050),
        modality=shown(0x00080060),
        presentation_intent=shown(0x00080068),
        has_pixels=has_pixels,
        own_mark=_own_mark(values, our_block, our_contribution),
        raw=dict(values),
    )


def _own_mark(values: Mapping[int, bytes], our_block: bool, our_contribution: bool) -> str:
    if our_block:
        return "private block HILUM"
    if our_contribution:
        return "contributing equipment Hilum"
    if is_ours(values.get(0x00080070, b"")) or is_ours(values.get(0x00081090, b"")):
        return "manufacturer Hilum"
    return ""


def uid(value: bytes | None, name: str) -> str:
    """A UID that is safe to file under. Raises Damaged; leading zeros and space padding are tolerated."""
    bare = (value or b"").rstrip(b"\0 ")
    if not bare:
        raise Damaged(f"no {name}")
    if len(bare) > 64 or not _UID.fullmatch(bare):
        raise Damaged(f"the {name} is not a valid UID")
    return bare.decode("ascii")


def is_ours(value: bytes) -> bool:
    return value.strip(b"\0 ").lower() == OURS
