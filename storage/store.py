"""One door to everything that survives: the database, the spool, and the tables' own modules."""

import os
import secrets
from pathlib import Path

from storage.audit import Audit
from storage.clock import Clock
from storage.commitments import Commitments, Reports
from storage.database import Database
from storage.errors import Elsewhere, Unavailable
from storage.jobs import Jobs
from storage.objects import Objects
from storage.outbox import Outbox
from storage.results import Results
from storage.spool import Disk, Spool
from storage.studies import Studies

DATABASE = "hilum.db"
KEY = "identity.key"
KEY_BYTES = 32


class Store:
    """What survives under one data folder. `keeps_names`: see `storage.audit.records.Records`."""

    def __init__(
        self, database: Database, spool: Spool, key: bytes, clock: Clock, *, keeps_names: bool = True
    ) -> None:
        self.database = database
        self.spool = spool
        self.clock = clock
        self.audit = Audit(key, clock, keeps_names=keeps_names)
        self.objects = Objects(self.audit, clock)
        self.jobs = Jobs(self.audit, clock)
        self.studies = Studies(self.audit, clock, self.jobs)
        self.outbox = Outbox(self.audit, clock)
        self.results = Results(self.audit, clock, self.outbox)
        self.commitments = Commitments(self.audit, clock, self.outbox)
        self.commitment_reports = Reports(self.audit, clock)

    @classmethod
    def create(
        cls,
        data_dir: Path,
        *,
        keeps_names: bool = True,
        clock: Clock | None = None,
        disk: Disk | None = None,
    ) -> "Store":
        """Makes what is missing and migrates what is old. The supervisor alone, holding the data folder's lock.

        Raises Unavailable, Elsewhere.
        """
        clock = clock or Clock()
        spool = Spool(data_dir, clock, disk)
        spool.prepare()
        key = _make_key(data_dir)
        return cls(Database.create(data_dir / DATABASE), spool, key, clock, keeps_names=keeps_names)

    @classmethod
    def open(
        cls,
        data_dir: Path,
        *,
        keeps_names: bool = True,
        clock: Clock | None = None,
        disk: Disk | None = None,
    ) -> "Store":
        """What `create` made. Raises Elsewhere where it did not, Unavailable."""
        clock = clock or Clock()
        database = Database.open(data_dir / DATABASE)
        spool = Spool(data_dir, clock, disk)
        return cls(database, spool, _read_key(data_dir), clock, keeps_names=keeps_names)

    def close(self) -> None:
        self.database.close()


def _make_key(data_dir: Path) -> bytes:
    file = data_dir / KEY
    if not file.exists():
        if (data_dir / DATABASE).exists():
            raise Elsewhere(
                f"{file} is missing, and without it patients can't be told apart: put it back from a backup"
            )
        try:
            temporary = file.with_suffix(".part")
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "wb") as out:
                out.write(secrets.token_bytes(KEY_BYTES))
                out.flush()
                os.fsync(out.fileno())
            temporary.rename(file)
            Disk().sync_folder(data_dir)
        except OSError as e:
            raise Unavailable(f"can't write {file}: {e.strerror}") from e
    return _read_key(data_dir)


def _read_key(data_dir: Path) -> bytes:
    file = data_dir / KEY
    try:
        key = file.read_bytes()
    except OSError as e:
        raise Elsewhere(f"{file} can't be read ({e.strerror}): put it back from a backup") from e
    if len(key) != KEY_BYTES:
        raise Elsewhere(f"{file} is damaged ({len(key)} bytes, not {KEY_BYTES}): put it back from a backup")
    return key
