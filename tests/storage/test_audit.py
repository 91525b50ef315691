"""The audit log's promises: nobody rewrites it, and names lie apart from what happened."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from storage.audit import About, Actor, Filter, Patient, pages
from storage.errors import StorageError
from storage.schema import audit
from storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.create(tmp_path)
    yield store
    store.close()


def record(store: Store, event: str = "node.started", *, patient: Patient | None = None) -> None:
    with store.database.write() as tx:
        keys = store.audit.identify(tx, patient or Patient())
        store.audit.record(tx, event, about=About(keys, "1.2", "1.2.3"), actor=Actor("AE1", "h"))


@pytest.mark.parametrize("statement", ["UPDATE audit SET payload = 'x'", "DELETE FROM audit"])
def test_the_database_refuses_to_change_or_delete_a_record(store: Store, statement: str) -> None:
    record(store)
    with pytest.raises((IntegrityError, StorageError)), store.database.write() as tx:
        tx.execute(text(statement))
    with closing(sqlite3.connect(store.database.file)) as raw, pytest.raises(sqlite3.IntegrityError):
        raw.execute(statement)


def test_a_record_holds_keyed_hashes_and_the_query_shows_the_patient_id(store: Store) -> None:
    record(store, patient=Patient("ID-4711", "Unmistakable^Name", "ACC-99"))
    with store.database.read() as tx:
        row = tx.execute(select(audit)).one()
        (shown,) = store.audit.page(tx, Filter())
    for secret in (b"4711", b"Unmistakable", b"ACC-99"):
        assert secret not in row.payload
    assert row.hash == hashlib.sha256(row.payload).digest()
    assert (shown.patient_id, shown.study, shown.sop, shown.actor) == ("ID-4711", "1.2", "1.2.3", "AE1")


def test_an_erased_name_leaves_the_record_as_it_was(store: Store) -> None:
    record(store, patient=Patient("ID-4711"))
    with store.database.write() as tx:
        before = tx.execute(select(audit.c.payload)).scalar_one()
        tx.execute(text("UPDATE audit_identity SET value = NULL"))
    with store.database.read() as tx:
        assert tx.execute(select(audit.c.payload)).scalar_one() == before
        (shown,) = store.audit.page(tx, Filter())
    assert shown.patient_id == f"#{shown.about.patient.id[:12]}"


def test_a_query_filters_and_pages_over_everything(store: Store) -> None:
    for _ in range(3):
        record(store, "node.started")
        record(store, "node.stopped")
    assert len(list(pages(store.audit, store.database.read, Filter(event="node.stopped")))) == 3
    assert list(pages(store.audit, store.database.read, Filter(ae="NOBODY"))) == []
    with store.database.read() as tx:
        first = store.audit.page(tx, Filter(), limit=2)
        assert [r.id for r in store.audit.page(tx, Filter(), after=first[-1].id, limit=2)] == [3, 4]
