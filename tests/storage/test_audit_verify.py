"""Whatever somebody does to the log who owns its file, verification finds it; and it finds nothing where nobody did."""

import json
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import forgeries
import pytest
from forgeries import FOUND_ALONE, FOUND_BY_ANCHORS, Log, forged, unguarded, written

from storage.audit import About, Actor, Filter
from storage.audit.anchors import Anchors
from storage.audit.reindex import compare, repair
from storage.audit.seal import seal_all
from storage.audit.verify import MOST_FINDINGS, Findings, opened, verify
from storage.errors import Unavailable
from storage.schema import audit_posting
from storage.store import Store

# of each kind; `scripts/forge-audit` makes 10,000
MANY = 150
SEED = int(time.time()) // 86_400


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Log]:
    """Of several writers each; the last has let its first months go."""
    return [
        unguarded(written(tmp_path_factory.mktemp("log"), SEED + number, expires=number == 2))
        for number in range(3)
    ]


@pytest.mark.parametrize("forge", [*FOUND_ALONE, *FOUND_BY_ANCHORS], ids=lambda forge: forge.__name__)
def test_every_forgery_is_found(logs: list[Log], forge: Callable[..., bool]) -> None:
    chance = random.Random(SEED)
    for number in range(MANY):
        told = forged(logs[number % len(logs)], forge, chance)
        assert told is None or told, f"{forge.__name__}: forgery {number} of seed {SEED} was not found"


def test_whoever_makes_the_anchors_anew_as_well_is_found_by_the_key_that_is_kept_elsewhere(
    logs: list[Log],
) -> None:
    chance = random.Random(SEED)
    for number in range(MANY):
        assert forgeries.whoever_rewrites_the_anchors_too(logs[number % len(logs)], chance), (
            f"{number} of {SEED}"
        )


def test_nothing_is_found_where_nobody_forged(logs: list[Log]) -> None:
    chance = random.Random(SEED)
    for number in range(3 * MANY):
        _, told = forgeries.unforged(logs[number % len(logs)], chance)
        assert told == [], f"log {number} of seed {SEED}"


def test_a_record_put_at_the_end_is_named_as_not_sealed(logs: list[Log]) -> None:
    for log in logs:
        checked, told = forgeries.appended(log, random.Random(SEED))
        assert (checked.unsealed, told) == (1, [])
        assert checked.first_unsealed == checked.last_unsealed > 0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.create(tmp_path)
    yield store
    store.close()


def record(store: Store, count: int = 1, event: str = "node.started") -> None:
    with store.database.write() as tx:
        for number in range(count):
            about = About(study=f"1.2.{number}")
            store.audit.record(tx, event, about=about, actor=Actor("AE1"), detail={"reason": str(number)})


def verified(store: Store) -> tuple[object, list[str]]:
    findings = Findings()
    with opened(store.database.file) as connection:
        return verify(connection, findings), findings.told


def rewritten(store: Store, *statements: str) -> None:
    """What somebody does who owns the file and puts the guards back."""
    with closing(sqlite3.connect(store.database.file, isolation_level=None)) as raw:
        guards = raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in guards:
            raw.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            raw.execute(statement)
        for _, sql in guards:
            raw.execute(sql)


def test_a_new_log_and_one_that_was_never_sealed_hold(store: Store) -> None:
    assert verified(store)[1] == []
    record(store, 3)
    checked, told = verified(store)
    assert told == []
    assert (checked.records, checked.unsealed, checked.first_unsealed, checked.last_unsealed) == (0, 3, 1, 3)  # type: ignore[attr-defined]


def test_what_was_done_is_told_with_the_ids_of_the_records(store: Store) -> None:
    for _ in range(3):
        record(store, 10)
        seal_all(store.database, store.clock)
    rewritten(
        store,
        "UPDATE audit SET payload = CAST(replace(payload, 'AE1', 'AE2') AS BLOB) WHERE id = 4",
        "DELETE FROM audit WHERE id BETWEEN 12 AND 14",
        "UPDATE audit SET hash = randomblob(32) WHERE id IN (25, 26)",
    )
    _, told = verified(store)
    assert len(told) == 3
    assert told[0].startswith("record 4 (block 1, 20")
    assert told[0].endswith("was changed after it was written: payload and hash differ")
    assert told[1].startswith("records 12 to 14 are missing (block 2, 20")
    assert told[2].startswith("records 25 to 26 (block 3, 20")


def test_it_goes_on_after_each_finding_but_tells_no_more_than_a_person_reads(store: Store) -> None:
    record(store, 400)
    seal_all(store.database, store.clock)
    rewritten(store, "UPDATE audit SET hash = randomblob(32) WHERE id % 2")
    findings = Findings()
    with opened(store.database.file) as connection:
        verify(connection, findings)
    assert (len(findings.told), findings.more) == (MOST_FINDINGS, 200 - MOST_FINDINGS)


def test_a_missing_guard_is_told(store: Store) -> None:
    with closing(sqlite3.connect(store.database.file)) as raw:
        raw.execute("DROP TRIGGER audit_no_update")
    assert verified(store)[1] == [
        "the database's guard audit_no_update is gone: somebody removed it, and the log could be rewritten"
    ]


def test_a_file_that_is_no_database_is_said_to_be_unreadable(tmp_path: Path) -> None:
    file = tmp_path / "hilum.db"
    file.write_bytes(b"no database at all" * 1000)
    with pytest.raises(Unavailable, match="can't be read"), opened(file) as connection:
        verify(connection, Findings())


def test_verifying_holds_up_neither_writers_nor_the_sealer_and_finds_nothing_meanwhile(
    tmp_path: Path, store: Store
) -> None:
    anchors = Anchors(tmp_path)
    anchors.begin()
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            record(store, 3)
            if made := seal_all(store.database, store.clock):
                anchors.write(made)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = 0
        while seen < 60:
            checked, told = verified(store)
            assert told == []
            seen = checked.records  # type: ignore[attr-defined]
    finally:
        stop.set()
        writer.join()


def test_a_record_whose_postings_were_removed_is_found_and_can_be_found_again(
    tmp_path: Path, store: Store
) -> None:
    for _ in range(3):
        record(store, 40, "object.received")
        seal_all(store.database, store.clock)
    with store.database.write() as tx:
        tx.execute(audit_posting.delete().where(audit_posting.c.record.in_([7, 8, 9])))
        tx.execute(audit_posting.insert(), [{"term": 4711, "record": 50}, {"term": 4712, "record": 50}])
    findings = Findings()
    with opened(store.database.file) as connection:
        found = compare(connection, tmp_path / "run", findings)
        assert [told.split(":")[0][:48] for told in findings.told] == [
            "records 7 to 9 can't be found by all that they s", "record 50",
        ]  # fmt: skip
        assert found.false == 2
        repair(store.database, connection, tmp_path / "run")
        again = Findings()
        compare(connection, tmp_path / "run", again)
    assert again.told == []
    with store.database.read() as tx:
        assert len(store.audit.page(tx, Filter(study="1.2.6"))) == 3
    assert not list((tmp_path / "run").glob("reindex-*"))


def test_a_payload_that_is_no_record_does_not_end_the_comparison(tmp_path: Path, store: Store) -> None:
    record(store, 3)
    seal_all(store.database, store.clock)
    rewritten(store, f"UPDATE audit SET payload = '{json.dumps('[' * 5000)}' WHERE id = 2")
    findings = Findings()
    with opened(store.database.file) as connection:
        verify(connection, findings)
        compare(connection, tmp_path / "run", findings)
    # it differs from its hash; it is not found by what it says now, and still by what it said
    assert len(findings.told) == 3
