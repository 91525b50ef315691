"""A record of the audit log -> one DICOM audit message: an XML document by the schema of PS3.15 A.5.1.

Nothing of the record is lost: what the schema has no place for stands in the details of an object of our own, the
record itself, by its number. Two messages with one number are one record, sent twice.

Of the patient the message tells the number, or, where that is not kept or has been erased, the keyed hash that stands
for it; never a name.
"""

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from node.atna import codes
from node.atna.codes import Code, Kind, Objects, Parties
from storage.audit import OF_NAME, Record

# what XML 1.0 forbids (2.2), and every control character: syslog servers rewrite those
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
UNKNOWN = "unknown"
NAME_NOT_SENT = "(name not sent)"
HASHED = "(keyed hash: the value is not kept, or was erased)"
NOT_KNOWN = "(empty or not known)"
LOG_URI = "urn:hilum:audit"
LOG_NAME = "Security Audit Log"
CUT = "detail left out: too long for a datagram"


@dataclass(frozen=True)
class Source:
    """The node that tells. `site`: AuditEnterpriseSiteID; empty: none."""

    host: str
    ae_title: str
    site: str = ""

    @property
    def id(self) -> str:
        """AuditSourceID, which also is our own UserID: AE title and host."""
        return f"{self.ae_title}@{self.host}"


@dataclass(frozen=True)
class _Participant:
    user: str
    requests: bool
    role: Code | None = None
    alternative: str = ""
    name: str = ""
    host: str = ""


def message(record: Record, source: Source, *, whole: bool = True) -> bytes:
    """The document, UTF-8, one line. Without `whole` it is short whatever the record holds, and says so: for UDP."""
    kind = codes.kind_of(record)
    root = Element("AuditMessage")
    _event(root, record, kind, whole)
    for participant in _participants(record, kind, source):
        _participant(root, participant)
    _source(root, source)
    _objects(root, record, kind, source, whole)
    return tostring(root, encoding="utf-8", xml_declaration=True).replace(b"\n", b"", 1)


def _event(root: Element, record: Record, kind: Kind, whole: bool) -> None:
    """EventIdentification (A.5.2); its elements in the schema's order."""
    failed = record.outcome != "success"
    event = SubElement(
        root,
        "EventIdentification",
        EventActionCode=kind.action,
        EventDateTime=record.time,
        EventOutcomeIndicator=str(kind.failure if failed else 0),
    )
    _coded(event, "EventID", kind.event)
    if kind.type:
        _coded(event, "EventTypeCode", kind.type)
    _coded(event, "EventTypeCode", codes.own(record))
    description = _outcome(record)
    if description and whole:
        SubElement(event, "EventOutcomeDescription").text = _fit(description)


def _outcome(record: Record) -> str:
    """The reason and the status that the record gives."""
    status = codes.status_of(record.detail)
    parts = (str(record.detail.get("reason") or ""), f"status {status}" if status else "")
    return "; ".join(part for part in parts if part)


def _participants(record: Record, kind: Kind, source: Source) -> Iterator[_Participant]:
    """Who took part, as A.5.3 wants it for this message. One at most is the requestor (A.5.2)."""
    match kind.parties:
        case Parties.FROM_PEER:
            yield _peer(record, True, codes.SOURCE)
            yield _us(source, False, codes.DESTINATION)
        case Parties.TO_DESTINATION:
            yield _us(source, True, codes.SOURCE)
            yield _destination(record)
        case Parties.NODE:
            yield _us(source, True, codes.APPLICATION, "" if record.actor == "hilum" else record.actor)
        case Parties.PERSON:
            yield _person(record)
            yield _us(source, False, codes.APPLICATION)
        case Parties.PEER:
            yield _us(source, False, codes.APPLICATION)
            # of an alert the performing nodes are no requestors (A.5.3.11)
            yield _peer(record, kind.event is not codes.SECURITY_ALERT)
        case Parties.PEER_ALONE:
            yield _peer(record, False)
        case Parties.LOGIN:
            # where the person sits is mandatory here (A.5.3.12)
            yield _person(record, record.host or source.host)
            yield _us(source, False, codes.APPLICATION)


def _us(source: Source, requests: bool, role: Code, process: str = "") -> _Participant:
    return _Participant(source.id, requests, role, f"AETITLES={source.ae_title}", process, source.host)


def _peer(record: Record, requests: bool, role: Code | None = None) -> _Participant:
    alternative = f"AETITLES={record.actor}" if record.actor else ""
    return _Participant(
        record.actor or record.host or UNKNOWN, requests, role, alternative, record.certificate, record.host
    )


def _destination(record: Record) -> _Participant:
    """By its name in our configuration; who reported a commitment told its AE title."""
    name = str(record.detail.get("destination") or UNKNOWN)
    if record.actor in {"", "hilum"}:
        return _Participant(name, False, codes.DESTINATION)
    return _Participant(
        name, False, codes.DESTINATION, f"AETITLES={record.actor}", record.certificate, record.host
    )


def _person(record: Record, host: str = "") -> _Participant:
    """loginName@domain-name (A.5.2.1)."""
    host = host or record.host
    user = record.actor or UNKNOWN
    return _Participant(f"{user}@{host}" if host else user, True, name=user, host=host)


def _participant(root: Element, participant: _Participant) -> None:
    told = SubElement(root, "ActiveParticipant", UserID=_fit(participant.user))
    if participant.alternative:
        told.set("AlternativeUserID", _fit(participant.alternative))
    if participant.name:
        told.set("UserName", _fit(participant.name))
    told.set("UserIsRequestor", "true" if participant.requests else "false")
    if participant.host:
        told.set("NetworkAccessPointID", _fit(participant.host))
        told.set("NetworkAccessPointTypeCode", "2" if _is_address(participant.host) else "1")
    if participant.role:
        _coded(told, "RoleIDCode", participant.role)


def _source(root: Element, source: Source) -> None:
    told = SubElement(root, "AuditSourceIdentification")
    if source.site:
        told.set("AuditEnterpriseSiteID", _fit(source.site))
    told.set("AuditSourceID", _fit(source.id))
    # 4: application server process (A.5.1.2.1)
    SubElement(told, "AuditSourceTypeCode", {"csd-code": "4"})


def _objects(root: Element, record: Record, kind: Kind, source: Source, whole: bool) -> None:
    match kind.objects:
        case Objects.LOG:
            _object(root, "2", "13", codes.URI, LOG_URI, LOG_NAME)
        case Objects.ALERT:
            _alert(root, record, kind, source, whole)
    if kind.objects is Objects.STUDY or record.study:
        _study(root, record, kind, whole)
    if kind.objects in {Objects.STUDY, Objects.PATIENT} or record.about.patient.id:
        _patient(root, record, kind)
    _record(root, record, whole)


def _alert(root: Element, record: Record, kind: Kind, source: Source, whole: bool) -> None:
    """The subject of an alert: the peer, or this node; with a description, which is mandatory (A.5.3.11)."""
    subject = record.host if kind.parties is Parties.PEER and record.host else source.host
    told = _object(root, "2", "13", codes.NODE_ID, subject, "node")
    says = OF_NAME[record.event].says if record.event in OF_NAME else record.event
    description = "; ".join(part for part in (says, _outcome(record)) if part)
    _detail(told, "Alert Description", description if whole else says)


def _study(root: Element, record: Record, kind: Kind, whole: bool) -> None:
    told = _object(
        root, "2", "3", codes.STUDY_INSTANCE_UID, record.study or UNKNOWN, "study", kind.life_cycle
    )
    if record.about.patient.accession:
        _detail(told, "accession_key", record.about.patient.accession)
    instances = [record.sop] if record.sop else []
    results = record.detail.get("results")
    if whole and isinstance(results, list):
        instances += [str(uid) for uid in results if uid]
    if result := record.detail.get("result"):
        instances.append(str(result))
    if not instances:
        return
    # without the UID of the class where the record does not tell it: it is optional in the schema
    sop_class = SubElement(
        SubElement(told, "ParticipantObjectDescription"), "SOPClass", NumberOfInstances=str(len(instances))
    )
    if record.detail.get("sop_class"):
        sop_class.set("UID", _fit(str(record.detail["sop_class"])))
    for uid in instances:
        SubElement(sop_class, "Instance", UID=_fit(uid))


def _patient(root: Element, record: Record, kind: Kind) -> None:
    keys = record.about.patient
    if record.patient_id:
        number, name = record.patient_id, NAME_NOT_SENT
    elif keys.id:
        number, name = f"hmac-sha256:{keys.id}", HASHED
    else:
        number, name = UNKNOWN, NOT_KNOWN
    life_cycle = kind.life_cycle if kind.objects is Objects.PATIENT else ""
    told = _object(root, "1", "1", codes.PATIENT_NUMBER, number, name, life_cycle)
    for key, value in (("patient_key", keys.id), ("name_key", keys.name)):
        if value:
            _detail(told, key, value)


def _record(root: Element, record: Record, whole: bool) -> None:
    """The record itself: its number, and all that its detail tells."""
    told = _object(root, "2", "13", codes.AUDIT_RECORD, str(record.id), record.event)
    if not whole:
        _detail(told, "cut", CUT)
        return
    for key, value in sorted(record.detail.items()):
        _detail(told, key, value)
    for key, text in (("actor", record.actor), ("host", record.host), ("certificate", record.certificate)):
        if text:
            _detail(told, f"record.{key}", text)


def _object(
    root: Element, type_: str, role: str, id_type: Code, number: str, name: str, life_cycle: str = ""
) -> Element:
    told = SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_fit(number),
        ParticipantObjectTypeCode=type_,
        ParticipantObjectTypeCodeRole=role,
    )
    if life_cycle:
        told.set("ParticipantObjectDataLifeCycle", life_cycle)
    _coded(told, "ParticipantObjectIDTypeCode", id_type)
    # the schema wants a name or a query (A.5.1)
    SubElement(told, "ParticipantObjectName").text = _fit(name)
    return told


def _detail(told: Element, key: str, value: Any) -> None:
    """A ValuePair: text as it is, anything else as JSON; base64 of UTF-8 (A.5.1)."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode()
    SubElement(told, "ParticipantObjectDetail", type=_fit(key), value=encoded)


def _coded(parent: Element, name: str, code: Code) -> None:
    coded = {"csd-code": _fit(code.value), "codeSystemName": code.scheme, "originalText": _fit(code.meaning)}
    SubElement(parent, name, coded)


def _fit(text: str) -> str:
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text)


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
