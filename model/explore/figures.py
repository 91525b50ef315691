"""A table -> the figures of the report, one plain dict: what `report.json` holds (pixels come from intensity.py).

A label that is unknown (NaN) counts nowhere. Shares come with Wilson's 95 % interval (E. B. Wilson, JASA 1927, 22:209).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.table import Table, missing

SUBJECT = "Pneumonia"
"""The finding that is set against the rest; the table's first label where it has no such column."""

OLDEST = 120
"""Years; an age above it, or below 0, is impossible. NIH's table of 2017 has 411."""

ADULT = 18
LISTED = 10
"""Names of images that are listed with what is wrong with them."""

DECADES = (*(f"{low}-{low + 9}" for low in range(0, 90, 10)), "90+")

FEWEST = 30
"""Images with a known label that a group needs before its share is set against another group's."""

STRONG = 2.0
"""How many times as frequent a finding must be in one group as in another for the difference to be named; their
intervals must lie apart as well."""

Rows = NDArray[np.bool_]
Figures = dict[str, Any]


def figures(table: Table, *, files: bool) -> Figures:
    """All figures but those of pixels. `files`: look whether each image's file is there."""
    subject = SUBJECT if SUBJECT in table.names else next(iter(table.names), None)
    members = groups(table)
    found: Figures = {
        "images": len(table),
        "patients": len(np.unique(table.patients[table.patients != ""])),
        "images_without_patient": int((table.patients == "").sum()),
        "labels": list(table.names),
        "subject": subject,
        "missing_files": _listed(table, missing(table)) if files else None,
        "ages": ages(table),
        "sexes": _counts(table.sexes),
        "views": _counts(table.views),
        "follow_up": follow_up(table),
        "prevalence": {name: prevalence(table, name, members) for name in table.names},
        "findings": findings(table),
        "against_the_rest": against_the_rest(table, subject) if subject else None,
        "together": together(table, subject) if subject else None,
        "collections": {name: _crowd(table, table.collections == name) for name in kinds(table.collections)},
        "splits": splits(table),
        "sizes": sizes(table),
    }
    found["strong_differences"] = strong_differences(found["prevalence"])
    return found


def ages(table: Table) -> Figures:
    """Histograms by decade and sex leave impossible ages out."""
    known = ~np.isnan(table.ages)
    impossible = known & ((table.ages < 0) | (table.ages > OLDEST))
    sound = known & ~impossible
    listed = np.flatnonzero(impossible)
    listed = listed[np.argsort(-np.abs(table.ages[listed]), kind="stable")][:LISTED]
    return {
        **_age(table, sound),
        "unknown": int((~known).sum()),
        "children": int((sound & (table.ages < ADULT)).sum()),
        "decades": list(DECADES),
        "by_sex": {
            sex or "not said": _decades(table, sound & (table.sexes == sex))
            for sex in kinds(table.sexes, empty=True)
        },
        "impossible": {
            "count": int(impossible.sum()),
            "greatest": _number(table.ages[impossible].max()) if impossible.any() else None,
            "images": [{"image": table.images[i].name, "age": _number(table.ages[i])} for i in listed],
        },
    }


def follow_up(table: Table) -> Figures:
    """How often a patient comes back. Without a column for it only images are counted."""
    _, number = np.unique(table.patients[table.patients != ""], return_counts=True)
    known = table.follow_ups[~np.isnan(table.follow_ups)]
    bounds = [(1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, None)]
    return {
        "images_per_patient": {
            (str(low) if low == high else f"{low}-{high}" if high else f"{low}+"): int(
                ((number >= low) & (number <= (high or number.max(initial=0)))).sum()
            )
            for low, high in bounds
        },
        "most_images": int(number.max(initial=0)),
        "patients_with_several": int((number > 1).sum()),
        "images_of_these": int(number[number > 1].sum()),
        "known": len(known),
        "first_images": int((known == 0).sum()),
        "greatest": _number(known.max()) if len(known) else None,
    }


def prevalence(table: Table, name: str, members: dict[str, dict[str, Rows]]) -> Figures:
    """How frequent a label is: overall, and in each view, sex, collection and size of image."""
    label = table[name]
    return {
        **share(label),
        "unknown": int(np.isnan(label).sum()),
        "patients": len(np.unique(table.patients[label == 1])),
        **{
            f"by_{group}": {word: share(label[rows]) for word, rows in words.items()}
            for group, words in members.items()
        },
    }


def share(label: NDArray[np.float32]) -> Figures:
    """Positive, known, their quotient, and its 95 % interval after Wilson; None where nothing is known."""
    known, positive = int((~np.isnan(label)).sum()), int((label == 1).sum())
    if not known:
        return {"positive": 0, "known": 0, "share": None, "low": None, "high": None}
    z2 = 1.959964**2
    p = positive / known
    middle = (p + z2 / (2 * known)) / (1 + z2 / known)
    half = np.sqrt(z2 * (p * (1 - p) / known + z2 / (4 * known**2))) / (1 + z2 / known)
    low, high = max(0.0, float(middle - half)), min(1.0, float(middle + half))
    return {"positive": positive, "known": known, "share": p, "low": low, "high": high}


def groups(table: Table) -> dict[str, dict[str, Rows]]:
    """By view, sex, collection and size; rows that say nothing belong to none. Of sizes the four most frequent."""
    words = {
        "view": table.views,
        "sex": table.sexes,
        "collection": table.collections,
        "size": _size_words(table),
    }
    return {
        group: {word: column == word for word in kinds(column)[: 4 if group == "size" else 12]}
        for group, column in words.items()
    }


def findings(table: Table) -> Figures:
    """Findings per image, and different findings per patient over all their images."""
    positive = table.labels == 1
    people, person = np.unique(table.patients, return_inverse=True)
    ever = np.zeros((len(people), len(table.names)), bool)
    np.logical_or.at(ever, person, positive)
    return {
        "none": int((~positive.any(axis=1)).sum()),
        "per_image": _histogram(positive.sum(axis=1)),
        "per_patient": _histogram(ever[people != ""].sum(axis=1)),
    }


def against_the_rest(table: Table, subject: str) -> Figures:
    """Ages, sexes and views of the images with the finding, and of those known to be without it."""
    possible = (table.ages >= 0) & (table.ages <= OLDEST)
    return {
        word: {
            **_crowd(table, rows),
            **_age(table, rows & possible),
            "decades": _decades(table, rows & possible),
            "sexes": _counts(table.sexes[rows]),
        }
        for word, rows in (("with", table[subject] == 1), ("without", table[subject] == 0))
    }


def together(table: Table, subject: str) -> Figures:
    """Which findings come together, and how much more frequent each is beside the subject.

    `images`: how many show the finding of the row and that of the column; `known`: how many show that of the row and
    were looked at for that of the column.
    """
    positive = (table.labels == 1).astype(np.float64)
    known = (~np.isnan(table.labels)).astype(np.float64)
    beside = {}
    for name in table.names:
        if name != subject:
            with_it, without = table[name][table[subject] == 1], table[name][table[subject] == 0]
            one, other = share(with_it), share(without)
            beside[name] = {"with": one, "without": other, "ratio": _ratio(one["share"], other["share"])}
    return {
        "names": list(table.names),
        "images": (positive.T @ positive).astype(np.int64),
        "known": (positive.T @ known).astype(np.int64),
        "beside_subject": beside,
    }


def splits(table: Table) -> Figures:
    """Sizes of the splits, and the patients that are in more than one: each of them leaks."""
    names = kinds(table.splits)
    people = [set(table.patients[table.splits == name]) - {""} for name in names]
    several = sum(len(set.intersection(a, b)) for i, a in enumerate(people) for b in people[:i])
    return (
        {**{name: _crowd(table, table.splits == name) for name in names}, "patients_in_two": several}
        if names
        else {}
    )


def sizes(table: Table) -> Figures | None:
    """Width x height as the table has them; None where it has none."""
    words = _size_words(table)
    different = kinds(words)
    common = [{"size": word, "images": int((words == word).sum())} for word in different[:LISTED]]
    return {"different": len(different), "most_frequent": common} if different else None


def large_groups(prevalences: dict[str, Figures], group: str) -> list[str]:
    """The views (or sexes, collections, sizes) in which any finding is known of FEWEST images or more."""
    parts = [figure[f"by_{group}"] for figure in prevalences.values()]
    return [word for word in parts[0] if any(part[word]["known"] >= FEWEST for part in parts)]


def strong_differences(prevalences: dict[str, Figures]) -> list[Figures]:
    """Findings whose share differs strongly between two views, sexes, collections or sizes; strongest first.

    A model may learn the group instead of the finding: these are the shortcuts that the table itself offers.
    """
    strong = []
    for name, figure in prevalences.items():
        for group in ("view", "sex", "collection", "size"):
            large = {w: s for w, s in figure[f"by_{group}"].items() if s["known"] >= FEWEST}
            if len(large) < 2:
                continue
            least = min(large, key=lambda word: large[word]["share"])
            most = max(large, key=lambda word: large[word]["share"])
            ratio = _ratio(large[most]["share"], large[least]["share"])
            if large[most]["low"] > large[least]["high"] and (ratio is None or ratio >= STRONG):
                strong.append(
                    {
                        "finding": name,
                        "by": group,
                        "most": most,
                        "most_share": large[most]["share"],
                        "least": least,
                        "least_share": large[least]["share"],
                        "ratio": ratio,
                    }
                )
    return sorted(strong, key=lambda s: s["least_share"] - s["most_share"])


def _crowd(table: Table, rows: Rows) -> Figures:
    people = np.unique(table.patients[rows])
    return {
        "images": int(rows.sum()),
        "patients": len(people[people != ""]),
        "views": _counts(table.views[rows]),
    }


def _age(table: Table, rows: Rows) -> Figures:
    found = table.ages[rows]
    if not len(found):
        return {
            "known": 0,
            "median": None,
            "quarter": None,
            "three_quarters": None,
            "least": None,
            "most": None,
        }
    quarter, median, three = (float(v) for v in np.percentile(found, [25, 50, 75]))
    return {
        "known": len(found), "median": median, "quarter": quarter, "three_quarters": three,
        "least": _number(found.min()), "most": _number(found.max()),
    }  # fmt: skip


def _decades(table: Table, rows: Rows) -> list[int]:
    """As many as DECADES."""
    decade = np.minimum(table.ages[rows] // 10, len(DECADES) - 1).astype(np.int64)
    return np.bincount(decade, minlength=len(DECADES)).tolist()


def _size_words(table: Table) -> NDArray[np.str_]:
    if table.sizes is None:
        return np.full(len(table), "", dtype=np.str_)
    pairs = table.sizes.tolist()
    return np.array([f"{w:.0f} x {h:.0f}" if w == w and h == h else "" for w, h in pairs], np.str_)


def kinds(words: NDArray[np.str_], *, empty: bool = False) -> list[str]:
    """Each word once, the most frequent first."""
    different, number = np.unique(words, return_counts=True)
    order = np.argsort(-number, kind="stable")
    return [str(different[i]) for i in order if empty or different[i]]


def _counts(words: NDArray[np.str_]) -> dict[str, int]:
    return {word or "not said": int((words == word).sum()) for word in kinds(words, empty=True)}


def _histogram(numbers: NDArray[np.int64]) -> dict[str, int]:
    return {str(number): int(count) for number, count in enumerate(np.bincount(numbers))}


def _listed(table: Table, rows: Rows) -> Figures:
    return {"count": int(rows.sum()), "images": [table.images[i].name for i in np.flatnonzero(rows)[:LISTED]]}


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def _number(value: Any) -> float:
    """Without the noise of float32."""
    return round(float(value), 3)
