"""Which characters the source's bytes mean, and whether they can be passed on as they are (PS3.5 6.1).

A result carries the source's own bytes under the source's own character set wherever that is possible: no other
program then reads another name than the source had. Only where the set is missing although bytes need one, is
wrong, or does not decode the bytes, the text is written anew as UTF-8, with U+FFFD for each byte that says nothing.
"""

import re
import warnings
from dataclasses import dataclass

from pydicom.charset import decode_bytes, encode_string, python_encoding
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS, PersonName

UTF_8 = "ISO_IR 192"
UNREADABLE = "\ufffd"

# PS3.3 tables C.12-2 to C.12-5; pydicom knows more names than the standard
_WITHOUT_EXTENSIONS = {f"ISO_IR {n}" for n in (13, 100, 101, 109, 110, 126, 127, 138, 144, 148, 166, 192)} | {
    "GB18030",
    "GBK",
}
_WITH_EXTENSIONS = {
    f"ISO 2022 IR {n}" for n in (6, 13, 100, 101, 109, 110, 126, 127, 138, 144, 148, 166, 87, 159, 149, 58)
}


@dataclass(frozen=True)
class CharacterSet:
    terms: tuple[str, ...]
    """Specific Character Set of the source, as it may be written again; empty: none, ASCII."""
    encodings: tuple[str, ...]
    """Python's names, in the order of `terms`."""
    sound: bool
    """The terms are the standard's and stand in an allowed combination."""

    def decode(self, value: bytes, vr: str) -> str:
        """Text of `value`; U+FFFD stands for what can't be decoded."""
        if self.encodings == ("ascii",):
            return _undeclared(value)
        delimiters = PN_DELIMS if vr == "PN" else TEXT_VR_DELIMS
        with warnings.catch_warnings():
            # pydicom warns of each byte that it replaces; the caller sees U+FFFD
            warnings.simplefilter("ignore")
            parts = value.split(b"=") if vr == "PN" else [value]
            return "=".join(decode_bytes(part, self.encodings, delimiters) for part in parts)

    def encode(self, text: str, vr: str) -> bytes:
        """Bytes of `text`, unpadded; `?` stands for what the set does not hold (see `holds`)."""
        if text.isascii() or self.encodings == ("ascii",):
            return text.encode("ascii", errors="replace")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if vr == "PN":
                return b"\\".join(PersonName(name).encode(self.encodings) for name in text.split("\\"))
            return bytes(encode_string(text, self.encodings))

    def holds(self, text: str, vr: str) -> bool:
        """Whether `text` comes back as it was, once encoded."""
        return text.isascii() or self.decode(self.encode(text, vr), vr) == text


def of(terms: list[str]) -> CharacterSet:
    """The character set that `terms` (the values of Specific Character Set, stripped) name, misspelt or not."""
    if not any(terms) or terms == ["ISO_IR 6"]:
        # ASCII has no defined term: it is what is meant where the attribute is absent
        return CharacterSet((), ("ascii",), sound=True)
    if len(terms) == 1:
        sound = terms[0] in _WITHOUT_EXTENSIONS | _WITH_EXTENSIONS
    else:
        sound = {t for t in terms if t} <= _WITH_EXTENSIONS and all(terms[1:])
    encodings = [_encoding(term) for term in terms]
    if None in encodings or (len(terms) == 1 and encodings == ["iso8859"]):
        return CharacterSet(tuple(terms) if sound else (), ("ascii",), sound)
    return CharacterSet(tuple(terms), tuple(str(e) for e in encodings), sound)


def _encoding(term: str) -> str | None:
    """Python's name for a term, for a misspelt one ("ISO-IR 100") and for Python's own ("utf-8"); else None."""
    if term in python_encoding:
        return python_encoding[term]
    if match := re.fullmatch(r"ISO[ _-]?(2022)?[ _-]?IR[ _-]?(\d+)", term, re.IGNORECASE):
        if match[2] == "203":  # Latin-9, in the standard since 2021, not in pydicom
            return "iso8859_15"
        return python_encoding.get(f"ISO 2022 IR {match[2]}" if match[1] else f"ISO_IR {match[2]}")
    try:
        b"a".decode(term)
    except (LookupError, ValueError):
        return None
    return term


def _undeclared(value: bytes) -> str:
    """Bytes of no declared set: UTF-8 if they are that (no other set's text is by chance), else ASCII and U+FFFD."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("ascii", errors="replace")
