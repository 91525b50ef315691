"""Command sets: read, and the answer to a C-STORE written."""

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dsutils import decode

from node.wire import command

REQUEST = {
    command.AFFECTED_CLASS: b"1.2.840.10008.5.1.4.1.1.7\0",
    command.MESSAGE_ID: b"\x07\x01",
    command.AFFECTED_INSTANCE: b"1.2.3\0",
}


def test_an_answer_is_read_by_pynetdicom() -> None:
    answer = decode(io.BytesIO(command.store_response(REQUEST, 0xC000, "odd")), True, True)
    assert (answer.Status, answer.ErrorComment, answer.CommandField) == (0xC000, "odd", 0x8001)
    assert (answer.MessageIDBeingRespondedTo, answer.AffectedSOPInstanceUID) == (0x0107, "1.2.3")
    assert answer.CommandGroupLength == len(command.store_response(REQUEST, 0xC000, "odd")) - 12


def test_what_came_too_long_goes_back_short() -> None:
    long = command.store_response({**REQUEST, command.AFFECTED_INSTANCE: b"1" * 1000}, 0xC000, "x" * 1000)
    values = command.parse(long)
    assert len(values[command.AFFECTED_INSTANCE]) == 64 and len(values[command.ERROR_COMMENT]) == 64


@given(st.binary(max_size=200))
def test_rubbish_is_no_command(data: bytes) -> None:
    try:
        command.parse(data)
    except command.BadCommand:
        return


def test_a_length_that_lies_is_no_command() -> None:
    with pytest.raises(command.BadCommand):
        command.parse(struct.pack("<HHL", 0, 2, 0xFFFFFFFF) + b"1.2")
