"""A story as a paper: the summary first, then each image in its order, at the end what the answer rests on."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from node.paper import (
    Block,
    Facts,
    Paper,
    Section,
    Step,
    Steps,
    Table,
    Words,
    counted,
    lasting,
    numbers,
)
from node.paper.printing import Printing
from node.trace.sentences import Finding, model
from node.trace.story import Image, Story, Told, last_words
from storage.clock import stamp

_NO_SCORE = "not in the record"
_SCORES = "Scores order findings; whether they are calibrated, and for which place, is said in the result and the card."


def paper(stories: Sequence[Story], printing: Printing, asked_for: str = "") -> Paper:
    """`asked_for`: the instance that was asked for, where it was one."""
    several = len(stories) > 1
    one = stories[0].dossier
    title = f"Trace of {len(stories)} studies" if several else f"Trace of {_subject(one.study, asked_for)}"
    of = counted(len(stories), "study", "studies") if several else one.study or asked_for
    return Paper(
        title,
        f"Hilum audit trace, {of}, printed {printing.printed}",
        [section for story in stories for section in _sections(story, printing, asked_for, several)],
    )


def _subject(study: str, asked_for: str) -> str:
    return f"study {study}" if study else f"instance {asked_for}"


def _sections(story: Story, printing: Printing, asked_for: str, several: bool) -> Iterator[Section]:
    if several:
        yield Section(f"Study {story.dossier.study}", [_identity(story)], level=1)
    yield Section("Summary", list(_summary(story, printing, asked_for, with_identity=not several)))
    if any(image.findings for image in story.images):
        yield Section("What was found", list(_findings(story)))
    for number, image in enumerate(story.images, 1):
        of = f"Image {number} of {len(story.images)}" if len(story.images) > 1 else "The image"
        mark = ", asked for" if image.sop == asked_for and story.dossier.study else ""
        yield Section(f"{of}: {image.sop}{mark}", [_steps(image.steps, printing)])
    if story.as_whole:
        yield Section("The study as a whole", [_steps(story.as_whole, printing)])
    if story.asked:
        yield Section("Who asked the log about it", [_steps(story.asked, printing)])
    yield Section("What this answer rests on", list(_grounds(story, printing)))


def _summary(story: Story, printing: Printing, asked_for: str, *, with_identity: bool) -> Iterator[Block]:
    if with_identity:
        yield _identity(story)
    state, todo = last_words(story)
    yield Words(f"State now: {state}", is_loud=True)
    for line in todo:
        yield Words(f"A person must decide: {line}")
    first, last = story.first_byte, story.last_acknowledgement
    rows = [("First byte", printing.when(first) or "none was received")]
    rows.append(("Last acknowledgement", printing.when(last) or "none"))
    if first and last:
        rows.append(("From first to last", lasting((last - first).total_seconds())))
    rows += [("Images", _images(story)), ("Results", _results(story)), ("Deliveries", _deliveries(story))]
    if asked_for and story.dossier.study:
        rows.append(("Asked for", asked_for))
    yield Facts(rows)


def _identity(story: Story) -> Facts:
    named = story.dossier.names
    patients = [record.about.patient for record in story.dossier.records]

    def shown(field: str) -> str:
        keys = dict.fromkeys(getattr(keys, field) for keys in patients if getattr(keys, field))
        values = (_spoken(named[key]) if field == "name" else named[key] for key in keys)
        return "; ".join(values) or "none was given"

    return Facts(
        [
            ("Study", story.dossier.study or "not known: nothing of it was kept"),
            ("Patient id", shown("id")),
            ("Patient's name", shown("name")),
            ("Accession number", shown("accession")),
            ("Sent by", "; ".join(story.senders) or "nobody"),
        ]
    )


def _spoken(name: str) -> str:
    """Yamada^Tarou=山田^太郎 (PS3.5 6.2.1) without the marks between its parts."""
    return ", ".join(" ".join(group.replace("^", " ").split()) for group in name.split("=") if group)


def _images(story: Story) -> str:
    counts = story.counts
    told = [f"{counts.received:,} received"]
    for number, words in (
        (counts.repeated, "sent again"),
        (counts.refused, "refused"),
        (counts.read, "read"),
        (counts.skipped, "not read (outside the scope of the model)"),
        (counts.parked, "parked at some time"),
    ):
        told += [f"{number:,} {words}"] if number else []
    return ", ".join(told)


def _results(story: Story) -> str:
    counts = story.counts
    more = f", {counts.quarantined:,} did not pass the check and was not kept" if counts.quarantined else ""
    return f"{counts.results:,} made, checked and kept{more}"


def _deliveries(story: Story) -> str:
    told = []
    for to, arrived in story.counts.delivered.items():
        committed = story.counts.committed.get(to, 0)
        told.append(f"{to}: {arrived:,} delivered" + (f", {committed:,} committed" if committed else ""))
    return "; ".join(told) or "none"


def _findings(story: Story) -> Iterator[Block]:
    from node.report.findings import RESEARCH_USE

    yield Words(f"{RESEARCH_USE} {_SCORES}", is_loud=True)
    several = len(story.images) > 1
    rows = []
    for number, image in enumerate(story.images, 1):
        for finding in sorted(image.findings, key=lambda f: (not f.present, -(f.score or 0))):
            score, threshold = _score(finding)
            over = "present" if finding.present else "absent"
            rows.append([*([str(number)] if several else []), finding.label, score, threshold, over])
    head = ["image"] if several else []
    at = len(head)
    yield Table([*head, "finding", "score", "threshold", ""], rows, frozenset({at + 1, at + 2}))
    for record in story.models:
        weights = record.detail.get("sha256", "")
        yield Words(f"Read by {model({**record.detail, 'sha256': ''})}, weights {weights}.")


def _score(finding: Finding) -> tuple[str, str]:
    """With as many decimals as it takes to see which one is greater."""
    if finding.score is None or finding.threshold is None:
        return _NO_SCORE, ""
    for places in range(2, 7):
        score, threshold = f"{finding.score:.{places}f}", f"{finding.threshold:.{places}f}"
        if (float(score) >= float(threshold)) == finding.present:
            break
    return score, threshold


def _steps(told: Sequence[Told], printing: Printing) -> Steps:
    rows = []
    before: datetime | None = None
    for one in sorted(told, key=lambda one: (one.at, one.records)):
        passed = lasting((one.at - before).total_seconds()) if before and one.at > before else ""
        rows.append(Step(printing.local(one.at), one.text, one.kind, passed, sorted(one.records)))
        before = max(before or one.until, one.until)
    return Steps(rows)


def _grounds(story: Story, printing: Printing) -> Iterator[Block]:
    records, seals = story.dossier.records, story.dossier.seals
    ids = [record.id for record in records]
    sealed = f"all are sealed, in {_blocks(seals.blocks)}" if seals.blocks else "none is sealed yet"
    if seals.unsealed and seals.blocks:
        younger = numbers(seals.unsealed, "record " if len(seals.unsealed) == 1 else "records ")
        sealed = f"sealed, in {_blocks(seals.blocks)}, but for those younger than the last seal: {younger}"
    rows = [
        ("Records", f"{counted(len(ids), 'record')} of the audit log, ids {ids[0]} to {ids[-1]}"),
        ("Seals", sealed),
        ("Times", f"{printing.zone or 'of this machine'}, with their offset from UTC"),
        ("State now", "from the node's queues, at the time of printing"),
        ("Printed", printing.printed),
        ("Node", f"{printing.node}, Hilum {printing.version}"),
    ]
    yield Facts(rows)
    yield Words(
        "The number behind a step is that of its record: `hilum audit query` shows it word for word. That nobody "
        "has changed, removed or inserted one is checked with `hilum audit verify`. What stands "
        "behind a + is the time since the step before had ended. A step marked ! went wrong, one marked with a dot "
        "was done by a person."
    )


def _blocks(blocks: Sequence[int]) -> str:
    return numbers(blocks, "block " if len(blocks) == 1 else "blocks ")


def as_json(stories: Sequence[Story], printing: Printing, asked_for: str = "") -> dict[str, Any]:
    """The same for programs; times are UTC stamps, durations seconds."""
    return {
        **printing.as_json(),
        "asked_for": asked_for or None,
        "studies": [_study_json(story) for story in stories],
    }


def _study_json(story: Story) -> dict[str, Any]:
    dossier, counts = story.dossier, story.counts
    state, todo = last_words(story)
    first, last = story.first_byte, story.last_acknowledgement
    patients = list(
        dict.fromkeys(r.about.patient for r in dossier.records if any(vars(r.about.patient).values()))
    )
    ids = [record.id for record in dossier.records]
    return {
        "study_instance_uid": dossier.study or None,
        "patients": [{k: dossier.names.get(v) for k, v in vars(keys).items()} for keys in patients],
        "senders": list(story.senders),
        "state": state,
        "to_decide": todo,
        "first_byte": first and stamp(first),
        "last_acknowledgement": last and stamp(last),
        "seconds": round((last - first).total_seconds(), 3) if first and last else None,
        "counts": vars(counts),
        "images": [_image_json(image) for image in story.images],
        "as_whole": [_step_json(one) for one in story.as_whole],
        "asked": [_step_json(one) for one in story.asked],
        "records": {"count": len(ids), "first_id": ids[0], "last_id": ids[-1]},
        "seals": {"blocks": list(dossier.seals.blocks), "unsealed": list(dossier.seals.unsealed)},
    }


def _image_json(image: Image) -> dict[str, Any]:
    return {
        "sop_instance_uid": image.sop,
        "findings": [vars(finding) for finding in image.findings],
        "steps": [_step_json(one) for one in image.steps],
    }


def _step_json(told: Told) -> dict[str, Any]:
    kind = told.kind or "step"
    return {"time": stamp(told.at), "until": stamp(told.until), "kind": kind, "text": told.text,
            "records": told.records}  # fmt: skip
