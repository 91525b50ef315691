"""What is stored and gets no job at all: decided by SOP class and intent alone, without a DICOM library.

Part of the rules of `model.scope`, and the part that receiving asks.
"""

import re

from model.sop_classes import OTHER, STORAGE

OWN_RESULT = "A result of Hilum: stored, never analyzed"

_PICTURES_BY_OTHER_NAMES = (
    "RT Dose Storage",
    "Segmentation Storage",
    "Label Map Segmentation Storage",
    "Height Map Segmentation Storage",
    "Parametric Map Storage",
    "Enhanced US Volume Storage",
    "Corneal Topography Map Storage",
    "Ophthalmic Thickness Map Storage",
    "Ophthalmic Optical Coherence Tomography B-scan Volume Analysis Storage",
)


def stored_only(sop_class: str, presentation_intent: str) -> str | None:
    """Why an object of this class gets no job at all; None where it gets one."""
    return no_image_class(sop_class, presentation_intent) or for_processing(sop_class, presentation_intent)


def no_image_class(sop_class: str, _: str) -> str | None:
    name = class_name(sop_class)
    if "Storage" not in name or _is_image_class(name):
        return None
    return f"Not an image ({re.sub(r' Storage.*', '', name)}): stored only"


def for_processing(sop_class: str, presentation_intent: str) -> str | None:
    if "For Processing" in class_name(sop_class):
        return "Raw detector image (For Processing): stored only"
    if presentation_intent.strip().upper() == "FOR PROCESSING":
        return "Marked For Processing: stored only"
    return None


def class_name(sop_class: str) -> str:
    """The class's name in the standard's dictionary; empty for private and unknown ones."""
    return STORAGE.get(sop_class) or OTHER.get(sop_class, "")


def _is_image_class(name: str) -> bool:
    """Whether the standard's storage class holds pictures, by its name in the dictionary (PS3.6 A)."""
    return "Image Storage" in name or name.startswith(_PICTURES_BY_OTHER_NAMES)
