"""What is wrong with a table is mended or left out, and every step is said in a plain sentence with its count.

Two rows of one image, a label that is neither 1, 0 nor empty, a finding nobody knows: those the table's reader refuses,
naming the line.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import BadData
from model.table import Table, missing

OLDEST = 120
"""Years. NIH's table of 2017 has patients of 411: the machine's typing error, and nothing says what was meant."""


def clean(table: Table, images: Path, *, min_age: int = 0) -> tuple[Table, list[str]]:
    """The table without what can't be used, and what was done; `images` is the folder it was opened with.

    An age below 0 or above OLDEST becomes unknown, its row stays. A row leaves if its file is missing, if it names no
    patient, or if its patient is known to be younger than `min_age` years.
    Raises BadData if no row is left.
    """
    said = [f"Read: {len(table):,} images of {len(set(table.patients)):,} patients."]
    table = _possible_ages(table, said)
    table = _left_out(table, missing(table), f"no file in {images}", said)
    table = _left_out(
        table, table.patients == "", "no patient is named, so nobody knows whose image it is", said
    )
    if min_age:
        unknown = int(np.isnan(table.ages).sum())
        table = _left_out(table, table.ages < min_age, f"younger than {min_age} years", said)
        if unknown:
            said.append(f"Of unknown age, and therefore kept: {unknown:,}.")
    if not len(table):
        raise BadData(f"no image is left to split: {' '.join(said)}")
    said += _unknown_labels(table)
    return table, said


def _possible_ages(table: Table, said: list[str]) -> Table:
    impossible = (table.ages < 0) | (table.ages > OLDEST)
    if not impossible.any():
        return table
    said.append(f"Ages below 0 or above {OLDEST} years, now unknown: {int(impossible.sum()):,}.")
    return replace(table, ages=np.where(impossible, np.float32(np.nan), table.ages))


def _left_out(table: Table, rows: NDArray[np.bool_], why: str, said: list[str]) -> Table:
    if not rows.any():
        return table
    first = table.images[int(np.flatnonzero(rows)[0])].name
    said.append(f"Left out, {why}: {int(rows.sum()):,} (the first is {first}).")
    return table.only(~rows)


def _unknown_labels(table: Table) -> list[str]:
    unknown = {name: int(np.isnan(table[name]).sum()) for name in table.names}
    told = ", ".join(f"{name} in {count:,}" for name, count in unknown.items() if count)
    labels = f"Labels: {len(table.names)}, each a column of 1 and 0"
    return [f"{labels}; unknown, and left empty: {told}." if told else f"{labels}."]
