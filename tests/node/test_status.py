"""`hilum status` says what an administrator needs, also while the node is stopped."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from node import shadow
from node.settings import Settings, load
from node.state import NodeState, locked, read_state
from node.status import collect, describe
from storage.audit import Actor, Patient
from storage.objects import Arrival
from storage.spool import Disk

RUNNING = NodeState(1, "2026-01-31T12:00:00+00:00", "127.0.0.1", 11112, "HILUM", {"ready": 1, "wanted": 1})


class SmallDisk(Disk):
    def free_bytes(self, folder: Path) -> int:
        return 10**6


def test_the_json_has_the_keys_that_scripts_rely_on(station: Any) -> None:
    code, out, _ = station.run("status", "--json")
    told = json.loads(out)
    assert code == 1
    assert told["node"] == "stopped"
    assert told["since"] is None
    assert told["received"] == told["refused_associations"] == told["oldest_queued_seconds"] == 0
    assert set(told["jobs"]) == {"queued", "running", "done", "skipped", "parked", "discarded"}
    assert set(told["deliveries"]) == {
        "waiting", "sending", "delivered", "committed", "parked", "discarded",
    }  # fmt: skip
    assert told["workers"] == {"ready": 0, "wanted": 1}
    assert told["destinations"] == {
        "pacs": {
            "state": "unknown", "waiting": 0, "last_success": None, "last_error": None,
            "uncommitted": 0, "commitment_error": None,
        }
    }  # fmt: skip
    assert told["disk_free_bytes"] > 0
    model = told["model"]
    assert (model["from"], model["runtime"], model["shadow"]) == ("shipped", "auto", None)
    assert model["sha256"].startswith("sha256:") and (model["since"], model["by"]) == (None, None)


def test_the_model_its_runtime_and_what_is_wrong_with_the_shadow_are_told(
    station: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    station.config.write_text(station.config.read_text() + '[analyze]\nshadow = "next"\n')
    shadow.failed_in(station.data_dir).write_text("next/card.toml: can't be read")
    found = collect(load(station.config), dataclasses.replace(RUNNING, runtime="openvino"))
    describe(found)
    assert "shipped; runtime openvino; shadow" in capsys.readouterr().out
    assert "there is no shadow: next/card.toml: can't be read" in found.problems[0]
    assert found.holds


def test_a_folder_where_no_node_has_run_is_a_stopped_node(tmp_path: Path) -> None:
    found = collect(Settings().with_changes("node", data_dir=tmp_path / "a" / "b"), None)
    assert (found.node, found.received, found.holds) == ("stopped", 0, False)
    assert "no node has run" in found.problems[0]
    assert not (tmp_path / "a").exists()


def test_a_destination_that_was_never_tried_is_not_down(station: Any) -> None:
    found = collect(load(station.config), RUNNING)
    assert found.destinations["pacs"].state == "unknown"
    assert found.holds


def test_a_destination_whose_last_try_failed_is_down_and_says_why(station: Any) -> None:
    delivery = station.make(1)
    with station.store.database.write() as tx:
        station.store.outbox.postponed(tx, delivery, "no connection to 127.0.0.1:1: refused", 5)
    found = collect(load(station.config), RUNNING)
    assert found.destinations["pacs"].state == "down"
    assert found.destinations["pacs"].waiting == 1
    assert not found.holds
    assert any("pacs is down: no connection" in problem for problem in found.problems)


def test_a_delivery_makes_it_up_again(station: Any) -> None:
    delivery = station.make(1)
    with station.store.database.write() as tx:
        station.store.outbox.delivered(tx, delivery, {"status": "0000"})
    found = collect(load(station.config), RUNNING)
    assert found.destinations["pacs"].state == "up"
    assert found.as_json()["destinations"]["pacs"]["last_success"].endswith("Z")
    assert found.deliveries["delivered"] == 1
    assert found.holds


def test_a_disk_below_its_floor_is_told(station: Any) -> None:
    settings = load(station.config).with_changes("receive", min_free_bytes=10**9)
    found = collect(settings, RUNNING, disk=SmallDisk())
    assert any("below its floor: 1 MB free" in problem for problem in found.problems)


def test_a_model_that_can_not_be_loaded_is_told(station: Any) -> None:
    state = NodeState(**{**vars(RUNNING), "problem": "no worker can load the model"})
    assert "no worker can load the model" in collect(load(station.config), state).problems


def test_conflicts_are_counted_and_the_setting_that_decides_them_is_named(station: Any) -> None:
    station.receive(1)
    changed = Arrival(
        "1.2.840.10008.5.1.4.1.1.1", "1.2.3.1", "1.2.3", "1.2", Patient("ID-1"), "1.2.840.10008.1.2.1",
        10, "sha256:other", Actor("CR_ROOM"),
    )  # fmt: skip
    with station.store.database.write() as tx:
        station.store.objects.conflict(tx, changed, "other content under the same SOP Instance UID")
    found = collect(load(station.config), RUNNING)
    assert found.conflicts == 1
    assert any("on_conflict" in problem for problem in found.problems)


def test_queued_jobs_wait_in_seconds(station: Any) -> None:
    station.receive(1)
    found = collect(load(station.config), RUNNING)
    assert found.jobs["queued"] == 1
    assert 0 < found.oldest_queued_seconds < 60


def test_a_folder_that_a_node_holds_says_so_and_one_that_it_left_does_not(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / "run" / "node.json").write_text(json.dumps(vars(RUNNING)))
        assert read_state(tmp_path) == RUNNING
    assert read_state(tmp_path) is None


def test_people_read_the_same(station: Any) -> None:
    station.park(1)
    code, out, _ = station.run("status")
    assert code == 1
    assert "1 parked" in out
    assert "! the node is stopped" in out
    assert "hilum jobs list --state parked" in out
