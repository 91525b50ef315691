"""`hilum serve` on good and bad days: one node a folder, nothing lost at a stop, a clear word when it can't start."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from peers.node import RunningNode, running_node, send, until

from model import phantom

NO_WORKER = "min_free_bytes = 0\n[analyze]\nworkers = 0\n"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "phantom.dcm"
    phantom.draw(1, patch=False).save_as(file, enforce_file_format=True)
    return file


@pytest.fixture
def storescu(program: Callable[[str], str]) -> str:
    return program("storescu")


def hilum(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "node.cli", *arguments], capture_output=True, text=True, timeout=60
    )


def test_without_workers_the_node_is_ready_at_once_and_ends_cleanly_within_ten_seconds(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    with running_node(tmp_path, NO_WORKER, free_port()) as node:
        assert node.status()["workers"] == {"ready": 0, "wanted": 0}
        children = node.children()
        assert sorted(children) == ["deliverer", "housekeeper", "receiver"]
        began = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - began < 10
        assert not any(Path(f"/proc/{pid}").exists() for pid in children.values())
        # a new data folder begins with the first key of its anchors
        assert [r["event"] for r in node.audit()][:3] == ["audit.rekeyed", "node.started", "node.stopped"]


def test_a_second_node_on_the_same_folder_exits_3_and_names_the_first(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    with running_node(tmp_path, NO_WORKER, free_port()) as node:
        second = hilum("serve", "--config", str(node.config))
        assert second.returncode == 3
        assert node.process is not None
        assert f"(pid {node.process.pid})" in second.stderr and "Traceback" not in second.stderr


def test_a_taken_port_exits_3(tmp_path: Path, free_port: Callable[[], int]) -> None:
    with running_node(tmp_path / "one", NO_WORKER, free_port()) as node:
        other = tmp_path / "two.toml"
        other.write_text(f'[node]\ndata_dir = "two"\n[receive]\nport = {node.port}\n{NO_WORKER}')
        done = hilum("serve", "--config", str(other))
        assert done.returncode == 3
        assert str(node.port) in done.stderr and "Traceback" not in done.stderr


def test_beyond_loopback_without_peers_it_does_not_start(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[receive]\nhost = "0.0.0.0"\n')
    done = hilum("serve", "--config", str(config))
    assert done.returncode == 2
    assert "receive.peers is empty" in done.stderr


def test_children_die_with_a_killed_supervisor(tmp_path: Path, free_port: Callable[[], int]) -> None:
    with running_node(tmp_path, NO_WORKER, free_port()) as node:
        children = node.children()
        assert node.process is not None
        node.process.kill()
        node.process.wait()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children.values()), 10)


def test_a_killed_child_is_started_again_and_the_node_receives(
    tmp_path: Path, free_port: Callable[[], int], image: Path, storescu: str
) -> None:
    with running_node(tmp_path, NO_WORKER, free_port()) as node:
        for name in ("receiver", "deliverer", "housekeeper"):
            before = node.children()[name]
            node.kill(name)
            until(lambda name=name, before=before: node.children().get(name, before) != before, 30)  # type: ignore[misc]
        until(lambda: send(storescu, node.port, [image]).returncode == 0, 30)
        assert node.status()["jobs"]["queued"] == 1


def test_a_node_whose_model_cannot_be_loaded_receives_and_says_so(
    tmp_path: Path, free_port: Callable[[], int], image: Path, storescu: str
) -> None:
    (tmp_path / "empty-model").mkdir()
    config = 'min_free_bytes = 0\n[analyze]\nmodel = "empty-model"\n'
    node = RunningNode(tmp_path, config, free_port())
    node.start(wait=False)
    try:
        until(
            lambda: (
                "starts again" in node.log.read_text() and send(storescu, node.port, [image]).returncode == 0
            )
        )
        until(lambda: "load the model" in json.dumps(node.status()), 60)
        assert node.status()["jobs"]["queued"] == 1
    finally:
        assert node.stop() == 0


def test_below_the_disks_floor_nothing_is_written_and_the_sender_is_told(
    tmp_path: Path, free_port: Callable[[], int], image: Path, storescu: str
) -> None:
    config = 'min_free_bytes = "900000 TB"\n[analyze]\nworkers = 0\n'
    with running_node(tmp_path, config, free_port()) as node:
        answer = send(storescu, node.port, [image])
        assert (
            "Refused" in answer.stdout + answer.stderr and "OutOfResources" in answer.stdout + answer.stderr
        )
        assert not [p for p in (node.data / "objects").rglob("*") if p.is_file()]
        until(lambda: node.audit("object.refused"), 10)
        (refused,) = node.audit("object.refused")
        assert refused["outcome"] == "failure"


def test_a_file_whose_row_was_never_committed_is_adopted_and_a_result_without_row_deleted(
    tmp_path: Path, free_port: Callable[[], int], image: Path
) -> None:
    with running_node(tmp_path, NO_WORKER, free_port()) as node:
        node.stop()
        for kind in ("objects", "results"):
            stray = node.data / kind / "2026-01-01/10/0123.dcm"
            stray.parent.mkdir(parents=True)
            stray.write_bytes(image.read_bytes())
        node.start()
        status = node.status()
        assert (status["received"], status["jobs"]["queued"]) == (1, 1)
        assert not list((node.data / "results").rglob("*.dcm"))
        (recovered,) = node.audit("node.recovered")
        assert recovered["outcome"] == "success"


def test_a_changed_configuration_is_audited_with_old_and_new_value(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    with running_node(tmp_path, NO_WORKER, free_port()) as node:
        node.stop()
        node.config.write_text(node.config.read_text() + "[retention]\nimages_days = 7\n")
        node.start()
        (changed,) = node.audit("config.changed")
        assert "images_days" in json.dumps(changed) and "30" in json.dumps(changed["detail"])


def test_a_lost_database_is_not_silently_begun_anew_but_rebuilt_on_request(
    tmp_path: Path, free_port: Callable[[], int], image: Path, storescu: str
) -> None:
    with running_node(tmp_path, NO_WORKER, free_port()) as node:
        assert send(storescu, node.port, [image]).returncode == 0
        node.stop()
        for file in node.data.glob("hilum.db*"):
            file.unlink()
        refused = hilum("serve", "--config", str(node.config))
        assert refused.returncode == 3 and "--repair" in refused.stderr
        assert hilum("check", "--repair", "--config", str(node.config)).returncode in {0, 1}
        records = node.audit()
        assert records[0]["event"] == "node.recovered" and "lost" in json.dumps(records[0]["detail"])
        node.start()
        assert node.status()["jobs"]["parked"] == 1
        assert node.status()["jobs"]["queued"] == 0
