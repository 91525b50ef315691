"""Months as a paper: a page each, the most asked first; what there was none of is not printed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from node.audit_report.availability import Availability, Interruption
from node.audit_report.months import Month
from node.audit_report.tally import SENDER_COLUMNS, Counted, Tally
from node.paper import Block, Facts, Paper, Section, Table, Words, counted, lasting, moment
from node.paper.printing import Printing
from node.show import size
from node.trace.sentences import RESULTS
from storage import clock
from storage.audit import OF_NAME

MOST_ROWS = 25
"""Rows of one table on a page; the rest is counted."""
_PEOPLE = {
    "job.retried": "readings tried again", "job.discarded": "readings given up",
    "delivery.retried": "deliveries tried again", "delivery.discarded": "deliveries given up",
    "audit.queried": "questions to the log", "audit.exported": "exports from the log",
    "audit.verified": "verifications", "identity.erased": "patients erased", "operator.signed_in": "sign-ins",
    "operator.signed_out": "sign-outs", "operator.refused": "refused",
}  # fmt: skip


class Seals(Protocol):
    @property
    def blocks(self) -> int: ...
    @property
    def last_block(self) -> int: ...
    @property
    def last_hash(self) -> str: ...
    @property
    def unsealed(self) -> int: ...


@dataclass(frozen=True)
class MonthTold:
    month: Month
    counted: Counted
    availability: Availability
    seals: Seals


def paper(months: Sequence[MonthTold], printing: Printing) -> Paper:
    first, last = months[0].month, months[-1].month
    span = first.name if len(months) == 1 else f"{first.name} to {last.name}"
    return Paper(
        f"Report of {printing.node}, {span}",
        f"Hilum {printing.version}, report of {printing.node}, {span}, printed {printing.printed}",
        [section for told in months for section in _month(told, printing)],
    )


def _month(told: MonthTold, printing: Printing) -> Iterator[Section]:
    month, seen = told.month, told.counted
    over = "" if month.end <= printing.at else ", not over yet"
    if not seen.records:
        yield Section(f"{month.name}{over}", [Words("The log has no records of this time.")], level=1)
        yield Section("Availability", list(_availability(told.availability, printing)))
        return
    yield Section(f"{month.name}{over}", [_summary(told)], level=1)
    for title, blocks in (
        ("Availability", _availability(told.availability, printing)),
        ("What came, by sender", _senders(seen)),
        ("What was made, by destination", _destinations(seen)),
        ("Failures, by reason", _failures(seen)),
        ("Models", _models(seen, printing)),
        ("Changes", _changes(seen, printing)),
        ("People", _people(seen)),
        ("Seals", _seals(told, printing)),
    ):
        filled = list(blocks)
        if filled:
            yield Section(title, filled)


def _summary(told: MonthTold) -> Facts:
    seen = told.counted
    events = seen.events
    results = ", ".join(
        f"{number:,} {RESULTS.get(kind, kind)}" for kind, number in seen.results.most_common()
    )
    parked = events["job.parked"] + events["study.parked"]
    rows = [
        ("Images read", f"{events['job.analyzed']:,} of {events['object.received']:,} objects received"),
        ("Not read", f"{events['job.skipped']:,} skipped, {parked:,} parked for a person"),
        ("Results", f"{events['result.made']:,} made" + (f": {results}" if results else "")),
        ("Deliveries", f"{events['delivery.delivered']:,} delivered, {events['delivery.parked']:,} parked"),
    ]
    if quarantined := events["result.quarantined"]:
        rows.append(
            ("Quarantined", f"{counted(quarantined, 'result')} did not pass the check and went nowhere")
        )
    if seen.skipped:
        rows.append(("Skipped because", "; ".join(_reasons(seen.skipped))))
    if seen.expired:
        rows.append(
            ("Expired", ", ".join(f"{n:,} files of {kind}s" for kind, n in seen.expired.most_common()))
        )
    return Facts(rows)


def _reasons(tally: Tally) -> list[str]:
    told = [f"{reason or 'no reason is recorded'} ({number:,})" for reason, number in tally.most_common(6)]
    more = len(tally) - len(told)
    return [*told, *([counted(more, "more reason")] if more > 0 else [])]


def _availability(of: Availability, printing: Printing) -> Iterator[Block]:
    if of.share is None:
        yield Words("The node was not running: no start of it is in the log up to the end of this time.")
        return
    least = "at least " if of.is_least else ""
    listed, rest = of.interruptions[:MOST_ROWS], of.interruptions[MOST_ROWS:]
    rows = [
        ("Up", f"{least}{of.share * 100:.3f} % of {lasting(of.seconds)}"),
        ("Starts", f"{of.starts:,}"),
        ("Interruptions", f"{len(of.interruptions):,} of a minute and more, {of.short:,} shorter"),
    ]
    yield Facts(rows)
    if listed:
        table = [_interruption(one, printing) for one in listed]
        yield Table(("down from", "up again", "for", "cause"), table)
    if rest:
        yield Words(f"And {counted(len(rest), 'more interruption')}.")
    if of.is_least:
        yield Words(
            "After a crash the node counts as down since its last record: it may have been up longer."
        )


def _interruption(one: Interruption, printing: Printing) -> tuple[str, str, str, str]:
    begin = moment(one.begin.astimezone(printing.zone))
    end = moment(one.end.astimezone(printing.zone)) if one.end else "not yet, or later"
    return begin, end, lasting(one.seconds), one.cause


def _senders(seen: Counted) -> Iterator[Block]:
    totals = Tally()
    for (sender, _), number in seen.senders.items():
        totals[sender] += number
    columns = [name for name in SENDER_COLUMNS if any(seen.senders[sender, name] for sender in totals)]
    rows = [
        (sender, *(f"{seen.senders[sender, name]:,}" for name in columns), size(seen.bytes[sender]))
        for sender, _ in totals.most_common(MOST_ROWS)
    ]
    if rows:
        yield Table(("sender", *columns, "size"), rows, frozenset(range(1, len(columns) + 2)))
    if (more := len(totals) - len(rows)) > 0:
        yield Words(f"And {counted(more, 'more sender')}.")


def _destinations(seen: Counted) -> Iterator[Block]:
    rows = []
    for name, of in sorted(seen.destinations.items()):
        half, most = of.durations.quantile(0.5), of.durations.quantile(0.95)
        rows.append(
            (
                name, f"{of.delivered:,}", f"{of.failed:,}", f"{of.parked:,}", f"{of.committed:,}",
                f"{of.not_committed:,}", lasting(half) if half else "", lasting(most) if most else "",
            )
        )  # fmt: skip
    if rows:
        head = (
            "destination",
            "delivered",
            "failed attempts",
            "parked",
            "committed",
            "not committed",
            "median",
            "95 %",
        )
        yield Table(head, rows, frozenset(range(1, 8)))
        yield Words(
            "Median and 95 %: from an image's arrival to a result's delivery; right within one percent."
        )


def _failures(seen: Counted) -> Iterator[Block]:
    rows = [
        (OF_NAME[event].says if event in OF_NAME else event, reason, f"{number:,}")
        for (event, reason), number in seen.failures.most_common(MOST_ROWS)
    ]
    if rows:
        yield Table(("what", "why", "times"), rows, frozenset({2}))
    if (more := len(seen.failures) - len(rows)) > 0:
        yield Words(f"And {counted(more, 'more reason')}.")


def _models(seen: Counted, printing: Printing) -> Iterator[Block]:
    models = sorted(seen.models.values(), key=lambda model: model.first)
    rows = [
        (
            m.name,
            m.sha256.removeprefix("sha256:")[:12],
            f"{m.images:,}",
            printing.when_stamped(m.first),
            printing.when_stamped(m.last),
        )
        for m in models[:MOST_ROWS]
    ]
    if rows:
        yield Table(("model", "weights, sha256", "images read", "first", "last"), rows, frozenset({2}))


def _changes(seen: Counted, printing: Printing) -> Iterator[Block]:
    rows = [(printing.when_stamped(each.time), each.event, each.told) for each in seen.changes]
    if rows:
        yield Table(("when", "what", "before -> after"), rows)
    if seen.more_changes:
        yield Words(
            f"And {counted(seen.more_changes, 'more change')}: `hilum audit query --event config.changed`."
        )


def _people(seen: Counted) -> Iterator[Block]:
    by_person: dict[str, list[str]] = {}
    for (person, event), number in sorted(seen.people.items()):
        by_person.setdefault(person, []).append(f"{_PEOPLE.get(event, event)}: {number:,}")
    rows = [(person, ", ".join(did)) for person, did in list(by_person.items())[:MOST_ROWS]]
    if rows:
        yield Table(("who", "did"), rows)
    if (more := len(by_person) - len(rows)) > 0:
        yield Words(f"And {counted(more, 'more person', 'more people')}.")


def _seals(told: MonthTold, printing: Printing) -> Iterator[Block]:
    seen, seals = told.counted, told.seals
    rows = [
        ("Records", f"{seen.records:,}, ids {seen.first_id} to {seen.last_id}"),
        (
            "Blocks",
            f"{seals.blocks:,}" + (f", {seals.unsealed:,} records not sealed yet" if seals.unsealed else ""),
        ),
    ]
    if seals.last_block:
        rows.append(("Last block", f"{seals.last_block}, hash {seals.last_hash}"))
    rows.append(("Last verification", _verification(seen, printing)))
    yield Facts(rows)


def _verification(seen: Counted, printing: Printing) -> str:
    found = seen.verification
    if found is None:
        return "none in this time; `hilum audit verify` makes one"
    by = f"{found.actor} on {found.host}" if found.host else found.actor
    result = "all in order" if found.outcome == "success" else "SOMEBODY CHANGED THE LOG"
    return f"{printing.when_stamped(found.time)} by {by}: {result}"


def as_json(months: Sequence[MonthTold], printing: Printing) -> dict[str, Any]:
    """The same for programs; times are UTC stamps, durations seconds."""
    return {
        **printing.as_json(),
        "months": [_month_json(told) for told in months],
    }


def _month_json(told: MonthTold) -> dict[str, Any]:
    seen, up = told.counted, told.availability
    return {
        "month": told.month.name,
        "begin": clock.stamp(told.month.begin),
        "end": clock.stamp(told.month.end),
        "records": {"count": seen.records, "first_id": seen.first_id, "last_id": seen.last_id},
        "events": dict(seen.events),
        "availability": {
            "share": up.share,
            "at_least": up.is_least,
            "seconds": up.seconds,
            "starts": up.starts,
            "short_interruptions": up.short,
            "interruptions": [
                {"begin": clock.stamp(one.begin), "end": one.end and clock.stamp(one.end), "cause": one.cause,
                 "seconds": one.seconds}
                for one in up.interruptions
            ],
        },
        "senders": _nested(seen.senders),
        "bytes": dict(seen.bytes),
        "skipped": dict(seen.skipped),
        "results": dict(seen.results),
        "destinations": {
            name: {
                "delivered": of.delivered,
                "failed_attempts": of.failed,
                "parked": of.parked,
                "committed": of.committed,
                "not_committed": of.not_committed,
                "median_seconds": of.durations.quantile(0.5),
                "p95_seconds": of.durations.quantile(0.95),
            }
            for name, of in sorted(seen.destinations.items())
        },
        "failures": [{"event": e, "reason": why, "times": n} for (e, why), n in seen.failures.most_common()],
        "models": [vars(model) for model in seen.models.values()],
        "changes": [vars(change) for change in seen.changes],
        "more_changes": seen.more_changes,
        "people": _nested(seen.people),
        "expired": dict(seen.expired),
        "seals": {
            "blocks": told.seals.blocks,
            "last_block": told.seals.last_block,
            "last_hash": told.seals.last_hash,
            "unsealed": told.seals.unsealed,
        },
        "verification": seen.verification
        and {"time": seen.verification.time, "outcome": seen.verification.outcome},
    }  # fmt: skip


def _nested(tally: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (outer, inner), number in tally.items():
        found.setdefault(outer, {})[inner] = number
    return found
