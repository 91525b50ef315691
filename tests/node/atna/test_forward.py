"""The whole log reaches the repository: over TLS to rsyslog and to a strict server of our own, on good and bad days."""

from collections.abc import Callable
from typing import Any

import pytest
from audit_messages import faults
from peers.receiver import Certificates
from peers.syslog_server import Repository, none_missing, none_twice, numbers

from node.atna import condition
from storage.audit import anchors
from storage.audit.seal import seal_all

from .conftest import Log, Process, until

pytestmark = pytest.mark.peer

Serving = Callable[..., Repository]
LogFor = Callable[..., Log]


def test_500_records_arrive_whole_in_order_and_once(serving: Serving, log_for: LogFor) -> None:
    server = serving()
    server.start()
    log = log_for(server)
    log.write(500)
    forwarder = log.forwarder()
    until(lambda: len(numbers(server)) >= 500, forwarder)
    assert numbers(server) == list(range(1, 501))
    assert not [fault for text in server.texts for fault in faults(text.encode())]
    assert "Ünique-3" in server.texts[3] and "Unmistakable" not in "".join(server.texts)
    until(lambda: log.position == 500, forwarder)
    forwarder.finish()


def test_a_server_that_is_killed_in_the_middle_and_comes_back_misses_nothing(
    serving: Serving, log_for: LogFor
) -> None:
    server = serving()
    server.start()
    log = log_for(server)
    log.write(1500)
    forwarder = log.forwarder(settle=1.0)
    until(lambda: len(numbers(server)) > 100, forwarder)
    server.kill()
    for _ in range(3):
        forwarder.round()
    log.write(100)
    server.start()
    until(lambda: none_missing(server, 1600), forwarder)
    forwarder.finish()


def test_a_forwarder_that_is_killed_in_the_middle_leaves_nothing_out(
    serving: Serving, log_for: LogFor, started: Callable[[Log], Process]
) -> None:
    server = serving()
    server.start()
    log = log_for(server)
    log.write(1500)
    first = started(log)
    until(lambda: len(numbers(server)) > 100)
    first.kill()
    log.write(100)
    second = started(log)
    until(lambda: none_missing(server, 1600))
    assert second.stop() == 0
    assert log.position == 1600


def test_after_an_orderly_stop_nothing_is_sent_twice(
    serving: Serving, log_for: LogFor, started: Callable[[Log], Process]
) -> None:
    server = serving()
    server.start()
    log = log_for(server)
    log.write(300)
    for count in (300, 500):
        process = started(log)
        until(lambda count=count: len(numbers(server)) >= count)  # type: ignore[misc]
        assert process.stop() == 0
        assert log.position == count
        log.write(200)
    assert none_twice(server)


def test_a_server_with_a_strangers_certificate_gets_nothing(
    serving: Serving, log_for: LogFor, stranger: Certificates
) -> None:
    server = serving(certificates=stranger)
    server.start()
    log = log_for(server)
    log.write(10)
    forwarder = log.forwarder()
    for _ in range(5):
        forwarder.round()
    assert server.texts == [] and log.position == 0
    told = condition.read(log.data_dir)
    assert told and not told.reached and "not trusted" in told.reason


def test_a_server_that_refuses_our_certificate_is_told_as_not_reached(
    serving: Serving, log_for: LogFor, site: Certificates, stranger: Certificates
) -> None:
    """By TLS 1.3 it says so only after our side has shaken hands."""
    server = serving(certificates=Certificates(stranger.ca, site.server))
    server.start()
    log = log_for(server)
    log.write(10)
    forwarder = log.forwarder(settle=5.0)
    until(lambda: (told := condition.read(log.data_dir)) is not None and not told.reached, forwarder)
    assert server.texts == [] and log.position == 0


def test_while_the_server_is_away_images_are_taken_as_ever_and_their_records_arrive_later(
    serving: Serving, log_for: LogFor, started: Callable[[Log], Process]
) -> None:
    server = serving()
    log = log_for(server)
    process = started(log)
    until(lambda: condition.read(log.data_dir) is not None)
    log.write(2000)
    told = condition.read(log.data_dir)
    assert told and not told.reached and "refused" in told.reason
    assert process.popen.poll() is None and log.position == 0
    server.start()
    until(lambda: none_missing(server, 2000))
    assert process.stop() == 0
    assert log.position == 2000 and none_twice(server)


def test_by_udp_each_record_is_a_datagram_and_a_long_one_goes_short_marked_and_counted(
    serving: Serving, log_for: LogFor
) -> None:
    server = serving("udp")
    server.start()
    log = log_for(server, "udp")
    log.write(200)
    log.write(1, size="x" * 70_000)
    forwarder = log.forwarder()
    until(lambda: log.position == 201, forwarder)
    until(lambda: len(server.texts) == 201)
    assert numbers(server) == list(range(1, 202))
    assert faults(server.texts[-1].encode()) == []
    told = condition.read(log.data_dir)
    assert told and told.cut == 1
    forwarder.finish()


def test_anchors_go_to_the_server_too_and_can_be_read_back_from_its_file(
    serving: Serving, log_for: LogFor
) -> None:
    server = serving()
    server.start()
    log = log_for(server)
    keeper = anchors.Anchors(log.data_dir)
    keeper.begin()
    forwarder = log.forwarder()
    for count in range(1, 4):
        log.write(10)
        seal = seal_all(log.store.database, log.store.clock)
        assert seal and keeper.write(seal)
        until(lambda count=count: len(server.texts) >= 11 * count, forwarder)  # type: ignore[misc]
    forwarder.finish()
    put_down = list(anchors.read(keeper.folder))
    assert list(anchors.read_file(server.file)) == put_down
    again = log.forwarder()
    again.round()
    again.finish()
    assert list(anchors.read_file(server.file)) == put_down


def test_another_server_gets_the_whole_log(serving: Serving, log_for: LogFor) -> None:
    log: Any = None
    for _ in range(2):
        server = serving()
        server.start()
        log = log or log_for(server)
        repository = log.settings.audit.repository.model_copy(update={"port": server.port})
        audit = log.settings.audit.model_copy(update={"repository": repository})
        log.settings = log.settings.model_copy(update={"audit": audit})
        log.write(20)
        forwarder = log.forwarder()
        with log.store.database.read() as tx:
            newest = log.store.audit.newest(tx)
        until(lambda server=server, newest=newest: none_missing(server, newest), forwarder)
        forwarder.finish()
