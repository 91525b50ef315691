"""Whole months of the log go, and nothing goes that is not in a file that can be verified by itself."""

import gzip
import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from storage.audit import About, Filter, Patient, archive, values_of
from storage.audit.archive import Archived, Month
from storage.audit.expire import finish, gone, let_go, next_month, over
from storage.audit.seal import seal_all
from storage.audit.verify import Findings, opened, verify
from storage.clock import Clock
from storage.errors import WrongState
from storage.schema import audit, audit_identity, audit_posting, audit_seal
from storage.store import Store

START = datetime(2026, 1, 10, tzinfo=UTC)
DAYS = 60


class Stopped(Exception):
    """The process dies here."""


class Years:
    """A log from January to May 2026, several blocks a month; of a patient for each month, and of one in all months."""

    def __init__(self, folder: Path) -> None:
        self.now = START
        self.folder = folder / archive.FOLDER
        self.store = Store.create(folder, clock=Clock(now=lambda: self.now))
        while self.now.month < 6:
            self.record_a_day()
        self.seal()

    def record_a_day(self) -> None:
        """Its records in one transaction, each with its own time."""
        with self.store.database.write() as tx:
            for _ in range(12):
                for patient in (
                    Patient(f"OF-{self.now:%m}", f"Huber^{self.now:%m}"),
                    Patient("ALWAYS", "Maier^Ida"),
                ):
                    about = About(self.store.audit.identify(tx, patient), f"1.{self.now.month}")
                    self.store.audit.record(tx, "object.received", about=about)
                self.now += timedelta(hours=2)

    def seal(self) -> None:
        seal_all(self.store.database, self.store.clock)

    def over(self, days: int = DAYS) -> list[Month]:
        with self.store.database.read() as tx:
            return over(tx, self.now, days)

    def write(self, month: Month) -> Archived:
        return archive.write(self.store.database, month, self.folder, self.store.spool.disk)

    def let_go(self, month: Month, archived: Archived) -> None:
        let_go(self.store.database, self.store.audit, self.store.clock, month, archived)

    def expire(self) -> list[Archived]:
        finish(self.store.database, pause=lambda _: None)
        done = []
        for month in self.over():
            done.append(self.write(month))
            self.let_go(month, done[-1])
            finish(self.store.database, pause=lambda _: None)
        return done

    def findings(self) -> list[str]:
        findings = Findings()
        with opened(self.store.database.file) as connection:
            verify(connection, findings)
        return findings.told

    def studies(self) -> set[str]:
        with self.store.database.read() as tx:
            return {record.study for record in self.store.audit.page(tx, Filter(event="object.received"))}

    def names(self) -> set[str]:
        with self.store.database.read() as tx:
            return set(values_of(tx, tx.execute(select(audit_identity.c.key)).scalars()).values())


@pytest.fixture
def years(tmp_path: Path) -> Iterator[Years]:
    years = Years(tmp_path)
    yield years
    years.store.close()


def test_a_block_ends_where_the_month_does(years: Years) -> None:
    with years.store.database.read() as tx:
        seals = tx.execute(select(audit_seal)).all()
    assert all(seal.earliest[:7] == seal.latest[:7] for seal in seals)
    assert sorted({seal.latest[:7] for seal in seals}) == [f"2026-0{month}" for month in range(1, 6)]
    assert len(seals) > 8
    assert years.findings() == []


def test_a_month_is_over_when_its_last_day_is_older_than_the_days(years: Years) -> None:
    years.now = datetime(2026, 5, 30, tzinfo=UTC)
    assert [month.name for month in years.over()] == ["2026-01", "2026-02"]
    assert [month.name for month in years.over(90)] == ["2026-01", "2026-02"]
    assert [month.name for month in years.over(91)] == ["2026-01"]
    assert years.over(0) == []
    with years.store.database.read() as tx:
        assert next_month(tx, years.now, 60) == "2026-03"


def test_what_has_expired_is_in_its_file_and_the_rest_is_as_it_was(years: Years) -> None:
    with years.store.database.read() as tx:
        rows = {row.id: (row.payload, row.hash) for row in tx.execute(select(audit))}
    months = years.over()
    first, last = months[0], months[-1]
    done = years.expire()
    assert [each.name for each in done] == [f"audit-2026-0{month}.jsonl.gz" for month in (1, 2, 3)]
    exported = {}
    for month, archived in zip(months, done, strict=True):
        file = years.folder / archived.name
        assert archived.hash == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
        assert file.stat().st_mode & 0o777 == 0o600
        seal, count = archive.verify(file)
        assert (seal.block, seal.hash, count) == (month.block, month.hash, archived.records)
        lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
        exported |= {
            line["id"]: (line["payload"].encode(), bytes.fromhex(line["hash"]))
            for line in lines
            if "payload" in line
        }
    with years.store.database.read() as tx:
        left = {row.id: (row.payload, row.hash) for row in tx.execute(select(audit)) if row.id in rows}
        assert tx.execute(select(func.min(audit_posting.c.record))).scalar() == last.last_id + 1
        assert [each.month for each in gone(tx)] == ["2026-01", "2026-02", "2026-03"]
        told = years.store.audit.page(tx, Filter(event="audit.expired"))
    assert exported.keys() == set(range(first.first_id, last.last_id + 1))
    assert exported | left == rows and not exported.keys() & left.keys()
    assert [record.detail["export_hash"] for record in told] == [each.hash for each in done]
    assert years.studies() == {"1.4", "1.5"}
    assert years.findings() == []
    years.seal()
    assert years.findings() == []


def test_a_name_goes_with_the_last_record_that_carries_it(years: Years) -> None:
    years.expire()
    assert years.names() == {"ALWAYS", "Maier^Ida", "OF-04", "Huber^04", "OF-05", "Huber^05"}
    files = b"".join(path.read_bytes() for path in years.store.database.file.parent.glob("hilum.db*"))
    assert b"Huber^01" not in files and b"Huber^05" in files


@pytest.mark.parametrize("steps", range(6))
def test_a_run_that_is_cut_short_is_finished_by_the_next(years: Years, steps: int) -> None:
    """0: after the archive, 1: after its row, 2 and on: after so many blocks were deleted."""
    left = steps

    def step(_: float = 0) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Stopped

    month = years.over()[0]
    with suppress(Stopped):
        archived = years.write(month)
        step()
        years.let_go(month, archived)
        step()
        finish(years.store.database, pause=step)
    with years.store.database.read() as tx:
        first = tx.execute(select(func.min(audit.c.id))).scalar()
    assert (first > month.first_id) == (steps >= 2)
    assert years.findings() == []
    years.expire()
    assert years.findings() == []
    assert sorted(path.name for path in years.folder.iterdir()) == [
        f"audit-2026-0{number}.jsonl.gz" for number in (1, 2, 3)
    ]
    assert years.studies() == {"1.4", "1.5"}
    with years.store.database.read() as tx:
        assert [each.month for each in gone(tx)] == ["2026-01", "2026-02", "2026-03"]
        sealed = tx.execute(select(func.min(audit_seal.c.first_id))).scalar()
        assert sealed == gone(tx)[-1].last_id + 1


def test_a_record_that_is_put_back_into_a_month_that_is_going_is_found(years: Years) -> None:
    month = years.over()[0]
    years.let_go(month, years.write(month))

    def stop(_: float) -> None:
        raise Stopped

    with suppress(Stopped):
        finish(years.store.database, pause=stop)
    assert years.findings() == []
    with years.store.database.write() as tx:
        payload = b'{"event":"object.received","outcome":"success","time":"2026-01-11T00:00:00.000000Z"}'
        tx.execute(audit.insert().values(id=1, payload=payload, hash=hashlib.sha256(payload).digest()))
    (finding,) = years.findings()
    assert "should not be there" in finding


def test_an_archive_is_never_replaced(years: Years) -> None:
    month = years.over()[0]
    first = years.write(month)
    assert years.write(month) == first
    file = years.folder / first.name
    file.write_bytes(b"of an old copy of the database")
    assert years.write(month).name == "audit-2026-01-2.jsonl.gz"
    assert file.read_bytes() == b"of an old copy of the database"


def test_a_month_that_somebody_changed_does_not_go(years: Years) -> None:
    month = years.over()[0]
    with years.store.database.write() as tx:
        tx.execute(text("DROP TRIGGER audit_no_update"))
        payload = tx.execute(select(audit.c.payload).where(audit.c.id == 3)).scalar_one()
        changed = payload.replace(b"object.received", b"object.repeated")
        values = {"payload": changed, "hash": hashlib.sha256(changed).digest()}
        tx.execute(audit.update().where(audit.c.id == 3).values(values))
    with pytest.raises(WrongState, match="verify"):
        years.write(month)
    assert list(years.folder.iterdir()) == []


@pytest.mark.parametrize("forge", ["change", "remove", "reorder", "cut", "bits"])
def test_a_forged_archive_is_found(years: Years, forge: str) -> None:
    file = years.folder / years.write(years.over()[0]).name
    lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
    if forge == "change":
        lines[2] = lines[2].replace(b"object.received", b"object.repeated")
    elif forge == "remove":
        del lines[2]
    elif forge == "reorder":
        lines[2], lines[3] = lines[3], lines[2]
    elif forge == "cut":
        del lines[-1]
    file.write_bytes(
        gzip.compress(b"".join(lines)) if forge != "bits" else file.read_bytes()[:-40] + bytes(40)
    )
    with pytest.raises(WrongState):
        archive.verify(file)
