"""Which DICOM audit message each event of ours is: one table, and its codes (PS3.15 A.5.3, PS3.16 CID 400 to 405).

Where DICOM has no message for a thing, the nearest by meaning stands; the event's own name goes along as a second
EventTypeCode of our scheme, so that whoever filters by it gets exactly our event. What did not happen is never told as
if it had: a delivery that only waits again is no "Instances Transferred".
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from storage.audit import Record

SCHEME = "99HILUM"


@dataclass(frozen=True)
class Code:
    """csd-code, codeSystemName, originalText (PS3.15 A.5.1)."""

    value: str
    meaning: str
    scheme: str = "DCM"


class Parties(Enum):
    """Who takes part; the actor is the record's."""

    FROM_PEER = "the actor sent data to this node"
    TO_DESTINATION = "this node sent data to a destination"
    NODE = "this node alone; the actor is a process of ours"
    PERSON = "the actor is a person who used this node"
    PEER = "the actor is another node, reported on by this one"
    PEER_ALONE = "the actor is another node, and nobody else takes part"
    LOGIN = "the actor is a person whom this node authenticates"


class Objects(Enum):
    """What it is about, beside the record itself, which every message names."""

    STUDY = "the study and the patient"
    PATIENT = "the patient"
    LOG = "the audit log"
    ALERT = "the subject of an alert"
    NONE = "nothing"


@dataclass(frozen=True)
class Kind:
    """One message: EventID, EventActionCode, participants, objects.

    `type`: the EventTypeCode that DICOM demands. `failure`: EventOutcomeIndicator where it failed (A.5.2): 4 it goes
    on by itself, 8 it has ended, 12 the node or its log can no longer be relied on. `life_cycle`: of the instances.
    """

    event: Code
    action: str
    parties: Parties
    objects: Objects
    type: Code | None = None
    failure: int = 8
    life_cycle: str = ""


APPLICATION_ACTIVITY = Code("110100", "Application Activity")
AUDIT_LOG_USED = Code("110101", "Audit Log Used")
BEGIN_TRANSFERRING = Code("110102", "Begin Transferring DICOM Instances")
INSTANCES_ACCESSED = Code("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
NETWORK_ENTRY = Code("110108", "Network Entry")
PATIENT_RECORD = Code("110110", "Patient Record")
PROCEDURE_RECORD = Code("110111", "Procedure Record")
SECURITY_ALERT = Code("110113", "Security Alert")
USER_AUTHENTICATION = Code("110114", "User Authentication")

APPLICATION_START = Code("110120", "Application Start")
APPLICATION_STOP = Code("110121", "Application Stop")
LOGIN = Code("110122", "Login")
LOGOUT = Code("110123", "Logout")
DETACH = Code("110125", "Detach")
NODE_AUTHENTICATION = Code("110126", "Node Authentication")
SECURITY_CONFIGURATION = Code("110129", "Security Configuration")
SOFTWARE_CONFIGURATION = Code("110131", "Software Configuration")
RESTRICTED_FUNCTION = Code("110132", "Use of Restricted Function")

APPLICATION = Code("110150", "Application")
DESTINATION = Code("110152", "Destination Role ID")
SOURCE = Code("110153", "Source Role ID")

STUDY_INSTANCE_UID = Code("110180", "Study Instance UID")
NODE_ID = Code("110182", "Node ID")
PATIENT_NUMBER = Code("2", "Patient Number", "RFC-3881")
URI = Code("12", "URI", "RFC-3881")
AUDIT_RECORD = Code("audit-record", "Hilum audit record", SCHEME)

COPY, AMENDMENT, USE, ERASURE, CREATION = "2", "3", "6", "15", "1"
"""ParticipantObjectDataLifeCycle (A.5.1.2.3)."""

_P, _O = Parties, Objects


def _kept(action: str) -> Kind:
    return Kind(INSTANCES_TRANSFERRED, action, _P.FROM_PEER, _O.STUDY, life_cycle=COPY)


def _sent() -> Kind:
    # "R": whether the destination held it before is not known here (A.5.3.7)
    return Kind(INSTANCES_TRANSFERRED, "R", _P.TO_DESTINATION, _O.STUDY)


def _used(action: str, parties: Parties = _P.NODE, life_cycle: str = USE) -> Kind:
    return Kind(INSTANCES_ACCESSED, action, parties, _O.STUDY, life_cycle=life_cycle)


def _work(action: str, parties: Parties = _P.NODE) -> Kind:
    """An entry of our lists of work; no instance was touched."""
    return Kind(PROCEDURE_RECORD, action, parties, _O.STUDY)


def _alert(type_: Code, parties: Parties = _P.NODE, failure: int = 8) -> Kind:
    return Kind(SECURITY_ALERT, "E", parties, _O.ALERT, type_, failure)


def _log_used(parties: Parties = _P.PERSON) -> Kind:
    return Kind(AUDIT_LOG_USED, "R", parties, _O.LOG)


OF_EVENT: dict[str, Kind] = {
    "association.accepted": _alert(NODE_AUTHENTICATION, _P.PEER),
    "association.refused": _alert(NODE_AUTHENTICATION, _P.PEER),
    "association.aborted": Kind(NETWORK_ENTRY, "E", _P.PEER_ALONE, _O.NONE, DETACH, 4),
    "object.received": _kept("C"),
    "object.repeated": _kept("R"),
    "object.conflict": _kept("R"),
    "object.refused": _kept("R"),
    "object.expired": _used("D", life_cycle=ERASURE),
    "job.queued": _work("C"),
    "job.claimed": _used("R"),
    "job.skipped": _used("R"),
    "job.analyzed": _used("R"),
    "job.shadowed": _used("R"),
    "job.parked": _used("R"),
    "job.retried": _work("U", _P.PERSON),
    "job.discarded": _work("U", _P.PERSON),
    "study.waiting": _work("C"),
    "study.claimed": _used("R"),
    "study.reported": _used("R"),
    "study.parked": _used("R"),
    "result.made": _used("C", life_cycle=CREATION),
    "result.quarantined": _used("C", life_cycle=CREATION),
    "delivery.attempted": Kind(BEGIN_TRANSFERRING, "E", _P.TO_DESTINATION, _O.STUDY, failure=4),
    "delivery.postponed": Kind(BEGIN_TRANSFERRING, "E", _P.TO_DESTINATION, _O.STUDY, failure=4),
    "delivery.delivered": _sent(),
    "delivery.committed": _sent(),
    "delivery.parked": _sent(),
    "delivery.retried": _work("U", _P.PERSON),
    "delivery.discarded": _work("U", _P.PERSON),
    "delivery.returned": _work("U"),
    "commitment.requested": _used("R"),
    "commitment.refused": _used("R"),
    "commitment.failed": _used("R"),
    "commitment.asked": _used("R", _P.PEER),
    "commitment.reported": _used("R"),
    "node.started": Kind(APPLICATION_ACTIVITY, "E", _P.NODE, _O.NONE, APPLICATION_START, 12),
    "node.stopped": Kind(APPLICATION_ACTIVITY, "E", _P.NODE, _O.NONE, APPLICATION_STOP, 12),
    "node.recovered": _alert(SOFTWARE_CONFIGURATION, failure=12),
    "config.changed": _alert(SOFTWARE_CONFIGURATION),
    "model.changed": _alert(SOFTWARE_CONFIGURATION),
    "model.activated": _alert(SOFTWARE_CONFIGURATION, _P.PERSON),
    "shadow.failed": _alert(SOFTWARE_CONFIGURATION, failure=4),
    "audit.queried": _log_used(),
    "audit.exported": _log_used(),
    "audit.verified": _log_used(),
    "audit.mismatch": _alert(RESTRICTED_FUNCTION, failure=12),
    "audit.rekeyed": _alert(SECURITY_CONFIGURATION),
    "audit.expired": _alert(RESTRICTED_FUNCTION),
    "identity.erased": Kind(PATIENT_RECORD, "D", _P.PERSON, _O.PATIENT, life_cycle=ERASURE),
    "operator.signed_in": Kind(USER_AUTHENTICATION, "E", _P.LOGIN, _O.NONE, LOGIN, 4),
    "operator.signed_out": Kind(USER_AUTHENTICATION, "E", _P.LOGIN, _O.NONE, LOGOUT, 4),
    "operator.refused": Kind(USER_AUTHENTICATION, "E", _P.LOGIN, _O.NONE, LOGIN, 4),
}

_FORGED = _alert(RESTRICTED_FUNCTION, _P.PERSON, 12)
_SECURED = _alert(SECURITY_CONFIGURATION)
# an event of another version of Hilum
_UNKNOWN = _alert(SOFTWARE_CONFIGURATION)
_OF_SECURITY = (
    "receive.peers",
    "receive.tls",
    "receive.insecure",
    "receive.host",
    "audit",
    "retention.audit",
)


def kind_of(record: Record) -> Kind:
    """The message that tells this record."""
    if record.event == "audit.verified" and record.outcome != "success":
        return _FORGED
    if record.event == "config.changed" and str(record.detail.get("key", "")).startswith(_OF_SECURITY):
        return _SECURED
    return OF_EVENT.get(record.event, _UNKNOWN)


def own(record: Record) -> Code:
    """The event's name in our own scheme."""
    return Code(record.event, record.event.replace(".", " ").replace("_", " "), SCHEME)


def status_of(detail: dict[str, Any]) -> str:
    """A DIMSE or HTTP status that the detail holds, as text; empty where there is none."""
    status = detail.get("status", "")
    return str(status) if status not in ("", None) else ""
