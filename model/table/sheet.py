"""A CSV file -> its columns, every complaint with file, line and column.

Plain, gzipped or alone in a zip archive, by the first bytes of the file and not by its name.
"""

import csv
import gzip
import io
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from model.errors import BadData

YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
"""The units of an age string (PS3.5 6.2, AS); without one it counts years."""

PAIR = "OriginalImage"
"""How NIH's headers of two columns in one begin."""


@dataclass(frozen=True)
class Sheet:
    file: Path
    columns: tuple[str, ...]
    rows: list[list[str]]
    """Each at least as long as `columns`."""
    lines: list[int]
    """Where in the file each row ends, from 1."""

    def __len__(self) -> int:
        return len(self.rows)

    def require(self, *columns: str) -> None:
        for column in columns:
            if column not in self.columns:
                raise BadData(f"{self.file}: column {column!r} is missing")

    def words(self, column: str) -> list[str]:
        """The cells of a column; empty ones throughout where there is no such column."""
        if column not in self.columns:
            return [""] * len(self.rows)
        at = self.columns.index(column)
        return [row[at] for row in self.rows]

    def numbers(self, column: str) -> NDArray[np.float32]:
        """NaN where a cell is empty."""
        return self._floats(column, float, "a number")

    def ages(self, column: str) -> NDArray[np.float32]:
        """Years, from `58`, `058Y`, `013M` or `001D`; NaN where a cell is empty."""
        return self._floats(column, age, "an age")

    def wrong(self, row: int, column: str, what: str) -> BadData:
        return BadData(f"{self.file}: line {self.lines[row]}, column {column!r}: {what}")

    def _floats(self, column: str, parse: Callable[[str], float], kind: str) -> NDArray[np.float32]:
        values = np.full(len(self.rows), np.nan, np.float32)
        for row, cell in enumerate(self.words(column)):
            if cell:
                try:
                    value = parse(cell)
                except ValueError:
                    value = math.nan
                if not math.isfinite(value):
                    raise self.wrong(row, column, f"{cell!r} is not {kind}")
                values[row] = value
        return values


def age(text: str) -> float:
    """Years, from a number with or without a unit. Raises ValueError."""
    unit = text.strip()[-1:].upper()
    return float(text.strip()[:-1]) * YEARS[unit] if unit in YEARS else float(text)


def open_sheet(file: Path) -> Sheet:
    """Reads a CSV file into memory.

    Raises BadData where it is no whole CSV file, has no header, or a row has not as many cells as the header.
    """
    lines: list[int] = []
    rows: list[list[str]] = []
    try:
        with _opened(file) as text:
            reader = csv.reader(text, strict=True)
            columns = _columns(file, next(reader, []))
            for row in reader:
                if not row:
                    continue
                if len(row) < len(columns):
                    column = columns[len(row)]
                    raise BadData(f"{file}: line {reader.line_num}: the row ends before column {column!r}")
                if any(row[len(columns) :]):
                    raise BadData(f"{file}: line {reader.line_num}: more cells than the header has columns")
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise BadData(f"{file}: line {reader.line_num}: not a row of a CSV file ({error})") from error
    except UnicodeDecodeError as error:
        raise BadData(f"{file}: not a CSV file in UTF-8") from error
    except FileNotFoundError as error:
        raise BadData(f"{file}: there is no such file") from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BadData(f"{file}: can't be read ({error})") from error
    return Sheet(file, columns, rows, lines)


def _columns(file: Path, header: list[str]) -> tuple[str, ...]:
    """NIH's header ends with a comma, and quoted or not `OriginalImage[Width,Height]` is two columns."""
    columns = [
        name.strip() for cell in header for name in (cell.split(",") if cell.startswith(PAIR) else [cell])
    ]
    while columns and not columns[-1]:
        columns.pop()
    if not columns:
        raise BadData(f"{file}: line 1: there is no header")
    for at, name in enumerate(columns):
        if name and name in columns[:at]:
            raise BadData(f"{file}: line 1: column {name!r} is there twice")
    return tuple(columns)


@contextmanager
def _opened(file: Path) -> Iterator[io.TextIOBase]:
    with ExitStack() as stack:
        unpacked: IO[bytes] = stack.enter_context(file.open("rb"))
        start = unpacked.read(4)
        unpacked.seek(0)
        if start[:2] == b"\x1f\x8b":
            unpacked = cast(IO[bytes], stack.enter_context(gzip.open(unpacked)))
        elif start == b"PK\x03\x04":
            archive = stack.enter_context(zipfile.ZipFile(unpacked))
            inside = [n for n in archive.namelist() if n.lower().endswith(".csv") and "__MACOSX" not in n]
            if len(inside) != 1:
                raise BadData(f"{file}: {len(inside)} CSV files in the archive, where one is expected")
            unpacked = stack.enter_context(archive.open(inside[0]))
        yield stack.enter_context(io.TextIOWrapper(unpacked, "utf-8-sig", newline=""))
