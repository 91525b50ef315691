"""A POST of JSON: what is sent, and what each status means."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peers.node import until
from peers.receiver import Hl7Receiver, HttpReceiver, hl7_receiver, http_receiver, to_send
from peers.results import NOBODY, add, picture

from node.deliver.outcome import Delivered, Outcome, Parked, Postponed, of_http
from node.deliver.post import HttpSender
from node.settings import Hl7Destination, HttpDestination, Node, Settings
from storage.outbox import Delivery
from storage.store import Store

UID = "2.25.7"
TEXT = '{"name": "Unmistakable^Ärztin"}'.encode()


def send(url: str, folder: Path, writer: str = "json", **settings: Any) -> Outcome:
    file = folder / "result.json"
    file.write_bytes(TEXT)
    sender = HttpSender(HttpDestination(name="there", kind="http", url=url, **settings))
    try:
        return sender.send(to_send(writer, UID), file)
    finally:
        sender.rest()


@pytest.mark.parametrize(
    ("writer", "media"), [("json", "application/json"), ("fhir", "application/fhir+json")]
)
def test_the_bytes_go_out_under_their_type_with_a_key_that_a_repeat_has_too(
    tmp_path: Path, writer: str, media: str
) -> None:
    with http_receiver() as there:
        assert [send(f"{there.url}/in/box", tmp_path, writer) for _ in range(2)] == [Delivered("200")] * 2
    for asked in there.asked:
        assert (asked.method, asked.path, asked.body) == ("POST", "/in/box", TEXT)
        assert asked.headers["Content-Type"] == media and asked.headers["Idempotency-Key"] == UID


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((s, Delivered) for s in (200, 201, 202, 204)),
        *((s, Postponed) for s in (401, 403, 404, 408, 425, 429, 500, 502, 503, 504, 507)),
        *((s, Parked) for s in (301, 302, 308, 400, 405, 409, 413, 415, 418, 422, 999)),
    ],
)
def test_each_status_means_one_thing(status: int, kind: type) -> None:
    assert isinstance(of_http(status), kind)


def test_a_body_that_names_a_patient_is_not_kept(tmp_path: Path) -> None:
    with http_receiver() as there:
        there.answer = (422, {}, b"no such patient: Unmistakable^Name")
        assert send(there.url, tmp_path) == Parked("the destination answered 422 (content not accepted)")


def test_a_token_is_read_for_each_delivery(tmp_path: Path) -> None:
    token = tmp_path / "token"
    with http_receiver() as there:
        for text in ("first", "second\n"):
            token.write_text(text)
            assert send(there.url, tmp_path, token_file=token) == Delivered("200")
    assert [a.headers["Authorization"] for a in there.asked] == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "token_file is empty"),
        (b"\xff", "token_file is not UTF-8"),
        (b"two words", "the token in token_file has characters that no token has"),
        (b"tab\tin it", "the token in token_file has characters that no token has"),
    ],
)
def test_a_token_that_is_none_goes_nowhere_and_is_not_quoted(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "token").write_bytes(content)
    with http_receiver() as there:
        assert send(there.url, tmp_path, token_file=tmp_path / "token") == Postponed(reason)
    assert not there.asked


def test_the_environment_has_no_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with http_receiver() as there:
        assert send(there.url, tmp_path) == Delivered("200")
    assert "Authorization" not in there.asked[0].headers


def _deliveries(store: Store) -> list[Delivery]:
    with store.database.read() as tx:
        return store.outbox.listing(tx)


def _settings(store: Store, web: HttpReceiver, ris: Hl7Receiver) -> Settings:
    http = HttpDestination(name="records", kind="http", url=web.url)
    hl7 = Hl7Destination(name="ris", kind="hl7", host="127.0.0.1", port=ris.port)
    return Settings(node=Node(data_dir=store.spool.root), destinations=(http, hl7))


def test_the_deliverer_sends_texts_and_its_log_names_no_patient(
    store: Store, deliverer: Callable[[Settings], Any]
) -> None:
    message = (
        rf"MSH|^~\&|HILUM||||2026||ORU^R01^ORU_R01|7|P|2.5.1{'|' * 6}UNICODE UTF-8" + "\rPID|1||PAT-4711\r"
    )
    with http_receiver() as web, hl7_receiver() as ris:
        process = deliverer(_settings(store, web, ris))
        web.answer = (503, {}, b"Unmistakable^Name")
        add(store, picture(), "records", writer="json", text=TEXT)
        add(store, picture(), "ris", writer="oru", text=message.encode())
        process.start()
        until(lambda: len(web.asked) > 0, 10)
        web.answer = (201, {}, b"")
        until(lambda: {d.state for d in _deliveries(store)} == {"delivered"}, 20)
        code, log = process.stop()
    assert code == 0 and web.asked[-1].body == TEXT
    assert str(ris.got[0].segment("PID")(3)) == "PAT-4711"
    assert "503 (not available now)" in log
    assert "Unmistakable" not in log and NOBODY.id not in log


def test_a_delivery_waits_until_a_connection_comes_about(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port = free_port()
    down = send(f"http://127.0.0.1:{port}", tmp_path)
    assert isinstance(down, Postponed)
    with http_receiver(port=port):
        assert send(f"http://127.0.0.1:{port}", tmp_path) == Delivered("200")
