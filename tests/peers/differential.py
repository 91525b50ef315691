"""The same bytes to both engines of the receiver: what a peer hears, what is kept, what is told.

    a stream (a list of PDUs) ── chunks ──► Side("hilum") ──► Seen     which answers to which chunk
                                       └──► Side("pynetdicom") ──► Seen

A chunk is only sent once the one before it was answered, as often as our engine answered it: its socket here says
when it asks for more, so that no pause is ever guessed. What a peer could see that pipelines is `test_engines`' own.
"""

import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from model.stored_only import stored_only
from node.receive.accept import Receiver
from node.receive.server import open_engine
from node.settings import Settings
from node.wire import command, pdu
from storage.audit import Filter
from storage.schema import jobs, objects
from storage.spool import Disk
from storage.store import Store

PATIENCE = 10.0
Answer = tuple[Any, ...]

# which columns and details are one engine's own time and names
_COLUMNS = ["sop_instance", "revision", "sop_class", "series", "study", "transfer_syntax", "size",
            "content_hash", "calling_ae", "host", "own"]  # fmt: skip
_VOLATILE = {"seconds", "file", "job"}


@dataclass(frozen=True)
class Seen:
    """What one engine showed. `answers`: those to each chunk, the last also what came after the peer's end."""

    answers: tuple[tuple[Answer, ...], ...]
    files: tuple[bytes, ...]
    rows: tuple[tuple[Any, ...], ...]
    jobs: tuple[tuple[Any, ...], ...]
    audit: tuple[tuple[Any, ...], ...]
    parts: tuple[str, ...]
    """Names of files that are not whole."""

    @property
    def spoken(self) -> tuple[Answer, ...]:
        return tuple(answer for chunk in self.answers for answer in chunk)


class Side:
    """One engine over a store of its own, and all that it kept for the streams it was given."""

    def __init__(self, engine: str, folder: Path, disk: Disk | None = None, **receive: Any) -> None:
        self.name = engine
        self._folder = folder
        values = {"port": 0, "min_free_bytes": 0, "engine": engine, **receive}
        settings = Settings.model_validate({"node": {"data_dir": folder}, "receive": values})
        self.store = Store.create(folder, disk=disk)
        receiver = Receiver(self.store, settings.receive, "sha256:test", stored_only)
        self.engine: Any = open_engine(settings, receiver)
        self.engine.start()
        self._told = 0
        self._kept = 0
        self._names: set[Path] = set()

    def end(self) -> None:
        self.engine.stop(2)
        self.store.close()

    def play(self, chunks: Sequence[bytes], expected: Seen | None = None) -> Seen:
        """`expected`: what the other engine answered."""
        answers = []
        with Peer(self.engine, None if expected else Watched) as peer:
            for n, chunk in enumerate(chunks):
                # an abort may need the rest of a PDU
                wanted = [a for a in expected.answers[n] if a[0] != "ABORT"] if expected else []
                answers.append(peer.say(chunk, len(wanted)))
            if answers:
                answers[-1] += peer.until_end()
        _threads_end()
        return Seen(tuple(map(tuple, answers)), *self._state())

    def _state(self) -> tuple[Any, ...]:
        there = {path for path in (self._folder / "objects").rglob("*") if path.is_file()}
        new = sorted(there - self._names)
        self._names = there
        with self.store.database.read() as tx:
            of_objects = select(objects).where(objects.c.id > self._kept).order_by(objects.c.id)
            rows = [row._mapping for row in tx.execute(of_objects)]
            of_jobs = select(jobs).where(jobs.c.object_id > self._kept).order_by(jobs.c.id)
            queued = [row._mapping for row in tx.execute(of_jobs)]
            told = self.store.audit.page(tx, Filter(), after=self._told, limit=10**6)
        self._kept = max([self._kept, *(row["id"] for row in rows)])
        self._told = max([self._told, *(r.id for r in told)])
        assert {row["file"] for row in rows} == {
            str(p.relative_to(self._folder)) for p in new if p.suffix == ".dcm"
        }
        return (
            tuple(path.read_bytes() for path in new if path.suffix == ".dcm"),
            tuple(tuple(row[column] for column in _COLUMNS) for row in rows),
            tuple((job["state"], job["reason"]) for job in queued),
            tuple((r.event, r.actor, r.host, r.sop, r.outcome, _steady(r.detail)) for r in told),
            tuple(path.name for path in new if path.suffix != ".dcm"),
        )


def _steady(detail: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, str(value)) for name, value in detail.items() if name not in _VOLATILE))


def _threads_end() -> None:
    """Nothing more is done for a connection once its threads are gone."""
    end = time.monotonic() + PATIENCE
    while living := [
        t for t in threading.enumerate() if t.name.startswith(("association-", "AcceptorThread"))
    ]:
        assert time.monotonic() < end, living
        time.sleep(0.002)


class Watched(socket.socket):
    """A connection that tells when its reader asks for more, having taken all there was."""

    def watch(self) -> None:
        self.moved = threading.Condition()
        self.taken = 0
        self.asks = False
        self.over = False

    def recv_into(self, *arguments: Any) -> int:
        with self.moved:
            self.asks = True
            self.moved.notify()
        count = 0
        try:
            count = super().recv_into(*arguments)
        finally:
            with self.moved:
                self.asks = False
                self.taken += count
        return count

    def close(self) -> None:
        super().close()
        with self.moved:
            self.over = True
            self.moved.notify()

    def wait_until_asked(self, taken: int) -> None:
        """All of `taken` bytes were dealt with, or the connection is over."""
        with self.moved:
            done = self.moved.wait_for(lambda: self.over or (self.asks and self.taken >= taken), PATIENCE)
        assert done, "the engine stands still"


class Peer:
    """The other end of a connection to an engine."""

    def __init__(self, engine: Any, kind: type[Watched] | None) -> None:
        self._watched: Watched | None = None
        self._said = 0
        self._heard = bytearray()
        self._over = False
        if kind is None:
            self.socket = socket.create_connection(("127.0.0.1", engine.port), PATIENCE)
        else:
            with socket.create_server(("127.0.0.1", 0)) as server:
                self.socket = socket.create_connection(server.getsockname(), PATIENCE)
                accepted, _ = server.accept()
            accepted.setblocking(True)
            self._watched = Watched(fileno=accepted.detach())
            self._watched.watch()
            engine._serve(self._watched, "127.0.0.1")
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, chunk: bytes, count: int) -> list[Answer]:
        """The answers to one chunk: all there are from who is watched, else as many as `count`."""
        try:
            self.socket.sendall(chunk)
        except OSError:
            self._over = True
        self._said += len(chunk)
        if self._watched is not None:
            self._watched.wait_until_asked(self._said)
            self._hear_what_lies_there()
            return self._whole()
        answers: list[Answer] = []
        end = time.monotonic() + PATIENCE
        while len(answers) < count and not self._over:
            self._hear(max(end - time.monotonic(), 0.01))
            answers += self._whole()
            if time.monotonic() > end:
                break
        return answers

    def until_end(self) -> list[Answer]:
        """The peer says no more (half-closed): what still comes."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._over = True
        while not self._over:
            self._hear(PATIENCE)
        rest = self._whole()
        assert not self._heard, "half a PDU at the end"
        return rest

    def _hear_what_lies_there(self) -> None:
        self.socket.setblocking(False)
        try:
            while not self._over:
                self._take()
        except BlockingIOError:
            pass
        finally:
            self.socket.settimeout(PATIENCE)

    def _hear(self, seconds: float) -> None:
        self.socket.settimeout(seconds)
        try:
            self._take()
        except TimeoutError:
            if seconds >= PATIENCE:
                raise AssertionError("the engine does not close") from None

    def _take(self) -> None:
        try:
            piece = self.socket.recv(65_536)
        except ConnectionError:
            piece = b""
        self._heard += piece
        self._over = not piece

    def _whole(self) -> list[Answer]:
        answers = []
        while len(self._heard) >= 6:
            kind, length = pdu.HEADER.unpack_from(self._heard)
            if len(self._heard) < 6 + length:
                break
            answers.append(told(kind, bytes(self._heard[6 : 6 + length])))
            del self._heard[: 6 + length]
        return answers


def told(kind: int, body: bytes) -> Answer:
    """A PDU in words that can be compared."""
    match kind:
        case pdu.A_ASSOCIATE_AC:
            read = pdu.parse_accept(body)
            return (
                "AC",
                dict(read.syntaxes),
                dict(read.refused),
                read.max_length,
                dict(read.roles),
                body[:68],
            )
        case pdu.A_ASSOCIATE_RJ:
            return ("RJ", *pdu.parse_reject(body))
        case pdu.P_DATA_TF:
            return ("message", *_message(body))
        case pdu.A_RELEASE_RP:
            return ("RP",)
        case pdu.A_ABORT:
            return ("ABORT", body[2], body[3])
        case _:
            return ("?", kind, body)


def _message(body: bytes) -> tuple[Any, ...]:
    """Context, control and command of a response; ours and pynetdicom's are one PDU each."""
    length, context, control = pdu.PDV_HEADER.unpack_from(body)
    assert length + 4 == len(body)
    if not control & pdu.COMMAND:
        return context, control, body[pdu.PDV_HEADER.size :]
    values = command.parse(body[pdu.PDV_HEADER.size :])
    return context, control, {f"{element:04X}": value for element, value in values.items()}


# --- streams -------------------------------------------------------------------------------------------------------


def pdus(stream: bytes) -> list[bytes]:
    """The stream cut where its own headers say; the last piece may be part of one."""
    found, at = [], 0
    while at < len(stream):
        length = struct.unpack(">L", stream[at + 2 : at + 6].ljust(4, b"\0"))[0]
        found.append(stream[at : at + 6 + length])
        at += 6 + length
    return found


def cut(chunks: Sequence[bytes], chance: random.Random, pieces: int) -> list[bytes]:
    """Chunks cut at any byte, in `pieces` more."""
    found = list(chunks)
    for _ in range(pieces):
        n = chance.randrange(len(found))
        if len(found[n]) > 1:
            at = chance.randrange(1, len(found[n]))
            found[n : n + 1] = [found[n][:at], found[n][at:]]
    return found


def fragments(one: bytes) -> list[tuple[int, int, bytes]]:
    """Context, control and payload of each fragment of a P-DATA-TF."""
    found, at = [], 6
    while at + 6 <= len(one):
        length, context, control = pdu.PDV_HEADER.unpack_from(one, at)
        found.append((context, control, one[at + 6 : at + 4 + length]))
        at += 4 + length
    return found


def data(*items: tuple[int, int, bytes]) -> bytes:
    """A P-DATA-TF of these fragments."""
    body = b"".join(
        pdu.PDV_HEADER.pack(len(part) + 2, context, control) + part for context, control, part in items
    )
    return pdu.HEADER.pack(pdu.P_DATA_TF, len(body)) + body


Mutation = Callable[[list[bytes], random.Random], list[bytes]]
MUTATIONS: dict[str, Mutation] = {}


def mutation(function: Mutation) -> Mutation:
    MUTATIONS[function.__name__.replace("_", " ")] = function
    return function


def _some_data(stream: list[bytes], chance: random.Random) -> int:
    return chance.choice([n for n, one in enumerate(stream) if one[:1] == b"\x04"])


def _changed(stream: list[bytes], n: int, *instead: bytes) -> list[bytes]:
    return [*stream[:n], *instead, *stream[n + 1 :]]


@mutation
def nothing_at_all(stream: list[bytes], chance: random.Random) -> list[bytes]:
    return stream


@mutation
def a_flipped_bit_in_a_header(stream: list[bytes], chance: random.Random) -> list[bytes]:
    n = _some_data(stream, chance)
    one = bytearray(stream[n])
    one[chance.randrange(12)] ^= 1 << chance.randrange(8)
    return _changed(stream, n, bytes(one))


@mutation
def a_flipped_bit_in_a_fragment(stream: list[bytes], chance: random.Random) -> list[bytes]:
    n = _some_data(stream, chance)
    one = bytearray(stream[n])
    if len(one) > 12:
        one[chance.randrange(12, min(len(one), 400))] ^= 1 << chance.randrange(8)
    return _changed(stream, n, bytes(one))


@mutation
def a_flipped_bit_in_the_request(stream: list[bytes], chance: random.Random) -> list[bytes]:
    one = bytearray(stream[0])
    one[chance.randrange(6, len(one))] ^= 1 << chance.randrange(8)
    return _changed(stream, 0, bytes(one))


@mutation
def a_lost_PDU(stream: list[bytes], chance: random.Random) -> list[bytes]:  # noqa: N802
    return _changed(stream, chance.randrange(len(stream)))


@mutation
def a_PDU_twice(stream: list[bytes], chance: random.Random) -> list[bytes]:  # noqa: N802
    n = chance.randrange(len(stream))
    return _changed(stream, n, stream[n], stream[n])


@mutation
def two_PDUs_swapped(stream: list[bytes], chance: random.Random) -> list[bytes]:  # noqa: N802
    one, other = chance.sample(range(len(stream)), 2)
    changed = list(stream)
    changed[one], changed[other] = changed[other], changed[one]
    return changed


@mutation
def a_PDU_of_another_length(stream: list[bytes], chance: random.Random) -> list[bytes]:  # noqa: N802
    n = chance.randrange(len(stream))
    length = chance.choice([0, 1, 5, 6, 7, len(stream[n]) - 7, len(stream[n]) - 5, 5000, 70_000, 2**32 - 1])
    return _changed(stream, n, stream[n][:2] + struct.pack(">L", length) + stream[n][6:])


@mutation
def a_fragment_of_another_length(stream: list[bytes], chance: random.Random) -> list[bytes]:
    n = _some_data(stream, chance)
    length = chance.choice([0, 1, 2, 3, len(stream[n]) - 11, len(stream[n]) - 9, 5000, 2**32 - 1])
    return _changed(stream, n, stream[n][:6] + struct.pack(">L", length) + stream[n][10:])


@mutation
def another_control_byte(stream: list[bytes], chance: random.Random) -> list[bytes]:
    n = _some_data(stream, chance)
    return _changed(
        stream, n, stream[n][:11] + bytes([chance.choice([0, 1, 2, 3, 0x80, 0xFF])]) + stream[n][12:]
    )


@mutation
def another_context(stream: list[bytes], chance: random.Random) -> list[bytes]:
    n = _some_data(stream, chance)
    return _changed(stream, n, stream[n][:10] + bytes([chance.choice([0, 1, 2, 3, 5, 255])]) + stream[n][11:])


@mutation
def an_empty_fragment(stream: list[bytes], chance: random.Random) -> list[bytes]:
    n = _some_data(stream, chance)
    context, control, _ = fragments(stream[n])[0]
    return _changed(stream, n, data((context, control & ~pdu.LAST, b"")), stream[n])


@mutation
def an_empty_last_fragment(stream: list[bytes], chance: random.Random) -> list[bytes]:
    n = _some_data(stream, chance)
    context, control, part = fragments(stream[n])[0]
    return _changed(
        stream, n, data((context, control & ~pdu.LAST, part)), data((context, control & 0xFF, b""))
    )


@mutation
def smaller_fragments(stream: list[bytes], chance: random.Random) -> list[bytes]:
    n = _some_data(stream, chance)
    return _changed(stream, n, *(data(piece) for piece in _smaller(stream[n], chance)))


@mutation
def several_fragments_in_a_PDU(stream: list[bytes], chance: random.Random) -> list[bytes]:  # noqa: N802
    n = _some_data(stream, chance)
    return _changed(stream, n, data(*_smaller(stream[n], chance)))


def _smaller(one: bytes, chance: random.Random) -> list[tuple[int, int, bytes]]:
    context, control, part = fragments(one)[0]
    step = chance.choice([1, 7, 64, 100]) if len(part) < 2000 else 100
    pieces = [part[at : at + step] for at in range(0, len(part), step)] or [b""]
    last = len(pieces) - 1
    return [(context, control if n == last else control & ~pdu.LAST, piece) for n, piece in enumerate(pieces)]


@mutation
def command_and_data_in_a_PDU(stream: list[bytes], chance: random.Random) -> list[bytes]:  # noqa: N802
    pairs = [
        n
        for n in range(len(stream) - 1)
        if stream[n][:1] == stream[n + 1][:1] == b"\x04" and not fragments(stream[n + 1])[0][1] & pdu.COMMAND
    ]
    n = chance.choice(pairs)
    return [*stream[:n], data(*fragments(stream[n]), *fragments(stream[n + 1])), *stream[n + 2 :]]


@mutation
def a_PDU_out_of_place(stream: list[bytes], chance: random.Random) -> list[bytes]:  # noqa: N802
    odd = [
        stream[0],
        pdu.HEADER.pack(pdu.A_ASSOCIATE_AC, len(stream[0]) - 6) + stream[0][6:],
        pdu.reject(1, 1, 1),
        pdu.release_request(),
        pdu.release_reply(),
        pdu.abort(0),
        pdu.abort(2, 1),
        pdu.HEADER.pack(0, 4) + bytes(4),
        pdu.HEADER.pack(8, 4) + bytes(4),
        pdu.HEADER.pack(255, 2**32 - 1),
        pdu.HEADER.pack(pdu.P_DATA_TF, 0),
    ]
    n = chance.randrange(len(stream) + 1)
    return [*stream[:n], chance.choice(odd), *stream[n:]]


@mutation
def garbage_in_between(stream: list[bytes], chance: random.Random) -> list[bytes]:
    n = chance.randrange(len(stream) + 1)
    return [*stream[:n], chance.randbytes(chance.randrange(1, 50)), *stream[n:]]


@mutation
def the_end_at_any_byte(stream: list[bytes], chance: random.Random) -> list[bytes]:
    whole = b"".join(stream)
    return pdus(whole[: chance.randrange(1, len(whole))])


# --- recording -----------------------------------------------------------------------------------------------------


@dataclass
class Recorder:
    """A port in front of another: what each connection's client said."""

    target: int
    said: list[bytearray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._start(self._listen)

    def end(self) -> list[list[bytes]]:
        """The PDUs of each connection."""
        self._server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        self._server.close()
        return [pdus(bytes(said)) for said in self.said]

    def _start(self, run: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            node = socket.create_connection(("127.0.0.1", self.target))
            self.said.append(bytearray())
            self._start(self._talk, client, node, self.said[-1])

    def _talk(self, client: socket.socket, node: socket.socket, record: bytearray) -> None:
        with client, node:
            back = threading.Thread(target=self._forward, args=(node, client, bytearray()))
            back.start()
            self._forward(client, node, record)
            back.join()

    @staticmethod
    def _forward(source: socket.socket, target: socket.socket, record: bytearray) -> None:
        try:
            while piece := source.recv(65_536):
                record += piece
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass
