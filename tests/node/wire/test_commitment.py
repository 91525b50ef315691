"""The data sets of storage commitment: read back by pydicom, written by pydicom, and damaged in every way."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from node.wire.commitment import (
    NO_SUCH_ARGUMENT,
    SYNTAXES,
    BadArgument,
    Failure,
    Reference,
    Said,
    encode,
    meaning,
    parse,
)
from node.wire.contexts import EXPLICIT_LITTLE

CR = "1.2.840.10008.5.1.4.1.1.1"

uids = st.lists(st.integers(0, 10**9), min_size=1, max_size=6).map(lambda parts: ".".join(map(str, parts)))
references = st.builds(Reference, uids, uids)
failures = st.builds(Failure, uids, uids, st.integers(0, 0xFFFF))
said = st.builds(Said, uids, st.lists(references, min_size=1, max_size=20), st.lists(failures, max_size=20))


def by_pydicom(data: bytes, syntax: str) -> Dataset:
    return dcmread(BytesIO(_with_meta(data, syntax)))


def _with_meta(data: bytes, syntax: str) -> bytes:
    meta = f"{syntax}\0" if len(syntax) % 2 else syntax
    element = b"\x02\0\x10\0UI" + len(meta).to_bytes(2, "little") + meta.encode()
    group = b"\x02\0\0\0UL\x04\0" + len(element).to_bytes(4, "little")
    return bytes(128) + b"DICM" + group + element + data


def written(syntax: str, *, undefined: bool) -> bytes:
    """What another program sends: other elements between ours, sequences within items, undefined lengths."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CR, "1.2.3"
    inner = Dataset()
    inner.TransactionUID = "9.9.9"
    item.ReferencedStudySequence = Sequence([inner])
    inner.is_undefined_length_sequence_item = item.is_undefined_length_sequence_item = undefined
    ds = Dataset()
    ds.RetrieveAETitle = "PACS"
    ds.TransactionUID = "2.25.1"
    ds.ReferencedSOPSequence = Sequence([item, item])
    ds.StorageMediaFileSetUID = "1.2.3.4"
    for sequence in (ds["ReferencedSOPSequence"], item["ReferencedStudySequence"]):
        sequence.is_undefined_length = undefined
    out = BytesIO()
    buffer = DicomIO(out)
    buffer.is_little_endian, buffer.is_implicit_VR = True, syntax != EXPLICIT_LITTLE
    write_dataset(buffer, ds)
    return out.getvalue()


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_what_another_program_writes_is_understood(syntax: str, undefined: bool) -> None:
    found = parse(written(syntax, undefined=undefined), syntax)
    assert found == Said("2.25.1", [Reference(CR, "1.2.3")] * 2, [])


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_what_we_write_is_understood_by_others(syntax: str) -> None:
    data = encode(Said("2.25.77", [Reference(CR, "1.2.3")], [Failure(CR, "1.2.4", 0x0112)]), syntax)
    ds = by_pydicom(data, syntax)
    assert ds.TransactionUID == "2.25.77"
    assert [i.ReferencedSOPInstanceUID for i in ds.ReferencedSOPSequence] == ["1.2.3"]
    assert [(i.ReferencedSOPInstanceUID, i.FailureReason) for i in ds.FailedSOPSequence] == [
        ("1.2.4", 0x0112)
    ]


@given(said, st.sampled_from(SYNTAXES))
def test_what_was_written_is_read_back(given_said: Said, syntax: str) -> None:
    assert parse(encode(given_said, syntax), syntax) == given_said


@given(st.binary(max_size=300), st.sampled_from(SYNTAXES))
def test_no_bytes_make_it_stumble(data: bytes, syntax: str) -> None:
    _parse_or_refuse(data, syntax)


@given(
    st.sampled_from(SYNTAXES),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
    st.integers(0, 10_000),
)
def test_no_damage_makes_it_stumble(
    syntax: str, undefined: bool, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(written(syntax, undefined=undefined))
    for at, value in changes:
        data[at % len(data)] = value
    _parse_or_refuse(bytes(data[: cut % (len(data) + 1)]), syntax)


def test_sequences_nested_without_end_are_refused() -> None:
    """Undefined lengths, which would be followed one into the other."""
    level = b"\x08\0\x99\x11\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    with pytest.raises(BadArgument):
        parse(level * 20_000, "1.2.840.10008.1.2")


@pytest.mark.parametrize("data", [b"", encode(Said("2.25.1"), EXPLICIT_LITTLE)])
def test_what_is_missing_is_no_such_argument(data: bytes) -> None:
    with pytest.raises(BadArgument) as refused:
        parse(data, EXPLICIT_LITTLE)
    assert refused.value.status == NO_SUCH_ARGUMENT


def test_reasons_are_told_in_our_own_words() -> None:
    assert meaning(0x0112) == "0112 (no such object there)"
    assert meaning(0x0131) == "0131 (transaction UID used before)"
    assert meaning(0xBEEF) == "BEEF (no meaning known)"


def _parse_or_refuse(data: bytes, syntax: str) -> None:
    try:
        found = parse(data, syntax)
    except BadArgument:
        return
    assert found.transaction and (found.referenced or found.failed)
