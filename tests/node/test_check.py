"""`hilum check` asks each destination, sends it nothing, and says what to look at."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peers.receiver import hl7_receiver, http_receiver

from model import card
from node.check import Check, checks
from node.settings import Settings


def destination(settings: dict[str, Any]) -> Check:
    """What is found about the only destination."""
    whole = Settings.model_validate({"receive": {"port": 0}, "destinations": [{"name": "it", **settings}]})
    (found,) = (check for check in checks(whole) if check.what == "destination it")
    return found


def of_the_model(**sections: Any) -> dict[str, Check]:
    whole = Settings.model_validate({"receive": {"port": 0}, **sections})
    return {check.what: check for check in checks(whole) if check.what in {"model", "shadow", "scope"}}


def test_the_model_is_told_with_all_that_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"data_dir": str(tmp_path)}
    (found,) = of_the_model(node=node).values()
    assert found.holds and "(shipped)" in found.detail
    assert re.search(r"runtime auto; (not )?calibrated; scope guard: ", found.detail)
    assert "no marks" not in found.detail

    said = card.load(card.SHIPPED)
    plain = dataclasses.replace(said, scope="", architecture="graph", calibrations={})
    monkeypatch.setattr(card, "load", lambda _: plain)
    found = of_the_model(node=node, report={"intended_use": "marks"}, scope={"unknown_view": "model"})
    assert "not calibrated; scope guard: none" in found["model"].detail and found["model"].holds
    assert "an imported model has no marks" in found["model"].detail
    assert not found["scope"].holds and 'it counts as "skip"' in found["scope"].detail
    off = of_the_model(node=node, scope={"learned": "off"})
    assert "scope guard: off" in off["model"].detail


def test_a_shadow_that_can_not_be_used_or_is_the_model_itself_does_not_hold(tmp_path: Path) -> None:
    node = {"data_dir": str(tmp_path)}
    gone = of_the_model(node=node, analyze={"shadow": str(tmp_path / "none")})["shadow"]
    same = of_the_model(node=node, analyze={"shadow": str(card.SHIPPED)})["shadow"]
    assert not gone.holds and "card.toml: can't be read" in gone.detail
    assert not same.holds and "nothing to compare" in same.detail


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
