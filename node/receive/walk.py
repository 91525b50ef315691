"""Is this a whole, sane data set? Iterative, bounded, fed as the bytes arrive (PS3.5 sections 7, 10 and A).

A data set is walked element by element and never held: values are skipped where they lie, except the few short
ones that receiving needs (`Header`). Whether its pixels can be decoded is not asked here.

Refused: what breaks off, lies about a length, is not encoded as announced, does not inflate within bounds, nests
deeper than 100 sequences, carries group 0000, has one tag twice at top level, or has no sane UIDs. Accepted
although not to the letter: wrong group lengths, elements out of order, group 0002, odd lengths, unknown VRs of
two capitals, encapsulated pixels under a native syntax and the reverse, a missing last delimiter behind a
single frame, up to 64 KiB of rubbish behind the Pixel Data of an explicit data set, and a hash of hex digits where a
UID belongs (de-identifiers write those).

Defined-length values of Implicit VR cannot be told from sequences without a dictionary: they are one value here.
"""

import struct
import zlib
from dataclasses import dataclass

from node.receive.header import KEPT, Damaged, Header, build, is_ours
from node.wire import contexts

MAX_DEPTH = 100
# a radiograph has some 200 elements, an enhanced object of 10,000 frames some 2 million; 2 to 4 us each
MAX_ELEMENTS = 5_000_000
MAX_TOP_LEVEL = 65_536
MAX_RUBBISH = 65_536
INFLATE_STEP = 65_536

UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_CONTRIBUTORS = 0x0018A001

# VRs with a 32-bit length field in explicit encodings (PS3.5 table 7.1-1)
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN"}
    | {b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
# VRs whose undefined length means fragments; SQ and UN mean items
_FRAGMENTED = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW"})

_CREATOR_BYTES = 64


@dataclass(frozen=True)
class Limits:
    max_inflated_bytes: int = 256 * 10**6


@dataclass(slots=True)
class _Frame:
    """Where the walk is: a data set, a list of items, or the fragments of encapsulated pixels."""

    kind: str
    # absolute offset behind which nothing of it may lie; None: as far as the data goes
    limit: int | None
    # ends at `limit`, not at a delimiter
    defined: bool
    implicit: bool
    big: bool
    # the sequence's tag, for the two places that matter
    tag: int = 0


_DATA_SET, _ITEMS, _FRAGMENTS = "data set", "items", "fragments"

_LITTLE_TAG, _BIG_TAG = struct.Struct("<HH"), struct.Struct(">HH")
_SPECIAL_GROUPS = frozenset({0x0000, 0x7FE0, 0xFFFE})
_LITTLE_SHORT = struct.Struct("<HH2sH")
_LITTLE_16, _BIG_16 = struct.Struct("<H"), struct.Struct(">H")
_LITTLE_32, _BIG_32 = struct.Struct("<L"), struct.Struct(">L")


class Walker:
    """Walks one data set. `feed` it in pieces of any size, then `finish`; the pieces never change the verdict.

    `feed` does not raise: `damage` says what was found, and what comes after it is ignored.
    """

    def __init__(self, transfer_syntax: str, limits: Limits | None = None) -> None:
        self.damage: Damaged | None = None
        self._limits = limits or Limits()
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if transfer_syntax == contexts.DEFLATED else None
        self._inflated = 0
        implicit = transfer_syntax == contexts.IMPLICIT_LITTLE
        big = transfer_syntax == contexts.EXPLICIT_BIG
        self._stack = [_Frame(_DATA_SET, None, True, implicit, big)]
        # Explicit VR Little Endian at top level, as nearly all of it is
        self._is_plain = not implicit and not big
        self._depth = 0
        self._offset = 0
        self._held = bytearray()
        # bytes of the current value still to come, how many of them are kept, and where
        self._left = 0
        self._room = 0
        self._value: bytearray | None = None
        self._tag = 0
        self._elements = 0
        self._seen: set[int] = set()
        self._values: dict[int, bytes] = {}
        self._creator = False
        self._contributor = False
        self._fragments = 0
        self._pixels = False
        self._after_pixels = False
        self._rubbish: int | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        if self.damage is not None:
            return
        try:
            view = memoryview(data).cast("B")
            if self._inflater is None:
                self._walk(view)
            else:
                self._inflate(self._inflater, view)
        except Damaged as found:
            self.damage = found

    def finish(self) -> Header:
        """The header, once all bytes were fed. Raises Damaged."""
        if self.damage is None:
            try:
                return self._conclude()
            except Damaged as found:
                self.damage = found
        raise self.damage

    def _inflate(self, inflater: "zlib._Decompress", data: memoryview) -> None:
        for start in range(0, len(data), INFLATE_STEP):
            waiting: bytes | memoryview = data[start : start + INFLATE_STEP]
            while not inflater.eof:
                try:
                    piece = inflater.decompress(waiting, INFLATE_STEP)
                except zlib.error:
                    raise Damaged("the data set does not inflate") from None
                self._inflated += len(piece)
                if self._inflated > self._limits.max_inflated_bytes:
                    raise Damaged(
                        f"the data set inflates to more than {self._limits.max_inflated_bytes} bytes"
                    )
                self._walk(memoryview(piece))
                waiting = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
                if not waiting and len(piece) < INFLATE_STEP:
                    break
            if inflater.eof:
                self._drop(len(waiting))

    def _walk(self, data: memoryview) -> None:
        at, end = 0, len(data)
        while at < end:
            if self._is_plain and not self._left and not self._held and len(self._stack) == 1:
                at = self._run(data, at, end)
                if at == end:
                    return
            if self._rubbish is not None:
                self._drop(end - at)
                return
            if self._left:
                take = min(self._left, end - at)
                if self._value is not None and self._room:
                    self._value += data[at : at + min(take, self._room)]
                    self._room -= min(take, self._room)
                at += take
                self._offset += take
                self._left -= take
                if not self._left:
                    self._value_over()
                continue
            if self._held:
                before = len(self._held)
                self._held += data[at : at + 12 - before]
                used = self._header(self._held)
                if not used:
                    return
                at += used - before
                self._held.clear()
            else:
                window = data[at : at + 12]
                used = self._header(window)
                if not used:
                    self._held += window
                    return
                at += used
            if self._rubbish is None and not self._left:
                self._value_over()

    def _run(self, data: memoryview, at: int, end: int) -> int:
        """Takes whole, short elements at top level in one go, as the rest of the walk would; where it stopped.

        Most of a header is such elements, and this takes a fifth of the time.
        """
        began, header = at, _LITTLE_SHORT.unpack_from
        seen = self._seen
        while end - at >= 8 and not self._after_pixels:
            group, element, vr, length = header(data, at)
            stop = at + 8 + length
            if stop > end or vr not in _SHORT or group in _SPECIAL_GROUPS:
                break
            tag = group << 16 | element
            if tag in seen or group & 1 or tag in KEPT:
                self._once(tag)
                room = self._kept(tag, True, self._stack[0])
                if room:
                    self._keep(tag, bytes(data[at + 8 : min(stop, at + 8 + room)]))
            else:
                seen.add(tag)
            self._elements += 1
            at = stop
        self._offset += at - began
        if self._elements > MAX_ELEMENTS or len(seen) > MAX_TOP_LEVEL:
            raise Damaged(f"more than {MAX_TOP_LEVEL} elements at top level")
        return at

    def _drop(self, count: int) -> None:
        """Bytes behind the end of what is walked: up to MAX_RUBBISH of them are ignored."""
        self._rubbish = (self._rubbish or 0) + count
        if self._rubbish > MAX_RUBBISH:
            raise Damaged("the data set goes on behind its end")

    def _header(self, window: memoryview | bytearray) -> int:
        """Reads the header of an element or item at the start of `window`; 0 if that needs more bytes."""
        if len(window) < 8:
            return 0
        frame = self._stack[-1]
        group, element = (_BIG_TAG if frame.big else _LITTLE_TAG).unpack_from(window)
        tag = group << 16 | element
        used, vr = 8, b""
        if group == 0xFFFE or frame.kind is not _DATA_SET or frame.implicit:
            (length,) = (_BIG_32 if frame.big else _LITTLE_32).unpack_from(window, 4)
            if frame.implicit and not self._elements and bytes(window[4:6]) in _LONG | _SHORT:
                raise Damaged("not encoded as announced: explicit, not implicit VR")
        else:
            vr = bytes(window[4:6])
            if vr in _LONG:
                if len(window) < 12:
                    return 0
                used = 12
                (length,) = (_BIG_32 if frame.big else _LITTLE_32).unpack_from(window, 8)
            elif vr in _SHORT or (vr.isalpha() and vr.isupper()):
                (length,) = (_BIG_16 if frame.big else _LITTLE_16).unpack_from(window, 6)
            elif self._after_pixels and len(self._stack) == 1:
                self._rubbish = 0
                return used
            else:
                raise Damaged("not encoded as announced: no value representation")
        if tag == 0 and length == 0 and self._after_pixels and len(self._stack) == 1:
            self._rubbish = 0
            return used
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise Damaged(f"more than {MAX_ELEMENTS} elements")
        self._offset += used
        if length != UNDEFINED and frame.limit is not None and self._offset + length > frame.limit:
            raise Damaged("an element is longer than what contains it")
        if group == 0xFFFE or frame.kind is not _DATA_SET:
            self._item(frame, tag, length)
        else:
            self._element(frame, tag, vr, length)
        return used

    def _item(self, frame: _Frame, tag: int, length: int) -> None:
        """Items, fragments and delimiters (PS3.5 7.5, A.4)."""
        if tag == _ITEM and frame.kind is _ITEMS:
            self._push(_DATA_SET, length, frame.implicit, frame.big, frame.tag)
        elif tag == _ITEM and frame.kind is _FRAGMENTS:
            if length == UNDEFINED:
                raise Damaged("a fragment of the pixel data has no length")
            if len(self._stack) == 2 and frame.tag in _PIXELS:
                self._fragments += 1
            self._left, self._value = length, None
        elif tag == (_ITEM_END if frame.kind is _DATA_SET else _SEQUENCE_END) and not frame.defined:
            self._pop()
        elif frame.kind is _DATA_SET:
            raise Damaged("a delimiter or item stands where none belongs")
        else:
            raise Damaged("something stands between items that is none")

    def _element(self, frame: _Frame, tag: int, vr: bytes, length: int) -> None:
        if tag >> 16 == 0:
            raise Damaged("an element of a message's command (group 0000)")
        top = len(self._stack) == 1
        if top:
            self._once(tag)
            if tag in _PIXELS:
                self._pixels = True
        self._tag = tag
        if length == UNDEFINED:
            if tag in _PIXELS or vr in _FRAGMENTED:
                self._push(_FRAGMENTS, length, frame.implicit, frame.big, tag)
            elif vr == b"UN":
                # PS3.5 6.2.2, note 2: the content is Implicit VR Little Endian whatever surrounds it
                self._push(_ITEMS, length, True, False, tag)
            elif vr == b"SQ" or frame.implicit:
                self._push(_ITEMS, length, frame.implicit, frame.big, tag)
            else:
                raise Damaged("an element that must have a length has none")
        elif vr == b"SQ" or (frame.implicit and top and tag == _CONTRIBUTORS):
            self._push(_ITEMS, length, frame.implicit, frame.big, tag)
        else:
            self._left = length
            self._room = self._kept(tag, top, frame)
            self._value = bytearray() if self._room else None

    def _once(self, tag: int) -> None:
        if tag in self._seen and tag & 0xFFFF:
            raise Damaged(f"one attribute twice: ({tag >> 16:04X},{tag & 0xFFFF:04X})")
        self._seen.add(tag)
        if len(self._seen) > MAX_TOP_LEVEL:
            raise Damaged(f"more than {MAX_TOP_LEVEL} elements at top level")

    def _kept(self, tag: int, top: bool, frame: _Frame) -> int:
        if top:
            is_creator = tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF
            return _CREATOR_BYTES if is_creator else KEPT.get(tag, 0)
        # the items of the top-level ContributingEquipmentSequence: [data set, items, data set]
        if len(self._stack) == 3 and frame.tag == _CONTRIBUTORS and tag in {0x00080070, 0x00081090}:
            return KEPT[tag]
        return 0

    def _push(self, kind: str, length: int, implicit: bool, big: bool, tag: int) -> None:
        outer = self._stack[-1].limit
        defined = length != UNDEFINED
        limit = self._offset + length if defined else outer
        if kind is not _DATA_SET:
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise Damaged(f"nested more than {MAX_DEPTH} levels deep")
        self._stack.append(_Frame(kind, limit, defined, implicit, big, tag))

    def _pop(self) -> None:
        frame = self._stack.pop()
        if frame.kind is not _DATA_SET:
            self._depth -= 1
        if len(self._stack) == 1 and frame.tag in _PIXELS:
            self._after_pixels = True

    def _value_over(self) -> None:
        """A value, or a header without one, is complete: keep what was asked for, leave what ends here."""
        if self._value is not None:
            self._keep(self._tag, bytes(self._value))
            self._value = None
        elif self._tag in _PIXELS and len(self._stack) == 1:
            self._after_pixels = True
        while len(self._stack) > 1 and self._stack[-1].limit == self._offset:
            if not self._stack[-1].defined:
                raise Damaged("a sequence or item is not closed")
            self._pop()

    def _keep(self, tag: int, value: bytes) -> None:
        if tag >> 16 & 1:
            self._creator |= is_ours(value)
        elif len(self._stack) > 1:
            self._contributor |= is_ours(value)
        else:
            self._values[tag] = value

    def _conclude(self) -> Header:
        if self._inflater is not None and not self._inflater.eof:
            raise Damaged("the deflated data set breaks off")
        if self._left:
            raise Damaged("the data set breaks off inside a value")
        if len(self._held) and not self._after_pixels:
            raise Damaged("the data set breaks off inside an element's header")
        self._check_pixels()
        return build(self._values, self._pixels, self._creator, self._contributor)

    def _check_pixels(self) -> None:
        """Each frame has at least one fragment behind the offset table (PS3.5 A.4)."""
        frames = self._values.get(0x00280008, b"").strip(b" \0")
        promised = int(frames) if frames.isdigit() else 1
        came = max(0, self._fragments - 1)
        if self._fragments and promised > 1 and came < promised:
            raise Damaged("the data set breaks off: fewer fragments than frames")
        if len(self._stack) == 1:
            return
        # of one frame the decoder can tell whether it is whole; of several nobody knows how many fragments were to come
        only_the_delimiter = len(self._stack) == 2 and self._stack[1].tag in _PIXELS and not self._held
        if not (only_the_delimiter and promised == 1 and came):
            raise Damaged("a sequence, an item or the pixel data is not closed")
