"""Logs as a node writes them, and everything that somebody who owns the database's file can do to them.

A forger works on a copy in memory: no trigger is in his way, and he puts them back. Each forgery returns whether there
was something to forge in this log.
"""

import hashlib
import json
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from storage.audit import About, Actor, Patient
from storage.audit.agreement import compare
from storage.audit.anchors import Anchor, Anchors, Key, read
from storage.audit.index import postings_of
from storage.audit.seal import GENESIS, NONE, Seal, block_hash, head, seal_all, seal_some
from storage.audit.verify import Checked, Findings, verify
from storage.clock import Clock, stamp
from storage.store import Store

EVENTS = ("object.received", "job.queued", "job.analyzed", "delivery.delivered")
START = datetime(2026, 3, 1, tzinfo=UTC)
_COLUMNS = "block, time, first_id, last_id, earliest, latest, stepped, hash"


@dataclass
class Log:
    """One log: the database's bytes, older copies of it, what its folder of anchors holds, and both its keys."""

    image: bytes
    older: list[bytes]
    anchors: list[Anchor]
    first: Key
    current: Key
    triggers: list[str] = field(default_factory=list)


def written(folder: Path, seed: int, *, expires: bool = False) -> Log:
    """Written by four threads at once, each with a Store of its own, and sealed and anchored meanwhile."""
    chance = random.Random(seed)
    ticks = count()
    clock = Clock(now=lambda: START + timedelta(seconds=0.37 * next(ticks)))
    store = Store.create(folder, clock=clock)
    anchors = Anchors(folder)
    first = anchors.begin()
    older: list[bytes] = []
    done = threading.Event()

    def write(number: int) -> None:
        mine, drawn = Store.open(folder, clock=clock), random.Random(seed * 10 + number)
        for _ in range(drawn.randint(4, 9)):
            with mine.database.write() as tx:
                for _ in range(drawn.randint(1, 4)):
                    _record(mine, tx, drawn, f"AE{number}")
        mine.close()

    def seal() -> None:
        while not done.is_set():
            if made := seal_some(store.database, store.clock):
                anchors.write(made)
                if chance.random() < 0.4:
                    older.append(image_of(store))

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    sealer = threading.Thread(target=seal)
    for thread in (*writers, sealer):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    sealer.join()
    # whatever came last, in blocks of its own, so that there are always some
    for turn in range(5):
        with store.database.write() as tx:
            for _ in range(chance.randint(1, 5)):
                _record(store, tx, chance, "LAST")
        older.append(image_of(store))
        if made := seal_all(store.database, store.clock):
            anchors.write(made)
        if expires and turn == 1:
            _expire(store)
    with store.database.read() as tx:
        listed = tx.exec_driver_sql("SELECT sql FROM sqlite_master WHERE type = 'trigger'").scalars().all()
    log = Log(image_of(store), older, list(read(anchors.folder)), first, anchors.key(), list(listed))
    store.close()
    return log


def image_of(store: Store) -> bytes:
    """The database as one file's bytes, of the log's tables alone, and not in WAL mode, which memory has not."""
    with closing(sqlite3.connect(store.database.file)) as raw:
        whole = bytearray(raw.serialize())
    whole[18:20] = b"\x01\x01"
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
        copy.deserialize(bytes(whole))
        copy.execute("PRAGMA foreign_keys=OFF")
        tables = [name for (name,) in copy.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in tables:
            if not name.startswith(("audit", "sqlite_")):
                copy.execute(f"DROP TABLE {name}")
        copy.execute("VACUUM")
        return copy.serialize()


@contextmanager
def opened(image: bytes) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.deserialize(image)
        yield connection


@contextmanager
def forging(log: Log, image: bytes | None = None) -> Iterator[sqlite3.Connection]:
    """A copy without its guards, which are there again when it is looked at."""
    with opened(image or log.image) as connection:
        yield connection


def unguarded(log: Log) -> Log:
    """The same, its images without triggers: what a forger makes first."""

    def without(image: bytes) -> bytes:
        with opened(image) as connection:
            for name in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall():
                connection.execute(f"DROP TRIGGER {name[0]}")
            return connection.serialize()

    return replace(log, image=without(log.image), older=[without(image) for image in log.older])


def guard(connection: sqlite3.Connection, log: Log) -> None:
    for statement in log.triggers:
        connection.execute(statement)


def judged(connection: sqlite3.Connection, log: Log, *, alone: bool = False) -> tuple[Checked, list[str]]:
    """What verification says of it; `alone`: without any anchor."""
    findings = Findings()
    checked = verify(connection, findings)
    if not alone:
        compare(connection, log.anchors, findings, keys=[log.first], current=lambda: log.current)
    return checked, findings.told


# what is found without anchors


def change_a_payload(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    number, payload, _ = _any_record(c, chance)
    at = chance.randrange(len(payload))
    changed = payload[:at] + bytes([payload[at] ^ chance.randint(1, 255)]) + payload[at + 1 :]
    kind = chance.choice([changed, changed, changed.decode("latin-1"), None, 7, b""])
    # the column takes no NULL
    c.execute("UPDATE audit SET payload = ? WHERE id = ?", (b"" if kind is None else kind, number))
    return True


def change_a_hash(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    number, _, digest = _any_record(c, chance)
    other = chance.choice([chance.randbytes(32), digest[:-1], digest.hex(), 5])
    c.execute("UPDATE audit SET hash = ? WHERE id = ?", (other, number))
    return True


def change_a_record_and_its_hash(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    number, payload, _ = _any_record(c, chance)
    _put(c, number, _other(payload, chance))
    return True


def change_a_seal(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    seal = _any_seal(c, chance)
    column, value = chance.choice(
        [
            ("time", stamp(START + timedelta(days=chance.randint(1, 999)))), ("earliest", stamp(START)[:-4] + "999Z"),
            ("latest", "2031-01-01T00:00:00.000000Z"), ("stepped", 1 - int(seal.stepped)), ("stepped", 7),
            ("first_id", seal.first_id + chance.choice([-2, -1, 1, 2**60])), ("last_id", seal.last_id + 2**40),
            ("last_id", seal.last_id - seal.first_id - 9_000), ("hash", chance.randbytes(32)), ("hash", "text"),
            ("time", b"\xff\xfe"), ("earliest", "\x1b[2J"),
        ]
    )  # fmt: skip
    c.execute(f"UPDATE audit_seal SET {column} = ? WHERE block = ?", (value, seal.block))
    return True


def remove_records(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    number, _, _ = _any_record(c, chance)
    c.execute(
        "DELETE FROM audit WHERE id BETWEEN ? AND ?", (number, number + chance.choice([0, 0, 1, 7, 40]))
    )
    return True


def remove_a_record_and_close_the_gap(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    number, _, _ = _any_record(c, chance)
    c.execute("DELETE FROM audit WHERE id = ?", (number,))
    _shift(c, number, -1, seals=chance.random() < 0.7)
    return True


def insert_a_record_between(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    number, payload, _ = _any_record(c, chance)
    _shift(c, number - 1, 1, seals=chance.random() < 0.7)
    _put(c, number, _other(payload, chance))
    return True


def insert_a_record_before_the_first(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    (first,) = c.execute("SELECT min(id) FROM audit").fetchone()
    _, payload, _ = _any_record(c, chance)
    _put(
        c, chance.choice([0, -1, -(2**40), first - 1, chance.randint(0, first - 1)]), _other(payload, chance)
    )
    return True


def insert_a_record_at_the_end_as_if_sealed(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    last = _seals(c)[-1]
    _, payload, _ = _any_record(c, chance)
    number = last.last_id + chance.choice([1, 1, 1, 2, 5])
    _put(c, number, _other(payload, chance))
    if number == last.last_id + 1 or chance.random() < 0.5:
        c.execute("UPDATE audit_seal SET last_id = ? WHERE block = ?", (number, last.block))
    return True


def exchange_two_records(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    one, two = _any_record(c, chance), _any_record(c, chance)
    if one[1] == two[1]:
        return False
    if chance.random() < 0.3:
        c.execute("UPDATE audit SET payload = ? WHERE id = ?", (one[1], two[0]))
        c.execute("UPDATE audit SET payload = ? WHERE id = ?", (two[1], one[0]))
    else:
        c.execute("UPDATE audit SET id = -7 WHERE id = ?", (one[0],))
        c.execute("UPDATE audit SET id = ? WHERE id = ?", (one[0], two[0]))
        c.execute("UPDATE audit SET id = ? WHERE id = -7", (two[0],))
    return True


def remove_a_block(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    """Not the last: without anchors its records were only not sealed yet."""
    seal = chance.choice(_seals(c)[:-1])
    c.execute("DELETE FROM audit_seal WHERE block = ?", (seal.block,))
    if chance.random() < 0.5:
        c.execute("DELETE FROM audit WHERE id BETWEEN ? AND ?", (seal.first_id, seal.last_id))
    return True


def exchange_two_blocks(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    one, two = chance.sample(_seals(c), 2)
    for old, new in ((one.block, -7), (two.block, one.block), (-7, two.block)):
        c.execute("UPDATE audit_seal SET block = ? WHERE block = ?", (new, old))
    return True


def cut_records_off_the_end(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    (last,) = c.execute("SELECT max(id) FROM audit").fetchone()
    c.execute("DELETE FROM audit WHERE id > ?", (last - chance.randint(1, 30),))
    _count_anew(c, chance)
    return True


def let_records_go_without_a_word(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    seal = chance.choice(_seals(c))
    values = (seal.last_id, seal.block, seal.hash, stamp(START), "audit-2026-03.jsonl", "sha256:0")
    c.execute("INSERT INTO audit_expiry VALUES (?, ?, ?, ?, ?, ?)", values)
    c.execute("DELETE FROM audit WHERE id <= ?", (seal.last_id,))
    c.execute("DELETE FROM audit_seal WHERE last_id <= ?", (seal.last_id,))
    return True


# what only anchors find


def seal_anew_after_a_change(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    number, payload, _ = _any_record(c, chance)
    _put(c, number, _other(payload, chance))
    _seal_anew(c, number)
    return True


def seal_anew_without_some_records(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    """The tail closes up, as if they had never been; the blocks keep as many records as they can."""
    number, _, _ = _any_record(c, chance)
    c.execute("DELETE FROM audit WHERE id = ?", (number,))
    _shift(c, number, -1, seals=True)
    _count_anew(c, chance, always=True)
    c.execute("DELETE FROM audit_seal WHERE last_id < first_id")
    seals = _seals(c)
    start = seals[0].block
    for expected, seal in enumerate(seals, start):
        c.execute("UPDATE audit_seal SET block = ? WHERE block = ?", (expected, seal.block))
    _seal_anew(c, number)
    return True


def seal_anew_with_one_more(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    number, payload, _ = _any_record(c, chance)
    _shift(c, number - 1, 1, seals=True)
    seal = next((seal for seal in _seals(c) if seal.first_id == number + 1), None)
    if seal is not None:
        c.execute("UPDATE audit_seal SET first_id = ? WHERE block = ?", (number, seal.block))
    _put(c, number, _other(payload, chance))
    _seal_anew(c, number)
    return True


def remove_the_last_blocks(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    """The records stay, as if they waited to be sealed."""
    seals = _seals(c)
    c.execute("DELETE FROM audit_seal WHERE block > ?", (seals[-1].block - chance.randint(1, len(seals)),))
    return True


def cut_the_end_off(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    """Records and seals, the counter too."""
    seals = _seals(c)
    kept = seals[-1].block - chance.randint(1, len(seals))
    (last,) = c.execute(
        "SELECT coalesce(max(last_id), 0) FROM audit_seal WHERE block <= ?", (kept,)
    ).fetchone()
    c.execute("DELETE FROM audit WHERE id > ?", (last,))
    c.execute("DELETE FROM audit_seal WHERE block > ?", (kept,))
    _count_anew(c, chance, always=True)
    return True


def put_an_old_copy_back(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    c.deserialize(chance.choice(log.older))
    return True


def write_on_from_an_old_copy(c: sqlite3.Connection, log: Log, chance: random.Random) -> bool:
    c.deserialize(chance.choice(log.older))
    for _ in range(chance.randint(1, 8)):
        write_on(c, chance)
    return True


FOUND_ALONE: tuple[Callable[[sqlite3.Connection, Log, random.Random], bool], ...] = (
    change_a_payload, change_a_hash, change_a_record_and_its_hash, change_a_seal, remove_records,
    remove_a_record_and_close_the_gap, insert_a_record_between, insert_a_record_before_the_first,
    insert_a_record_at_the_end_as_if_sealed, exchange_two_records, remove_a_block, exchange_two_blocks,
    cut_records_off_the_end, let_records_go_without_a_word,
)  # fmt: skip
FOUND_BY_ANCHORS: tuple[Callable[[sqlite3.Connection, Log, random.Random], bool], ...] = (
    seal_anew_after_a_change, seal_anew_without_some_records, seal_anew_with_one_more, remove_the_last_blocks,
    cut_the_end_off, put_an_old_copy_back, write_on_from_an_old_copy,
)  # fmt: skip


def forged(log: Log, forge: Callable[..., bool], chance: random.Random) -> list[str] | None:
    """What verification says of one forgery of this kind; None where there was nothing to forge. `log` is unguarded."""
    with opened(log.image) as connection:
        if not forge(connection, log, chance):
            return None
        guard(connection, log)
        return judged(connection, log, alone=forge in FOUND_ALONE)[1]


def whoever_rewrites_the_anchors_too(log: Log, chance: random.Random) -> list[str]:
    """He owns the machine today: the database, the folder of anchors, and the node's key of today."""
    key = Key(log.anchors[0].number, log.current.secret)
    lines, cut = [], chance.randint(0, len(log.anchors))
    with opened(log.image) as connection:
        seal_anew_after_a_change(connection, log, chance)
        guard(connection, log)
        seals = {seal.block: seal for seal in _seals(connection)}
        for anchor in log.anchors[:cut]:
            seal = seals.get(anchor.block)
            bare = replace(anchor, mac="", hash=seal.hash.hex()) if seal else anchor
            lines.append(replace(bare, mac=key.mac(bare)))
            key = key.next()
        forger = replace(log, anchors=lines, current=chance.choice([key, log.current]))
        return judged(connection, forger)[1]


def unforged(log: Log, chance: random.Random) -> tuple[Checked, list[str]]:
    """The same log gone on in some way that a node may: written on, sealed, anchored, expired, crashed. `log` is
    unguarded."""
    with opened(chance.choice([log.image, log.image, *log.older])) as c:
        head_block = (c.execute("SELECT max(block) FROM audit_seal").fetchone()[0] or 0) if c else 0
        anchors = [anchor for anchor in log.anchors if anchor.block <= head_block]
        key = log.first
        while key.number < (anchors[-1].number + 1 if anchors else 0):
            key = key.next()
        for _ in range(chance.randint(0, 6)):
            _records(c, chance, chance.randint(0, 6))
            if chance.random() < 0.7 and (seal := _seal(c, chance)) and chance.random() < 0.8:
                bare = Anchor(seal.block, seal.time, seal.last_id, seal.hash.hex(), key.number)
                anchors.append(replace(bare, mac=key.mac(bare)))
                if chance.random() < 0.2:
                    # a crash between the line and its key
                    anchors.append(anchors[-1])
                key = key.next()
            if chance.random() < 0.15:
                _let_go(c, chance)
        _records(c, chance, chance.choice([0, 0, 3]))
        guard(c, log)
        if chance.random() < 0.2:
            # the first months' files are not kept for ever
            anchors = anchors[chance.randint(0, len(anchors)) :] or anchors[-1:]
        if anchors and chance.random() < 0.1:
            # a crash before the key was replaced
            key = log.first
            while key.number < anchors[-1].number:
                key = key.next()
        return judged(c, replace(log, anchors=anchors, current=key))


def appended(log: Log, chance: random.Random) -> tuple[Checked, list[str]]:
    """A record put at the end, as the node does it: no log can tell, but it is named as not sealed."""
    with opened(log.image) as connection:
        _records(connection, chance, 1)
        guard(connection, log)
        return judged(connection, log)


def write_on(c: sqlite3.Connection, chance: random.Random) -> None:
    _records(c, chance, chance.randint(1, 4))
    _seal(c, chance)


def _records(c: sqlite3.Connection, chance: random.Random, number: int) -> None:
    for _ in range(number):
        time = stamp(START + timedelta(hours=chance.randint(1, 9)))
        payload = _encoded(
            {"time": time, "event": chance.choice(EVENTS), "actor": "ON", "outcome": "success"}
        )
        c.execute(
            "INSERT INTO audit (payload, hash) VALUES (?, ?)", (payload, hashlib.sha256(payload).digest())
        )


def _seal(c: sqlite3.Connection, chance: random.Random) -> Seal | None:
    """One block of what is not sealed yet, or of some of it."""
    before = _seals(c)[-1:] or [_expired(c)]
    rows = c.execute(
        "SELECT id, payload, hash FROM audit WHERE id > ? ORDER BY id LIMIT ?",
        (before[0].last_id, chance.choice([2, 500])),
    ).fetchall()
    if not rows:
        return None
    times = [json.loads(payload)["time"] for _, payload, _ in rows]
    made = Seal(
        before[0].block + 1, stamp(START), rows[0][0], rows[-1][0], min(times), max([*times, before[0].latest]),
        min(times) < before[0].latest,
    )  # fmt: skip
    made = replace(made, hash=block_hash(before[0].hash, made, ((row[0], row[2]) for row in rows)))
    c.execute(
        f"INSERT INTO audit_seal ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", tuple(vars(made).values())
    )
    for number, payload, _ in rows:
        c.executemany("INSERT INTO audit_posting VALUES (?, ?)", postings_of([(number, json.loads(payload))]))
    return made


def _let_go(c: sqlite3.Connection, chance: random.Random) -> None:
    """As `storage.audit.expire` does, whole or cut short."""
    gone = _expired(c).last_id
    if not (seals := [seal for seal in _seals(c) if seal.last_id > gone]):
        return
    seal = chance.choice(seals)
    payload = _encoded(
        {
            "time": stamp(START),
            "event": "audit.expired",
            "outcome": "success",
            "detail": {"last_id": seal.last_id},
        }
    )
    c.execute(
        "INSERT INTO audit_expiry VALUES (?, ?, ?, ?, ?, ?)",
        (seal.last_id, seal.block, seal.hash, stamp(START), "audit-2026-03.jsonl", "sha256:0"),
    )
    c.execute("INSERT INTO audit (payload, hash) VALUES (?, ?)", (payload, hashlib.sha256(payload).digest()))
    # block by block, with the seals before it; the last seal at the end
    for leaving in [each for each in _seals(c) if each.last_id <= seal.last_id]:
        if chance.random() < 0.1:
            return
        c.execute("DELETE FROM audit WHERE id <= ?", (leaving.last_id,))
        c.execute("DELETE FROM audit_seal WHERE block < ?", (leaving.block,))
    if chance.random() < 0.8:
        c.execute("DELETE FROM audit_seal WHERE last_id <= ?", (seal.last_id,))


def _expire(store: Store) -> None:
    """Lets the first two blocks go, past the triggers by their one way."""
    with store.database.write() as tx:
        raw: Any = tx.connection.driver_connection
        seal = Seal(
            *raw.execute(f"SELECT {_COLUMNS} FROM audit_seal ORDER BY block LIMIT 1 OFFSET 1").fetchone()
        )
        raw.execute(
            "INSERT INTO audit_expiry VALUES (?, ?, ?, ?, ?, ?)",
            (seal.last_id, seal.block, seal.hash, stamp(START), "audit-2026-03.jsonl", "sha256:0"),
        )
        store.audit.record(tx, "audit.expired", detail={"last_id": seal.last_id, "block": seal.block})
        raw.execute("DELETE FROM audit WHERE id <= ?", (seal.last_id,))
        raw.execute("DELETE FROM audit_posting WHERE record <= ?", (seal.last_id,))
        raw.execute("DELETE FROM audit_seal WHERE last_id <= ?", (seal.last_id,))
        assert head(tx).block >= seal.block


def _record(store: Store, tx: Any, chance: random.Random, actor: str) -> None:
    image = chance.randint(1, 9)
    keys = store.audit.identify(tx, Patient(f"P{image}", f"Name^{image}", f"A{image}"))
    store.audit.record(
        tx,
        chance.choice(EVENTS),
        about=About(keys, f"1.2.{image}", f"1.2.{image}.{chance.randint(1, 5)}"),
        actor=Actor(actor, "10.0.0.1"),
        outcome=chance.choice(["success", "failure"]),
        detail={"reason": f"number {chance.randint(1, 999)}"},
    )


def _any_record(c: sqlite3.Connection, chance: random.Random) -> tuple[int, bytes, bytes]:
    (first, last) = c.execute("SELECT min(id), max(id) FROM audit").fetchone()
    found: tuple[int, bytes, bytes] = c.execute(
        "SELECT id, payload, hash FROM audit WHERE id = ?", (chance.randint(first, last),)
    ).fetchone()
    return found


def _seals(c: sqlite3.Connection) -> list[Seal]:
    return [Seal(*row) for row in c.execute(f"SELECT {_COLUMNS} FROM audit_seal ORDER BY block")]


def _any_seal(c: sqlite3.Connection, chance: random.Random) -> Seal:
    return chance.choice(_seals(c))


def _expired(c: sqlite3.Connection) -> Seal:
    row = c.execute(
        "SELECT block, time, last_id, hash FROM audit_expiry ORDER BY last_id DESC LIMIT 1"
    ).fetchone()
    return Seal(row[0], row[1], 0, row[2], "", "", False, row[3]) if row else NONE


def _other(payload: bytes, chance: random.Random) -> bytes:
    """A record that says something else, and looks like any other."""
    told = json.loads(payload)
    told["detail"] = {"job": chance.randint(1000, 10**9)}
    return _encoded(told)


def _encoded(told: dict[str, Any]) -> bytes:
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def _put(c: sqlite3.Connection, number: int, payload: bytes) -> None:
    c.execute(
        "INSERT OR REPLACE INTO audit (id, payload, hash) VALUES (?, ?, ?)",
        (number, payload, hashlib.sha256(payload).digest()),
    )


def _shift(c: sqlite3.Connection, after: int, by: int, *, seals: bool) -> None:
    """All ids beyond `after`, and as `seals` those that the seals name."""
    # by way of ids that nobody has: a primary key is checked row by row
    c.execute("UPDATE audit SET id = -id - 1000000 WHERE id > ?", (after,))
    c.execute("UPDATE audit SET id = -(id + 1000000) + ? WHERE id < -999999", (by,))
    if seals:
        # a block of that record alone goes with it
        c.execute("DELETE FROM audit_seal WHERE first_id = ? AND last_id = ? AND ? < 0", (after, after, by))
        c.execute("UPDATE audit_seal SET first_id = first_id + ? WHERE first_id > ?", (by, after))
        for block, last in c.execute("SELECT block, last_id FROM audit_seal WHERE last_id >= ? ORDER BY last_id",
                                     (after + (by > 0),)).fetchall()[:: -1 if by > 0 else 1]:  # fmt: skip
            c.execute("UPDATE audit_seal SET last_id = ? WHERE block = ?", (last + by, block))


def _seal_anew(c: sqlite3.Connection, number: int) -> None:
    """All hashes from the block of that record on, as a clever forger makes them."""
    before = _expired(c).hash or GENESIS
    for seal in _seals(c):
        rows = c.execute(
            "SELECT id, payload, hash FROM audit WHERE id BETWEEN ? AND ? ORDER BY id",
            (seal.first_id, seal.last_id),
        ).fetchall()
        if seal.last_id >= number:
            seal = replace(seal, hash=block_hash(before, seal, ((row[0], row[2]) for row in rows)))
            c.execute("UPDATE audit_seal SET hash = ? WHERE block = ?", (seal.hash, seal.block))
        before = seal.hash


def _count_anew(c: sqlite3.Connection, chance: random.Random, *, always: bool = False) -> None:
    if always or chance.random() < 0.5:
        (last,) = c.execute("SELECT coalesce(max(id), 0) FROM audit").fetchone()
        c.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'audit'", (last,))
