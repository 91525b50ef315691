"""On whom: the same figures for each view, sex, age band and collection."""

import numpy as np
from numpy.typing import NDArray

from model.table import Table

BANDS = {
    "under 18": (0, 18),
    "18-39": (18, 40),
    "40-59": (40, 60),
    "60-79": (60, 80),
    "80 and over": (80, 131),
}
"""Years, from the first to before the second; all else is unknown: NIH's first table has ages up to 414."""

UNKNOWN = "unknown"

Rows = NDArray[np.bool_]


def subgroups(table: Table) -> dict[str, dict[str, Rows]]:
    """view, sex, age, collection -> each value that occurs -> its rows. A part that takes in all rows says nothing new
    and is still there: it says so."""
    return {
        "view": _words(table.views),
        "sex": _words(table.sexes),
        "age": _bands(table.ages),
        "collection": _words(table.collections),
    }


def _words(values: NDArray[np.str_]) -> dict[str, Rows]:
    known = sorted(str(value) for value in np.unique(values) if value)
    found = {value: values == value for value in known}
    return found | ({UNKNOWN: values == ""} if (values == "").any() else {})


def _bands(ages: NDArray[np.float32]) -> dict[str, Rows]:
    found = {name: (ages >= least) & (ages < end) for name, (least, end) in BANDS.items()}
    none = ~np.any(list(found.values()), axis=0)
    return {name: rows for name, rows in (found | {UNKNOWN: none}).items() if rows.any()}
