"""The bytes of an association taken apart: it does not matter where they are cut, and no bytes make it stumble."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from node.receive.stream import Stream, Violation
from node.wire import pdu

Heard = list[tuple[object, ...]]

fragments = st.lists(
    st.tuples(st.sampled_from([1, 3, 255]), st.integers(0, 255), st.binary(max_size=40)),
    min_size=1,
    max_size=4,
)
some_data = fragments.map(
    lambda items: b"".join(
        pdu.PDV_HEADER.pack(len(part) + 2, c, control) + part for c, control, part in items
    )
).map(lambda body: pdu.HEADER.pack(pdu.P_DATA_TF, len(body)) + body)
others = st.tuples(st.sampled_from([1, 2, 3, 5, 6, 7]), st.binary(max_size=40)).map(
    lambda one: pdu.HEADER.pack(one[0], len(one[1])) + one[1]
)
garbage = st.binary(max_size=30)
streams = st.lists(some_data | others | garbage, max_size=6).map(b"".join)


class Consumer:
    """Hears whole fragments, whatever pieces they came in."""

    def __init__(self) -> None:
        self.heard: Heard = []
        self._pieces = b""

    def pdu(self, kind: int, body: bytes) -> bool:
        self.heard.append((kind, body))
        return True

    def fragment(self, context: int, control: int, payload: memoryview, ends: bool) -> None:
        self._pieces += payload
        if ends:
            self.heard.append((context, control, self._pieces))
            self._pieces = b""

    def end_of_data(self) -> None:
        self.heard.append(("whole",))


def hear(pieces: Sequence[bytes]) -> Heard:
    """What was heard; a violation is the last of it."""
    consumer = Consumer()
    stream = Stream(consumer)
    held = b""
    try:
        for piece in pieces:
            held += piece
            held = held[stream.take(memoryview(held)) :]
            assert len(held) < 6
    except Violation as e:
        consumer.heard.append((str(e), e.reason, e.silent))
    return consumer.heard


@given(streams, st.data())
def test_where_the_bytes_are_cut_does_not_matter(whole: bytes, choose: st.DataObject) -> None:
    cuts = sorted(choose.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    heard = hear([whole])
    assert hear(pieces) == heard
    assert hear([whole[n : n + 1] for n in range(len(whole))]) == heard
