"""Printing for people and for programs: tables, JSON, times. Patients' names are never printed."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import IO, Any

# where the output is no terminal nobody reads it by width: UIDs stay on their line
_WIDE = 1000


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], out: IO[str] | None = None) -> None:
    """Prints rows under their columns' names; holds them all until it does."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        # Text: a reason that holds [brackets] is no markup
        shown.add_row(*(Text("" if cell is None else str(cell), overflow="fold") for cell in row))
    file = out or sys.stdout
    console = Console(file=file) if file.isatty() else Console(file=file, width=_WIDE)
    console.print(shown)


def array(rows: Iterable[Mapping[str, Any]], out: IO[str] | None = None) -> None:
    """Prints a JSON array, an object a line, as the rows come."""
    file, before = out or sys.stdout, "[\n"
    for row in rows:
        file.write(before + line(row))
        before = ",\n"
    file.write("\n]\n" if before == ",\n" else "[]\n")


def line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def when(moment: datetime | None, zone: tzinfo | None = None) -> str:
    """A time as people read it: of their zone (None: the machine's), with its offset."""
    return moment.astimezone(zone).isoformat(" ", "seconds") if moment else ""


def stamp(moment: datetime | None) -> str | None:
    """A time as programs read it."""
    from storage import clock

    return clock.stamp(moment) if moment else None


def size(count: int) -> str:
    """1500000000 -> "1.5 GB"."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"
