"""`hilum check` asks each destination, sends it nothing, and says what to look at."""

from collections.abc import Callable
from typing import Any

from peers.receiver import hl7_receiver, http_receiver

from node.check import Check, checks
from node.settings import Settings


def destination(settings: dict[str, Any]) -> Check:
    """What is found about the only destination."""
    whole = Settings.model_validate({"receive": {"port": 0}, "destinations": [{"name": "it", **settings}]})
    (found,) = (check for check in checks(whole) if check.what == "destination it")
    return found


def test_a_web_destination_is_asked_for_no_study_at_all() -> None:
    with http_receiver() as there:
        there.answer = (204, {}, b"")
        found = destination({"kind": "web", "url": f"{there.url}/dicom-web"})
        there.answer = (404, {}, b"Unmistakable^Name")
        wrong = destination({"kind": "web", "url": there.url})
    assert found.holds and "answered GET with 204" in found.detail
    assert [a.path for a in there.asked][:1] == ["/dicom-web/studies?StudyInstanceUID=2.25.0"]
    assert (wrong.holds, wrong.detail) == (
        False, f"{there.url}: the destination answered 404 (not found: look at url)",
    )  # fmt: skip


def test_an_http_destination_that_knows_no_options_answers_all_the_same() -> None:
    found = {}
    with http_receiver() as there:
        for status in (200, 405, 401, 302, 503):
            there.answer = (status, {}, b"")
            found[status] = destination({"kind": "http", "url": there.url}).holds
    assert found == {200: True, 405: True, 401: False, 302: False, 503: False}
    assert {(a.method, a.body) for a in there.asked} == {("OPTIONS", b"")}


def test_an_hl7_destination_is_connected_to_and_nothing_is_sent(free_port: Callable[[], int]) -> None:
    with hl7_receiver() as there:
        found = destination({"kind": "hl7", "host": "127.0.0.1", "port": there.port})
    down = destination({"kind": "hl7", "host": "127.0.0.1", "port": free_port()})
    assert found.holds and "nothing was sent" in found.detail and not there.got
    assert not down.holds and "refused or unreachable" in down.detail
