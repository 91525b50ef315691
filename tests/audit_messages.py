"""The rules of PS3.15 A.5 that an audit message must keep, as far as Hilum's messages go; in words of our own.

No package carries the standard's schema, so this is written from its text: A.5.1 (elements, attributes, their order,
number and values), A.5.2 (who may be the requestor, what goes with what) and the tables of A.5.3 (which participants
and objects a message must have). `faults` is empty for a message that keeps them all.
"""

import base64
import binascii
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from xml.etree.ElementTree import Element, ParseError, fromstring

MANY = 10**9
CODED = {"csd-code": ".+", "codeSystemName": ".+", "originalText": ".+"}


@dataclass(frozen=True)
class Shape:
    """An element: its attributes (each a pattern), those it may lack, its children in order with (least, most)."""

    attributes: dict[str, str] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    children: tuple[tuple[str, int, int], ...] = ()
    text: bool = False


SHAPES = {
    "AuditMessage": Shape(
        children=(
            ("EventIdentification", 1, 1),
            ("ActiveParticipant", 1, MANY),
            ("AuditSourceIdentification", 1, 1),
            ("ParticipantObjectIdentification", 0, MANY),
        )
    ),
    "EventIdentification": Shape(
        {"EventActionCode": "[CRUDE]", "EventDateTime": ".+", "EventOutcomeIndicator": "0|4|8|12"},
        frozenset({"EventActionCode"}),
        (("EventID", 1, 1), ("EventTypeCode", 0, MANY), ("EventOutcomeDescription", 0, 1)),
    ),
    "EventID": Shape(CODED),
    "EventTypeCode": Shape(CODED),
    "EventOutcomeDescription": Shape(text=True),
    "ActiveParticipant": Shape(
        {
            "UserID": ".+",
            "AlternativeUserID": ".+",
            "UserName": ".+",
            "UserIsRequestor": "true|false|1|0",
            "NetworkAccessPointID": ".+",
            "NetworkAccessPointTypeCode": "[1-5]",
        },
        frozenset({"AlternativeUserID", "UserName", "NetworkAccessPointID", "NetworkAccessPointTypeCode"}),
        (("RoleIDCode", 0, MANY), ("MediaIdentifier", 0, 1)),
    ),
    "RoleIDCode": Shape(CODED),
    "AuditSourceIdentification": Shape(
        {"AuditEnterpriseSiteID": ".+", "AuditSourceID": ".+"},
        frozenset({"AuditEnterpriseSiteID"}),
        (("AuditSourceTypeCode", 0, MANY),),
    ),
    "AuditSourceTypeCode": Shape({"csd-code": "[1-9]"}),
    "ParticipantObjectIdentification": Shape(
        {
            "ParticipantObjectID": ".+",
            "ParticipantObjectTypeCode": "[1-4]",
            "ParticipantObjectTypeCodeRole": "[1-9]|1[0-9]|2[0-6]",
            "ParticipantObjectDataLifeCycle": "[1-9]|1[0-5]",
            "ParticipantObjectSensitivity": ".+",
        },
        frozenset(
            {
                "ParticipantObjectTypeCode",
                "ParticipantObjectTypeCodeRole",
                "ParticipantObjectDataLifeCycle",
                "ParticipantObjectSensitivity",
            }
        ),
        (
            ("ParticipantObjectIDTypeCode", 1, 1),
            # or ParticipantObjectQuery, which Hilum does not write
            ("ParticipantObjectName", 1, 1),
            ("ParticipantObjectDetail", 0, MANY),
            ("ParticipantObjectDescription", 0, MANY),
        ),
    ),
    "ParticipantObjectIDTypeCode": Shape(CODED),
    "ParticipantObjectName": Shape(text=True),
    "ParticipantObjectDetail": Shape({"type": ".+", "value": ".*"}),
    "ParticipantObjectDescription": Shape(children=(("SOPClass", 0, MANY),)),
    "SOPClass": Shape(
        {"UID": ".+", "NumberOfInstances": "[0-9]+"}, frozenset({"UID"}), (("Instance", 0, MANY),)
    ),
    "Instance": Shape({"UID": ".+"}),
}

MEANINGS = {
    "110100": "Application Activity",
    "110101": "Audit Log Used",
    "110102": "Begin Transferring DICOM Instances",
    "110103": "DICOM Instances Accessed",
    "110104": "DICOM Instances Transferred",
    "110105": "DICOM Study Deleted",
    "110106": "Export",
    "110107": "Import",
    "110108": "Network Entry",
    "110109": "Order Record",
    "110110": "Patient Record",
    "110111": "Procedure Record",
    "110112": "Query",
    "110113": "Security Alert",
    "110114": "User Authentication",
}
"""CID 400."""
APPLICATION, LAUNCHER, DESTINATION, SOURCE = "110150", "110151", "110152", "110153"
ALERTS = {str(code) for code in range(110126, 110143)}
"""CID 403."""


@dataclass(frozen=True)
class Told:
    """One table of A.5.3. `users`: how many participants of a role there must be ("" : of any), (least, most).
    `objects`: how many of a type, role and id type."""

    actions: str
    types: frozenset[str] = frozenset()
    users: tuple[tuple[str, int, int], ...] = ()
    objects: tuple[tuple[tuple[str, str, str], int, int], ...] = ()


STUDY, PATIENT, LOG = ("2", "3", "110180"), ("1", "1", "2"), ("2", "13", "12")
_STUDY_AND_PATIENT = ((STUDY, 1, MANY), (PATIENT, 1, 1))
TABLES = {
    "110100": Told("E", frozenset({"110120", "110121"}), ((APPLICATION, 1, 1),)),
    "110101": Told("R", users=(("", 1, 2),), objects=((LOG, 1, 1),)),
    "110102": Told("E", users=((SOURCE, 1, 1), (DESTINATION, 1, 1)), objects=_STUDY_AND_PATIENT),
    "110103": Told("CRUD", users=(("", 1, 2),), objects=_STUDY_AND_PATIENT),
    "110104": Told("CRU", users=((SOURCE, 1, 1), (DESTINATION, 1, 1)), objects=_STUDY_AND_PATIENT),
    "110108": Told("E", frozenset({"110124", "110125"}), (("", 1, 1),)),
    "110110": Told("CRUD", users=(("", 1, 2),), objects=((PATIENT, 1, 1),)),
    "110111": Told("CRUD", users=(("", 1, 2),), objects=((STUDY, 0, MANY), (PATIENT, 1, 1))),
    "110113": Told("E", frozenset(ALERTS), (("", 1, MANY),)),
    "110114": Told("E", frozenset({"110122", "110123"}), (("", 1, 2),)),
}


def faults(document: bytes) -> list[str]:
    """What is wrong with a message; nothing in a good one."""
    try:
        root = fromstring(document)
    except ParseError as e:
        return [f"not well-formed XML: {e}"]
    if root.tag != "AuditMessage":
        return [f"the root is {root.tag}"]
    found = list(_shape(root))
    # what follows reads what the shape promises
    return found or [*_general(root), *_table(root)]


def _shape(element: Element) -> Iterator[str]:
    """A.5.1: names, attributes, order, number."""
    shape = SHAPES[element.tag]
    for name, value in element.attrib.items():
        if name not in shape.attributes:
            yield f"{element.tag} has no attribute {name}"
        elif not re.fullmatch(shape.attributes[name], value, re.DOTALL):
            yield f"{element.tag}@{name} is {value!r}"
    for name in shape.attributes.keys() - shape.optional - element.attrib.keys():
        yield f"{element.tag} lacks {name}"
    if not shape.text and (element.text or "").strip():
        yield f"{element.tag} holds text"
    names = [child.tag for child in element]
    order = [name for name, _, _ in shape.children]
    strangers = set(names) - set(order)
    if strangers:
        yield f"{element.tag} holds {strangers}"
        return
    if names != sorted(names, key=order.index):
        yield f"{element.tag}: {names} is not the order of the schema"
    count = Counter(names)
    for name, least, most in shape.children:
        if not least <= count[name] <= most:
            yield f"{element.tag} holds {count[name]} {name}"
    for child in element:
        yield from _shape(child)


def _general(root: Element) -> Iterator[str]:
    """A.5.2."""
    (event,) = root.iter("EventIdentification")
    if datetime.fromisoformat(event.attrib["EventDateTime"]).tzinfo is None:
        yield "EventDateTime has no time zone"
    requestors = [p for p in root.iter("ActiveParticipant") if p.attrib["UserIsRequestor"] == "true"]
    if len(requestors) > 1:
        yield "several requestors"
    for user in root.iter("ActiveParticipant"):
        if ("NetworkAccessPointID" in user.attrib) != ("NetworkAccessPointTypeCode" in user.attrib):
            yield "a network access point without its type, or a type without it"
        if not user.attrib.get("AlternativeUserID", "AETITLES=").startswith("AETITLES="):
            yield "AE titles are written otherwise (A.5.2.2)"
    for detail in root.iter("ParticipantObjectDetail"):
        try:
            base64.b64decode(detail.attrib["value"], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            yield f"the detail {detail.attrib['type']} is not base64 of text"
    for sop_class in root.iter("SOPClass"):
        if int(sop_class.attrib["NumberOfInstances"]) != len(sop_class):
            yield "NumberOfInstances is not the number of instances"


def _table(root: Element) -> Iterator[str]:
    """A.5.3: the message's own table."""
    (event,) = root.iter("EventIdentification")
    identified = event[0].attrib
    number = identified["csd-code"]
    if identified["codeSystemName"] != "DCM" or MEANINGS.get(number) != identified["originalText"]:
        yield f"EventID {identified} is none of CID 400"
        return
    told = TABLES[number]
    if event.attrib["EventActionCode"] not in told.actions:
        yield f"EventActionCode {event.attrib['EventActionCode']} in {number}"
    types = {code.attrib["csd-code"] for code in event.iter("EventTypeCode")}
    if told.types and not types & told.types:
        yield f"{number} without an EventTypeCode of DICOM's"
    users = list(root.iter("ActiveParticipant"))
    roles = Counter(role.attrib["csd-code"] for user in users for role in user.iter("RoleIDCode"))
    roles[""] = len(users)
    for role, least, most in told.users:
        if not least <= roles[role] <= most:
            yield f"{number}: {roles[role]} participants of role {role or 'any'}"
    objects = Counter(map(_type, root.iter("ParticipantObjectIdentification")))
    for type_, least, most in told.objects:
        if not least <= objects[type_] <= most:
            yield f"{number}: {objects[type_]} objects {type_}"
    if number == "110101" and "Security Audit Log" not in [
        n.text for n in root.iter("ParticipantObjectName")
    ]:
        yield "the audit log is called otherwise"
    if number == "110113":
        yield from _alert(root)
    if number == "110114" and "NetworkAccessPointID" not in users[0].attrib:
        yield "where the person sits is not told"


def _type(told: Element) -> tuple[str, str, str]:
    return (
        told.attrib["ParticipantObjectTypeCode"],
        told.attrib["ParticipantObjectTypeCodeRole"],
        told[0].attrib["csd-code"],
    )


def _alert(root: Element) -> Iterator[str]:
    """A.5.3.11: a subject has a description; who performed is no requestor."""
    subjects = [
        told
        for told in root.iter("ParticipantObjectIdentification")
        if told[0].attrib["csd-code"] in {"12", "110182"}
    ]
    for subject in subjects:
        if "Alert Description" not in {d.attrib["type"] for d in subject.iter("ParticipantObjectDetail")}:
            yield "an alert's subject without description"
    for performing in list(root.iter("ActiveParticipant"))[1:]:
        if performing.attrib["UserIsRequestor"] == "true":
            yield "who performed is told as requestor"
