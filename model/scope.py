"""Is this a frontal chest radiograph of a grown-up person? And if not, why, in plain words.

RULES lists every rule in the order in which they are asked; docs/scope.md prints the same list. The first
that answers decides. Header rules come before picture rules, so that an image out of scope is skipped even
where its pixels could not be decoded. The last is not asked here but learned (`model.guard`).

Reasons are fit for an audit log: they quote words of our own lists, never the header's free text.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any

from pydicom import Dataset

from model.decode import frames, promises_too_many_frames, whole
from model.header import items, orientation, quietly, text
from model.stored_only import OWN_RESULT, class_name, for_processing, no_image_class
from model.words import (
    CHEST,
    CHEST_CODES,
    FRONTAL,
    FRONTAL_CODES,
    HUMAN,
    HUMAN_CODES,
    OTHER_BODY,
    OTHER_MODALITIES,
    OTHER_VIEWS,
    SPECIES,
    site_words,
    words_of,
)

if TYPE_CHECKING:
    from model.guard import Scoped
    from model.pixels import Image

CR_IMAGE = "1.2.840.10008.5.1.4.1.1.1"
DX_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
RADIOGRAPHS = frozenset({CR_IMAGE, DX_FOR_PRESENTATION, SECONDARY_CAPTURE})
MODALITIES = frozenset({"CR", "DX", "RG"})

LEAST_SIDE = 100
"""Pixels on each side: below that it is a thumbnail or a test strip."""

LEAST_CONTRAST = 0.01
"""Standard deviation of the picture (0..1) below which it is blank; the least of 532 chest radiographs is 0.107."""

OLDEST = 130
"""Years: an age above this, or below 0, is a typing error and counts as unknown."""

OWN_NAME = "HILUM"
UNLIKE = "The picture looks unlike those that the model was made for"
STORED = ": stored, not analyzed"
"""How a reason ends."""


@dataclass(frozen=True)
class Policy:
    """What a site may decide. The word lists add to the built-in ones, in any case, single words.

    `unknown_…`: `skip`, `analyze`, or `model`, which skips as far as the header is asked (see `doubt`).
    """

    min_age: int = 18
    unknown_age: str = "analyze"
    unknown_body_part: str = "skip"
    unknown_view: str = "skip"
    chest_words: tuple[str, ...] = ()
    other_body_words: tuple[str, ...] = ()
    frontal_words: tuple[str, ...] = ()
    other_view_words: tuple[str, ...] = ()

    @property
    def asks_guard(self) -> bool:
        return "model" in (self.unknown_age, self.unknown_body_part, self.unknown_view)

    def with_model_as(self, word: str) -> "Policy":
        """With `skip` or `analyze` wherever it says `model`."""
        names = ("unknown_age", "unknown_body_part", "unknown_view")
        changes: dict[str, Any] = {name: word for name in names if getattr(self, name) == "model"}
        return replace(self, **changes)


@dataclass(frozen=True)
class Rule:
    """One question. `decide` returns the reason why there is no result, or None."""

    name: str
    says: str
    decide: Callable[..., str | None]


def judge(dataset: Dataset, policy: Policy) -> str | None:
    """Why an image is skipped, by its header; None where it is analyzed."""
    with quietly():
        return _first(HEADER, dataset, policy)


def doubt(dataset: Dataset, policy: Policy) -> str | None:
    """The reason of `judge` where the site leaves it to the guard (`model`) and nothing else is against the image."""
    if not policy.asks_guard or judge(dataset, policy.with_model_as("analyze")):
        return None
    return judge(dataset, policy)


def judge_picture(image: "Image") -> str | None:
    """Why a decoded picture is skipped; None where it is analyzed."""
    return _first(PICTURE, image)


def with_age(scoped: "Scoped", dataset: Dataset) -> "Scoped":
    """What the guard says, less its guess of a child where the header names the age: that has been judged by then."""
    if scoped.grown is None:
        return scoped
    with quietly():
        return scoped if age_in_years(dataset) is None else scoped.grown


def judge_looks(scoped: "Scoped", doubted: str = "") -> str | None:
    """Why a picture is skipped by the guard's word; None where it is analyzed. `doubted`: what `doubt` said."""
    reason = _first(LOOKS, scoped)
    return f"{doubted.partition(STORED)[0]}. {reason}" if reason and doubted else reason


def flagged(scoped: "Scoped") -> str:
    """What a result says of a strange picture where the site wants it analyzed all the same; else empty."""
    reason = _unlike(scoped)
    return f"{reason.partition(STORED)[0].rstrip('.')}: its scores may mean nothing." if reason else ""


def _first(rules: Iterable[Rule], *arguments: object) -> str | None:
    return next((reason for rule in rules if (reason := rule.decide(*arguments))), None)


def _own_result(dataset: Dataset, _: Policy) -> str | None:
    for tag in dataset.keys():  # noqa: SIM118 - a Dataset iterates over elements, converting each
        if tag.group % 2 and 0x10 <= tag.element <= 0xFF and _private_creator(dataset, tag) == OWN_NAME:
            return OWN_RESULT
    makers = [dataset, *items(dataset, "ContributingEquipmentSequence")]
    for maker in makers:
        for keyword in ("Manufacturer", "ManufacturerModelName"):
            if text(maker, keyword).upper() == OWN_NAME:
                return OWN_RESULT
    return None


def _private_creator(dataset: Dataset, tag: int) -> str:
    value = getattr(dataset.get_item(tag, keep_deferred=True), "value", None)
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return value.strip(" \0").upper() if isinstance(value, str) else ""


def _other_result(dataset: Dataset, _: Policy) -> str | None:
    kind = [part.strip().upper() for part in text(dataset, "ImageType").split("\\")]
    qualified = text(dataset, "SOPClassUID") == SECONDARY_CAPTURE and text(dataset, "ContentQualification")
    if qualified or (kind[0] == "DERIVED" and kind[2:3] == ["HEATMAP"]):
        return "Result picture of another program: stored, not analyzed"
    return None


def _class(dataset: Dataset, _: Policy) -> str | None:
    sop_class = text(dataset, "SOPClassUID")
    if sop_class in RADIOGRAPHS:
        return None
    kind = re.sub(r" (Image )?Storage.*", "", class_name(sop_class)) or "a private or unknown kind of object"
    return f"Not a plain radiograph ({kind}): stored, not analyzed"


def _modality(dataset: Dataset, _: Policy) -> str | None:
    modality = text(dataset, "Modality").upper()
    if modality in MODALITIES:
        return None
    if not modality:
        return "Modality not stated: stored, not analyzed"
    # only a word of the standard is repeated: anything else might be a name
    shown = modality if modality in OTHER_MODALITIES else "something else"
    return f"Modality says {shown}, not CR, DX or RG: stored, not analyzed"


def _quality_control(dataset: Dataset, _: Policy) -> str | None:
    if text(dataset, "QualityControlImage").upper() == "YES":
        return "Quality-control exposure: stored, not analyzed"
    return None


def _localizer(dataset: Dataset, _: Policy) -> str | None:
    return "Localizer picture: stored, not analyzed" if "LOCALIZER" in _image_type(dataset) else None


def _bone_suppressed(dataset: Dataset, _: Policy) -> str | None:
    if "BONE_SUPPRESSED" in _image_type(dataset):
        return "Processed picture (bones removed): stored, not analyzed"
    return None


def _image_type(dataset: Dataset) -> list[str]:
    return [part.strip() for part in text(dataset, "ImageType").upper().split("\\")]


def _species(dataset: Dataset, _: Policy) -> str | None:
    codes = items(dataset, "PatientSpeciesCodeSequence")
    named = words_of(text(dataset, "PatientSpeciesDescription"))
    coded = [_code(item) for item in codes]
    human = bool(named & HUMAN) or any(value in HUMAN_CODES or words & HUMAN for value, words in coded)
    said = bool(named) or any(value or words for value, words in coded)
    if (said and not human) or any(words_of(description) & SPECIES for description in _descriptions(dataset)):
        return "Animal study: stored, not analyzed"
    return None


def _color(dataset: Dataset, _: Policy) -> str | None:
    photometric = text(dataset, "PhotometricInterpretation").upper()
    if (photometric and photometric not in ("MONOCHROME1", "MONOCHROME2")) or (
        (whole(dataset, "SamplesPerPixel") or 1) > 1
    ):
        return "Color image, not a plain grey radiograph: stored, not analyzed"
    return None


def _frames(dataset: Dataset, _: Policy) -> str | None:
    if frames(dataset) > 1 and not promises_too_many_frames(dataset):
        return "More than one picture in the object: stored, not analyzed"
    return None


def _small(dataset: Dataset, _: Policy) -> str | None:
    sides = [whole(dataset, "Rows"), whole(dataset, "Columns")]
    if any(side is not None and 1 <= side < LEAST_SIDE for side in sides):
        return "The image is too small or too narrow to be a chest radiograph: stored, not analyzed"
    return None


def _age(dataset: Dataset, policy: Policy) -> str | None:
    years = age_in_years(dataset)
    if years is None:
        return None if policy.unknown_age == "analyze" else "Age not stated: stored, not analyzed (site rule)"
    if years < policy.min_age:
        return "Patient is younger than the age this model was made for: stored, not analyzed"
    return None


def age_in_years(dataset: Dataset) -> float | None:
    """Patient's Age, where a bare number is years; else Study Date minus birth date; None where unknown."""
    match = re.fullmatch(r"(\d{1,3})([DWMY]?)", text(dataset, "PatientAge").upper())
    if match:
        per_year = {"D": 365.25, "W": 52.18, "M": 12}.get(match[2], 1)
        years = int(match[1]) / per_year
        if years <= OLDEST:
            return years
    born, seen = _date(text(dataset, "PatientBirthDate")), _date(text(dataset, "StudyDate"))
    if born is None or seen is None:
        return None
    full = seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day))
    return float(full) if 0 <= full <= OLDEST else None


def _date(value: str) -> date | None:
    """YYYYMMDD, or YYYY.MM.DD as ACR-NEMA wrote it."""
    match = re.fullmatch(r"(\d{4})(\.?)(\d\d)\2(\d\d)", value)
    try:
        return date(int(match[1]), int(match[3]), int(match[4])) if match else None
    except ValueError:
        return None


@dataclass(frozen=True)
class _Says:
    """What one place of the header says: the yes words and the first no that it holds."""

    yes: bool = False
    no: str = ""


def _body_part(dataset: Dataset, policy: Policy) -> str | None:
    chest = CHEST | site_words(policy.chest_words)
    others = OTHER_BODY | site_words(policy.other_body_words)

    def says(words: set[str]) -> _Says:
        return _Says(bool(words & chest), min(words & others, default="").lower())

    coded = [
        _Says(yes=True) if value in CHEST_CODES else says(words)
        for value, words in map(_code, items(dataset, "AnatomicRegionSequence"))
    ]
    named = text(dataset, "BodyPartExamined")
    stated = coded[0] if coded else says(words_of(named)) if named else None
    return _conclude(
        dataset,
        stated,
        [says(words_of(description)) for description in _descriptions(dataset)],
        policy.unknown_body_part,
        yes="chest",
        no=lambda part: f"Not a chest radiograph ({part}): stored, not analyzed",
        silence="Body part not stated: stored, not analyzed (site rule)",
    )


def _view(dataset: Dataset, policy: Policy) -> str | None:
    frontal = FRONTAL | site_words(policy.frontal_words)
    others = {**OTHER_VIEWS, **dict.fromkeys(site_words(policy.other_view_words), "special")}

    def says(words: set[str]) -> _Says:
        return _Says(
            bool(words & frontal), next((others[word] for word in sorted(words & others.keys())), "")
        )

    coded = [
        _Says(yes=True) if value in FRONTAL_CODES else says(words)
        for value, words in map(_code, items(dataset, "ViewCodeSequence"))
    ]
    view, position = text(dataset, "ViewPosition"), text(dataset, "PatientPosition").upper()
    if coded:
        stated: _Says | None = coded[0]
    elif view:
        stated = says(words_of(view))
    else:
        stated = says(words_of(position)) if position in ("PA", "AP", "XX") else None
    return _conclude(
        dataset,
        stated,
        [says(words_of(description)) for description in _descriptions(dataset)],
        policy.unknown_view,
        yes="frontal",
        no=lambda kind: f"{kind.capitalize()} view: stored, not analyzed",
        silence="The header does not say that this is a frontal view: stored, not analyzed (site rule)",
    )


def _conclude(
    dataset: Dataset,
    stated: _Says | None,
    descriptions: list[_Says],
    unknown: str,
    *,
    yes: str,
    no: Callable[[str], str],
    silence: str,
) -> str | None:
    """One question to the coded places first (`stated`: the first that is not empty), then to descriptions.

    A no stays a no whatever a description says. A description that says only the other thing contradicts a
    yes; one that says both ("PA and lateral", of a study) does not. Silence and contradiction go the site's
    way (`unknown`), except for a Secondary Capture, which must say it.
    """
    free = unknown == "analyze" and text(dataset, "SOPClassUID") != SECONDARY_CAPTURE
    against = next((d.no for d in descriptions if d.no and not d.yes), "")
    if stated is None:
        stated = next((d for d in descriptions if d.yes != bool(d.no)), _Says())
    if stated.no:
        described = any(d.yes and not d.no for d in descriptions) and not stated.yes
        return _contradiction(stated.no, yes) if described else no(stated.no)
    if stated.yes:
        return _contradiction(yes, against) if against and not free else None
    if against:
        return no(against)
    return None if free else silence


def _contradiction(stated: str, described: str) -> str:
    return (
        f"The header contradicts itself ({stated}, but a description says {described}): stored, not analyzed"
    )


def _not_frontal_orientation(dataset: Dataset, _: Policy) -> str | None:
    directions = orientation(dataset)
    if directions is None:
        return None
    across = {"L": "side", "R": "side", "H": "up", "F": "up"}
    if {across.get(direction) for direction in directions} != {"side", "up"}:
        return "Patient Orientation says that this is no frontal view: stored, not analyzed"
    return None


def _blank(image: "Image") -> str | None:
    if not image.varies(LEAST_CONTRAST):
        return "The image is blank: stored, not analyzed"
    return None


def _unlike(scoped: "Scoped") -> str | None:
    return (scoped.reason or f"{UNLIKE}{STORED}") if scoped.is_strange else None


def _descriptions(dataset: Dataset) -> list[str]:
    """Free text about the exposure, the nearest to the image first."""
    found = [text(dataset, keyword) for keyword in _DESCRIPTIONS]
    protocols = items(dataset, "PerformedProtocolCodeSequence")
    return [*found, *(text(item, "CodeMeaning") for item in protocols)]


_DESCRIPTIONS = (
    "SeriesDescription",
    "ProtocolName",
    "AcquisitionDeviceProcessingDescription",
    "PerformedProcedureStepDescription",
    "RequestedProcedureDescription",
    "StudyDescription",
)


def _code(item: Dataset) -> tuple[str, set[str]]:
    """The value of a coded concept and the words of its meaning."""
    return text(item, "CodeValue"), words_of(text(item, "CodeMeaning"))


STORED_ONLY = (
    Rule(
        "no-image-class",
        "a storage class that holds no picture by the standard: stored only",
        no_image_class,
    ),
    Rule(
        "for-processing",
        "For Processing, by SOP class or Presentation Intent Type: stored only",
        for_processing,
    ),
)
HEADER = (
    Rule(
        "own-result",
        "a result of Hilum, by private block, contributing equipment or manufacturer",
        _own_result,
    ),
    Rule(
        "other-result",
        "another program's result: a Secondary Capture with Content Qualification, or DERIVED with HEATMAP",
        _other_result,
    ),
    Rule("sop-class", "not CR Image, DX For Presentation or Secondary Capture", _class),
    Rule("modality", "Modality absent or not CR, DX or RG", _modality),
    Rule("quality-control", "Quality Control Image YES", _quality_control),
    Rule("localizer", "LOCALIZER in Image Type", _localizer),
    Rule("bone-suppressed", "BONE_SUPPRESSED in Image Type", _bone_suppressed),
    Rule("species", "a species that is not human, in its attributes or in a description", _species),
    Rule("color", "not MONOCHROME1 or MONOCHROME2, or more than one sample per pixel", _color),
    Rule("frames", "more than one frame (parked where uncompressed pixels are fewer than promised)", _frames),
    Rule("small", "Rows or Columns from 1 to 99", _small),
    Rule("age", "younger than min_age; unknown age goes by unknown_age", _age),
    Rule("body-part", "not chest; silence and contradiction go by unknown_body_part", _body_part),
    Rule("view", "not PA, AP or frontal; silence and contradiction go by unknown_view", _view),
    Rule("orientation", "Patient Orientation is not left-right by head-feet", _not_frontal_orientation),
)
PICTURE = (Rule("blank", "the decoded picture is blank or nearly blank", _blank),)
LOOKS = (
    Rule(
        "unlike",
        "the picture looks unlike those that the model was made for (learned); goes by learned",
        _unlike,
    ),
)
RULES = (*STORED_ONLY, *HEADER, *PICTURE, *LOOKS)
