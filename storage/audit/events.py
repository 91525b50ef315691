"""The catalogue: every kind of record that there is, what it says, and what its detail may hold.

`docs/audit.md` prints it (`scripts/reference`), and a test holds each record of a full run against it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """One kind of record. `details`: the keys that `detail` may have, apart from `reason` and `status`."""

    name: str
    says: str
    details: tuple[str, ...] = ()


def _event(name: str, says: str, details: str = "") -> Event:
    return Event(name, says, tuple(details.split()))


_JOB = "job"
_DELIVERY = "delivery destination writer result"

CATALOGUE = (
    _event("association.accepted", "a peer connected; written with the first thing it did",
           "called contexts refused_contexts"),
    _event("association.refused", "a peer was turned away", "called rejection"),
    _event("association.aborted", "a connection broke while something was arriving, or the node broke it", "busy"),
    _event("object.received", "an object was kept; `seconds` from its first byte to its last",
           "size content_hash sop_class transfer_syntax revision own_result seconds adopted"),
    _event("object.repeated", "the same object came again; nothing was kept", "content_hash"),
    _event("object.conflict", "other content came under a known UID, and was refused", "content_hash"),
    _event("object.refused", "an object was not kept; `objects`: so many for this reason", "objects"),
    _event("object.expired", "the file of an image or a result was removed when its time was over",
           "what result content_hash"),
    _event("job.queued", "an image waits to be read", _JOB),
    _event("job.claimed", "a worker began to read it; counted before anything is decoded", f"{_JOB} attempt"),
    _event("job.skipped", "an image is outside the scope of the model; `strangeness` (0 to 1) and `looks` where the "
           "picture was judged", f"{_JOB} strangeness looks"),
    _event("job.analyzed", "an image was read; `scores`: each finding's score and threshold; `ms` of each stage",
           f"{_JOB} model version sha256 over_threshold scores strangeness looks ms"),
    _event("job.shadowed", "a second model read it too; nothing of that is reported. `first`: the hash of the model "
           "that was; `differs`: findings on which the second decides otherwise, and how",
           f"{_JOB} model version sha256 scores first first_scores differs"),
    _event("job.parked", "an image could not be read; a person must decide", _JOB),
    _event("job.retried", "a person had a parked image read again", _JOB),
    _event("job.discarded", "a person gave a parked image up", _JOB),
    _event("study.waiting", "an image of a study that gets one report was read; `due`: when the report is made",
           f"{_JOB} due"),
    _event("study.claimed", "a worker began to make a study's report", "study attempt images"),
    _event("study.reported", "a study's report was made; `left_out`: of which images not, and why",
           "study revision model version sha256 images left_out ms"),
    _event("study.parked", "no report could be made of a study; a person must decide", "study"),
    _event("result.made", "a result was written, checked and kept",
           f"{_JOB} writer result revision content_hash images notes"),
    _event("result.quarantined", "a result did not pass its check; it is neither kept nor sent", _JOB),
    _event("delivery.attempted", "a result is about to be sent", f"{_DELIVERY} attempt"),
    _event("delivery.postponed", "a try did not get through; the next comes after `seconds`", f"{_DELIVERY} seconds"),
    _event("delivery.delivered", "the destination has the result", f"{_DELIVERY} seconds"),
    _event("delivery.committed", "the destination's report named the result as committed; the actor is who reported",
           f"{_DELIVERY} transaction"),
    _event("delivery.parked", "a result can't be delivered; a person must decide", f"{_DELIVERY} transaction"),
    _event("delivery.retried", "a person had a delivery tried again", _DELIVERY),
    _event("delivery.discarded", "a person gave a delivery up", _DELIVERY),
    _event("delivery.returned", "claimed with others and not tried: it waits again, the attempt does not count",
           _DELIVERY),
    _event("commitment.requested", "a destination was asked to commit to results", "destination transaction results"),
    _event("commitment.refused", "a destination did not take the request to commit",
           "destination transaction results"),
    _event("commitment.failed", "one result was not committed", f"{_DELIVERY} transaction failures"),
    _event("commitment.asked", "a peer asked the node to commit to what it sent", "transaction committed failed"),
    _event("commitment.reported", "the answer reached that peer, or was given up after a day",
           "peer transaction attempts"),
    _event("node.started", "the node began; with its model, and whether anybody may send",
           "host port ae_title model insecure exposed version"),
    _event("node.stopped", "the node ended in order", "seconds"),
    _event("node.recovered", "what a crash had left was put right",
           "adopted results_deleted results_parked renamed unfinished_files files_missing jobs studies deliveries "
           "commitments_withdrawn queued unreadable repair audit_log last_anchor audit_log_lost refused"),
    _event("config.changed", "a setting differs from that of the last start", "key old new"),
    _event("model.changed", "the model, a threshold or its intended use differs from that of the last start",
           "key old new"),
    _event("model.activated", "a person made another model the one that reads; each with its thresholds", "old new"),
    _event("shadow.failed", "the second model can't be used; the first goes on without it", "folder"),
    _event("audit.queried", "somebody asked the log", "filter format what"),
    _event("audit.exported", "somebody took records, a trace or a report out of the log", "filter format what"),
    _event("audit.verified", "the log was checked; `failure`: somebody changed it",
           "records blocks unsealed anchors findings repaired"),
    _event("audit.mismatch", "an anchor knows more than the database: an old copy was put back, or its end is cut off",
           "block anchor"),
    _event("audit.rekeyed", "a new chain of keys for the anchors was begun; `number`: of its first anchor", "number"),
    _event("audit.expired", "whole months of the log were exported and let go",
           "months first_id last_id block hash export export_hash"),
    _event("identity.erased", "the values behind a patient's keyed hashes were erased; the records stay",
           "keys values records"),
    _event("operator.signed_in", "a person signed in to the web page", "role"),
    _event("operator.signed_out", "a person signed out of the web page", "role"),
    _event("operator.refused", "somebody could not sign in, or asked for what the role does not allow", "role"),
)  # fmt: skip

EVENTS = tuple(event.name for event in CATALOGUE)
OF_NAME = {event.name: event for event in CATALOGUE}
OUTCOMES = ("success", "failure")
ALWAYS = frozenset({"reason", "status"})
"""Keys that any detail may have: why, and a DIMSE or HTTP status."""
