"""Negotiation tables: which SOP classes and transfer syntaxes the node takes (PS3.4 Annex B, PS3.5 Annex A, PS3.6 A).

No network and no DICOM library at import: what is here are the standard's UIDs.
"""

from collections.abc import Iterable

from model.sop_classes import STORAGE

# how we name ourselves in negotiation and in the meta information of files (PS3.7 D.3.3.2)
IMPLEMENTATION_CLASS = "2.25.78228545681274628139136763185332683859"
IMPLEMENTATION_VERSION = "HILUM"

VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"

CR_IMAGE = "1.2.840.10008.5.1.4.1.1.1"
DX_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

# variants of our Structured Report, by the name that a destination's `sr_class` has (PS3.4 B.5)
SR_CLASSES = {
    "comprehensive3d": "1.2.840.10008.5.1.4.1.1.88.34",
    "comprehensive": "1.2.840.10008.5.1.4.1.1.88.33",
    "enhanced": "1.2.840.10008.5.1.4.1.1.88.22",
}

# what a node for chest radiographs takes whatever `other_storage` says
RADIOGRAPHS = frozenset({CR_IMAGE, DX_FOR_PRESENTATION, DX_FOR_PROCESSING, SECONDARY_CAPTURE})

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"

# in the order of our preference: as an acceptor the node picks the first that the peer proposes in a context
TRANSFER_SYNTAXES = {
    EXPLICIT_LITTLE: "Explicit VR Little Endian",
    IMPLICIT_LITTLE: "Implicit VR Little Endian",
    EXPLICIT_BIG: "Explicit VR Big Endian (retired)",
    DEFLATED: "Deflated Explicit VR Little Endian",
    "1.2.840.10008.1.2.5": "RLE Lossless",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless (Process 14)",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless (Process 14, SV1)",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 (Lossless Only)",
    "1.2.840.10008.1.2.4.201": "HTJ2K (Lossless Only)",
    "1.2.840.10008.1.2.4.202": "HTJ2K RPCL (Lossless Only)",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Near-Lossless",
    "1.2.840.10008.1.2.4.51": "JPEG Extended (Process 2 and 4)",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline (Process 1)",
}

_STANDARD = frozenset(STORAGE)


def standard_storage() -> frozenset[str]:
    """Every storage class of the standard (PS3.4 B.5), retired ones included."""
    return _STANDARD


def storage_classes(other_storage: str = "accept", extra_classes: Iterable[str] = ()) -> frozenset[str]:
    """The storage classes that `[receive] other_storage` and `extra_classes` admit."""
    base = standard_storage() if other_storage == "accept" else RADIOGRAPHS
    return base | frozenset(extra_classes)
