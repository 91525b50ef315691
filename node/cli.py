"""hilum …: one function a command. It parses, calls, prints.

What is heavy is imported inside the functions: no command that predicts nothing loads TensorFlow, and none takes
a second to start.
"""

import io
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from model.errors import BadData, BadModel, ModelError, NotFetched
from node.app import Config, Json, new_app, opened
from node.cli_audit import audit
from node.cli_model import model
from node.cli_retention import retention
from node.errors import HilumError, Misuse
from node.settings import load
from storage.errors import StorageError, WrongState

EXIT_CODES = {
    0: "done",
    1: "the thing asked for did not hold: a check failed, a result did not arrive",
    2: "wrong usage or configuration; one line says file, key, what is wrong and what would be right",
    3: "the environment: port taken, folder not writable, disk full, another node runs here",
    130: "stopped by ctrl-C",
}


app = new_app("A DICOM node that reads chest X-rays: images come in by C-STORE, Structured Reports go out.")
jobs = new_app("What waits to be read, what was read, and what is parked and why.")
deliveries = new_app("What waits to be sent, what was delivered, and what is parked and why.")
app.add_typer(jobs, name="jobs")
app.add_typer(deliveries, name="deliveries")
app.add_typer(audit, name="audit")
app.add_typer(retention, name="retention")
app.add_typer(model, name="model")

Ids = Annotated[list[int] | None, typer.Argument(metavar="ID", help="As `list` shows them.")]
AllParked = Annotated[bool, typer.Option("--all-parked", help="Every one that is parked.")]


class View(StrEnum):
    PA = "PA"
    AP = "AP"


class JobState(StrEnum):
    """As in `node.status.JOB_STATES`."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"
    PARKED = "parked"
    DISCARDED = "discarded"


class DeliveryState(StrEnum):
    """As in `node.status.DELIVERY_STATES`."""

    WAITING = "waiting"
    SENDING = "sending"
    DELIVERED = "delivered"
    COMMITTED = "committed"
    PARKED = "parked"
    DISCARDED = "discarded"


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"hilum {version('hilum')}")
        raise typer.Exit


@app.callback()
def hilum(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A DICOM node that reads chest X-rays: images come in by C-STORE, Structured Reports go out."""


@app.command()
def serve(
    config: Config = None,
    host: Annotated[str | None, typer.Option(help="Where to listen; instead of receive.host.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on, 0 for a free one; instead of receive.port.")
    ] = None,
    ae_title: Annotated[str | None, typer.Option(help="Instead of node.ae_title.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Instead of node.data_dir.")] = None,
) -> int:
    """Run the node until SIGTERM or ctrl-C.

    Prints `ready: HILUM on 127.0.0.1:11112` when a worker has loaded the model (with `workers = 0`: at once); the
    log goes to stderr.
    """
    settings = load(config).with_changes("receive", host=host, port=port)
    settings = settings.with_changes("node", ae_title=ae_title, data_dir=data_dir)
    from node import supervise

    return supervise.serve(settings)


@app.command()
def demo(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="DICOM, PNG or JPEG; none: three phantoms.")
    ] = None,
    config: Config = None,
) -> int:
    """Start a node and a small receiving PACS, send X-rays, wait for the results and show them.

    Everything runs on this machine, on free loopback ports, and ends with the command. The results (Structured
    Report, the same as text, Secondary Capture, PNG) lie in a folder of their own under hilum-demo. Of the
    configuration only [analyze], [scope] and [report] count. Exits 0 only if every result arrived.
    """
    from node.demo import run

    return 0 if run(load(config), files or []) else 1


@app.command()
def analyze(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="DICOM, PNG or JPEG; a folder: all that lie in it.")
    ],
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line and file.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the DICOM results there, and a PNG of each picture."),
    ] = None,
    view: Annotated[View, typer.Option(help="What a PNG or JPEG shows: its file does not say.")] = View.PA,
    age: Annotated[int, typer.Option(min=0, max=130, help="The patient's age in a PNG or JPEG.")] = 40,
) -> int:
    """Read files without a network or a database: no audit record is written.

    JSON: file, sop_instance_uid, status (analyzed, skipped, failed), reason, findings (label, score, threshold,
    present), model (name, version, sha256). Exits 1 if any file failed.
    """
    from node.readout import read

    return 0 if read(load(config), files, as_json=as_json, out=out, view=view.value, age=age) else 1


@app.command()
def render(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A DICOM result, of ours or of others.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to; without it beside the result, with the new ending."),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The X-ray: draw the marks of a report or presentation state on it."
        ),
    ] = None,
) -> None:
    """Show one result without a viewer: a picture as PNG, a report as an HTML page, a PDF as it is.

    The file that is written names the patient, as the result does.
    """
    from node.render import render as rendered

    print(f"wrote {rendered(file, out, image)}")


@app.command()
def status(config: Config = None, as_json: Json = False) -> int:
    """Say how the node does. Exits 1 when it is stopped or a destination is down.

    JSON: node (running, stopped), since, received, refused_associations, conflicts, jobs, studies (those that wait
    for one report) and deliveries (state: number), oldest_queued_seconds (0 when nothing waits), workers (ready,
    wanted), destinations (name: state, waiting, last_success, last_error; the state is up, down, or unknown where
    nothing was ever sent), disk_free_bytes, model (name, version, sha256, from, since,
    by, runtime, shadow), problems (sentences).
    """
    from node import show
    from node.state import read_state
    from node.status import collect, describe

    settings = load(config)
    found = collect(settings, read_state(settings.node.data_dir))
    if as_json:
        print(show.line(found.as_json()))
    else:
        describe(found)
    return 0 if found.holds else 1


@app.command()
def check(
    config: Config = None,
    as_json: Json = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="First take in files without rows, and name rows without files."),
    ] = False,
    requeue: Annotated[
        bool,
        typer.Option(
            "--requeue",
            help="With --repair: images taken in that have no result are read; else they are parked.",
        ),
    ] = False,
) -> int:
    """Check configuration, folders, database, model, decoders and destinations. Exits 1 if something does not hold.

    Each destination is echoed, and says which result classes it accepts. --repair rebuilds a lost database from the
    spool; it needs the node stopped. The audit log is never rebuilt.
    """
    from node import check as checks

    if requeue and not repair:
        raise Misuse("--requeue goes with --repair: write `hilum check --repair --requeue`")
    settings = load(config)
    return 0 if checks.run(settings, as_json=as_json, repair=repair, requeue=requeue) else 1


@jobs.command("list")
def jobs_list(
    config: Config = None,
    as_json: Json = False,
    state: Annotated[JobState | None, typer.Option(help="Only those in this state.")] = None,
) -> None:
    """List jobs, oldest first: one is one reading of one object by one model."""
    from node import operate

    settings = load(config)
    with opened(settings) as store:
        operate.list_jobs(store, state or "", as_json=as_json, zone=settings.report.zone)


@jobs.command("retry")
def jobs_retry(ids: Ids = None, all_parked: AllParked = False, config: Config = None) -> int:
    """Queue parked jobs again."""
    from node import operate

    with opened(load(config)) as store:
        held = operate.change_jobs(store, store.jobs.retry, "is queued again", ids or [], all_parked)
    return 0 if held else 1


@jobs.command("discard")
def jobs_discard(ids: Ids = None, all_parked: AllParked = False, config: Config = None) -> int:
    """Give parked jobs up; their images are kept until they expire."""
    from node import operate

    with opened(load(config)) as store:
        held = operate.change_jobs(store, store.jobs.discard, "is discarded", ids or [], all_parked)
    return 0 if held else 1


@deliveries.command("list")
def deliveries_list(
    config: Config = None,
    as_json: Json = False,
    state: Annotated[DeliveryState | None, typer.Option(help="Only those in this state.")] = None,
) -> None:
    """List deliveries, oldest first: one is one result on its way to one destination."""
    from node import operate

    settings = load(config)
    with opened(settings) as store:
        operate.list_deliveries(store, state or "", as_json=as_json, zone=settings.report.zone)


@deliveries.command("retry")
def deliveries_retry(ids: Ids = None, all_parked: AllParked = False, config: Config = None) -> int:
    """Send parked deliveries again, and waiting ones at once."""
    from node import operate

    with opened(load(config)) as store:
        held = operate.change_deliveries(store, store.outbox.retry, "waits to be sent", ids or [], all_parked)
    return 0 if held else 1


@deliveries.command("discard")
def deliveries_discard(ids: Ids = None, all_parked: AllParked = False, config: Config = None) -> int:
    """Give parked or waiting deliveries up; the results are kept until they expire."""
    from node import operate

    with opened(load(config)) as store:
        held = operate.change_deliveries(store, store.outbox.discard, "is discarded", ids or [], all_parked)
    return 0 if held else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; its exit code. What a person can do wrong, or a machine, is told in one line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a terminal that knows ASCII only, a file name that is no UTF-8
            stream.reconfigure(errors="backslashreplace")
    code = 0
    try:
        code = app(args=arguments, standalone_mode=False, prog_name="hilum")
        sys.stdout.flush()
    except BrokenPipeError:
        # whoever read has enough; what is left in the buffer must not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except (HilumError, StorageError, ModelError, typer.TyperException, OSError) as e:
        line, code = _told(e)
        print(f"hilum: {line}", file=sys.stderr)
    return code or 0


def _told(error: Exception) -> tuple[str, int]:
    """The line and the exit code of what went wrong."""
    match error:
        case HilumError():
            return str(error), error.exit_code
        case BadData() | BadModel():
            return str(error), 2
        case NotFetched() | StorageError() if not isinstance(error, WrongState):
            return str(error), 3
        case typer.TyperException():
            asked = getattr(error, "ctx", None)  # of an error in usage: the command that was meant
            return f"{error.format_message()} (see `{asked.command_path if asked else 'hilum'} --help`)", 2
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            return f"{where}{error.strerror or type(error).__name__}", 3
    return str(error), 1


if __name__ == "__main__":
    sys.exit(main())
