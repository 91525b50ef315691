"""A month of the log in a file that can be verified by itself: gzip, JSON lines, no name in it.

    {"month":"2026-01","first":813,"previous":"…"}                                     what the first block continues
    {"id":40322,"payload":"{…}","hash":"…"}                                            a record, its payload as it was
    {"block":813,"time":"…","first_id":40322,"last_id":40499,…,"hash":"…"}             its block, behind its records

Hashes are hexadecimal. The same month always gives the same bytes.
"""

import gzip
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, select

from storage.audit.seal import GENESIS, Seal, block_hash
from storage.database import Database
from storage.errors import Unavailable, WrongState
from storage.schema import audit, audit_expiry, audit_seal
from storage.spool import Disk

FOLDER = "audit-archive"
"""Under the data folder."""
_LEVEL = 6


@dataclass(frozen=True)
class Month:
    """The blocks of one month (UTC) that are still there; `block` and `hash` are of the last, ids of records."""

    name: str
    first_block: int
    block: int
    first_id: int
    last_id: int
    hash: bytes


@dataclass(frozen=True)
class Archived:
    """A month's file: its name in the folder, the SHA-256 of its bytes as `sha256:…`, how many records it holds."""

    name: str
    hash: str
    records: int


def write(database: Database, month: Month, folder: Path, disk: Disk) -> Archived:
    """Writes a month so that it survives a power cut; a file that is there is never replaced.

    Each block is held against its seal first. Raises WrongState where it does not hold, Unavailable.
    """
    temporary = folder / f".{month.name}-{secrets.token_hex(8)}.part"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(fd, "w+b") as file:
                with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
                    records = _put(database, month, packed)
                file.flush()
                disk.sync(file.fileno())
                file.seek(0)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            name = _place(temporary, folder, month.name, digest, disk)
        finally:
            temporary.unlink(missing_ok=True)
        disk.sync_folder(folder)
        disk.sync_folder(folder.parent)
    except OSError as e:
        raise Unavailable(f"can't write the archive of {month.name}: {e.strerror}") from e
    return Archived(name, f"sha256:{digest}", records)


def verify(file: Path) -> tuple[Seal, int]:
    """The last seal of an archived month, and how many records it holds, each and every block as it was sealed.

    Raises WrongState where something differs, Unavailable.
    """
    try:
        with gzip.open(file, "rt", encoding="utf-8", newline="\n") as lines:
            return _checked(json.loads(line) for line in lines)
    except OSError as e:
        raise Unavailable(f"{file} can't be read: {e.strerror or 'it is damaged'}") from e
    except (EOFError, ValueError, KeyError, TypeError, gzip.zlib.error) as e:  # type: ignore[attr-defined]
        raise WrongState(f"{file} is damaged: {e}") from e


def _checked(lines: Iterator[dict[str, Any]]) -> tuple[Seal, int]:
    head = next(lines, {})
    previous, block, last_id = bytes.fromhex(head["previous"]), head["first"], 0
    records: list[tuple[int, bytes]] = []
    seal, total = None, 0
    for line in lines:
        if "payload" in line:
            digest = hashlib.sha256(line["payload"].encode()).digest()
            records.append((line["id"], digest))
            continue
        seal = Seal(**{**line, "hash": bytes.fromhex(line["hash"])})
        ids = [number for number, _ in records]
        whole = ids and ids == sorted({*ids}) and (ids[0], ids[-1]) == (seal.first_id, seal.last_id)
        if not whole or seal.block != block or ids[0] <= last_id:
            raise WrongState(
                f"block {seal.block} does not hold the records {seal.first_id} to {seal.last_id}"
            )
        if block_hash(previous, seal, records) != seal.hash:
            raise WrongState(f"block {seal.block} differs from what was sealed")
        total += len(records)
        previous, block, last_id, records = seal.hash, block + 1, seal.last_id, []
    if seal is None or records:
        raise WrongState("its end is cut off")
    return seal, total


def _put(database: Database, month: Month, out: Any) -> int:
    """Writes the lines; how many records."""
    with database.read() as tx:
        previous = _hash_before(tx, month.first_block)
    _line(out, {"month": month.name, "first": month.first_block, "previous": previous.hex()})
    total = 0
    for number in range(month.first_block, month.block + 1):
        with database.read() as tx:
            seal = Seal(*tx.execute(select(audit_seal).where(audit_seal.c.block == number)).one())
            within = audit.c.id.between(seal.first_id, seal.last_id)
            rows = tx.execute(select(audit).where(within).order_by(audit.c.id)).all()
        hashes = [(row.id, hashlib.sha256(row.payload).digest()) for row in rows]
        altered = any(row.hash != digest for row, (_, digest) in zip(rows, hashes, strict=True))
        if altered or block_hash(previous, seal, hashes) != seal.hash:
            raise WrongState(
                f"block {number} of the audit log is not as it was sealed: see `hilum audit verify`; "
                "nothing of it expires"
            )
        for row, (_, digest) in zip(rows, hashes, strict=True):
            _line(out, {"id": row.id, "payload": row.payload.decode(), "hash": digest.hex()})
        _line(out, {**vars(seal), "hash": seal.hash.hex()})
        previous, total = seal.hash, total + len(rows)
    return total


def _line(out: IO[bytes], told: dict[str, Any]) -> None:
    out.write(json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


def _hash_before(tx: Connection, block: int) -> bytes:
    """The hash that this block continues."""
    before = tx.execute(select(audit_seal.c.hash).where(audit_seal.c.block == block - 1)).scalar()
    gone = select(audit_expiry.c.hash).where(audit_expiry.c.block == block - 1)
    found: bytes = before or tx.execute(gone).scalar() or GENESIS
    return found


def _place(temporary: Path, folder: Path, month: str, digest: str, disk: Disk) -> str:
    """Gives the file a name that is free, or finds the one that it has since a run that was cut short."""
    for number in count(1):
        name = f"audit-{month}.jsonl.gz" if number == 1 else f"audit-{month}-{number}.jsonl.gz"
        file = folder / name
        with suppress(FileNotFoundError):
            with file.open("rb") as there:
                if hashlib.file_digest(there, "sha256").hexdigest() == digest:
                    return name
            continue
        disk.rename(temporary, file)
        return name
    raise AssertionError
