"""What a result takes from its source: the patient, the study, the character set (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2).

Values are passed on byte for byte. What the standard does not allow to be written again is handled by what it is:

- without an exact PatientID there is no result at all: it could come to lie under another patient;
- another identifier (AccessionNumber, …) is left empty: half an identifier may be somebody else's;
- a name or a description is kept as far as it is legal: its first value, its first 64 characters, `?` for each
  control character, U+FFFD for each byte without a meaning;
- a date, a code word, a number is left empty;
- the dotted date and the time with colons of ACR-NEMA are written in today's form (PS3.5 6.2, notes on DA and TM).

Each such change is a note for the audit log; notes name attributes, never values. Nothing is invented.
"""

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any

from pydicom import Dataset
from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.valuerep import PersonName

from node.report import character_set
from node.report.character_set import UNREADABLE, UTF_8, CharacterSet
from node.report.findings import Code

# type 2: present in every result, empty where the source is silent
REQUIRED = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
]

# type 3: in the result where the source has them, so that both describe one patient and one study
OPTIONAL = [
    "IssuerOfPatientID",
    "TypeOfPatientID",
    "OtherPatientIDs",
    "PatientBirthTime",
    "OtherPatientNames",
    "EthnicGroup",
    "PatientComments",
    "StudyDescription",
    "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "RequestingService",
    "AdmittingDiagnosesDescription",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "Occupation",
    "AdditionalPatientHistory",
    "AdmissionID",
]

SEQUENCES = [
    "OtherPatientIDsSequence",
    "IssuerOfPatientIDQualifiersSequence",
    "IssuerOfAccessionNumberSequence",
    "ProcedureCodeSequence",
    "ReferencedStudySequence",
    "ReferencedPatientSequence",
    "AdmittingDiagnosesCodeSequence",
]

IDENTIFIERS = {
    "PatientID",
    "IssuerOfPatientID",
    "OtherPatientIDs",
    "StudyID",
    "AccessionNumber",
    "AdmissionID",
}
SEVERAL = {
    "OtherPatientIDs",
    "OtherPatientNames",
    "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "AdmittingDiagnosesDescription",
}

LONGEST = {"LO": 64, "SH": 16, "LT": 10240, "ST": 1024, "UT": 10240}
CODE_WORDS = {"PatientSex": {"M", "F", "O"}}
DEEPEST = 4
"""Levels of nesting that are followed; the sequences above have two."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_OFFSET = re.compile(r"[+-](0\d|1[0-4])[0-5]\d")


@dataclass(frozen=True)
class _Value:
    """One attribute's legal value: text, and the source's bytes where nothing had to be changed."""

    vr: str
    text: str
    raw: bytes | None = None


@dataclass(frozen=True)
class Identity:
    """Patient and study of a result, ready to be put into it."""

    character_set: CharacterSet
    offset: str
    """TimezoneOffsetFromUTC of the source; empty: it has none."""
    sop_class: str
    sop_instance: str
    study: str
    series: str
    notes: tuple[str, ...]
    """What could not be passed on as it was, by attribute; fit for the audit log."""
    _values: dict[str, _Value]
    _sequences: dict[str, list[Dataset]]

    def put(self, dataset: Dataset) -> None:
        """Writes the identity into `dataset`, whose other text must be ASCII; encode it as Explicit VR Little Endian.

        Unchanged values go in as the source's bytes: they are written as they are, not decoded and encoded again.
        """
        terms = list(self.character_set.terms)
        dataset.pop("SpecificCharacterSet", None)
        if terms:
            dataset.SpecificCharacterSet = terms if len(terms) > 1 else terms[0]
        dataset.StudyInstanceUID = self.study
        if self.offset:
            dataset.TimezoneOffsetFromUTC = self.offset
        for keyword in self._values:
            raw = self.bytes_of(keyword)
            tag = Tag(tag_for_keyword(keyword) or 0)
            dataset[tag] = RawDataElement(tag, dictionary_VR(tag), len(raw), raw, 0, False, True, True)
        for keyword, items in self._sequences.items():
            setattr(dataset, keyword, deepcopy(items))
        dataset.set_original_encoding(False, True, convert_encodings(terms) if terms else None)

    def bytes_of(self, keyword: str) -> bytes:
        """What stands in the result for `keyword`, padded to an even length."""
        value = self._values[keyword]
        raw = self.character_set.encode(value.text, value.vr) if value.raw is None else value.raw
        return raw + b" " * (len(raw) % 2)

    @property
    def patient_change(self) -> str:
        """The note that PatientID could not be passed on exactly; empty: it was."""
        return next((note for note in self.notes if note.startswith("PatientID:")), "")

    @property
    def procedure(self) -> Code | None:
        """The study's first procedure code, where it is whole and ASCII."""
        for item in self._sequences.get("ProcedureCodeSequence", []):
            code = Code(
                *(str(item.get(k, "")) for k in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"))
            )
            if all(part and part.isascii() for part in code):
                return code
        return None

    @property
    def keywords(self) -> list[str]:
        return list(self._values)


def of(source: Dataset) -> Identity:
    """The identity that `source` gives to its results. Never raises for what a value holds."""
    notes: list[str] = []
    declared = character_set.of(_strings(source, "SpecificCharacterSet"))
    values = dict(_values(source, declared, notes))
    sequences = {k: items for k in SEQUENCES if (items := _items(source, k, declared, notes))}
    if reason := _why_not_kept(declared, values, sequences):
        declared = character_set.of([UTF_8])
        values = {k: _Value(v.vr, v.text) for k, v in values.items()}
        notes.append(f"text was written as UTF-8: {reason}")
    offset = "".join(_strings(source, "TimezoneOffsetFromUTC")[:1])
    if offset and not (_OFFSET.fullmatch(offset) and -1200 <= int(offset) <= 1400):
        notes.append("TimezoneOffsetFromUTC: left out, it is no offset")
        offset = ""
    return Identity(
        character_set=declared,
        offset=offset,
        sop_class=_uid(source, "SOPClassUID"),
        sop_instance=_uid(source, "SOPInstanceUID"),
        study=_uid(source, "StudyInstanceUID"),
        series=_uid(source, "SeriesInstanceUID"),
        notes=tuple(notes),
        _values=values,
        _sequences=sequences,
    )


def _why_not_kept(
    declared: CharacterSet, values: dict[str, _Value], sequences: dict[str, list[Dataset]]
) -> str:
    """Why the source's character set can't be the result's; empty: it can."""
    if not declared.sound:
        return "the source names no character set of the standard"
    nested = [(str(e.value), e.VR) for i in chain(*sequences.values()) for e in i.iterall() if e.VR != "SQ"]
    new = [(v.text, v.vr) for v in values.values() if v.raw is None] + nested
    texts = [v.text for v in values.values()] + [text for text, _ in nested]
    if any(UNREADABLE in text for text in texts):
        return "bytes do not fit the source's character set"
    if not declared.terms and not all(text.isascii() for text in texts):
        return "the source names no character set"
    if not all(declared.holds(text, vr) for text, vr in new):
        return "the source's character set does not hold what had to be written anew"
    return ""


def _values(source: Dataset, declared: CharacterSet, notes: list[str]) -> Iterator[tuple[str, _Value]]:
    for keyword in REQUIRED + OPTIONAL:
        vr = dictionary_VR(keyword)
        found = _read(source, keyword, declared, vr)
        if found is None and keyword in OPTIONAL:
            continue
        text, raw = found or ("", b"")
        legal, change = _legal(keyword, vr, text)
        if change:
            notes.append(f"{keyword}: {change}")
            if not legal and keyword in OPTIONAL:
                continue
        yield keyword, _Value(vr, legal, raw if legal == text else None)


def _legal(keyword: str, vr: str, text: str) -> tuple[str, str]:
    """`text` as the standard lets it be written, and what was changed for that."""
    if keyword in SEVERAL:
        parts = [_legal_single(keyword, vr, part) for part in text.split("\\")]
        return "\\".join(p for p, _ in parts), next((change for _, change in parts if change), "")
    if "\\" in text and vr not in ("LT", "ST", "UT"):
        if keyword in IDENTIFIERS or vr not in ("PN", "LO", "SH"):
            return "", "left empty, it has several values"
        first, change = _legal_single(keyword, vr, text.split("\\")[0])
        return first, "only the first of several values was kept" + (f"; {change}" if change else "")
    return _legal_single(keyword, vr, text)


def _legal_single(keyword: str, vr: str, text: str) -> tuple[str, str]:
    if vr in _FORMS:
        legal = _FORMS[vr](text) if text else ""
        if legal not in CODE_WORDS.get(keyword, {legal}):
            legal = ""
        if legal == text:
            return text, ""
        return legal, "written in today's form" if legal else f"left empty, it is no legal {vr}"
    changes = []
    control = _CONTROL_IN_TEXT if vr in ("LT", "ST", "UT") else _CONTROL
    legal = control.sub("?", text)
    if legal != text:
        changes.append("control characters were replaced by '?'")
    if UNREADABLE in legal:
        changes.append("unreadable bytes were replaced by U+FFFD")
    whole = legal
    legal = _short_name(legal) if vr == "PN" else legal[: LONGEST[vr]]
    if legal != whole:
        if keyword in IDENTIFIERS:
            return "", "left empty, it is too long"
        changes.append("shortened to the length allowed")
    return legal, "; ".join(changes)


def _short_name(name: str) -> str:
    """Three component groups of at most 64 characters (PS3.5 6.2.1).

    A group that must be cut is cut to 64 bytes of UTF-8, because some receivers (and dciodvfy) count bytes.
    """
    groups = name.split("=")[:3]
    return "=".join(g if len(g) <= 64 else g.encode()[:64].decode(errors="ignore") for g in groups)


def _date(text: str) -> str:
    digits = re.sub(r"^(\d{4})\.(\d{2})\.(\d{2})$", r"\1\2\3", text)
    if not re.fullmatch(r"\d{8}", digits) or not digits.isascii():
        return ""
    try:
        datetime.strptime(digits, "%Y%m%d")
    except ValueError:
        return ""
    return digits


def _time(text: str) -> str:
    digits = re.sub(r"^(\d{2}):(\d{2})(?::(\d{2}(?:\.\d{1,6})?))?$", r"\1\2\3", text)
    form = r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?"
    return digits if digits.isascii() and re.fullmatch(form, digits) else ""


def _decimal(text: str) -> str:
    return (
        text if len(text) <= 16 and re.fullmatch(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *", text) else ""
    )


_FORMS: dict[str, Callable[[str], str]] = {
    "DA": _date,
    "TM": _time,
    "DS": _decimal,
    "AS": lambda text: text if re.fullmatch(r"[0-9]{3}[DWMY]", text) else "",
    "CS": lambda text: text if re.fullmatch(r"[A-Z0-9_ ]{1,16}", text) else "",
    "UI": lambda text: text if len(text) <= 64 and _UID.fullmatch(text) else "",
}


def _items(source: Dataset, keyword: str, declared: CharacterSet, notes: list[str]) -> list[Dataset]:
    items = _carried(source, keyword, declared, depth=1)
    if items is None:
        notes.append(f"{keyword}: left out, it holds what can't be written again")
    return items or []


def _carried(dataset: Dataset, keyword: str, declared: CharacterSet, depth: int) -> list[Dataset] | None:
    """The items of a sequence with their standard text attributes; None where one is not legal or too deep.

    A sequence is carried whole or not at all: a code without its scheme, an ID without its issuer, is another one.
    """
    try:
        sequence = dataset[keyword].value if keyword in dataset else []
        items = list(sequence or [])
    except Exception:  # pydicom raises whatever a damaged sequence makes it raise
        return None
    carried = []
    for item in items:
        if not isinstance(item, Dataset) or depth > DEEPEST:
            return None
        own = _strings(item, "SpecificCharacterSet")
        local = character_set.of(own) if own else declared
        copy = Dataset()
        for tag in item.keys():  # noqa: SIM118  (iterating over an item itself would make pydicom judge each value)
            keyword = keyword_for_tag(tag)
            if not keyword or keyword == "SpecificCharacterSet":
                continue
            vr = dictionary_VR(tag)
            if vr == "SQ":
                nested = _carried(item, keyword, local, depth + 1)
                if nested is None:
                    return None
                setattr(copy, keyword, nested)
                continue
            text, _ = _read(item, keyword, local, vr) or ("", None)
            legal, change = _legal_nested(vr, text)
            if change:
                return None
            copy.add(DataElement(tag, vr, legal))
        if len(copy):
            carried.append(copy)
    return carried if carried or not items else None


def _legal_nested(vr: str, text: str) -> tuple[str, str]:
    if vr not in _FORMS and vr not in LONGEST and vr != "PN" and vr not in ("UC", "UR"):
        return "", "not text"
    if vr in ("UC", "UR"):
        return text, ""
    if "\\" in text:
        return "", "several values"
    return _legal_single("", vr, text)


def _uid(source: Dataset, keyword: str) -> str:
    return "".join(_strings(source, keyword)[:1])


def _strings(dataset: Dataset, keyword: str) -> list[str]:
    """ASCII values of an attribute without padding; none where it is absent."""
    text, _ = _read(dataset, keyword, character_set.of([]), "LO") or ("", None)
    return [part.strip(" \0") for part in text.split("\\")] if text else []


def _read(dataset: Dataset, keyword: str, declared: CharacterSet, vr: str) -> tuple[str, bytes | None] | None:
    """An attribute's text and its bytes as they came, both without padding; None: it is absent.

    pydicom forgets the bytes of a value that somebody has looked at (a name's it keeps): then there is text only.
    """
    tag = Tag(tag_for_keyword(keyword) or 0)
    if tag not in dataset:
        return None
    value: Any = dataset.get_item(tag).value
    if isinstance(value, PersonName) and isinstance(value.original_string, bytes):
        value = value.original_string
    if isinstance(value, bytes):
        raw = value.rstrip(b" \0")
        return declared.decode(raw, vr), raw
    parts = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    text = "\\".join(_string(part) for part in parts).rstrip(" \0")
    if declared.encodings == ("ascii",) and not text.isascii():
        # pydicom has read undeclared bytes as Latin-1: the bytes come back by writing it
        return declared.decode(text.encode("latin-1", errors="replace"), vr), None
    return text, None


def _string(part: object) -> str:
    if part is None:
        return ""
    original = getattr(part, "original_string", None)
    return original if isinstance(original, str) else str(part)
