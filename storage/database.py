"""Engine, pragmas, transactions.

SQLite in WAL with synchronous=FULL: what was committed survives a power cut. The supervisor creates the file and
switches it to WAL before any other process starts, since two processes doing so at once can lock each other out
for good (measured: 1 of 40 starts). Every write begins IMMEDIATE, is short and never waits for a network or a
file; checkpoints are the housekeeper's.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, CursorResult, Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError, OperationalError

from storage.errors import Elsewhere, Unavailable

BUSY_SECONDS = 30
# of 4 KiB
LONG_LOG_PAGES = 8192
# the newest revision under storage/migrations; a test holds it to Alembic's own head
REVISION = "0004"


class Database:
    """One process's door to the database.

    Raises Unavailable where the disk or the file does not take the work, Elsewhere where the database is missing
    or of another version.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._engine = _engine(file)
        self._kept: Connection | None = None

    @classmethod
    def create(cls, file: Path) -> "Database":
        """Creates or migrates the file. For the supervisor alone, before any other process has it open."""
        database = cls(file)
        database._pragma("journal_mode=WAL")
        database._migrate()
        return database

    @classmethod
    def open(cls, file: Path) -> "Database":
        if not file.exists():
            raise Elsewhere(f"{file} does not exist: no node has run with this data folder")
        database = cls(file)
        found = database._revision()
        if found != REVISION:
            raise Elsewhere(
                f"{file} is at revision {found or 'none'}, this Hilum needs {REVISION}: start `hilum serve`"
            )
        return database

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, BEGIN IMMEDIATE; committed when the block ends, rolled back when it raises."""
        with _translated(), self._engine.connect() as connection:
            connection.execution_options(begin="IMMEDIATE")
            with connection.begin():
                yield connection

    @contextmanager
    def write_prepared(self) -> Iterator[Connection]:
        """`write` for prepared statements alone (`storage.prepared`), by one thread at a time: a tenth of its CPU.

        BEGIN and COMMIT go to the driver, on a connection that is kept.
        """
        with _translated():
            if self._kept is None:
                self._kept = self._engine.connect()
            driver: Any = self._kept.connection.driver_connection
            driver.execute("BEGIN IMMEDIATE")
            try:
                yield self._kept
                driver.execute("COMMIT")
            except BaseException:
                if driver.in_transaction:
                    driver.execute("ROLLBACK")
                raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One snapshot. Don't hold it over an export: page instead."""
        with _translated(), self._engine.connect() as connection:
            connection.execution_options(begin="DEFERRED")
            with connection.begin():
                yield connection

    def checkpoint(self) -> None:
        """Moves the WAL into the file as far as readers allow, and begins it anew where it has grown long.

        Under load it would grow without end: it begins anew by itself only when nothing is written for a moment. The
        file keeps its length, so that commits overwrite what is allocated, which is the fastest to synchronize.
        """
        if self._pragma("wal_checkpoint(PASSIVE)")[1] > LONG_LOG_PAGES:
            self._pragma("wal_checkpoint(RESTART)")

    def empty_log(self) -> None:
        """Moves all of the WAL into the file and cuts it to nothing: what was erased is not in it any more.

        Raises Unavailable where somebody reads all the while.
        """
        if self._pragma("wal_checkpoint(TRUNCATE)")[0]:
            raise Unavailable("the database's log can't be emptied while somebody reads: try again")

    def faults(self) -> list[str]:
        """What SQLite finds wrong with the file (every page is read); none in a sound one. Raises Unavailable."""
        with self.read() as tx:
            told = tx.execute(text("PRAGMA quick_check(10)")).scalars().all()
        return [] if told == ["ok"] else [str(line) for line in told]

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        self._engine.dispose()

    def _pragma(self, statement: str) -> tuple[Any, ...]:
        """A pragma that SQLite takes outside of transactions only; the row that it answers."""
        with _translated(), closing(self._engine.raw_connection()) as raw:
            found: tuple[Any, ...] = raw.cursor().execute(f"PRAGMA {statement}").fetchone()
            return found

    def _revision(self) -> str | None:
        with self.read() as tx:
            known = tx.execute(text("SELECT name FROM sqlite_master WHERE name = 'alembic_version'")).first()
            return tx.execute(text("SELECT version_num FROM alembic_version")).scalar() if known else None

    def _migrate(self) -> None:
        found = self._revision()
        if found == REVISION:
            return
        if found is not None and found > REVISION:
            raise Elsewhere(
                f"{self.file} was written by a newer Hilum (revision {found}); this one knows {REVISION}"
            )
        # Alembic is slow to import, and only a new or an old database needs it
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with _translated(), self._engine.connect() as connection:
            config.attributes["connection"] = connection.execution_options(begin="IMMEDIATE")
            command.upgrade(config, "head")


def _engine(file: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{file}",
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        for pragma in (
            "synchronous=FULL",
            "foreign_keys=ON",
            "wal_autocheckpoint=0",
            "trusted_schema=OFF",
            # what is deleted is overwritten, and no sort puts names into a temporary file
            "secure_delete=ON",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # sqlite3 would begin late and DEFERRED; a write that starts by reading could then fail at its first write
        connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'DEFERRED')}")

    return engine


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, sqlite3.OperationalError) as e:
        raise Unavailable(f"the database does not take the work: {_driver_says(e)}") from e
    except (DatabaseError, sqlite3.DatabaseError) as e:
        says = _driver_says(e)
        if "malformed" in says or "not a database" in says:
            raise Unavailable(f"the database is damaged: {says}; see `hilum check --repair`") from e
        raise


def _driver_says(error: DatabaseError | sqlite3.Error) -> str:
    return str(error.orig if isinstance(error, DatabaseError) else error)


def driver(tx: Connection) -> Any:
    """The driver's own connection, within the transaction: for statements that SQLAlchemy would only slow down."""
    return tx.connection.driver_connection


def new_id(inserted: CursorResult[Any]) -> int:
    """The primary key of the one row that was just inserted."""
    key = inserted.inserted_primary_key
    assert key is not None
    identity: int = key[0]
    return identity


def among(state: ColumnElement[str], *states: str) -> ColumnElement[bool]:
    """`state` is one of these, without the index over states: for a row's own few, where SQLite would otherwise go
    through all rows of that state for each."""
    return (state + "").in_(states)
