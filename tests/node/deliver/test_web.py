"""STOW-RS to a real Orthanc, and what each answer means."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from peers.receiver import http_receiver, make_certificates, tls_in_front_of, to_send
from peers.results import encoded, picture
from peers.servers import Orthanc, Peer, running
from pydicom import Dataset

from node.deliver.exchange import MOST_ANSWER_BYTES, Answer, Timeouts
from node.deliver.outcome import Delivered, Outcome, Parked, Postponed
from node.deliver.web import WebSender, of_answer
from node.settings import WebDestination

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
UID = "2.25.7"


def destination(url: str, **settings: Any) -> WebDestination:
    return WebDestination(name="there", kind="web", url=url, **settings)


def send(sender: WebSender, dataset: Dataset, folder: Path) -> Outcome:
    """As a lane with nothing else to do sends it."""
    file = folder / "result.dcm"
    file.write_bytes(encoded(dataset))
    try:
        return sender.send(to_send("sc", str(dataset.SOPInstanceUID)), file)
    finally:
        sender.rest()


class WebOrthanc(Orthanc):
    """With its DICOMweb plugin; ready when its HTTP port is."""

    def __init__(self, program: str, ports: Callable[[], int], folder: Path, **settings: Any) -> None:
        if not PLUGIN.exists():
            pytest.skip("Orthanc's DICOMweb plugin is not installed")
        plugin = {"Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}
        super().__init__(program, ports(), ports(), folder, **plugin, **settings)

    @property
    def where(self) -> str:
        return f"127.0.0.1:{self.http_port}"

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return Peer._answers(self) and probe.connect_ex(("127.0.0.1", self.http_port)) == 0


@pytest.fixture(scope="module")
def pacs(
    program: Callable[[str], str], free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebOrthanc]:
    with running(
        WebOrthanc(program("Orthanc"), free_port, tmp_path_factory.mktemp("web") / "orthanc")
    ) as peer:
        yield peer


@pytest.mark.peer
def test_orthanc_gets_the_file_s_bytes_and_a_repeat_is_no_second_instance(
    pacs: WebOrthanc, tmp_path: Path
) -> None:
    dataset = picture(side=300, study="1.2.7")
    sender = WebSender(destination(f"http://{pacs.where}/dicom-web"))
    assert [send(sender, dataset, tmp_path) for _ in range(2)] == [Delivered("200")] * 2
    (instance,) = pacs.find("1.2.7")
    assert pacs.file(instance) == encoded(dataset)


@pytest.mark.peer
def test_while_orthanc_is_down_it_is_postponed_and_later_delivered(pacs: WebOrthanc, tmp_path: Path) -> None:
    dataset = picture()
    sender = WebSender(destination(f"http://{pacs.where}/dicom-web"))
    pacs.kill()
    down = send(sender, dataset, tmp_path)
    assert down == Postponed(f"no connection to {pacs.where}: refused, unreachable, or broken off")
    pacs.start()
    assert send(sender, dataset, tmp_path) == Delivered("200")


@pytest.mark.peer
def test_orthanc_parks_what_is_no_dicom_and_what_has_the_wrong_address(
    pacs: WebOrthanc, tmp_path: Path
) -> None:
    file = tmp_path / "rubbish.dcm"
    file.write_bytes(b"no DICOM" * 100)
    answers = []
    for root in ("dicom-web", "elsewhere"):
        sender = WebSender(destination(f"http://{pacs.where}/{root}"))
        answers.append(sender.send(to_send("sc", UID), file))
        sender.rest()
    assert answers == [
        Parked("the destination answered 400 (bad request: not understood as it was sent)"),
        Postponed("the destination answered 404 (not found: look at url)"),
    ]


@pytest.mark.peer
def test_over_tls_with_the_site_s_own_authority_and_a_password_that_was_rotated(
    program: Callable[[str], str], free_port: Callable[[], int], tmp_path: Path
) -> None:
    # Debian 12's Orthanc 1.10.1 dies of its first request over TLS: a proxy speaks it, as at many sites
    certificates = make_certificates(program("openssl"), tmp_path)
    locked = {"AuthenticationEnabled": True, "RegisteredUsers": {"hilum": "right"}}
    password, dataset = tmp_path / "password", picture()
    login = {"user": "hilum", "password_file": password}
    with (
        running(WebOrthanc(program("Orthanc"), free_port, tmp_path / "orthanc", **locked)) as peer,
        tls_in_front_of(peer.http_port, certificates.context) as port,
    ):
        url = f"https://127.0.0.1:{port}/dicom-web"
        sender = WebSender(destination(url, ca_file=certificates.ca, **login))
        missing = send(sender, dataset, tmp_path)
        password.write_text("old\nnot this line\n")
        refused = send(sender, dataset, tmp_path)
        password.write_text("right\n")
        untrusted = send(WebSender(destination(url, **login)), dataset, tmp_path)
        assert send(sender, dataset, tmp_path) == Delivered("200")
    assert missing == Postponed("password_file can't be read: No such file or directory")
    assert isinstance(refused, Postponed) and "401 (not authenticated" in refused.reason
    assert isinstance(untrusted, Postponed)
    assert f"the certificate of 127.0.0.1:{port} is not trusted" in untrusted.reason


def test_a_ca_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    sender = WebSender(destination("https://127.0.0.1:9", ca_file=tmp_path / "none.pem"))
    assert send(sender, picture(), tmp_path) == Postponed(
        "no connection to 127.0.0.1:9: ca_file does not exist"
    )


def test_a_redirect_is_not_followed_and_takes_no_secret_along(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("geheim")
    with http_receiver() as there, http_receiver() as elsewhere:
        there.answer = (307, {"Location": f"{elsewhere.url}/studies"}, b"")
        outcome = send(WebSender(destination(there.url, token_file=tmp_path / "token")), picture(), tmp_path)
    assert isinstance(outcome, Parked) and "redirect" in outcome.reason
    assert there.asked[0].headers["Authorization"] == "Bearer geheim" and not elsewhere.asked


def test_the_request_is_one_part_of_the_right_type_with_a_known_length(tmp_path: Path) -> None:
    dataset = picture()
    with http_receiver() as there:
        send(WebSender(destination(f"{there.url}/dicom-web")), dataset, tmp_path)
    (asked,) = there.asked
    kind, _, boundary = asked.headers["Content-Type"].partition("; boundary=")
    assert (asked.path, kind) == ("/dicom-web/studies", 'multipart/related; type="application/dicom"')
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    assert asked.body == head + encoded(dataset) + f"\r\n--{boundary}--\r\n".encode()
    assert "Transfer-Encoding" not in asked.headers and "Authorization" not in asked.headers


def test_a_server_that_says_nothing_and_one_that_says_too_much_deliver_nothing(tmp_path: Path) -> None:
    with http_receiver() as there:
        there.silent = True
        waiting = WebSender(destination(there.url), Timeouts(connect=5, response=0.2))
        where = there.url.removeprefix("http://")
        assert send(waiting, picture(), tmp_path) == Postponed(f"no answer from {where} within 0 s")
    with http_receiver() as there:
        there.answer = (200, {}, b" " * (MOST_ANSWER_BYTES + 1))
        assert isinstance(send(WebSender(destination(there.url)), picture(), tmp_path), Parked)
    assert threading.active_count() == 1


def stored(uid: str = UID, warning: int | None = None) -> dict[str, Any]:
    item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
    if warning is not None:
        item["00081196"] = {"vr": "US", "Value": [warning]}
    return {"00081199": {"vr": "SQ", "Value": [item]}}


def failed(reason: int, uid: str = UID) -> dict[str, Any]:
    item = {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [reason]}}
    return {"00081198": {"vr": "SQ", "Value": [item]}}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, stored(), Delivered),
        (200, [stored()], Delivered),
        (202, stored(warning=0xB007), Delivered),
        (409, failed(0x0111), Delivered),
        (200, failed(0xA700), Postponed),
        (409, failed(0xA701), Postponed),
        (202, failed(0xA900), Parked),
        (409, failed(0xC122), Parked),
        (409, failed(0), Parked),
        (409, failed(0xB000), Parked),
        (400, failed(0x0110), Parked),
        (409, {}, Parked),
        # not named: somebody else's answer, or a page to log in
        (200, {}, Parked),
        (200, stored("2.25.8"), Parked),
        (202, failed(0x0111, "2.25.8"), Parked),
        (201, stored(), Parked),
        (200, {"00081199": {"Value": "no list"}}, Parked),
        (200, [[]], Parked),
        (500, stored(), Postponed),
    ],
)
def test_it_is_delivered_only_where_the_answer_names_it(status: int, body: object, kind: type) -> None:
    assert isinstance(of_answer(Answer(status, json.dumps(body).encode()), UID), kind)


@pytest.mark.parametrize("status", [200, 400, 409, 500])
def test_nothing_of_a_body_that_is_not_understood_is_kept(status: int) -> None:
    for body in (b"Unmistakable^Name", b"[" * 100_000, b"\xff", b"null", b'"Unmistakable^Name"'):
        outcome = of_answer(Answer(status, body), UID)
        assert isinstance(outcome, Parked | Postponed) and "Unmistakable" not in outcome.reason


def test_a_warning_is_kept_and_a_failure_says_why() -> None:
    assert of_answer(Answer(202, json.dumps(stored(warning=0xB007)).encode()), UID) == Delivered("B007")
    assert of_answer(Answer(409, json.dumps(failed(0xC122)).encode()), UID) == Parked(
        "the destination did not store it: C122 (transfer syntax not supported)"
    )
