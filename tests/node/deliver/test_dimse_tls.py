"""C-STORE over TLS to DCMTK's storescp, and what is said where TLS does not come about."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from peers.receiver import Certificates
from peers.results import add, picture
from peers.servers import Storescp, running
from pydicom import dcmread

from node.deliver.dimse import DimseSender, Timeouts, echo
from node.deliver.outcome import Delivered, Outcome, Postponed
from node.settings import DimseDestination
from storage.store import Store

SHORT = Timeouts(connect=1.0, associate=1.0, response=1.0)


@pytest.fixture
def peer(
    program: Callable[[str], str], free_port: Callable[[], int], tmp_path: Path, site: Certificates
) -> Iterator[Storescp]:
    """It wants to see a certificate of the site's own authority."""
    folder = site.ca.parent
    shown = ("+tls", str(folder / "server.key"), str(folder / "server.crt"), "+cf", str(site.ca))
    with running(
        Storescp(program("storescp"), free_port(), tmp_path / "received", "--fork", *shown)
    ) as started:
        yield started


def to(port: int, **changes: Any) -> DimseDestination:
    given = {"name": "pacs", "ae_title": "STORESCP", "host": "127.0.0.1", "port": port, "tls": True}
    return DimseDestination.model_validate({**given, "results": ("sc",), **changes})


@pytest.fixture
def send(store: Store) -> Callable[[DimseDestination], Outcome]:
    def once(destination: DimseDestination) -> Outcome:
        add(store, picture(side=600), "pacs")
        with store.database.write() as tx:
            delivery = store.outbox.claim(tx, "pacs", "test", 60)
        assert delivery is not None and delivery.file is not None
        sender = DimseSender(destination, "HILUM", SHORT)
        try:
            # twice: the association that stands is used again
            assert sender.send(delivery, store.spool.path(delivery.file)) == sender.send(
                delivery, store.spool.path(delivery.file)
            )
            return sender.send(delivery, store.spool.path(delivery.file))
        finally:
            sender.rest()

    return once


@pytest.mark.peer
def test_dcmtk_takes_a_result_over_tls(
    send: Callable[..., Outcome], peer: Storescp, site: Certificates
) -> None:
    there = to(peer.port, ca_file=site.ca, certificate=site.server)
    assert send(there) == Delivered("0000")
    (file,) = peer.files
    assert len(dcmread(file).PixelData) == 600 * 600
    assert echo(there, "HILUM", SHORT).accepts == {"sc": True}


@pytest.mark.peer
def test_without_the_certificate_that_dcmtk_wants_it_waits_and_says_so(
    send: Callable[..., Outcome], peer: Storescp, site: Certificates
) -> None:
    there = to(peer.port, ca_file=site.ca)
    assert send(there) == Postponed(
        f"no TLS connection to 127.0.0.1:{peer.port}: it wants to see a certificate"
    )


@pytest.mark.peer
def test_a_certificate_of_another_authority_or_host_is_not_trusted(
    send: Callable[..., Outcome], peer: Storescp, site: Certificates, stranger: Certificates
) -> None:
    untrusted = send(to(peer.port, ca_file=stranger.ca))
    assert isinstance(untrusted, Postponed)
    assert untrusted.reason.startswith(f"the certificate of 127.0.0.1:{peer.port} is not trusted (")
    assert untrusted.reason.endswith("): ca_file names who may sign it")
    other = send(to(peer.port, host="127.0.0.2", ca_file=site.ca))
    assert other == Postponed(
        f"the certificate of 127.0.0.2:{peer.port} is another host's: host must be a name that stands in it"
    )
    assert not peer.files


@pytest.mark.peer
def test_dcmtk_without_tls_is_told_from_one_that_is_away(
    send: Callable[..., Outcome],
    program: Callable[[str], str],
    free_port: Callable[[], int],
    tmp_path: Path,
    site: Certificates,
) -> None:
    with running(Storescp(program("storescp"), free_port(), tmp_path / "plain", "--fork")) as plain:
        outcome = send(to(plain.port, ca_file=site.ca))
    assert outcome in (
        Postponed(f"no TLS connection to 127.0.0.1:{plain.port}: it does not speak TLS"),
        Postponed(
            f"no TLS connection to 127.0.0.1:{plain.port}: it ended the connection: does it speak TLS?"
        ),
    )


@pytest.mark.peer
def test_without_tls_a_peer_that_wants_it_is_not_reached(
    send: Callable[..., Outcome], peer: Storescp
) -> None:
    outcome = send(to(peer.port, tls=False))
    assert outcome == Postponed(
        f"127.0.0.1:{peer.port} ended the connection instead of accepting an association"
    )


def test_who_does_not_shake_hands_is_not_waited_for(send: Callable[..., Outcome], site: Certificates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        outcome = send(to(port, ca_file=site.ca))
    assert outcome == Postponed(f"no TLS connection to 127.0.0.1:{port} within 1 s")


def test_a_session_ticket_is_no_answer(site: Certificates) -> None:
    """What TLS sends for itself makes the socket readable, and nothing to read."""
    from node.wire.connection import Connection
    from node.wire.tls import Files

    server = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        connection, _ = server.accept()
        with site.context.wrap_socket(connection, server_side=True):
            done.wait(30)

    thread = threading.Thread(target=serve)
    thread.start()
    connection = Connection("localhost", server.getsockname()[1], 5, Files(ca=site.ca))
    assert isinstance(connection._socket, ssl.SSLSocket) and connection._socket.version() == "TLSv1.3"
    assert not connection.has_arrived(0.3)
    done.set()
    assert connection.has_arrived(5)
    connection.close()
    thread.join()
    server.close()
