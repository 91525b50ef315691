"""The label table: one row an image, with what is known about it and its patient.

A label is 1 present, 0 absent, NaN unknown. Unknown is not absent: it counts nowhere. What a file does not say about
an image is NaN (age, follow-up, size) or the empty string (view, sex, collection, split).

`open_table` takes any of the layouts that are drawn in `layouts`; `read` takes a *label file*, our own layout, which
`write` writes. All are read as .csv, .csv.gz or a .zip with one CSV in it.
"""

from model.table.folder import missing
from model.table.layouts import open_table, read, write
from model.table.table import FOLDS, NIH_FINDINGS, OPACITY, Table, fold_of

__all__ = ["FOLDS", "NIH_FINDINGS", "OPACITY", "Table", "fold_of", "missing", "open_table", "read", "write"]
