"""How records of the audit log are written: for people, for programs, for a spreadsheet, for an audit repository.

    table   for a terminal               csv     for a spreadsheet: every text quoted, none a formula
    json    one array                    dicom   audit messages (PS3.15 A.5): one XML document a line,
    jsonl   one object a line                    or a file a record

Times are UTC for programs, local with offset for people.
"""

import csv
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import tzinfo
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, Literal

from node import show
from node.errors import Misuse
from node.history import COLUMNS, Answer
from node.new_files import created, finished
from storage import clock
from storage.audit import Record

Format = Literal["table", "json", "jsonl", "csv", "dicom"]
EXPORTS = ("jsonl", "csv", "dicom")
"""Forms that are made to leave: asking for one is an export, wherever it goes."""

Message = Callable[[Record], bytes]
"""The DICOM audit message of a record: one XML document."""

# records a table is made of; a longer answer is several tables
_TABLE_ROWS = 1000
# certificates are long and rare: programs get them
_TABLE_COLUMNS = COLUMNS[:-1]
# with which a spreadsheet begins a formula, in both widths (OWASP, "CSV Injection"); and our own mark
_FORMULA = tuple("=+-@\t\r\n＝＋－＠'")


def messages(ae_title: str) -> Message:
    """As this node writes them: the same as those that it sends to an audit repository."""
    from node.atna.messages import Source, message

    source = Source(socket.gethostname(), ae_title)
    return lambda record: message(record, source)


def put(
    ask: Callable[[], Answer], form: Format, zone: tzinfo | None, place: Path | None, message: Message
) -> Answer:
    """Asks, and writes the answer to `place`, a file or (dicom) a folder that is made; without one to stdout.

    Nothing is asked where the place can't be had. Raises Misuse, OSError, Unavailable.
    """
    if place is None:
        answer = ask()
        write(answer, form, zone, sys.stdout, message)
    elif form == "dicom":
        with new_folder(place):
            answer = ask()
            write_folder(answer, place, message)
    else:
        with new_file(place) as out:
            answer = ask()
            write(answer, form, zone, out, message)
    return answer


def write(
    records: Iterable[Record], form: Format, zone: tzinfo | None, out: IO[str], message: Message
) -> None:
    """All of them to `out`; `zone` (None: the machine's) for the table."""
    match form:
        case "json":
            show.array((_object(record) for record in records), out)
        case "jsonl":
            for record in records:
                out.write(show.line(_object(record)) + "\n")
        case "csv":
            _csv(records, out)
        case "dicom":
            for record in records:
                out.write(message(record).decode() + "\n")
        case "table":
            _tables(records, zone, out)


def write_folder(records: Iterable[Record], folder: Path, message: Message) -> None:
    """One XML file a record, named by its id."""
    for record in records:
        with os.fdopen(created(folder / f"{record.id}.xml"), "wb") as out:
            out.write(message(record))


@contextmanager
def new_file(file: Path) -> Iterator[IO[str]]:
    """A file that the owner alone may read, synced at the end. Nothing is left of one that was not finished.

    Raises Misuse where there is one, OSError.
    """
    try:
        fd = created(file)
    except FileExistsError:
        raise Misuse(f"--out: {file} is there already, and nothing is written over; name another") from None
    with finished(fd, file) as out:
        text = TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
        yield text
        text.detach()


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """The same for a folder."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise Misuse(f"--out: {folder} is there already, and nothing is written over; name another") from None
    try:
        yield
    except BaseException:
        # a part of an answer must not pass for the whole
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _object(record: Record) -> dict[str, Any]:
    return {column: getattr(record, column) for column in COLUMNS}


def _csv(records: Iterable[Record], out: IO[str]) -> None:
    """A line a record (RFC 4180, but for the lone LF); a line break within a value stays within its quotes."""
    # all text quoted: Python would leave a bare CR outside of quotes
    lines = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    lines.writerow(COLUMNS)
    for record in records:
        values = {**vars(record), "detail": _compact(record)}
        lines.writerow([_harmless(values[column]) for column in COLUMNS])


def _harmless(value: object) -> object:
    """Text that a spreadsheet would run as a formula gets an apostrophe in front; so does text that has one there,
    so that taking one off always gives what was recorded."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _tables(records: Iterable[Record], zone: tzinfo | None, out: IO[str]) -> None:
    rows: list[list[object]] = []
    for record in records:
        values = {
            **vars(record),
            "detail": _compact(record),
            "time": show.when(clock.moment(record.time), zone),
        }
        rows.append([values[column] for column in _TABLE_COLUMNS])
        if len(rows) == _TABLE_ROWS:
            show.table(_TABLE_COLUMNS, rows, out)
            rows = []
    show.table(_TABLE_COLUMNS, rows, out)


def _compact(record: Record) -> str:
    return json.dumps(record.detail, ensure_ascii=False, separators=(",", ":")) if record.detail else ""
