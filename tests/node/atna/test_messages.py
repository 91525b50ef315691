"""Every record is a message that keeps the standard's rules, whatever peers and persons typed."""

import base64
import json
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest
from audit_messages import faults
from hypothesis import given, settings
from hypothesis import strategies as st

from node.atna import codes
from node.atna.messages import Source, message
from node.atna.syslog import DATAGRAM_BYTES
from storage.audit import EVENTS, OF_NAME, About, PatientKeys, Record

SOURCE = Source("node-7", "HILUM")
TIME = "2026-01-31T12:00:00.000001Z"
KEYS = PatientKeys("a" * 64, "b" * 64, "c" * 64)


def record(event: str, **values: Any) -> Record:
    told: dict[str, Any] = {
        "id": 41, "time": TIME, "event": event, "actor": "CR_ROOM", "host": "10.0.0.9", "certificate": "",
        "patient_id": "P1", "study": "1.2.3", "sop": "1.2.3.4", "outcome": "success", "detail": {},
        "about": About(KEYS, "1.2.3", "1.2.3.4"),
    }  # fmt: skip
    return Record(**{**told, **values})


def details(root: Element, type_: str = "audit-record") -> dict[str, str]:
    """Of the object with this id type: its details, decoded."""
    (told,) = (
        each for each in root.iter("ParticipantObjectIdentification") if each[0].attrib["csd-code"] == type_
    )
    return {
        each.attrib["type"]: base64.b64decode(each.attrib["value"]).decode()
        for each in told.iter("ParticipantObjectDetail")
    }


def patient(root: Element) -> Element:
    (told,) = (
        each
        for each in root.iter("ParticipantObjectIdentification")
        if each.attrib["ParticipantObjectTypeCode"] == "1"
    )
    return told


def test_each_event_of_the_catalogue_has_its_message() -> None:
    assert set(codes.OF_EVENT) == set(EVENTS)


texts = st.one_of(
    st.just(""),
    st.text(max_size=40),
    st.text(st.characters(max_codepoint=0x9F), max_size=40),
    st.sampled_from(['<a b="c">&amp;]]>', "\x00\x08\ufffe\uffff", "山田^太郎=やまだ", "\u202egnp.exe", "a;b\nc\td"]),
    st.just("x" * 3000),
)  # fmt: skip
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), texts), lambda v: st.lists(v, max_size=3), max_leaves=6
)


@st.composite
def drawn(draw: st.DrawFn) -> Record:
    event = draw(st.sampled_from([*EVENTS, "another.version"]))
    keys = OF_NAME[event].details if event in OF_NAME else ("some",)
    kept = draw(st.booleans())
    return record(
        event,
        actor=draw(texts),
        host=draw(texts),
        certificate=draw(texts),
        patient_id=draw(texts),
        study=draw(texts),
        sop=draw(texts),
        outcome=draw(st.sampled_from(["success", "failure"])),
        detail=draw(st.dictionaries(st.sampled_from([*keys, "reason", "status"]), values)),
        about=About(KEYS) if kept else About(),
    )


@settings(max_examples=600, deadline=None)
@given(drawn(), st.booleans())
def test_a_message_keeps_the_rules_whatever_stands_in_the_record(drawn: Record, whole: bool) -> None:
    document = message(drawn, SOURCE, whole=whole)
    assert faults(document) == []
    assert not any(byte < 0x20 or byte == 0x7F for byte in document)


@settings(max_examples=150, deadline=None)
@given(drawn())
def test_nothing_of_the_record_is_lost(drawn: Record) -> None:
    told = details(fromstring(message(drawn, SOURCE)))
    for key, value in drawn.detail.items():
        assert told[key] == value if isinstance(value, str) else json.loads(told[key]) == value
    assert told.get("record.actor", "") == drawn.actor
    assert told.get("record.host", "") == drawn.host


@pytest.mark.parametrize("event", EVENTS)
def test_a_message_of_each_event_says_when_who_and_how_it_ended(event: str) -> None:
    for outcome in ("success", "failure"):
        told = record(
            event, outcome=outcome, detail={"reason": "because", "status": "A700", "destination": "pacs"}
        )
        document = message(told, SOURCE)
        assert faults(document) == []
        root = fromstring(document)
        identified = root[0]
        assert identified.attrib["EventDateTime"] == TIME
        assert (identified.attrib["EventOutcomeIndicator"] == "0") == (outcome == "success")
        assert identified.findtext("EventOutcomeDescription") == "because; status A700"
        assert [c.attrib["csd-code"] for c in identified.iter("EventTypeCode")][-1] == event
        numbers = [o.attrib["ParticipantObjectID"] for o in root.iter("ParticipantObjectIdentification")]
        assert numbers[-1] == "41"


def test_an_image_that_came_is_told_with_who_sent_it_and_what_it_is() -> None:
    detail = {"sop_class": "1.2.840.10008.5.1.4.1.1.1", "size": 10}
    root = fromstring(message(record("object.received", detail=detail, certificate="CN=CR"), SOURCE))
    assert (root[0][0].attrib["csd-code"], root[0].attrib["EventActionCode"]) == ("110104", "C")
    sent, kept = root.iter("ActiveParticipant")
    assert sent.attrib == {
        "UserID": "CR_ROOM", "AlternativeUserID": "AETITLES=CR_ROOM", "UserName": "CN=CR", "UserIsRequestor": "true",
        "NetworkAccessPointID": "10.0.0.9", "NetworkAccessPointTypeCode": "2",
    }  # fmt: skip
    assert kept.attrib["AlternativeUserID"] == "AETITLES=HILUM"
    assert kept.attrib["NetworkAccessPointTypeCode"] == "1"
    (sop_class,) = root.iter("SOPClass")
    assert sop_class.attrib == {"NumberOfInstances": "1", "UID": "1.2.840.10008.5.1.4.1.1.1"}
    assert sop_class[0].attrib == {"UID": "1.2.3.4"}


def test_of_the_patient_it_tells_the_number_or_a_marked_hash_and_never_a_name() -> None:
    known = patient(fromstring(message(record("job.analyzed"), SOURCE)))
    erased = patient(fromstring(message(record("job.analyzed", patient_id=""), SOURCE)))
    nobody = patient(fromstring(message(record("job.analyzed", patient_id="", about=About()), SOURCE)))
    assert known.attrib["ParticipantObjectID"] == "P1"
    assert erased.attrib["ParticipantObjectID"] == "hmac-sha256:" + "a" * 64
    assert "erased" in str(erased.findtext("ParticipantObjectName"))
    assert nobody.attrib["ParticipantObjectID"] == "unknown"


def test_what_did_not_get_through_is_never_told_as_transferred() -> None:
    """Who counts successful transfers in the repository counts what arrived."""
    counted = {
        event
        for event in EVENTS
        for root in [fromstring(message(record(event, detail={"destination": "pacs"}), SOURCE))]
        if root[0][0].attrib["csd-code"] == "110104"
    }
    assert counted == {
        "object.received", "object.repeated", "object.conflict", "object.refused",
        "delivery.delivered", "delivery.committed", "delivery.parked",
    }  # fmt: skip
    for event in ("object.conflict", "object.refused", "delivery.parked"):
        root = fromstring(message(record(event, outcome="failure"), SOURCE))
        assert root[0].attrib["EventOutcomeIndicator"] == "8"


def test_a_forged_log_and_a_changed_peer_list_are_security_alerts() -> None:
    forged = fromstring(message(record("audit.verified", outcome="failure"), SOURCE))
    sound = fromstring(message(record("audit.verified"), SOURCE))
    peers = fromstring(message(record("config.changed", detail={"key": "receive.peers"}), SOURCE))
    assert (forged[0][0].attrib["csd-code"], forged[0].attrib["EventOutcomeIndicator"]) == ("110113", "12")
    assert sound[0][0].attrib["csd-code"] == "110101"
    assert peers[0][1].attrib["csd-code"] == "110129"


def test_a_short_message_fits_a_datagram_and_says_that_it_is_cut() -> None:
    long = {"results": ["1.2.3"] * 20_000, "reason": "x" * 70_000, "transaction": "1.2"}
    told = record("commitment.requested", detail=long)
    assert len(message(told, SOURCE)) > DATAGRAM_BYTES
    short = message(told, SOURCE, whole=False)
    assert len(short) < 8192
    assert details(fromstring(short)) == {"cut": "detail left out: too long for a datagram"}
    assert patient(fromstring(short)).attrib["ParticipantObjectID"] == "P1"
