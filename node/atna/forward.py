"""The forwarder: sends every record of the audit log to the audit record repository, in order, and the anchors too.

    python -m node.atna.forward     a child of the supervisor, where [audit.repository] is set

The log itself is the spool. Nothing is lost while the server is away, and nobody waits for it: the forwarder reads what
is committed, and writes one row a second at most.

Syslog over TLS has no acknowledgement (RFC 5425), so how far the server has got moves on only over what its kernel has
acknowledged while the connection stood for SETTLE_SECONDS more. What a broken connection leaves in doubt is sent again
on the next: the server may get a record twice, under the same number, but never misses one. At an orderly stop the
other side's end of the connection says that it has read everything.
"""

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from node import anchoring, log
from node.atna import syslog
from node.atna.condition import Condition, anchors_of, read, taker, write
from node.atna.messages import Source, message
from node.atna.syslog import Down, Line, TooLong
from node.child import start
from node.settings import Repository, Settings
from storage.audit import Filter, Record, anchors, forwarded
from storage.errors import Unavailable
from storage.store import Store

POLL_SECONDS = 1.0
# records, read and sent at once
BATCH = 200
SETTLE_SECONDS = 5.0
SAVE_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
FINISH_SECONDS = 3.0
FOLDER_SECONDS = 0.5
NICE = 10


@dataclass(frozen=True)
class Position:
    """The last record, and how many anchors."""

    record: int
    anchors: int


@dataclass(frozen=True)
class _Sent:
    """Up to there it was sent at that moment; the message ended with that byte of the line."""

    position: Position
    at: float
    end: int


class Forwarder:
    """One server and how far it has got."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        settle: float = SETTLE_SECONDS,
        pause: float = FIRST_PAUSE_SECONDS,
        connect: Callable[[Repository], Line] = syslog.connect,
    ) -> None:
        assert settings.audit.repository
        self._store = store
        self._repository = settings.audit.repository
        self._data_dir = settings.node.data_dir
        self._folder = anchoring.anchors_of(settings).folder
        self._source = Source(socket.gethostname(), settings.node.ae_title)
        self._settle_seconds, self._first_pause, self._connect = settle, pause, connect
        with store.database.read() as tx:
            self._settled = Position(
                forwarded.position(tx, taker(self._repository)),
                forwarded.position(tx, anchors_of(self._repository)),
            )
        self._saved = self._sent = self._settled
        self._saved_at = 0.0
        self._line: Line | None = None
        self._opened_at = 0.0
        self._in_doubt: deque[_Sent] = deque()
        self._ended = 0
        self._follower = Follower(self._folder, self._settled.anchors - 1)
        self._failures = 0
        before = read(self._data_dir)
        self._condition = before or Condition(reached=False, since=store.clock.stamp())

    def round(self) -> float:
        """Sends what there is, at most BATCH records; seconds until there is something to do again."""
        try:
            line = self._line or self._open()
            line.look()
            more = self._send_some(line)
            self._settle(line)
        except Down as e:
            return self._lost(str(e))
        self._save(now=not more)
        return 0.0 if more else POLL_SECONDS

    def finish(self) -> None:
        """At an orderly stop: what is under way is waited for, then the connection is ended in order."""
        if self._line is not None:
            with contextlib.suppress(Down):
                self._line.look()
                self._send_some(self._line)
                self._settle(self._line)
                if self._line.finish(FINISH_SECONDS):
                    self._settled = self._sent
            self._line.close()
            self._line = None
        self._save(now=True)

    def _open(self) -> Line:
        self._line = self._connect(self._repository)
        self._opened_at = time.monotonic()
        self._ended = 0
        return self._line

    def _send_some(self, line: Line) -> bool:
        """Anchors first: they are few, and the sooner one is elsewhere the less can be cut off unseen. Whether there
        may be more."""
        put_down = self._follower.new()
        for anchor in put_down:
            self._put(line, self._packed_anchor(anchor))
            self._mark(Position(self._sent.record, anchor.number + 1))
        with self._store.database.read() as tx:
            records = self._store.audit.page(tx, Filter(), after=self._sent.record, limit=BATCH)
        for record in records:
            self._send(line, record)
            self._mark(Position(record.id, self._sent.anchors))
        return BATCH in {len(records), len(put_down)}

    def _send(self, line: Line, record: Record) -> None:
        """What is too long for a datagram goes without its detail, says so, and is counted."""
        try:
            self._put(line, self._packed(record, whole=True))
        except TooLong:
            self._put(line, self._packed(record, whole=False))
            self._tell(cut=self._condition.cut + 1)

    def _packed(self, record: Record, *, whole: bool) -> bytes:
        text = message(record, self._source, whole=whole)
        failed = record.outcome != "success"
        return syslog.packet(text, time=record.time, host=self._source.host, failed=failed)

    def _packed_anchor(self, anchor: anchors.Anchor) -> bytes:
        text, host = anchor.line.encode(), self._source.host
        return syslog.packet(text, time=anchor.time, host=host, msgid=syslog.ANCHOR_MSGID)

    def _put(self, line: Line, packed: bytes) -> None:
        self._ended += line.send(packed)

    def _mark(self, position: Position) -> None:
        self._sent = position
        self._in_doubt.append(_Sent(position, time.monotonic(), self._ended))

    def _settle(self, line: Line) -> None:
        """Moves on over what the other side has, and the connection has outlived."""
        acknowledged, now = line.acknowledged(), time.monotonic()
        while (
            self._in_doubt
            and self._in_doubt[0].end <= acknowledged
            and now - self._in_doubt[0].at >= self._settle_seconds
        ):
            self._settled = self._in_doubt.popleft().position
        if now - self._opened_at >= self._settle_seconds:
            self._failures = 0
            if not self._condition.reached:
                log.get().info("the audit repository is reached", port=self._repository.port)
                self._tell(reached=True, reason="")

    def _lost(self, reason: str) -> float:
        """All that is in doubt is to be sent again; the pause until then grows."""
        if self._line is not None:
            self._line.close()
            self._line = None
        self._in_doubt.clear()
        self._sent = self._settled
        self._follower = Follower(self._folder, self._settled.anchors - 1)
        pause = min(self._first_pause * 2**self._failures, LONGEST_PAUSE_SECONDS)
        # a connection that stood for long was a good one: its end alone is no trouble
        if self._failures or not self._condition.reached:
            self._down(reason)
        self._failures = min(self._failures + 1, 16)
        self._save(now=True)
        return pause

    def _down(self, reason: str) -> None:
        if self._condition.reached or self._condition.reason == "":
            log.get().warning("the audit repository is not reached; records wait", reason=reason)
            self._tell(reached=False, reason=reason)
        elif reason != self._condition.reason:
            self._tell(reason=reason)

    def _tell(
        self, *, reached: bool | None = None, reason: str | None = None, cut: int | None = None
    ) -> None:
        """Changes what `hilum status` reads."""
        known = self._condition
        changed = reached is not None and reached != known.reached
        self._condition = Condition(
            reached=known.reached if reached is None else reached,
            since=self._store.clock.stamp() if changed else known.since,
            reason=known.reason if reason is None else reason,
            cut=known.cut if cut is None else cut,
        )
        # a full disk holds up no record
        with contextlib.suppress(OSError):
            write(self._data_dir, self._condition)

    def _save(self, *, now: bool) -> None:
        """Keeps how far it has got, once a second at most while there is much to send. Raises Unavailable."""
        moment = time.monotonic()
        if self._settled == self._saved or (not now and moment - self._saved_at < SAVE_SECONDS):
            return
        with self._store.database.write() as tx:
            forwarded.move(tx, taker(self._repository), self._settled.record)
            forwarded.move(tx, anchors_of(self._repository), self._settled.anchors)
        self._saved, self._saved_at = self._settled, moment


class Follower:
    """The anchors after one of that number as they are put down (-1: all); what was read is not read again.

    The folder may be on another machine and not answer: it is read in a thread of its own, and no record waits for it.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._number = number
        self._name = ""
        self._offset = 0
        self._found: list[anchors.Anchor] = []
        self._thread: threading.Thread | None = None

    def new(self) -> list[anchors.Anchor]:
        """Those that came since the last time, BATCH at most, in the order of writing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()
        self._thread.join(FOLDER_SECONDS)
        if self._thread.is_alive():
            return []
        self._thread = None
        return self._found

    def _look(self) -> None:
        self._found = list(islice(self._new(), BATCH))

    def _new(self) -> Iterator[anchors.Anchor]:
        # while the folder can't be read there are none
        with contextlib.suppress(Unavailable, OSError):
            for file in anchors.files(self._folder):
                if file.name < self._name:
                    continue
                if file.name > self._name:
                    self._name, self._offset = file.name, 0
                yield from self._lines(file)

    def _lines(self, file: Path) -> Iterator[anchors.Anchor]:
        with file.open("rb") as lines:
            lines.seek(self._offset)
            for line in lines:
                if not line.endswith(b"\n"):
                    # is being written just now
                    return
                self._offset += len(line)
                anchor = anchors.parse(line.decode("utf-8", "replace"))
                if anchor and anchor.number > self._number:
                    yield anchor


def main() -> None:
    child = start()
    # images first
    os.nice(NICE)
    settings = child.settings
    store = Store.open(settings.node.data_dir, keeps_names=settings.audit.keeps_names)
    forwarder = Forwarder(store, settings)
    child.ready()
    pause = 0.0
    while not child.stopping.is_set() and not select.select([child.stop_fd], [], [], pause)[0]:
        pause = forwarder.round()
    forwarder.finish()
    store.close()


if __name__ == "__main__":
    main()
