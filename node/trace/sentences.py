"""One record of the audit log in plain words. What a record says of an earlier one (durations) is `story`'s."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from node.paper import Kind, lasting
from node.paper.printing import person_of
from node.show import size
from storage.audit import OF_NAME, Actor, Record

RESULTS = {
    "sr": "Structured Report",
    "text-sr": "text report",
    "sc": "Secondary Capture",
    "gsps": "presentation state",
    "ko": "Key Object Selection",
    "pdf": "PDF",
    "not-analyzed": "notice that the image was not analyzed",
    "json": "JSON report",
    "fhir": "FHIR report",
    "oru": "HL7 message",
}
"""What a person calls what a writer makes."""
BY_PEOPLE = {
    "job.retried": "had it read again",
    "job.discarded": "gave its reading up",
    "delivery.retried": "had the {result} sent to {destination} again",
    "delivery.discarded": "gave up the delivery of the {result} to {destination}",
    "identity.erased": "erased the values behind the patient's keyed hashes; the records stay",
}
_STEPS = {"decode": "decode", "predict": "predict", "explain": "explain", "render": "render", "keep": "keep"}
_WEIGHTS_SHOWN = 12


@dataclass(frozen=True)
class Finding:
    """One finding of a reading as the record holds it; no numbers where it holds none."""

    label: str
    score: float | None
    threshold: float | None
    present: bool


def sentence(record: Record) -> tuple[str, Kind]:
    """What the record says, and whether it is trouble or was done by a person."""
    kind: Kind = "trouble" if record.outcome == "failure" else ""
    if record.event in BY_PEOPLE:
        words = BY_PEOPLE[record.event].format(
            result=result(record), destination=record.detail.get("destination", "")
        )
        return f"{person(record)} {words}", "person"
    telling = _TELLING.get(record.event)
    return telling(record) if telling else _as_catalogued(record), kind


def sender(record: Record) -> str:
    """CT1 at 10.0.0.7 (TLS certificate CN=ct1)."""
    at = f" at {record.host}" if record.host else ""
    return f"{record.actor}{at}" + (f" (TLS certificate {record.certificate})" if record.certificate else "")


def person(record: Record) -> str:
    return person_of(Actor(record.actor, record.host))


def worker(record: Record) -> str:
    """worker-1, without the number of its process."""
    return record.actor.partition(":")[0]


def result(record: Record) -> str:
    """What the record's result is called: of one that came back only its UID is known."""
    detail = record.detail
    return RESULTS.get(str(detail.get("writer", "")), f"result {detail.get('result', '')}")


def reading(record: Record, attempt: int, seconds: float) -> str:
    """The end of a reading: job.analyzed, job.skipped or job.parked, so long after it was begun."""
    head = f"by {worker(record)}, attempt {attempt}, in {lasting(seconds)}"
    match record.event:
        case "job.analyzed":
            return f"read {head}{_steps(record.detail)}; {model(record.detail)}"
        case "job.skipped":
            return f"looked at {head}, and not read: {_reason(record)}"
    return f"begun {head}, and not read: {_reason(record)}. Parked: a person must decide"


def model(detail: Mapping[str, Any]) -> str:
    """model chest-vgg16 1.2 (sha256 0123456789ab)."""
    weights = str(detail.get("sha256", "")).removeprefix("sha256:")[:_WEIGHTS_SHOWN]
    named = f"model {detail.get('model', '')} {detail.get('version', '')}".rstrip()
    return f"{named} (sha256 {weights})" if weights else named


def acknowledged(record: Record, attempt: int, seconds: float) -> str:
    """delivery.delivered, so long after the attempt was recorded."""
    to, status = record.detail.get("destination", ""), str(record.detail.get("status", ""))
    took = float(record.detail.get("seconds", seconds))
    head = f"{result(record)} sent to {to}, attempt {attempt}"
    if not status:
        return f"{head}: there {lasting(took)} later"
    meaning = ", which means that it had it before" if status == "0111" else ""
    meaning = ", a warning" if status.startswith("B0") else meaning
    return f"{head}; {to} acknowledged it {lasting(took)} later, status {status}{meaning}"


def findings(record: Record) -> list[Finding]:
    """What a job.analyzed says was found; older records name only what was above its threshold."""
    over = record.detail.get("over_threshold", [])
    scores = record.detail.get("scores", {})
    if not scores:
        return [Finding(label, None, None, True) for label in over]
    return [Finding(label, score, threshold, label in over) for label, (score, threshold) in scores.items()]


def _received(record: Record) -> str:
    detail = record.detail
    took = f" in {lasting(detail['seconds'])}" if "seconds" in detail else ""
    if detail.get("own_result"):
        return f"this result of ours came back{took} from {sender(record)}: kept, never read"
    if detail.get("adopted"):
        return "its file was found after a crash, whole and without a row, and taken in"
    revision = int(detail.get("revision", 1))
    again = f"; other content under a known UID: revision {revision}" if revision > 1 else ""
    return f"received{took} from {sender(record)}: {_what(detail)}{again}"


def _what(detail: Mapping[str, Any]) -> str:
    from pydicom.uid import UID

    name = UID(str(detail.get("sop_class", ""))).name.replace(" Storage", "")
    return f"{name}, {size(int(detail.get('size', 0)))}"


def _refused(record: Record) -> str:
    status = record.detail.get("status")
    return f"refused from {sender(record)}{f', status {status}' if status else ''}: {_reason(record)}"


def _skipped(record: Record) -> str:
    return f"not read: {_reason(record)}"


def _shadowed(record: Record) -> str:
    differs = sorted(record.detail.get("differs", {}))
    otherwise = f"; it decides otherwise on {listed(differs)}" if differs else "; it decides the same"
    return f"also read by the {model(record.detail)} in the shadow, which sends nothing{otherwise}"


def _parked(record: Record) -> str:
    return f"not read: {_reason(record)}. Parked: a person must decide"


def _made(record: Record) -> str:
    detail = record.detail
    revision = int(detail.get("revision", 1))
    again = f", revision {revision}" if revision > 1 else ""
    images = detail.get("images", [])
    of = f", of {len(images)} images" if len(images) > 1 else ""
    notes = detail.get("notes", ())
    noted = f"; not passed on as it was: {', '.join(map(str, notes))}" if notes else ""
    return f"{result(record)} {detail.get('result', '')}{again}{of} made, checked and kept{noted}"


def _study_reported(record: Record) -> str:
    detail = record.detail
    told = f"the study's report was made by {worker(record)} of {len(detail.get('images', []))} images"
    left = "".join(
        f"; left out {each.get('sop')}: {each.get('reason')}" for each in detail.get("left_out", [])
    )
    return f"{told}{_steps(detail)}; {model(detail)}{left}"


def _committed(record: Record) -> str:
    detail = record.detail
    return f"{detail.get('destination', '')} committed to the {result(record)}, as {sender(record)} reports"


def _expired(record: Record) -> str:
    what = "the file of a result" if record.detail.get("what") == "result" else "the image's file"
    return f"{what} was removed: its time was over"


def _asked(record: Record) -> str:
    """Who asked the log about it."""
    detail = record.detail
    form = f" ({detail['format']})" if detail.get("format") else ""
    what = {"trace": "a trace", "report": "a report"}.get(detail.get("what", ""), "records")
    verb = "took {} out of the log" if record.event == "audit.exported" else "asked the log for {}"
    of = detail.get("filter", {})
    # a patient's identifiers are keyed hashes there
    told = [
        f"{k} #{str(v)[:8]}" if k in {"patient", "name", "accession"} else f"{k} {v}" for k, v in of.items()
    ]
    return f"{person(record)} {verb.format(what)}{form}" + (f": {', '.join(told)}" if told else "")


def _as_catalogued(record: Record) -> str:
    known = OF_NAME.get(record.event)
    reason = record.detail.get("reason")
    return (known.says if known else record.event) + (f": {reason}" if reason else "")


def _reason(record: Record) -> str:
    return str(record.detail.get("reason", "") or record.detail.get("rule", "") or "no reason is recorded")


def _steps(detail: Mapping[str, Any]) -> str:
    """What each stage took: decode 21 ms, predict 213 ms."""
    ms = detail.get("ms", {})
    told = [
        f"{step} {lasting(ms[step] / 1000)}"
        for step in [*_STEPS, *(k for k in ms if k not in _STEPS)]
        if step in ms
    ]
    return f" ({', '.join(told)})" if told else ""


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


_TELLING = {
    "object.received": _received,
    "object.repeated": lambda r: f"the same object came again from {sender(r)}; nothing was kept twice",
    "object.conflict": _refused,
    "object.refused": _refused,
    "object.expired": _expired,
    "job.queued": lambda _: "waits to be read",
    "job.skipped": _skipped,
    "job.parked": _parked,
    "job.shadowed": _shadowed,
    "study.waiting": lambda _: "read; waits for the rest of the study, which gets one report",
    "study.claimed": lambda r: (
        f"{worker(r)} began to make the study's report, attempt {r.detail.get('attempt')}"
    ),
    "study.reported": _study_reported,
    "study.parked": lambda r: f"no report of the study: {_reason(r)}. Parked: a person must decide",
    "result.made": _made,
    "result.quarantined": lambda r: f"a result did not pass its check and was not kept: {_reason(r)}",
    "delivery.committed": _committed,
    "delivery.parked": lambda r: (
        f"{result(r)} for {r.detail.get('destination')} is parked, a person must decide: {_reason(r)}"
    ),
    "commitment.refused": lambda r: (
        f"{r.detail.get('destination')} did not take the request to commit: {_reason(r)}"
    ),
    "commitment.failed": lambda r: (
        f"{r.detail.get('destination')} did not commit to the {result(r)}: {_reason(r)}"
    ),
    "audit.queried": _asked,
    "audit.exported": _asked,
}
