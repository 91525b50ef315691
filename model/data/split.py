"""`hilum model data split`: train, validation and test, apart by patient.

Which split a patient falls into follows from the seed and the patient's id alone: it is the same on every machine, in
whatever order the rows come, and when the table grows, so that nobody who tests this year trains next year. The
shares are therefore met as by tossing a coin for each patient, not exactly.
NIH's official lists go before the coin: what they call test is the test.
"""

import gzip
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model import table as tables
from model.data.clean import clean
from model.errors import BadData
from model.page import replace as write_text
from model.table import Table
from model.table.layouts import COLUMNS, SIZES
from model.table.sheet import open_sheet

TRAIN, VALIDATION, TEST = "train", "validation", "test"
NATURAL = "natural"


@dataclass(frozen=True)
class Size:
    """What one split holds of one finding."""

    split: str
    images: int
    patients: int
    positives: int
    known: int
    """Images of which somebody said whether they show the finding."""
    views: dict[str, int]
    """Images by view; "" where it is unknown."""

    @property
    def rate(self) -> float | None:
        return self.positives / self.known if self.known else None


def split_table(
    table: Path,
    images: Path,
    out: Path,
    *,
    train_list: Path | None,
    test_list: Path | None,
    validation: float,
    test: float,
    finding: str,
    training_rate: str,
    validation_rate: str,
    min_age: int,
    seed: int,
) -> None:
    """Cleans `table`, splits it and writes the label file `out`, with what was done beside it (`out`.json).

    `test`: share of the patients that test, where no list says which; `validation`: share of the others that validate.
    `training_rate`, `validation_rate`: `natural`, or positives to negatives of `finding`, as `1:1`: images without it
    are left out by chance. Prints what was done and the sizes. Raises BadData.
    """
    report = out.with_name(out.name + ".json")
    _check_out(table, out, report)
    opened = tables.open_table(table, images)
    if finding not in opened.names:
        raise BadData(
            f"{table}: no label is called {finding!r}; --finding takes one of {', '.join(opened.names)}"
        )
    cleaned, said = clean(opened, images, min_age=min_age)
    said += _forgotten(table, opened)
    cleaned, told = assign(
        cleaned, train_list=train_list, test_list=test_list, validation=validation, test=test, seed=seed
    )
    said += told
    for part, rate in ((TRAIN, training_rate), (VALIDATION, validation_rate)):
        cleaned, told = thin(cleaned, images, part, finding, rate, seed)
        said += told
    said += _never_shown(cleaned)
    check_no_leak(cleaned)
    sizes = sizes_of(cleaned, finding)
    tables.write(out, cleaned, images)
    facts = {
        "table": table.name,
        "seed": seed,
        "finding": finding,
        "validation": validation,
        "test": test,
        "train_list": train_list and train_list.name,
        "test_list": test_list and test_list.name,
        "training_rate": training_rate,
        "validation_rate": validation_rate,
        "min_age": min_age,
        "done": said,
        "sizes": [{**asdict(size), "rate": size.rate} for size in sizes],
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
    }
    write_text(report, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    for line in said:
        print(line)
    _print_sizes(sizes, finding)
    print(f"Written: {out}; what was done and the sizes: {report}")


def check_no_leak(table: Table) -> None:
    """Raises BadData if a patient has images in two splits, naming two of the images and not the patient.

    Rows without a split are in none. A row with a split and no patient is refused: nobody can say whose it is.
    """
    first: dict[str, int] = {}
    for row in np.flatnonzero(table.splits != ""):
        if not table.patients[row]:
            raise BadData(f"{table.images[row].name} names no patient: whether a split leaks can't be told")
        other = first.setdefault(str(table.patients[row]), int(row))
        if table.splits[other] != table.splits[row]:
            raise BadData(
                f"a patient in two splits: {table.images[other].name} is in {table.splits[other]}, "
                f"{table.images[row].name} of the same patient in {table.splits[row]}; "
                "make the splits by patient, as `hilum model data split` does"
            )


def assign(
    table: Table,
    *,
    train_list: Path | None,
    test_list: Path | None,
    validation: float,
    test: float,
    seed: int,
) -> tuple[Table, list[str]]:
    """The table with a split for each row, and what is to be said; rows that are on neither of two lists leave.

    With one list alone, the images that are not on it are the other side.
    Raises BadData where the lists put a patient on both sides.
    """
    said = []
    if (table.splits != "").any():
        said.append("The splits that the table came with are replaced.")
    people, person = np.unique(table.patients, return_inverse=True)
    if train_list or test_list:
        testing, training = _by_lists(table, train_list, test_list, said)
        if (neither := ~testing & ~training).any():
            first = table.images[int(np.flatnonzero(neither)[0])].name
            said.append(f"Left out, on neither list: {int(neither.sum()):,} (the first is {first}).")
            table, testing, person = table.only(~neither), testing[~neither], person[~neither]
    else:
        tests = np.array([chance(seed, TEST, str(patient)) < test for patient in people], bool)
        testing = tests[person]
    validates = np.array([chance(seed, VALIDATION, str(patient)) < validation for patient in people], bool)
    splits = np.where(testing, TEST, np.where(validates[person], VALIDATION, TRAIN))
    table = replace(table, splits=splits)
    check_no_leak(table)
    if TRAIN not in splits:
        raise BadData("no image is left to train with: take smaller shares, or look at the lists")
    for part, share in ((VALIDATION, validation), (TEST, test)):
        if share and part not in splits:
            said.append(f"No image fell into {part}: the table has too few patients for such a share.")
    return table, said


def _by_lists(
    table: Table, train_list: Path | None, test_list: Path | None, said: list[str]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(n,) twice: which rows test, and which train or validate."""
    testing = _listed(table, test_list, said) if test_list else None
    training = _listed(table, train_list, said) if train_list else None
    if testing is None and training is not None:
        testing = ~training
        said.append("Images that are not on it are the test.")
    elif training is None and testing is not None:
        training = ~testing
        said.append("Images that are not on it train or validate.")
    assert testing is not None and training is not None
    if (both := testing & training).any():
        name = table.images[int(np.flatnonzero(both)[0])].name
        raise BadData(f"a patient in two splits: {name} is on both lists, {train_list} and {test_list}")
    return testing, training


def _listed(table: Table, file: Path, said: list[str]) -> NDArray[np.bool_]:
    """(n,): whether a row's image is on the list; by its name without the ending, as pictures get converted."""
    names = read_list(file)
    stems = [image.stem for image in table.images]
    rows = np.array([stem in names for stem in stems], bool)
    if not rows.any():
        raise BadData(
            f"{file}: names none of the table's images; it says {min(names, default='nothing')}, "
            f"the table {table.images[0].name}"
        )
    found = [stem for stem, row in zip(stems, rows, strict=True) if row]
    if len(set(found)) < len(found):
        twice = next(stem for stem in found if found.count(stem) > 1)
        raise BadData(f"{file}: {twice} names two images of the table")
    said.append(f"On {file.name}: {len(names):,} images, {len(found):,} of them in the table.")
    return rows


def read_list(file: Path) -> set[str]:
    """The names, without folder and ending, of a list of images: one a line, as NIH's; .gz too. Raises BadData."""
    try:
        content = file.read_bytes()
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a text file, a name a line"
        raise BadData(f"{file}: can't be read ({why})") from error
    return {Path(line.strip()).stem for line in text.splitlines() if line.strip()}


def thin(
    table: Table, images: Path, part: str, finding: str, rate: str, seed: int
) -> tuple[Table, list[str]]:
    """The table without as many rows of the split `part` without `finding` as it takes to reach `rate`.

    `rate`: `natural`, or as `1:3`, positives to negatives. Which rows leave is chance by the seed and the image's name.
    Rows of which nobody knows whether they show the finding stay. Raises BadData if no row shows it.
    """
    if rate == NATURAL:
        return table, []
    inside = table.splits == part
    positives, negatives = (np.flatnonzero(inside & (table[finding] == value)) for value in (1, 0))
    unknown = int((inside & np.isnan(table[finding])).sum())
    if not len(positives):
        raise BadData(f"no image of {part} shows {finding}: it can't have a rate of {rate}")
    most = len(positives) * int(rate.partition(":")[2])
    drawn = sorted(
        negatives, key=lambda row: chance(seed, part, table.images[row].relative_to(images).as_posix())
    )
    leaving = np.zeros(len(table), bool)
    leaving[drawn[most:]] = True
    if leaving.any():
        said = [f"Left out of {part} by chance, for {finding} {rate}: {int(leaving.sum()):,} without it."]
    else:
        said = [f"{part} has no more images without {finding} than {rate} asks for: none is left out."]
    if unknown:
        said.append(
            f"In {part} nobody said whether {unknown:,} show {finding}: they stay and count in no rate."
        )
    return table.only(~leaving), said


def chance(seed: int, purpose: str, name: str) -> float:
    """A number from 0 to below 1, always the same for the same words."""
    digest = hashlib.sha256(f"{purpose}:{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)


def sizes_of(table: Table, finding: str) -> list[Size]:
    """Of train, validation, test and all."""
    sizes = []
    for split in (TRAIN, VALIDATION, TEST, "all"):
        rows = table.only(table.splits == split) if split != "all" else table
        views, counts = np.unique(rows.views, return_counts=True)
        sizes.append(
            Size(
                split=split,
                images=len(rows),
                patients=len(set(rows.patients)),
                positives=int((rows[finding] == 1).sum()),
                known=int((~np.isnan(rows[finding])).sum()),
                views={str(view): int(count) for view, count in zip(views, counts, strict=True)},
            )
        )
    return sizes


def _never_shown(table: Table) -> list[str]:
    """Findings that a split can say nothing about."""
    said = []
    for part in (TRAIN, VALIDATION, TEST):
        rows = table.only(table.splits == part)
        if len(rows) and (none := [name for name in rows.names if not (rows[name] == 1).any()]):
            said.append(f"No image of {part} shows {', '.join(none)}.")
    return said


def _print_sizes(sizes: Sequence[Size], finding: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid

    views = sorted(sizes[-1].views, key=lambda view: (view == "", -sizes[-1].views[view]))
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("split")
    for column in ("images", "patients", finding, "known", "rate", *(view or "no view" for view in views)):
        grid.add_column(column, justify="right")
    for size in sizes:
        grid.add_row(
            size.split,
            *(f"{count:,}" for count in (size.images, size.patients, size.positives, size.known)),
            "-" if size.rate is None else f"{size.rate:.1%}",
            *(f"{size.views.get(view, 0) / size.images:.1%}" if size.images else "-" for view in views),
        )
    # where the output is no terminal nobody reads it by width
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(grid)


def _check_out(table: Path, out: Path, report: Path) -> None:
    if out.resolve() == table.resolve():
        raise BadData(f"--out {out}: is the table itself; name another file")
    if out.exists() and not report.exists():
        raise BadData(f"--out {out}: is there already and was not made by this command; name another file")


def _forgotten(file: Path, table: Table) -> list[str]:
    """Columns of a label file that are not carried over."""
    columns = open_sheet(file).columns
    if "image" not in columns and "file" not in columns:
        return []
    size = next((pair for pair in SIZES if set(pair) <= set(columns)), ())
    kept = {*COLUMNS, "file", *size, *table.names}
    lost = [column for column in columns if column and column not in kept]
    return [f"Columns that are not carried over: {', '.join(lost)}."] if lost else []
