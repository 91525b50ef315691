"""TLS at our port, both engines: DCMTK and pynetdicom as senders, and those that get nowhere. And from node to node."""

import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peers.receiver import Certificates
from pydicom import dcmread
from pynetdicom import AE

from model import phantom
from node.deliver.dimse import echo
from node.receive.part10 import walk_file
from node.settings import DimseDestination
from node.wire import pdu
from node.wire.connection import Ended
from node.wire.requestor import associate
from node.wire.tls import Files

DX = "1.2.840.10008.5.1.4.1.1.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
VERIFICATION = "1.2.840.10008.1.1"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "chest.dcm"
    phantom.draw(1, patch=False).save_as(path, enforce_file_format=True)
    return path


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60)


def shown(certificates: Certificates) -> list[object]:
    """DCMTK's options to show this certificate, and to trust its authority."""
    folder = certificates.ca.parent
    return ["+tls", folder / "server.key", folder / "server.crt", "+cf", certificates.ca]


def data_set(path: Path) -> bytes:
    return path.read_bytes()[walk_file(path).start :]


def reason(node: Any) -> str:
    """Why the only association was refused, as the audit log has it."""
    (record,) = node.wait_for_audit("association.refused")
    assert (record.actor, record.host) == ("", "127.0.0.1")
    return str(record.detail["reason"])


@pytest.mark.peer
def test_storescu_sends_over_tls_and_its_certificate_is_audited(
    program: Callable[[str], str], receiving: Callable[..., Any], site: Certificates, image: Path
) -> None:
    node = receiving(tls={"certificate": site.server, "ca_file": site.ca})
    sent = run(program("storescu"), *shown(site), "-aec", "HILUM", "127.0.0.1", node.port, image)
    assert sent.returncode == 0, sent.stderr
    (file,) = node.files()
    assert data_set(file) == data_set(image)
    (record,) = node.audit("association.accepted")
    assert record.certificate == "CN=server"


@pytest.mark.peer
def test_who_need_not_show_a_certificate_shows_none(
    program: Callable[[str], str], receiving: Callable[..., Any], site: Certificates, image: Path
) -> None:
    folder = site.ca.parent
    node = receiving(tls={"certificate": folder / "server.crt", "key": folder / "server.key"})
    sent = run(
        program("storescu"), "+tla", "+cf", site.ca, "-aec", "HILUM", "127.0.0.1", node.port, image, image
    )
    assert sent.returncode == 0, sent.stderr
    assert len(node.files()) == 1
    (record,) = node.audit("association.accepted")
    assert "certificate" not in record.detail


@pytest.mark.peer
def test_who_shows_no_certificate_where_one_is_asked_for_is_refused_and_audited(
    program: Callable[[str], str], receiving: Callable[..., Any], site: Certificates
) -> None:
    node = receiving(tls={"certificate": site.server, "ca_file": site.ca})
    asked = run(program("echoscu"), "+tla", "+cf", site.ca, "-aec", "HILUM", "127.0.0.1", node.port)
    assert asked.returncode != 0
    assert reason(node) == "no TLS: it showed no certificate"


@pytest.mark.peer
def test_a_certificate_of_another_authority_is_refused_and_audited(
    program: Callable[[str], str],
    receiving: Callable[..., Any],
    site: Certificates,
    stranger: Certificates,
) -> None:
    node = receiving(tls={"certificate": site.server, "ca_file": site.ca})
    asked = run(program("echoscu"), *shown(stranger), "-ic", "-aec", "HILUM", "127.0.0.1", node.port)
    assert asked.returncode != 0
    assert reason(node).startswith("no TLS: its certificate is not trusted (")


def test_pynetdicom_sends_over_tls(receiving: Callable[..., Any], site: Certificates, image: Path) -> None:
    node = receiving(tls={"certificate": site.server, "ca_file": site.ca})
    context = ssl.create_default_context(cafile=site.ca)
    context.load_cert_chain(site.server)
    entity = AE("MODALITY")
    entity.add_requested_context(DX, EXPLICIT)
    association = entity.associate("127.0.0.1", node.port, ae_title="HILUM", tls_args=(context, "localhost"))
    assert association.is_established
    status = association.send_c_store(dcmread(image)).Status
    association.release()
    assert (status, len(node.files())) == (0, 1)
    (record,) = node.audit("association.accepted")
    assert (record.actor, record.certificate) == ("MODALITY", "CN=server")


def test_who_speaks_no_tls_at_a_port_that_does_is_refused_and_audited(
    receiving: Callable[..., Any], site: Certificates
) -> None:
    node = receiving(tls={"certificate": site.server})
    with pytest.raises(Ended):
        associate("127.0.0.1", node.port, "HILUM", "PLAIN", [(VERIFICATION, (EXPLICIT,))])
    assert reason(node) == "no TLS: it does not speak TLS"


@pytest.mark.peer
def test_tls_1_1_is_too_old(
    program: Callable[[str], str], receiving: Callable[..., Any], site: Certificates
) -> None:
    node = receiving(tls={"certificate": site.server})
    where = f"127.0.0.1:{node.port}"
    run(program("openssl"), "s_client", "-connect", where, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
    assert reason(node) == "no TLS: it speaks neither TLS 1.2 nor 1.3"


@pytest.mark.peer
def test_who_speaks_tls_at_a_port_that_does_not_gets_nowhere_and_holds_up_nobody(
    program: Callable[[str], str], receiving: Callable[..., Any], site: Certificates
) -> None:
    node = receiving()
    asked = run(program("echoscu"), "+tla", "+cf", site.ca, "-aec", "HILUM", "127.0.0.1", node.port)
    assert asked.returncode != 0
    assert run(program("echoscu"), "-aec", "HILUM", "127.0.0.1", node.port).returncode == 0


@pytest.mark.peer
def test_who_says_nothing_holds_up_nobody(
    program: Callable[[str], str], receiving: Callable[..., Any], site: Certificates
) -> None:
    node = receiving(tls={"certificate": site.server})
    silent = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(5)]
    # the first bytes of a hello, and no more
    silent[0].sendall(b"\x16\x03\x01\x02\x00\x01")
    asked = run(program("echoscu"), "+tla", "+cf", site.ca, "-aec", "HILUM", "127.0.0.1", node.port)
    assert asked.returncode == 0, asked.stderr
    assert node.audit("association.refused") == []
    for one in silent:
        one.close()


def test_a_node_that_stops_says_so_under_tls_too(
    receiver_process: Callable[..., Any], engine: str, site: Certificates
) -> None:
    node = receiver_process(tls={"certificate": str(site.server)})
    context = ssl.create_default_context(cafile=site.ca)
    with (
        socket.create_connection(("127.0.0.1", node.port), 30) as plain,
        socket.create_connection(("127.0.0.1", node.port), 30),
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        proposal = pdu.Proposal(1, VERIFICATION.encode(), (EXPLICIT.encode(),))
        implementation = ("1.2.3", "TEST")
        secured.sendall(
            pdu.request("HILUM", "RAW", [proposal], max_length=16384, implementation=implementation)
        )
        assert secured.recv(65536)[0] == pdu.A_ASSOCIATE_AC
        node.process.terminate()
        # pynetdicom may hang up before it has said so
        assert secured.recv(65536)[:1] in {bytes((pdu.A_ABORT,)), b"" if engine == "pynetdicom" else None}
    assert node.process.wait(30) == 0


def to_node(port: int, **changes: Any) -> DimseDestination:
    given = {"name": "node", "ae_title": "HILUM", "host": "127.0.0.1", "port": port, "tls": True}
    return DimseDestination.model_validate({**given, **changes})


def test_a_node_delivers_to_a_node(receiving: Callable[..., Any], site: Certificates, image: Path) -> None:
    node = receiving(tls={"certificate": site.server, "ca_file": site.ca})
    files = Files(site.server, None, site.ca)
    with (
        associate("localhost", node.port, "HILUM", "OTHER", [(DX, (EXPLICIT,))], files=files) as association,
        image.open("rb") as opened,
    ):
        (context,) = association.syntaxes(DX).values()
        start = walk_file(image).start
        for _ in range(2):
            uid = str(dcmread(image, stop_before_pixels=True).SOPInstanceUID)
            assert association.store(context, DX, uid, opened.fileno(), start) == 0
        assert association.is_open()
    (file,) = node.files()
    assert data_set(file) == data_set(image)


def test_echo_says_why_there_is_no_tls(
    receiving: Callable[..., Any], site: Certificates, stranger: Certificates
) -> None:
    node, plain = receiving(tls={"certificate": site.server, "ca_file": site.ca}), receiving()
    good = echo(to_node(node.port, ca_file=site.ca, certificate=site.server), "HILUM")
    assert good.answered and all(good.accepts.values())

    def told(destination: DimseDestination) -> str:
        found = echo(destination, "HILUM")
        assert not found.answered
        return found.reason.replace(f"127.0.0.1:{destination.port}", "THERE")

    none = site.ca.with_name("none")
    assert told(to_node(node.port, ca_file=site.ca)) == (
        "no TLS connection to THERE: it wants to see a certificate"
    )
    assert told(to_node(node.port, ca_file=site.ca, certificate=stranger.server)) == (
        "no TLS connection to THERE: it does not trust our certificate"
    )
    untrusted = told(to_node(node.port, ca_file=stranger.ca))
    assert untrusted.startswith("the certificate of THERE is not trusted (")
    assert untrusted.endswith("): ca_file names who may sign it")
    assert told(to_node(plain.port, ca_file=site.ca)) in {
        "no TLS connection to THERE: it does not speak TLS",
        "no TLS connection to THERE: it ended the connection: does it speak TLS?",
    }
    assert told(to_node(node.port, ca_file=none)) == (
        f"ca_file: {none} can't be read (No such file or directory): name a PEM file that Hilum's user may read"
    )
