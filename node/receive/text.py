"""Text of a data set for the audit log, read with Python's own codecs (PS3.3 C.12.1.1.2, PS3.5 6.1).

Best effort: what does not decode is shown as \\x.. and nothing raises. Results take names from the data set itself,
never from here.
"""

import re

_CODECS = {
    "": "ascii",
    "6": "ascii",
    "100": "latin-1",
    "101": "iso8859-2",
    "109": "iso8859-3",
    "110": "iso8859-4",
    "144": "iso8859-5",
    "127": "iso8859-6",
    "126": "iso8859-7",
    "138": "iso8859-8",
    "148": "iso8859-9",
    "203": "iso8859-15",
    "13": "shift_jis",
    "166": "iso8859-11",
    "192": "utf-8",
    "GB18030": "gb18030",
    "GBK": "gb18030",
    "87": "iso2022_jp_ext",
    "159": "iso2022_jp_ext",
    "149": "euc_kr",
    "58": "gb2312",
}

# codes that announce a multi-byte set in G1: the bytes after them are EUC, so the escape itself is dropped
_ESCAPES = re.compile(rb"\x1b(?:\$\)[AC]|[\(\)\-,.]?[@-~])")


def decode(raw: bytes, character_sets: bytes = b"") -> str:
    """`raw` as text under (0008,0005) Specific Character Set, without padding.

    Of several sets the last that Python knows decides, except that ISO 2022 Japanese carries its own escapes.
    """
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii").strip(" \0")
    codecs = [_CODECS.get(_term(t), "ascii") for t in character_sets.split(b"\\")]
    codec = next((c for c in reversed(codecs) if c != "ascii"), "ascii")
    if codec != "iso2022_jp_ext":
        raw = _ESCAPES.sub(b"", raw)
    try:
        text = raw.decode(codec)
    except UnicodeDecodeError:
        text = raw.decode(codec if codec != "iso2022_jp_ext" else "ascii", errors="backslashreplace")
    return text.strip(" \0")


def _term(term: bytes) -> str:
    """ "ISO_IR 100", "ISO 2022 IR 100" -> "100"; "GB18030" stays."""
    text = term.decode("ascii", errors="replace").strip(" \0").upper()
    return re.sub(r"^(ISO_IR|ISO 2022 IR|ISO-IR|ISO IR) ?", "", text)
