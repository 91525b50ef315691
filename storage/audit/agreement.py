"""Do anchors and database agree, and were the anchors made by this node?

An anchor knows a block's hash, and by the chain all before it. What a database can't tell about itself: that it is an
old copy, that its end was cut off, that all its seals were made anew.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from storage.audit.anchors import Anchor, Key
from storage.audit.verify import Findings, at

Standing = Literal["agrees", "expired", "ahead", "differs"]
"""`ahead`: the anchor knows a block that the database does not have."""

# numbers that nobody has come to; following keys so far would take for ever
MOST_STEPS = 50_000_000


@dataclass
class Compared:
    """How many anchors there were, and what became of them. `macs`: those whose MAC was checked and held."""

    anchors: int = 0
    agree: int = 0
    expired: int = 0
    macs: int = 0
    unchecked_macs: int = 0

    def __add__(self, other: "Compared") -> "Compared":
        return Compared(
            *(one + two for one, two in zip(vars(self).values(), vars(other).values(), strict=True))
        )


def standing(connection: sqlite3.Connection, anchor: Anchor) -> Standing:
    """How one anchor stands to the database. `connection` may be the driver's, within a transaction."""
    row = (
        connection.execute("SELECT last_id, hash FROM audit_seal WHERE block = ?", (anchor.block,)).fetchone()
        or connection.execute(
            "SELECT last_id, hash FROM audit_expiry WHERE block = ?", (anchor.block,)
        ).fetchone()
    )
    if row is not None:
        last_id, digest = row
        same = type(digest) is bytes and (last_id, digest.hex()) == (anchor.last_id, anchor.hash)
        return "agrees" if same else "differs"
    (gone,) = connection.execute("SELECT max(block) FROM audit_expiry").fetchone()
    if type(gone) is int and anchor.block <= gone:
        return "expired"
    return "ahead" if anchor.block > head_block(connection) else "differs"


def head_block(connection: sqlite3.Connection) -> int:
    """The newest block's number; 0 where nothing was ever sealed."""
    (sealed,) = connection.execute("SELECT max(block) FROM audit_seal").fetchone()
    (gone,) = connection.execute("SELECT max(block) FROM audit_expiry").fetchone()
    return max((block for block in (sealed, gone) if type(block) is int), default=0)


def compare(
    connection: sqlite3.Connection,
    anchors: Iterable[Anchor],
    findings: Findings,
    *,
    keys: Sequence[Key] = (),
    current: Callable[[], Key | None] | None = None,
) -> Compared:
    """Compares anchors, in the order of writing, with the database, and with what their keys say.

    `keys`: first keys of chains; each line is checked with the last of them that is not younger. `current`: reads the
    node's own key, of the next line; given where these are all that the node wrote, so that none may be missing.
    """
    judged = _Anchors(connection, findings, keys, current is not None)
    # the node may write on meanwhile: what it had come to before, none of that is missing
    before = current() if current else None
    for anchor in anchors:
        judged.judge(anchor)
    judged.end()
    if before is not None and current is not None:
        judged.key_fits(before, current() or before)
    return judged.compared


class _Anchors:
    """Anchors, one after the other. Those that say the same wrong thing in a row are one finding."""

    def __init__(
        self, connection: sqlite3.Connection, findings: Findings, keys: Sequence[Key], whole: bool
    ) -> None:
        self.compared = Compared()
        self._connection = connection
        self._findings = findings
        self._chains = _Chains(keys)
        self._whole = whole
        self._last: Anchor | None = None
        # the first and the last of a row of anchors with the same fault
        self._differing: tuple[Anchor, Anchor] | None = None
        self._forged: tuple[Anchor, Anchor] | None = None
        self._ahead: Anchor | None = None

    def judge(self, anchor: Anchor) -> None:
        compared = self.compared
        compared.anchors += 1
        if self._whole:
            self._order(anchor)
        self._last = anchor
        self._authentic(anchor)
        match standing(self._connection, anchor):
            case "agrees":
                compared.agree += 1
                self._tell_differing()
            case "expired":
                compared.expired += 1
            case "ahead":
                self._ahead = max(self._ahead or anchor, anchor, key=lambda each: each.block)
            case "differs":
                self._differing = (self._differing or (anchor, anchor))[0], anchor

    def end(self) -> None:
        self._tell_differing()
        self._tell_forged()
        if self._ahead is not None:
            self._findings.add(
                "the database is older than the anchor: an old copy was put back, or its end was cut off; the anchor "
                f"of {at(self._ahead.time)} knows block {self._ahead.block} (up to record {self._ahead.last_id}), the "
                f"database ends at block {head_block(self._connection)}"
            )

    def _order(self, anchor: Anchor) -> None:
        """Numbers go on by one; a crash may have written one twice."""
        last = self._last
        if last is None or anchor.number in (last.number, last.number + 1):
            return
        if anchor.number > last.number:
            self._findings.add(
                f"{_missing(last.number + 1, anchor.number - 1)}, between those of {at(last.time)} and "
                f"{at(anchor.time)}: removed"
            )
        else:
            self._findings.add(
                f"after anchor {last.number} of {at(last.time)} comes anchor {anchor.number} of {at(anchor.time)}: "
                "an old copy of the data folder was put back, or lines were moved"
            )

    def _authentic(self, anchor: Anchor) -> None:
        key = self._chains.key(anchor.number)
        if key is None:
            self.compared.unchecked_macs += 1
        elif key.mac(anchor) == anchor.mac:
            self.compared.macs += 1
            self._tell_forged()
        else:
            self._forged = (self._forged or (anchor, anchor))[0], anchor

    def key_fits(self, before: Key, current: Key) -> None:
        """The node's key is that of the line after the last one (or of the last, where a crash came between)."""
        last = self._last.number if self._last else -1
        if before.number > last + 1:
            since = (
                f"{_missing(last + 1, before.number - 1)} at the end"
                if self._last
                else (f"no anchor is in the folder, though the node wrote up to number {before.number - 1}")
            )
            self._findings.add(f"{since}: removed, or [audit] anchor_folder names another folder now")
        elif current.number < last:
            self._findings.add(
                f"the anchors go up to number {last}, the node's anchor.key is that of number {current.number}: an old "
                "copy of the data folder was put back"
            )
        known = self._chains.key(current.number)
        if known is not None and known.secret != current.secret:
            self._findings.add(
                f"the node's anchor.key (number {current.number}) does not come from the key given: it was replaced, "
                "or a new chain was begun (hilum audit anchor-key --new) whose key was not given"
            )

    def _tell_differing(self) -> None:
        if self._differing is not None:
            first, last = self._differing
            self._differing = None
            blocks = (
                f"block {first.block}"
                if first.block == last.block
                else f"blocks {first.block} to {last.block}"
            )
            self._findings.add(
                f"{blocks}: the database has other seals than the {_these(first, last)} knew: records up to "
                f"{last.last_id} were changed and sealed anew, or an old copy was put back and written on"
            )

    def _tell_forged(self) -> None:
        if self._forged is not None:
            first, last = self._forged
            self._forged = None
            self._findings.add(
                f"{_these(first, last)}: not made with the key given; changed, or made by others, or a new chain was "
                "begun (hilum audit anchor-key --new) whose key was not given"
            )


class _Chains:
    """The key of each line, as far as first keys are known."""

    def __init__(self, firsts: Sequence[Key]) -> None:
        self._firsts = sorted(firsts, key=lambda key: key.number)
        self._at: Key | None = None

    def key(self, number: int) -> Key | None:
        """None where no key reaches so far back."""
        begun = [first for first in self._firsts if first.number <= number]
        if not begun:
            return None
        key = self._at if self._at and begun[-1].number <= self._at.number <= number else begun[-1]
        if number - key.number > MOST_STEPS:
            return Key(number, b"")
        while key.number < number:
            key = key.next()
        self._at = key
        return key


def _these(first: Anchor, last: Anchor) -> str:
    if first.number == last.number:
        return f"anchor {first.number} of {at(first.time)}"
    return f"anchors {first.number} to {last.number} of {at(first.time)} to {at(last.time)}"


def _missing(first: int, last: int) -> str:
    return f"anchor {first} is missing" if first == last else f"anchors {first} to {last} are missing"
