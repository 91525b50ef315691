"""Statements of the path of images, compiled once and given to the driver.

SQLAlchemy's own way to the driver costs some 0.2 ms a statement, ten times what SQLite does with it, and the driver
lets go of the interpreter's lock twice for each row: under load, with a thread an association, that cost more than
the rows. So many rows are one statement. The statements stay SQLAlchemy's, so that tables have one place.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, bindparam
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.sql import ClauseElement

from storage.database import driver

# SQLite takes 32,766 values a statement; ours have at most 17 a row
MOST_ROWS = 32


def inserting(table: Table, *columns: str) -> Callable[[int], Insert]:
    """INSERT of many rows, of all columns or of those named."""
    names = columns or tuple(column.name for column in table.c)
    return lambda count: insert(table).values(
        [{name: bindparam(f"{name}_{number}") for name in names} for number in range(count)]
    )


class Prepared:
    """A statement for 1 to MOST_ROWS rows at a time, made by `statement(how many)`.

    Its parameters are named `column_0`, `column_1`, …: a column, or whatever the statement calls it, and the row.
    Values go to the driver as they are. Raises what the database's own driver raises.
    """

    def __init__(self, statement: Callable[[int], ClauseElement]) -> None:
        self._statement = statement
        self._compiled: dict[int, tuple[str, list[tuple[str, int]]]] = {}

    def run(self, tx: Connection, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
        """What it returns for all the rows together; nothing where it returns nothing."""
        found: list[tuple[Any, ...]] = []
        for at in range(0, len(rows), MOST_ROWS):
            some = rows[at : at + MOST_ROWS]
            sql, names = self._for(len(some), tx)
            found += driver(tx).execute(sql, [some[number][name] for name, number in names]).fetchall()
        return found

    def _for(self, count: int, tx: Connection) -> tuple[str, list[tuple[str, int]]]:
        if count not in self._compiled:
            compiled: Any = self._statement(count).compile(dialect=tx.dialect)
            places = [name.rpartition("_") for name in compiled.positiontup]
            self._compiled[count] = str(compiled), [(name, int(number)) for name, _, number in places]
        return self._compiled[count]
