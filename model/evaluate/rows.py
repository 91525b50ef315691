"""Which rows of a table are judged, by which labels; and what a card says about whether they trained the model."""

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from model.card import CARD, Card
from model.data.split import check_no_leak
from model.errors import BadData
from model.evaluate.judge import ALL
from model.evaluate.scores import image_name
from model.evaluate.subgroups import Rows
from model.table import Table, open_table


def open_shared(file: Path, images: Path, labels: Sequence[str]) -> Table:
    """The table with those of the model's `labels` that it has, in their order. Raises BadData where it has none, and
    where a patient is in two splits."""
    table = open_table(file, images)
    check_no_leak(table)
    shared = tuple(label for label in labels if label in table.names)
    if not shared:
        raise BadData(f"{file}: has none of the model's labels; they are {', '.join(labels)}")
    return replace(table, names=shared, labels=np.stack([table[name] for name in shared], axis=1))


def rows_of(file: Path, table: Table, split: str) -> Rows:
    """Those of one split, or all. Raises BadData where there are none."""
    if split == ALL:
        return np.ones(len(table), np.bool_)
    rows: Rows = table.splits == split
    if not (table.splits != "").any():
        raise BadData(
            f"{file}: no row says its split; make them with `hilum model data split`, or pass --split all"
        )
    if not rows.any():
        there = ", ".join(sorted(str(name) for name in np.unique(table.splits) if name))
        raise BadData(f"{file}: no image is of the split {split!r}; there are {there}")
    return rows


def names_of(table: Table, rows: Rows, root: Path) -> set[str]:
    """What `evaluate.scores` calls their images."""
    return {image_name(table.images[row], root) for row in np.flatnonzero(rows)}


def trained_on(card: Card, file: Path, split: str) -> str:
    """Whether images of this table's split trained the model, as far as its card tells, in a sentence.

    `hilum model train` writes the table's SHA-256 into the card. A card that names another one, or none, tells nothing.
    """
    data = tomllib.loads((card.folder / CARD).read_text(encoding="utf-8")).get("data")
    said = data if isinstance(data, dict) else {}
    who = f"{card.name} {card.version}"
    if said.get("table") == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}":
        if split in ("train", ALL):
            return f"{who} was trained on images of split {split} of this very table: its figures here flatter it."
        if split == "validation":
            return f"Images of this split chose epoch and thresholds of {who}: its figures here flatter it."
        return f"The card of {who} names this very table: patients of split {split} took no part in its training."
    source = said.get("source")
    names = f" (it names {source!r})" if isinstance(source, str) else ""
    return (
        f"Whether these patients trained {who} can't be known: its card does not name this table{names}. If they did, "
        "its figures here flatter it."
    )
