"""Anchors in a node: a start that finds an old copy says so; a folder that fails or hangs holds up nothing."""

import json
import shutil
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from structlog.testing import capture_logs

from node import anchoring
from node.anchoring import Anchoring, at_start, at_stop
from node.housekeep import Housekeeper
from node.recover import repair
from node.settings import Settings, load
from node.status import collect
from storage.audit import Filter
from storage.audit.anchors import Anchors, newest
from storage.audit.seal import seal_all
from storage.store import DATABASE, Store


def events(store: Store, event: str) -> list[Any]:
    with store.database.read() as tx:
        return list(store.audit.page(tx, Filter(event=event)))


def goes_on(store: Store, settings: Settings) -> None:
    """A round of the housekeeper, with something to seal."""
    with store.database.write() as tx:
        store.audit.record(tx, "node.stopped")
    keeper = Housekeeper(store, settings)
    keeper.seal()
    keeper.anchor()


def replaced(station: Any, image: bytes) -> Store:
    """The station's store after its database was replaced."""
    station.store.close()
    for file in station.data_dir.glob(f"{DATABASE}*"):
        file.unlink()
    (station.data_dir / DATABASE).write_bytes(image)
    station.store = Store.open(station.data_dir)
    return station.store


def image_of(store: Store) -> bytes:
    store.database.empty_log()
    return store.database.file.read_bytes()


def test_the_first_start_makes_a_key_and_each_sealing_an_anchor(station: Any) -> None:
    settings = load(station.config)
    at_start(station.store, settings)
    goes_on(station.store, settings)
    goes_on(station.store, settings)
    at_stop(station.store, settings)
    last = newest(station.data_dir / "anchors")
    assert last is not None
    assert (last.block, last.number) == (2, 1)
    assert [record.detail["number"] for record in events(station.store, "audit.rekeyed")] == [0]
    code, out, _ = station.run("audit", "verify")
    assert code == 0
    assert "2 of 2 agree" in out


def test_a_start_with_an_old_copy_records_it_and_status_and_check_say_so(station: Any) -> None:
    settings = load(station.config)
    at_start(station.store, settings)
    goes_on(station.store, settings)
    old = image_of(station.store)
    for _ in range(3):
        goes_on(station.store, settings)
    store = replaced(station, old)
    # before it is started
    assert any("older than the anchor" in problem for problem in collect(settings, None).problems)
    with capture_logs() as lines:
        at_start(store, settings)
    assert [(line["log_level"], line["anchor"]) for line in lines] == [("error", 4)]
    (found,) = events(store, "audit.mismatch")
    assert (found.outcome, found.detail["block"], found.detail["anchor"]) == ("failure", 1, 4)
    # and when it has gone on
    for _ in range(2):
        goes_on(store, settings)
    assert any("was not what its anchors knew" in problem for problem in collect(settings, None).problems)
    code, out, _ = station.run("check", "--json")
    (check,) = (check for check in json.loads(out)["checks"] if check["what"] == "audit anchors")
    assert (code, check["holds"]) == (1, False)
    code, out, _ = station.run("audit", "verify", "--json")
    told = json.loads(out)
    assert (code, told["holds"], told["anchors"]["agree"]) == (1, False, 3)
    assert any("an old copy was put back" in sentence for sentence in told["findings"])
    assert [record.outcome for record in events(store, "audit.verified")] == ["failure"]


def test_a_folder_that_is_not_there_stops_nothing_and_is_told_once(station: Any, tmp_path: Path) -> None:
    share = tmp_path / "share"
    settings = load(station.config).with_changes("audit", anchor_folder=share)
    at_start(station.store, settings)
    chore = Anchoring(station.store, settings)
    with capture_logs() as lines:
        for _ in range(3):
            goes_on_sealing(station.store)
            chore.run()
        share.mkdir()
        for _ in range(2):
            goes_on_sealing(station.store)
            chore.run()
    assert [line["event"] for line in lines] == ["the newest seal has no anchor", "seals are anchored again"]
    last = newest(share)
    assert last is not None
    assert (last.block, last.number) == (5, 1)


def goes_on_sealing(store: Store) -> None:
    with store.database.write() as tx:
        store.audit.record(tx, "node.stopped")
    seal_all(store.database, store.clock)


def test_a_seal_without_an_anchor_is_a_problem_after_a_while(
    station: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(station.config).with_changes("audit", anchor_folder=tmp_path / "share")
    at_start(station.store, settings)
    goes_on_sealing(station.store)
    assert anchoring.problems(station.store, settings) == []
    monkeypatch.setattr(anchoring, "LATE_SECONDS", -1.0)
    (problem,) = anchoring.problems(station.store, settings)
    assert "have no anchor" in problem
    assert "not there or not writable" in problem


def test_a_folder_that_hangs_holds_up_neither_start_nor_stop_nor_status(
    station: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(station.config)
    at_start(station.store, settings)
    goes_on_sealing(station.store)
    hang = Event()
    monkeypatch.setattr(anchoring, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(anchoring, "newest", lambda _folder: hang.wait())
    monkeypatch.setattr(Anchors, "write", lambda *_: hang.wait())
    with capture_logs() as lines:
        at_start(station.store, settings)
        at_stop(station.store, settings)
    assert [line["log_level"] for line in lines] == ["error", "error"]
    assert any("does not answer" in problem for problem in collect(settings, None).problems)
    hang.set()


def test_the_first_key_is_shown_once_and_proves_what_was_made_with_it(station: Any, tmp_path: Path) -> None:
    settings = load(station.config)
    at_start(station.store, settings)
    goes_on(station.store, settings)
    code, key, told = station.run("audit", "anchor-key", "--new")
    assert (code, key.split()[0], len(key.split()[1])) == (0, "1", 64)
    assert "away from this machine" in told
    goes_on(station.store, settings)
    goes_on(station.store, settings)
    file = tmp_path / "first-key"
    file.write_text(key)
    code, out, _ = station.run("audit", "verify", "--key", str(file))
    assert code == 0
    assert "made with the key given: 2 (1 are older than it)" in out
    assert not any(
        key.split()[1].encode() in path.read_bytes() for path in station.data_dir.rglob("*") if path.is_file()
    )
    # who rewrites a line without that key
    (lines,) = (station.data_dir / "anchors").iterdir()
    lines.write_text(lines.read_text().replace('"time":"20', '"time":"19'))
    code, out, _ = station.run("audit", "verify", "--key", str(file))
    assert code == 1


def test_the_anchors_that_a_syslog_server_has_are_compared_too(station: Any, tmp_path: Path) -> None:
    settings = load(station.config)
    at_start(station.store, settings)
    for _ in range(3):
        goes_on(station.store, settings)
    file = tmp_path / "syslog"
    (lines,) = (station.data_dir / "anchors").iterdir()
    file.write_text(
        "".join(f"Nov  3 10:00:00 node hilum: {line}\n" for line in lines.read_text().splitlines())
    )
    old = image_of(station.store)
    goes_on(station.store, settings)
    file.write_text(
        file.read_text() + "Nov  3 11:00:00 node hilum: " + lines.read_text().splitlines()[-1] + "\n"
    )
    # whoever cuts both is found by what lies elsewhere
    replaced(station, old)
    shutil.rmtree(station.data_dir / "anchors")
    (station.data_dir / "anchor.key").unlink()
    assert station.run("audit", "verify")[0] == 0
    code, out, _ = station.run("audit", "verify", "--anchors", str(file))
    assert code == 1
    assert "the database is older than the anchor" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--repair"], "--repair goes with --index"),
        (["--key", "nonsense"], "a key is a number and 64 hexadecimal digits"),
        (["--anchors", "nonsense"], "holds no anchor"),
    ],
)
def test_wrong_use_is_one_line(
    station: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nonsense").write_text("nonsense\n")
    code, _, told = station.run("audit", "verify", *arguments)
    assert code == 2
    assert says in told


def test_a_lost_database_is_named_with_the_last_seal_that_was_anchored(station: Any) -> None:
    settings = load(station.config)
    at_start(station.store, settings)
    goes_on(station.store, settings)
    last = newest(station.data_dir / "anchors")
    assert last is not None
    station.store.close()
    for file in station.data_dir.glob(f"{DATABASE}*"):
        file.unlink()
    repair(settings, "sha256:model")
    station.store = Store.open(station.data_dir)
    first = events(station.store, "node.recovered")[0]
    assert first.detail["last_anchor"] == {
        "block": 1, "time": last.time, "last_id": last.last_id, "hash": last.hash,
    }  # fmt: skip
    at_start(station.store, settings)
    assert len(events(station.store, "audit.mismatch")) == 1
