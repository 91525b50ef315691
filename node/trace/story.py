"""The records of a study as a story: by image, in order, each attempt joined with what became of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from node.paper import Kind, lasting
from node.trace import sentences
from node.trace.find import ASKING, Dossier
from node.trace.now import Now
from storage import clock
from storage.audit import Record

STUDY = ""
"""The key of what is told of the study as a whole."""
_READ = {"job.analyzed", "job.skipped", "job.parked"}


@dataclass
class Told:
    """A step: when it began and ended (UTC), what happened, from which records."""

    at: datetime
    text: str
    kind: Kind
    records: list[int]
    until: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.until = self.at


@dataclass(frozen=True)
class Image:
    """`findings`: of its last reading."""

    sop: str
    steps: Sequence[Told]
    findings: Sequence[sentences.Finding]


@dataclass(frozen=True)
class Counts:
    """How often what happened, by the log. Deliveries: by destination, of those that arrived."""

    received: int
    repeated: int
    refused: int
    read: int
    skipped: int
    parked: int
    results: int
    quarantined: int
    delivered: dict[str, int]
    committed: dict[str, int]


@dataclass(frozen=True)
class Story:
    """`as_whole`: what is of no single image. `asked`: who asked the log. Times are UTC; None where there is none."""

    dossier: Dossier
    now: Now
    images: Sequence[Image]
    as_whole: Sequence[Told]
    asked: Sequence[Told]
    senders: Sequence[str]
    models: Sequence[Record]
    first_byte: datetime | None
    last_acknowledgement: datetime | None
    counts: Counts


def tell(dossier: Dossier, now: Now) -> Story:
    by_section = _sections(dossier.records)
    asked = by_section.pop("asked", [])
    as_whole = by_section.pop(STUDY, [])
    received = [r for r in dossier.records if _is_arrival(r)]
    acknowledged = [r for r in dossier.records if r.event in {"delivery.delivered", "delivery.committed"}]
    models = {str(r.detail.get("sha256")): r for r in dossier.records if r.event == "job.analyzed"}
    return Story(
        dossier=dossier,
        now=now,
        images=[Image(sop, steps_of(each), _found(each)) for sop, each in by_section.items()],
        as_whole=steps_of(as_whole),
        asked=steps_of(asked),
        senders=list(dict.fromkeys(sentences.sender(r) for r in received)),
        models=list(models.values()),
        first_byte=min((_first_byte(r) for r in received), default=None),
        last_acknowledgement=max((clock.moment(r.time) for r in acknowledged), default=None),
        counts=_counts(dossier.records),
    )


def steps_of(records: Iterable[Record]) -> list[Told]:
    """What happened to one image, oldest first."""
    telling = _Telling()
    for record in records:
        telling.add(record)
    return telling.told


class _Telling:
    """Joins what belongs together: a claim and its reading, an attempt and its answer, attempts that all failed."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self._queued: dict[str, Told] = {}
        self._reading: dict[int, tuple[Told, int]] = {}
        self._sending: dict[int, tuple[Told, int]] = {}
        self._failing: dict[int, tuple[Told, int]] = {}
        self._asked: dict[str, datetime] = {}
        self._results: dict[str, str] = {}

    def add(self, record: Record) -> None:
        if record.event == "result.made":
            self._results[str(record.detail.get("result"))] = sentences.result(record)
        match record.event:
            case "object.received":
                self._queued[record.time] = self._tell(record)
            case "job.queued" if record.time in self._queued:
                self._join(self._queued[record.time], record, "; queued to be read")
            case "job.claimed":
                self._claimed(record)
            case event if event in _READ and record.detail.get("job") in self._reading:
                self._read(record)
            case "delivery.attempted":
                self._attempted(record)
            case "delivery.postponed" if record.detail.get("delivery") in self._sending:
                self._sending[record.detail["delivery"]][0].records.append(record.id)
                self._got_not_through(record.detail["delivery"], str(record.detail.get("reason", "")))
            case "delivery.delivered" | "delivery.parked" | "delivery.returned":
                self._ended(record)
            case "commitment.requested":
                self._requested(record)
            case "delivery.committed":
                self._committed(record)
            case _:
                self._failing.pop(record.detail.get("delivery", 0), None)
                self._tell(record)

    def _tell(self, record: Record, text: str = "", kind: Kind | None = None) -> Told:
        words, of = sentences.sentence(record)
        told = Told(clock.moment(record.time), text or words, of if kind is None else kind, [record.id])
        self.told.append(told)
        return told

    def _join(self, told: Told, record: Record, more: str = "", *, text: str = "", kind: Kind = "") -> None:
        told.text = text or told.text + more
        told.kind = kind or told.kind
        told.until = clock.moment(record.time)
        told.records.append(record.id)

    def _claimed(self, record: Record) -> None:
        job, attempt = int(record.detail.get("job", 0)), int(record.detail.get("attempt", 1))
        if job in self._reading:
            told, _ = self._reading[job]
            told.text += ": did not come to an end (the process or the node stopped)"
            told.kind = "trouble"
        told = self._tell(record, f"{sentences.worker(record)} began to read it, attempt {attempt}")
        self._reading[job] = told, attempt

    def _read(self, record: Record) -> None:
        told, attempt = self._reading.pop(int(record.detail["job"]))
        seconds = _between(told.at, record)
        kind: Kind = "trouble" if record.outcome == "failure" else ""
        self._join(told, record, text=sentences.reading(record, attempt, seconds), kind=kind)

    def _attempted(self, record: Record) -> None:
        delivery, attempt = int(record.detail.get("delivery", 0)), int(record.detail.get("attempt", 1))
        if delivery in self._sending:
            self._got_not_through(delivery)
        to = record.detail.get("destination", "")
        text = f"{sentences.result(record)} sent to {to}, attempt {attempt}: no outcome is recorded yet"
        self._sending[delivery] = self._tell(record, text), attempt

    def _got_not_through(self, delivery: int, reason: str = "") -> None:
        """An attempt that failed, or that another one followed: joined with those that failed before it."""
        told, attempt = self._sending.pop(delivery)
        head = told.text.partition(", attempt ")[0]
        if delivery in self._failing:
            group, first = self._failing[delivery]
            self.told.remove(told)
            group.records += told.records
            group.until = told.at
            group.text = (
                f"{head}, attempts {first} to {attempt} in {lasting((told.at - group.at).total_seconds())}: "
                f"none of them got through{f'; in the end: {reason}' if reason else ''}"
            )
        else:
            why = f": {reason}" if reason else ""
            told.text, told.kind = f"{head}, attempt {attempt}: did not get through{why}", "trouble"
            self._failing[delivery] = told, attempt

    def _ended(self, record: Record) -> None:
        delivery = int(record.detail.get("delivery", 0))
        told, attempt = self._sending.pop(delivery, (None, 0))
        if record.event != "delivery.returned":
            self._failing.pop(delivery, None)
        if told is None:
            self._tell(record)
        elif record.event == "delivery.delivered":
            seconds = _between(told.at, record)
            self._join(told, record, text=sentences.acknowledged(record, attempt, seconds))
        elif record.event == "delivery.parked":
            head = told.text.partition(":")[0]
            reason = record.detail.get("reason", "")
            text = f"{head}: {reason}. Parked: a person must decide"
            self._join(told, record, text=text, kind="trouble")
        else:
            head = f"{sentences.result(record)} for {record.detail.get('destination', '')}"
            text = f"{head}: claimed together with others and not tried; this attempt does not count"
            self._join(told, record, text=text)

    def _requested(self, record: Record) -> None:
        detail = record.detail
        named = [self._results.get(uid, uid) for uid in detail.get("results", [])]
        transaction = str(detail.get("transaction", ""))
        self._asked[transaction] = clock.moment(record.time)
        self._tell(
            record,
            f"{detail.get('destination', '')} was asked to commit to {sentences.listed(named)} "
            f"(transaction {transaction})",
        )

    def _committed(self, record: Record) -> None:
        asked = self._asked.get(str(record.detail.get("transaction", "")))
        told = self._tell(record)
        if asked:
            told.text += f", {lasting(_between(asked, record))} after it was asked"


def last_words(story: Story) -> tuple[str, list[str]]:
    """The state now in one sentence, and what a person must do, a line each."""
    now, counts = story.now, story.counts
    told: list[str] = []
    todo: list[str] = []
    for state, words in (("queued", "waits to be read"), ("running", "is being read")):
        told += _several([j for j in now.jobs if j.state == state], "image", words)
    if now.study_due:
        told.append("the study's report is waited for")
    for job in now.jobs:
        if job.state == "parked":
            told.append(f"image {job.sop} is parked: {job.reason}")
            todo.append(
                f"`hilum jobs retry {job.id}` reads it again, `hilum jobs discard {job.id}` gives it up."
            )
    if now.study_parked:
        told.append(f"no report of the study could be made: {now.study_parked}")
    told += _open_deliveries(now)
    for each in now.deliveries:
        if each.state == "parked":
            name = sentences.RESULTS.get(each.writer, each.writer)
            told.append(f"{name} for {each.destination} is parked: {each.reason}")
            todo.append(
                f"`hilum deliveries retry {each.id}` sends it again, `hilum deliveries discard {each.id}` gives it up."
            )
    if told:
        return _sentence("; ".join(told)), todo
    if now.deliveries:
        gone = [d for d in now.deliveries if d.state == "discarded"]
        arrived = len(now.deliveries) - len(gone)
        committed = sum(d.state == "committed" for d in now.deliveries)
        words = f"delivered everywhere: {arrived} of {len(now.deliveries)} deliveries"
        words += f", {committed} of them committed" if committed else ""
        return _sentence(words + (f"; {len(gone)} given up by a person" if gone else "")), []
    if now.jobs:
        return _nothing_sent(story), []
    if counts.received:
        return "The node's queues hold nothing of this study; the log alone is told here.", []
    return "Nothing of it was kept.", []


def _nothing_sent(story: Story) -> str:
    states = {job.state for job in story.now.jobs}
    if states == {"skipped"}:
        return "At its end: no image was read (see why below), so that there is nothing to send."
    if states == {"discarded"}:
        return "At its end: its reading was given up by a person, and there is nothing to send."
    return "At its end: nothing was made that is sent anywhere."


def _open_deliveries(now: Now) -> list[str]:
    """Per destination, with the reason of the last failure."""
    told = []
    for to in dict.fromkeys(d.destination for d in now.deliveries):
        waiting = [d for d in now.deliveries if d.destination == to and d.state in {"waiting", "sending"}]
        reason = next((d.reason for d in reversed(waiting) if d.reason), "")
        told += [f"{words}{f' (last try: {reason})' if reason else ''}" for words in
                 _several(waiting, "result", f"waits for {to}", f"wait for {to}")]  # fmt: skip
        uncommitted = [
            d for d in now.deliveries if d.destination == to and d.state == "delivered" and d.reason
        ]
        told += _several(
            uncommitted,
            "result",
            f"is there and not committed by {to}",
            f"are there and not committed by {to}",
        )
    return told


def _several(of: Sequence[object], noun: str, one: str, many: str = "") -> list[str]:
    if not of:
        return []
    many = many or one.replace("is ", "are ", 1).replace("waits ", "wait ", 1)
    return [f"1 {noun} {one}" if len(of) == 1 else f"{len(of)} {noun}s {many}"]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _sections(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Each record under the image that it is about; under STUDY what is of several, under "asked" the questions."""
    home: dict[str, str] = {}
    for record in records:
        if record.event == "result.made":
            several = len(record.detail.get("images", ())) > 1
            home[str(record.detail.get("result"))] = STUDY if several else record.sop
        elif record.event == "commitment.requested":
            home[str(record.detail.get("transaction"))] = next(
                (home[uid] for uid in record.detail.get("results", ()) if uid in home), record.sop
            )
    sections: dict[str, list[Record]] = {}
    for record in records:
        sections.setdefault(_section(record, home), []).append(record)
    return sections


def _section(record: Record, home: dict[str, str]) -> str:
    if record.event in ASKING:
        return "asked"
    for uid in (record.detail.get("result"), record.detail.get("transaction"), record.sop):
        if isinstance(uid, str) and uid in home:
            return home[uid]
    return record.sop or STUDY


def _is_arrival(record: Record) -> bool:
    return record.event == "object.received" and not record.detail.get("own_result")


def _first_byte(record: Record) -> datetime:
    return clock.moment(record.time) - timedelta(seconds=float(record.detail.get("seconds", 0)))


def _between(begin: datetime, record: Record) -> float:
    return (clock.moment(record.time) - begin).total_seconds()


def _found(records: Sequence[Record]) -> list[sentences.Finding]:
    last = next((r for r in reversed(records) if r.event == "job.analyzed"), None)
    return sentences.findings(last) if last else []


def _counts(records: Sequence[Record]) -> Counts:
    def sops(*events: str) -> int:
        return len({r.sop for r in records if r.event in events})

    def by_destination(event: str) -> dict[str, int]:
        found: dict[str, set[object]] = {}
        for record in records:
            if record.event == event:
                found.setdefault(str(record.detail.get("destination")), set()).add(
                    record.detail.get("result")
                )
        return {to: len(results) for to, results in found.items()}

    received = {r.sop for r in records if _is_arrival(r)}
    return Counts(
        received=len(received),
        repeated=sum(r.event == "object.repeated" for r in records),
        refused=sum(r.event in {"object.refused", "object.conflict"} for r in records),
        read=sops("job.analyzed"),
        skipped=len({r.sop for r in records if r.event == "job.skipped"} & received),
        parked=sops("job.parked"),
        results=sum(r.event == "result.made" for r in records),
        quarantined=sum(r.event == "result.quarantined" for r in records),
        delivered=by_destination("delivery.delivered"),
        committed=by_destination("delivery.committed"),
    )
