"""hilum audit …: one function a command. It parses, calls, prints."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.app import Config, Json, new_app, opened
from node.settings import load

if TYPE_CHECKING:
    from storage.store import Store

audit = new_app("What happened, when, by whom.")


class Format(StrEnum):
    """As in `node.history_formats.Format`."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    DICOM = "dicom"


class Paper(StrEnum):
    """As in `node.paper.out.FORMATS`."""

    TEXT = "text"
    HTML = "html"
    PDF = "pdf"
    JSON = "json"


PaperForm = Annotated[Paper, typer.Option("--format", help="How to print it.")]
PaperOut = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Into this new file; without it on standard output.")
]


class Outcome(StrEnum):
    SUCCESS = "success"
    FAILURE = "failure"


@audit.command("query")
def audit_query(
    config: Config = None,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="From then on: 2026-01-31, 2026-01-31T14:30+01:00, or 2h ago.")
    ] = "",
    until: Annotated[str, typer.Option(metavar="TIME", help="Until then; a day counts whole.")] = "",
    patient: Annotated[
        str,
        typer.Option(
            metavar="ID", help="Of this Patient ID; `-` reads it from standard input, unseen by others."
        ),
    ] = "",
    name: Annotated[
        str,
        typer.Option(metavar="NAME", help="Of this Patient's Name as it was received: Family^Given; or `-`."),
    ] = "",
    accession: Annotated[str, typer.Option(metavar="NUMBER", help="Of this Accession Number; or `-`.")] = "",
    study: Annotated[str, typer.Option(metavar="UID", help="Of this Study Instance UID.")] = "",
    sop: Annotated[
        str, typer.Option(metavar="UID", help="Of this SOP Instance UID: an image's, or a result's.")
    ] = "",
    ae: Annotated[
        str, typer.Option(metavar="AE", help="By this AE title, process or operating-system user.")
    ] = "",
    event: Annotated[str, typer.Option(metavar="KIND", help="Of this kind, like object.received.")] = "",
    outcome: Annotated[Outcome | None, typer.Option(help="What went well, or what did not.")] = None,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="So many at most; 0: all.")] = 0,
    after: Annotated[
        int, typer.Option(min=0, metavar="ID", help="Go on behind this record; with --newest before it.")
    ] = 0,
    newest: Annotated[bool, typer.Option("--newest", help="Newest first.")] = False,
    output: Annotated[Format, typer.Option("--format", help="How to write them.")] = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Into this new file, or with dicom this new folder, a file a record."
        ),
    ] = None,
) -> None:
    """Show the records of the audit log that fit every option, oldest first.

    The question is itself recorded (audit.queried; audit.exported with --out, jsonl, csv and dicom), before the
    first line is shown. Columns: id, time, event, actor, host, patient_id, study, sop, outcome, detail; certificate
    where programs read.
    """
    from node import history, history_formats
    from node.operate import operator

    settings = load(config)
    zone = settings.report.zone
    form: history_formats.Format = "json" if as_json else output.value
    asked = history.wanted(
        since=since, until=until, event=event, zone=zone, patient=patient, name=name, accession=accession,
        study=study, sop=sop, ae=ae, outcome=outcome.value if outcome else "",
    )  # fmt: skip
    question = history.Question(asked, limit, after, newest)
    leaves = out is not None or form in history_formats.EXPORTS
    with opened(settings) as store:
        answer = history_formats.put(
            lambda: history.ask(store, question, operator(), form, leaves=leaves),
            form,
            zone,
            out,
            history_formats.messages(settings.node.ae_title),
        )
        _say_what_expired(store, asked.since)
    if answer.more:
        print(f"more: --after {answer.more}", file=sys.stderr)


@audit.command("trace")
def audit_trace(
    what: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|SOP|ACCESSION|PATIENT",
            help="A Study or SOP Instance UID, an accession number or a patient id; `-` reads it from standard input.",
        ),
    ],
    config: Config = None,
    study: Annotated[bool, typer.Option("--study", help="It is a Study Instance UID.")] = False,
    sop: Annotated[
        bool, typer.Option("--sop", help="It is an image's or a result's SOP Instance UID.")
    ] = False,
    accession: Annotated[bool, typer.Option("--accession", help="It is an accession number.")] = False,
    patient: Annotated[bool, typer.Option("--patient", help="It is a patient id.")] = False,
    form: PaperForm = Paper.TEXT,
    out: PaperOut = None,
) -> None:
    """Tell a study's story, from the first byte to the last acknowledgement: who, what, when, how long.

    That it was asked for is itself recorded before it is shown (audit.queried; audit.exported with --out, html and
    pdf).
    """
    from node.history import typed
    from node.trace.ask import kind_of, trace

    settings = load(config)
    kind, given = (
        kind_of(study=study, sop=sop, accession=accession, patient=patient),
        typed("the argument", what),
    )
    with opened(settings) as store:
        _say_what_expired(store)
        trace(store, settings, given, kind, form.value, out)


@audit.command("erase")
def audit_erase(
    config: Config = None,
    patient: Annotated[
        str,
        typer.Option(
            metavar="ID", help="Of this Patient ID; `-` reads it from standard input, unseen by others."
        ),
    ] = "",
    study: Annotated[str, typer.Option(metavar="UID", help="Only of this Study Instance UID.")] = "",
    everybody: Annotated[
        bool, typer.Option("--all", help="Every value that the log keeps, at once.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Erase; without it say only what would be erased.")
    ] = False,
) -> None:
    """Erase a patient's number, name and accession numbers from the audit log; the records and seals stay as they are.

    A name that another patient's records carry too stays. It can't be undone, and is itself recorded
    (identity.erased). Images, results and what was sent name the patient still: see what it prints.
    """
    from node import erasure
    from node.errors import Misuse
    from node.history import typed
    from node.operate import operator

    if everybody == bool(patient or study):
        raise Misuse("say whose: --patient ID, --study UID, both, or --all alone")
    settings = load(config)
    with opened(settings) as store:
        if everybody:
            print(f"erased: {erasure.erase_all(store, operator())} values")
            return
        whose = erasure.whose(store, typed("--patient", patient) if patient else "", study)
        found, spooled = erasure.look(store, whose)
        if yes:
            found = erasure.erase(store, whose, operator())
        erasure.describe(found, spooled, settings, done=yes)


@audit.command("expire")
def audit_expire(config: Config = None) -> int:
    """Let go the months of the log whose time is over ([retention] audit_days), as the node does by itself each hour.

    Each month is first written to audit-archive in the data folder. Exits 1 where a month has to wait, and says why.
    """
    from node.retention import expire_log

    settings = load(config)
    with opened(settings) as store:
        run = expire_log(store, settings)
    for month, archived in run.months:
        print(f"{month.name}: {archived.records} records are now in {archived.name}")
    if run.waits:
        print(f"hilum: the next month waits: {run.waits}", file=sys.stderr)
    elif not run.months:
        print(
            "nothing is over"
            if settings.retention.audit_days
            else "[retention] audit_days is 0: the log never expires"
        )
    return 1 if run.waits else 0


@audit.command("verify")
def audit_verify(
    config: Config = None,
    anchors: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Further anchors: any text file that holds them, as a syslog server's."
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The first key as `anchor-key --new` wrote it: were the anchors made by us?"
        ),
    ] = None,
    index: Annotated[
        bool, typer.Option("--index", help="Also compare what records are found by; slow.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="With --index: make that again where it differs.")
    ] = False,
    export: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Check this expired month instead, as the log let it go: audit-archive/…"
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Find out whether anybody changed the log. Exits 1 if so; the check is itself recorded (audit.verified).

    Every record is compared with its hash, every block with its chain, the newest with the anchors: what was changed,
    removed, inserted or put in another order is told, an old copy of the database, a cut end. Works while the node
    runs. JSON: holds, records, blocks, from, to, unsealed (younger than the last seal), clock_put_back, anchors,
    index, repaired, findings (sentences), more_findings.
    """
    from node.errors import Misuse
    from node.verification import run

    if repair and not index:
        raise Misuse("--repair goes with --index: write `hilum audit verify --index --repair`")
    settings = load(config)
    if export:
        from node.retention import verify_archives

        return 0 if verify_archives(settings, export) else 1
    with opened(settings) as store:
        held = run(
            store, settings, files=anchors or (), key_file=key, index=index, repair=repair, as_json=as_json
        )
    return 0 if held else 1


@audit.command("anchor-key")
def audit_anchor_key(
    config: Config = None,
    new: Annotated[
        bool, typer.Option("--new", help="Begin a new chain of keys and write its first.")
    ] = False,
) -> None:
    """Begin a new chain of keys for the anchors; its first key is written to standard output, once.

    Keep it away from this machine: `hilum audit verify --key FILE` proves with it that the anchors were made by this
    node and not changed since. The node itself can't read it again. Recorded as audit.rekeyed. Without --new: the
    number of the next anchor, and where it goes.
    """
    from node import anchoring
    from node.operate import operator

    settings = load(config)
    keys = anchoring.anchors_of(settings)
    if not new:
        print(f"next anchor: number {keys.key().number}, into {keys.folder}")
        return
    with opened(settings) as store:
        first = anchoring.renew(store, keys, operator())
    print(first.text, end="")
    print(
        "Keep this line away from this machine, beside those of before: it is not shown again.",
        file=sys.stderr,
    )


@audit.command("report")
def audit_report(
    config: Config = None,
    since: Annotated[
        str,
        typer.Option("--from", metavar="MONTH", help="From this month on: 2026-01, or a day: 2026-01-15."),
    ] = "",
    until: Annotated[
        str, typer.Option("--to", metavar="MONTH", help="Up to this month or day, counted whole.")
    ] = "",
    form: PaperForm = Paper.TEXT,
    out: PaperOut = None,
) -> None:
    """Report on months, a page each: volumes, availability, failures, models, changes. Without --from the last month.

    It is itself recorded (audit.exported).
    """
    from node.audit_report.make import report

    settings = load(config)
    with opened(settings) as store:
        report(store, settings, since, until, form.value, out)


def _say_what_expired(store: "Store", since: str = "") -> None:
    """Beside the answer: that there was more once."""
    from node.retention import expired_note

    if note := expired_note(store, since):
        print(note, file=sys.stderr)
