"""A data folder of an earlier Hilum is taken up: nothing of it is lost, nothing old is done again."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from storage import database
from storage.audit import Filter
from storage.audit.seal import seal_all
from storage.store import KEY, KEY_BYTES, Store

UID = "1.2.826.0.1.3680043.8.498."


def database_of(data_dir: Path, revision: str) -> Path:
    """A database as the Hilum of that revision made it, and the folder's key."""
    (data_dir / KEY).write_bytes(bytes(KEY_BYTES))
    file = data_dir / "hilum.db"
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    engine = create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()
    return file


def a_delivered_result(file: Path) -> None:
    now = "2026-01-31T12:00:00.000000Z"
    with closing(sqlite3.connect(file)) as db, db:
        rows = {
            "objects": (1, UID + "1", 1, "1.2.840", UID + "2", UID + "3", "p", "n", "a", "1.2", 9, "sha256:0",
                        None, now, "CT1", "10.0.0.7", 0),
            "reports": (1, UID + "1", 1, now),
            "results": (1, 1, "sr", "", "made", "", "1.2.840", UID + "4", "sha256:1", None, now),
        }  # fmt: skip
        for table, row in rows.items():
            db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        db.execute(
            "INSERT INTO deliveries (id, result_id, destination, state, attempt, next_attempt_at, reason, created_at)"
            " VALUES (1, 1, 'pacs', 'delivered', 1, ?, '', ?)",
            (now, now),
        )
        payload = json.dumps({
            "time": now, "event": "object.received", "actor": "CT1", "host": "10.0.0.7", "patient": "4f", "name": "",
            "accession": "", "study": UID + "3", "sop": UID + "1", "outcome": "success", "detail": {},
        }).encode()  # fmt: skip
        db.execute(
            "INSERT INTO audit VALUES (7, ?, 'object.received', 'CT1', '4f', ?, ?, ?, ?)",
            (now, UID + "3", UID + "1", payload, hashlib.sha256(payload).digest()),
        )
        db.execute("INSERT INTO audit_identity VALUES ('4f', 'patient_id', 'ID-4711')")


@pytest.mark.parametrize("revision", ["0002", "0003"])
def test_what_was_delivered_and_recorded_before_is_so_afterwards(tmp_path: Path, revision: str) -> None:
    a_delivered_result(database_of(tmp_path, revision))
    store = Store.create(tmp_path)
    for _ in range(2):
        with store.database.read() as tx:
            assert store.outbox.counts(tx) == {"delivered": 1}
            assert not store.commitments.is_due(tx, "pacs")
            (record,) = store.audit.page(tx, Filter(patient="", study=UID + "3", event="object.received"))
        assert (record.id, record.actor, record.patient_id) == (7, "CT1", "ID-4711")
        # found by reading it all; and the second time by the index
        seal_all(store.database, store.clock)
    with store.database.write() as tx:
        store.audit.record(tx, "node.started")
        assert store.audit.newest(tx) == 8
    with pytest.raises(Exception, match="never changed"), store.database.write() as tx:
        tx.exec_driver_sql("DELETE FROM audit")
    store.close()
