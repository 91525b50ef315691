"""An administrator sees whether the repository is reached and how much waits for it; and a whole node forwards."""

from collections.abc import Callable
from pathlib import Path

import pytest
from peers.node import running_node, send, until
from peers.receiver import Certificates
from peers.syslog_server import Repository

from model import phantom
from node.check import Check, checks
from node.settings import Settings
from node.state import NodeState
from node.status import collect

from .conftest import Log

RUNNING = NodeState(1, "2026-01-31T12:00:00+00:00", "127.0.0.1", 11112, "HILUM", {"ready": 1, "wanted": 1})


def checked(settings: Settings) -> Check:
    (found,) = (check for check in checks(settings) if check.what == "audit repository")
    return found


def test_status_tells_how_many_records_wait_and_since_when_the_server_is_not_reached(
    tmp_path: Path, site: Certificates, free_port: Callable[[], int]
) -> None:
    log = Log(tmp_path, free_port(), site, "tls")
    log.write(1200)
    never = collect(log.settings, RUNNING)
    assert never.holds and never.as_json()["repository"]["waiting"] == 1200
    assert never.as_json()["repository"]["reached"] is None
    log.forwarder().round()
    down = collect(log.settings, RUNNING)
    log.store.close()
    assert not down.holds
    assert any("the audit repository is not reached since 20" in problem for problem in down.problems)
    assert any("1,200 records wait for it" in problem for problem in down.problems)


def test_without_a_repository_nothing_is_said_of_one(tmp_path: Path) -> None:
    assert (
        collect(Settings().with_changes("node", data_dir=tmp_path), RUNNING).as_json()["repository"] is None
    )


@pytest.mark.peer
def test_check_connects_to_the_repository_and_sends_nothing(
    serving: Callable[..., Repository], log_for: Callable[..., Log], stranger: Certificates
) -> None:
    server = serving()
    log = log_for(server)
    away = checked(log.settings)
    server.start()
    there = checked(log.settings)
    refusing = serving(certificates=Certificates(stranger.ca, server_certificate(log)))
    refusing.start()
    refused = checked(log_for(refusing).settings)
    assert not away.holds and "refused" in away.detail
    assert there.holds and "nothing was sent" in there.detail and server.texts == []
    # rsyslog hangs up without a word
    assert not refused.holds
    assert "does not trust our certificate" in refused.detail or "ended the connection" in refused.detail


def server_certificate(log: Log) -> Path:
    repository = log.settings.audit.repository
    assert repository and repository.certificate
    return repository.certificate


@pytest.mark.peer
def test_a_node_forwards_what_it_receives(
    serving: Callable[..., Repository],
    site: Certificates,
    program: Callable[[str], str],
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    server = serving()
    server.start()
    image = tmp_path / "phantom.dcm"
    phantom.draw(1, patch=False).save_as(image, enforce_file_format=True)
    config = (
        "min_free_bytes = 0\n[analyze]\nworkers = 0\n"
        f'[audit.repository]\nhost = "127.0.0.1"\nport = {server.port}\n'
        f'ca_file = "{site.ca}"\ncertificate = "{site.server}"\n'
    )
    with running_node(tmp_path / "node", config, free_port()) as node:
        assert "forwarder" in node.children()
        assert send(program("storescu"), node.port, [image]).returncode == 0
        until(lambda: "object.received" in "".join(server.texts), 30)
        told = "".join(server.texts)
        assert "node.started" in told and "association.accepted" in told
        assert node.stop() == 0
        node.start()
        until(lambda: "node.stopped" in "".join(server.texts), 30)
