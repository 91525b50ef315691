"""What is a whole, sane data set: built byte by byte here; the corpus is in test_part10.py and tests/peers."""

import struct
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.receive.header import Damaged, Header
from node.receive.walk import MAX_DEPTH, Limits, Walker
from node.wire import contexts

EXPLICIT = contexts.EXPLICIT_LITTLE
LONG = {b"OB", b"OW", b"SQ", b"UN", b"UT"}
UNDEFINED = 0xFFFFFFFF


def element(tag: int, vr: bytes, value: bytes, length: int | None = None, order: str = "<") -> bytes:
    length = len(value) if length is None else length
    head = struct.pack(f"{order}HH2s", tag >> 16, tag & 0xFFFF, vr)
    return (
        head
        + struct.pack(
            f"{order}HL" if vr in LONG else f"{order}H", *((0, length) if vr in LONG else (length,))
        )
        + value
    )


def implicit(tag: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def item(value: bytes, length: int | None = None) -> bytes:
    return implicit(0xFFFEE000, value, length)


ITEM_END, SEQUENCE_END = implicit(0xFFFEE00D, b""), implicit(0xFFFEE0DD, b"")
START = element(0x00080016, b"UI", b"1.2.840.10008.5.1.4.1.1.7\0") + element(0x00080018, b"UI", b"1.2.3\0")
PATIENT = element(0x00100010, b"PN", b"Doe^Jane") + element(0x00100020, b"LO", b"P 1 ")
STUDY = element(0x0020000D, b"UI", b"1.2.4\0") + element(0x0020000E, b"UI", b"1.2.5\0")
PIXELS = element(0x7FE00010, b"OW", bytes(200))
WHOLE = START + PATIENT + STUDY + PIXELS


def walk(data: bytes, syntax: str = EXPLICIT, step: int = 1 << 20, limits: Limits | None = None) -> Header:
    walker = Walker(syntax, limits)
    for at in range(0, len(data), step):
        walker.feed(data[at : at + step])
    return walker.finish()


def verdict(data: bytes, syntax: str, step: int) -> Header | str:
    try:
        return walk(data, syntax, step, Limits(100_000))
    except Damaged as e:
        return str(e)


def test_the_header_of_a_whole_data_set() -> None:
    header = walk(START + element(0x00080060, b"CS", b"DX") + PATIENT + STUDY + PIXELS)
    assert (header.sop_class, header.sop_instance) == ("1.2.840.10008.5.1.4.1.1.7", "1.2.3")
    assert (header.study, header.series) == ("1.2.4", "1.2.5")
    assert (header.patient_id, header.patient_name, header.modality) == ("P 1", "Doe^Jane", "DX")
    assert header.has_pixels and header.own_mark == ""


@pytest.mark.parametrize("cut", range(1, len(WHOLE)))
def test_no_prefix_of_a_data_set_is_whole_but_the_one_that_ends_before_its_pixels(cut: int) -> None:
    prefix = WHOLE[:cut]
    if cut == len(WHOLE) - len(PIXELS):
        assert not walk(prefix).has_pixels
    else:
        with pytest.raises(Damaged):
            walk(prefix)


def nested(levels: int) -> bytes:
    """An explicit data set in which sequences stand in each other, of undefined length."""
    opened = element(0x00081140, b"SQ", b"", UNDEFINED) + item(b"", UNDEFINED)
    return START + opened * levels + (ITEM_END + SEQUENCE_END) * levels + STUDY


ODD = {
    "wrong group length": START + element(0x00100000, b"UL", b"\7\0\0\0") + STUDY,
    "elements out of order": STUDY + PATIENT + START,
    "group 0002": element(0x00020010, b"UI", b"1.2\0") + START + STUDY,
    "unknown VR": START + element(0x00080060, b"ZZ", b"DX") + STUDY,
    "odd length": START + element(0x00080060, b"CS", b"D") + STUDY,
    "UN of undefined length is implicit inside": START
    + element(0x00091010, b"UN", item(implicit(0x00080060, b"DX"), UNDEFINED) + ITEM_END + SEQUENCE_END, UNDEFINED)
    + STUDY,
    "100 levels": nested(MAX_DEPTH),
    "trailing padding": WHOLE + element(0xFFFCFFFC, b"OB", bytes(10)),
    "rubbish behind the pixels": WHOLE + bytes(5000),
    "half an element behind the pixels": WHOLE + b"\xff\xff\xff",
    "private sequence": START + element(0x00091010, b"SQ", item(element(0x00090010, b"LO", b"X "))) + STUDY,
    "empty items": START + element(0x00081140, b"SQ", item(b"") * 3) + STUDY,
    "fragments": START + STUDY + element(0x7FE00010, b"OB", item(b"") + item(b"ab") + SEQUENCE_END, UNDEFINED),
    "fragments without last delimiter": START + STUDY + element(0x7FE00010, b"OB", item(b"") + item(b"ab"), UNDEFINED),
    "only an offset table": START + STUDY + element(0x7FE00010, b"OB", item(b"") + SEQUENCE_END, UNDEFINED),
    "a delimiter's bytes inside a fragment": START
    + STUDY
    + element(0x7FE00010, b"OB", item(b"") + item(SEQUENCE_END + b"ab") + SEQUENCE_END, UNDEFINED),
}  # fmt: skip

FRAMES = element(0x00280008, b"IS", b"3 ")
BAD = {
    "group 0000": (element(0x00000110, b"US", b"\1\0") + START + STUDY, "group 0000"),
    "twice at top level": (START + PATIENT + element(0x00100020, b"LO", b"P2") + STUDY, r"\(0010,0020\)"),
    "101 levels": (nested(MAX_DEPTH + 1), "100 levels"),
    "longer than its item": (
        START + element(0x00081140, b"SQ", item(element(0x00080060, b"CS", b"DX", 9))) + STUDY,
        "longer than",
    ),
    "item longer than its sequence": (START + element(0x00081140, b"SQ", item(b"", 50)) + STUDY, "longer than"),
    "sequence not closed": (START + STUDY + element(0x00081140, b"SQ", item(b"", UNDEFINED), UNDEFINED), "not closed"),
    "stray delimiter": (START + SEQUENCE_END + STUDY, "none belongs"),
    "native pixels of undefined length": (START + STUDY + element(0x7FE00010, b"OW", bytes(100), UNDEFINED), "is none"),
    "fewer fragments than frames": (
        START + STUDY + FRAMES + element(0x7FE00010, b"OB", item(b"") + item(b"ab") * 2 + SEQUENCE_END, UNDEFINED),
        "fewer fragments",
    ),
    "frames without last delimiter": (
        START + STUDY + FRAMES + element(0x7FE00010, b"OB", item(b"") + item(b"ab") * 3, UNDEFINED),
        "not closed",
    ),
    "text of undefined length": (START + element(0x00081190, b"UT", b"", UNDEFINED) + STUDY, "must have a length"),
    "much rubbish": (WHOLE + bytes(70_000), "behind its end"),
    "no VR": (START + element(0x00100020, b"\0\0", b"P1") + STUDY, "as announced"),
    "no series": (START + STUDY[:14], "Series Instance UID"),
    "no class": (START[34:] + STUDY, "SOP Class UID"),
    "empty": (b"", "no SOP Class UID"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_odd_data_sets_are_whole(name: str, step: int) -> None:
    walk(ODD[name], step=step)


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_bad_data_sets_are_refused_with_the_reason(name: str, step: int) -> None:
    data, reason = BAD[name]
    with pytest.raises(Damaged, match=reason):
        walk(data, step=step)


@pytest.mark.parametrize(
    "uid",
    [
        b"../../x",
        b"/etc/passwd",
        b"1..2",
        b".1",
        b"1.",
        b"1.2.A",
        b"1.2\x003",
        b"1.2\\3",
        b"1.2 3",
        b"1" * 65,
        b"1.2'; --",
    ],
)
def test_unsafe_uids_are_refused(uid: bytes) -> None:
    with pytest.raises(Damaged, match="Instance UID"):
        walk(START[:34] + element(0x00080018, b"UI", uid) + STUDY)


@pytest.mark.parametrize("uid", [b"1.2.3 ", b"1.2.3\0", b"1.02.3", b"1" * 64, b"05fa52f0" * 8])
def test_harmless_uids_are_taken(uid: bytes) -> None:
    header = walk(START[:34] + element(0x00080018, b"UI", uid) + STUDY)
    assert header.sop_instance == uid.rstrip(b"\0 ").decode()


def test_implicit_big_endian_and_deflated_data_sets_are_walked() -> None:
    plain = {
        0x00080016: b"1.2.840.10008.5.1.4.1.1.7\0",
        0x00080018: b"1.2.3\0",
        0x0020000D: b"1.4\0",
        0x0020000E: b"1.5\0",
    }
    little = b"".join(implicit(tag, value) for tag, value in plain.items())
    big = b"".join(element(tag, b"UI", value, order=">") for tag, value in plain.items())
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflated = pack.compress(WHOLE) + pack.flush() + b"\0"
    for data, syntax in (
        (little, contexts.IMPLICIT_LITTLE),
        (big, contexts.EXPLICIT_BIG),
        (deflated, contexts.DEFLATED),
    ):
        for step in (1, 1 << 20):
            assert walk(data, syntax, step).sop_instance == "1.2.3"


@pytest.mark.parametrize(
    ("data", "syntax"),
    [
        (WHOLE, contexts.IMPLICIT_LITTLE),
        (WHOLE, contexts.EXPLICIT_BIG),
        (implicit(0x00080016, b"1.2\0"), EXPLICIT),
    ],
)
def test_another_encoding_than_announced_is_refused(data: bytes, syntax: str) -> None:
    with pytest.raises(Damaged):
        walk(data, syntax)


def test_deflate_is_bounded_and_must_end() -> None:
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = pack.compress(START + STUDY + element(0x7FE00010, b"OW", bytes(3_000_000))) + pack.flush()
    assert len(bomb) < 10_000
    with pytest.raises(Damaged, match="more than 1000000"):
        walk(bomb, contexts.DEFLATED, limits=Limits(1_000_000))
    with pytest.raises(Damaged, match="breaks off"):
        walk(bomb[:-10], contexts.DEFLATED)
    with pytest.raises(Damaged, match="does not inflate"):
        walk(zlib.compress(WHOLE), contexts.DEFLATED)


OURS = {
    "private block HILUM": element(0x00990010, b"LO", b"HILUM "),
    "contributing equipment Hilum": element(0x0018A001, b"SQ", item(element(0x00080070, b"LO", b"Hilum "))),
    "manufacturer Hilum": element(0x00081090, b"LO", b"Hilum "),
}


@pytest.mark.parametrize("mark", OURS)
def test_our_own_results_are_known_by_their_marks(mark: str) -> None:
    assert walk(START + OURS[mark] + STUDY).own_mark == mark


def test_our_contribution_is_known_in_an_implicit_data_set() -> None:
    uids = {0x00080016: b"1.2\0", 0x00080018: b"1.2.3\0", 0x0020000D: b"1.4\0", 0x0020000E: b"1.5\0"}
    data = b"".join(implicit(tag, value) for tag, value in uids.items())
    data += implicit(
        0x0018A001, item(implicit(0x00080070, b"Other ")) + item(implicit(0x00080070, b"Hilum "))
    )
    assert walk(data, contexts.IMPLICIT_LITTLE).own_mark == "contributing equipment Hilum"


def test_another_makers_names_are_no_marks() -> None:
    other = element(0x00990010, b"LO", b"HILUM X ") + element(0x00991010, b"LO", b"HILUM ")
    inside = element(0x00081140, b"SQ", item(element(0x00080070, b"LO", b"Hilum ")))
    assert walk(START + inside + STUDY + other).own_mark == ""


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        (b"ISO_IR 100", b"M\xfcller", "Müller"),
        (b"ISO_IR 192", "Łódź".encode(), "Łódź"),
        (b"\\ISO 2022 IR 87", b"Yamada=\x1b$B;3ED\x1b(B", "Yamada=山田"),
        (b"\\ISO 2022 IR 149", b"\x1b$)C\xb1\xe8", "김"),
        (b"ISO_IR 144", "Иванов".encode("iso8859-5"), "Иванов"),
        (b"UNHEARD OF", b"M\xfcller", "M\\xfcller"),
    ],
)
def test_names_are_read_in_their_character_set(charset: bytes, raw: bytes, text: str) -> None:
    data = element(0x00080005, b"CS", charset) + START + element(0x00100010, b"PN", raw) + STUDY
    assert walk(data).patient_name == text


def test_many_empty_items_take_linear_time_and_a_big_value_no_memory() -> None:
    began = time.perf_counter()
    walk(START + element(0x00081140, b"SQ", item(b"") * 200_000) + STUDY)
    assert time.perf_counter() - began < 10
    walker = Walker(EXPLICIT)
    walker.feed(START + STUDY + element(0x7FE00010, b"OW", b"", 4_000_000_000))
    piece = bytes(1 << 20)
    tracemalloc.start()
    for _ in range(300):
        walker.feed(piece)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 200_000
    with pytest.raises(Damaged, match="breaks off"):
        walker.finish()


SYNTAXES = st.sampled_from([EXPLICIT, contexts.IMPLICIT_LITTLE, contexts.EXPLICIT_BIG])
BITS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [START, STUDY, PATIENT, PIXELS, ITEM_END, SEQUENCE_END, item(b""), item(b"", UNDEFINED), FRAMES]
    ),
    st.sampled_from([element(0x00081140, b"SQ", b"", UNDEFINED), element(0x7FE00010, b"OB", b"", UNDEFINED)]),
    st.sampled_from(list(ODD.values())),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(BITS, max_size=8).map(b"".join), SYNTAXES, st.integers(1, 50))
def test_nothing_but_damaged_is_raised_and_pieces_do_not_matter(data: bytes, syntax: str, step: int) -> None:
    assert verdict(data, syntax, step) == verdict(data, syntax, len(data) + 1)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(ODD.values())), st.data(), st.integers(1, 50))
def test_a_changed_byte_raises_nothing_but_damaged(whole: bytes, data: st.DataObject, step: int) -> None:
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    assert verdict(changed, EXPLICIT, step) == verdict(changed, EXPLICIT, len(changed))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 50))
def test_deflated_rubbish_raises_nothing_but_damaged(data: bytes, step: int) -> None:
    pieces, whole = verdict(data, contexts.DEFLATED, step), verdict(data, contexts.DEFLATED, len(data) + 1)
    assert isinstance(pieces, Header) == isinstance(whole, Header)
