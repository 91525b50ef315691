"""Figures as people read them, and the small arithmetic between what was measured and what follows from it."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

from model.describe.document import Facts, Table
from model.describe.sources import Called, Judged, Sources, Tree, number
from model.evaluate.draws import Estimate

NOT_KNOWN, NOT_MEASURED = "not known", "not measured"
Z = NormalDist().inv_cdf(0.975)
"""Of a 95 % interval."""
TIGHT = "\N{NO-BREAK SPACE}"


def said(found: Estimate | None, digits: int = 3) -> str:
    """A figure and its 95 % interval, where there is one."""
    if found is None:
        return NOT_MEASURED
    if math.isnan(found.low) or math.isnan(found.high):
        return f"{found.value:.{digits}f}"
    # an interval is never broken in two
    return f"{found.value:.{digits}f} [{found.low:.{digits}f},{TIGHT}{found.high:.{digits}f}]"


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def shown(value: Any) -> str:
    """Whatever a card holds."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else NOT_KNOWN
    if isinstance(value, Mapping):
        return "; ".join(f"{words_of(key)}: {shown(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or "none"
    return NOT_KNOWN if value is None or value == "" else str(value)


def words_of(key: str) -> str:
    """`training_images` -> training images."""
    return key.replace("_", " ")


def tables_of(tree: Tree, captions: Mapping[str, str]) -> list[Table]:
    """The lists of rows that a table of the card holds; `captions`: key -> what the rows are."""
    return [
        table_of(captions.get(key, words_of(key)), value) for key, value in tree.items() if _is_rows(value)
    ]


def facts_of(tree: Tree, *without: str) -> Facts:
    """A table of the card, but for lists of rows and the keys named."""
    return Facts(
        [
            (words_of(key), shown(value))
            for key, value in tree.items()
            if key not in without and not _is_rows(value)
        ]
    )


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def table_of(caption: str, rows: Sequence[Tree]) -> Table:
    """Rows of a card as they are, in the order of their keys; `low`, `high` are the interval of the figure before."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    figure = _before_low(rows)
    if figure:
        keys = [key for key in keys if key not in ("low", "high")]
    return Table(
        caption,
        [words_of(key) for key in keys],
        [[_cell(row, key, with_interval=key == figure) for key in keys] for row in rows],
        frozenset(n for n, key in enumerate(keys) if any(number(row.get(key)) is not None for row in rows)),
    )


def _before_low(rows: Sequence[Tree]) -> str:
    """The figure that `low` and `high` stand behind, the same in all rows that have them; else empty."""
    found = set()
    for row in rows:
        keys = list(row)
        if "low" in row or "high" in row:
            at = keys.index("low") if "low" in row else 0
            found.add(keys[at - 1] if at and keys[at + 1 : at + 2] == ["high"] else "")
    return found.pop() if len(found) == 1 else ""


def _cell(row: Tree, key: str, *, with_interval: bool) -> str:
    value, low, high = number(row.get(key)), number(row.get("low")), number(row.get("high"))
    if with_interval and value is not None and low is not None and high is not None:
        return said(Estimate(value, low, high))
    if key not in row:
        return ""
    return f"{row[key]:.3f}" if value is not None and isinstance(row[key], float) else shown(row[key])


def interval(part: float, whole: float) -> Estimate | None:
    """A share with Wilson's 95 % interval (1927); None of nothing."""
    if whole <= 0:
        return None
    p = part / whole
    middle = (p + Z**2 / (2 * whole)) / (1 + Z**2 / whole)
    reach = Z * math.sqrt(p * (1 - p) / whole + Z**2 / (4 * whole**2)) / (1 + Z**2 / whole)
    # at 0 and at 1 the ends meet the share but for rounding
    return Estimate(p, min(p, max(0.0, middle - reach)), max(p, min(1.0, middle + reach)))


def f1_of_overlap(overlap: float) -> float:
    """TP / (TP + FP + FN) -> F1: one rises with the other, and the first is a share of counted images."""
    return 2 * overlap / (1 + overlap)


def overlap_of_f1(f1: float) -> float:
    return f1 / (2 - f1)


def best_f1(judged: Judged | None) -> Estimate | None:
    """The largest F1 on the precision-recall curve, with Wilson's interval of its overlap; None without a curve.

    The report's curve is thinned to 200 points, so that the largest of all may lie a little above. The interval counts
    images and not patients, and says nothing of having chosen the largest: it flatters.
    """
    if judged is None or not judged.precision_recall or not judged.positive:
        return None
    best: Estimate | None = None
    for recall, precision in judged.precision_recall:
        if not recall or not precision:
            continue
        right = recall * judged.positive
        overlap = interval(right, judged.positive + right * (1 / precision - 1))
        if overlap and (best is None or overlap.value > best.value):
            best = overlap
    return best and Estimate(*(f1_of_overlap(each) for each in (best.value, best.low, best.high)))


def best_sensitivity(judged: Judged | None, specificity: float) -> float | None:
    """The largest sensitivity on the ROC curve where the specificity is at least this; None without a curve."""
    if judged is None or not judged.roc:
        return None
    return max((y for x, y in judged.roc if 1 - x >= specificity - 1e-9), default=None)


def f1_at(called: Called, prevalence: float) -> Estimate | None:
    """F1 where the finding is that frequent, taking sensitivity and specificity for the same there.

    Its ends take both intervals at their worst and at their best: wider than a 95 % interval.
    """
    if called.sensitivity is None or called.specificity is None:
        return None

    def f1(sensitivity: float, specificity: float) -> float:
        right = sensitivity * prevalence
        called_all = right + (1 - specificity) * (1 - prevalence)
        return 2 * right / (called_all + prevalence)

    return Estimate(
        f1(called.sensitivity.value, called.specificity.value),
        f1(called.sensitivity.low, called.specificity.low),
        f1(called.sensitivity.high, called.specificity.high),
    )


def rates(sources: Sources, label: str) -> tuple[Estimate | None, Estimate | None]:
    """Sensitivity and specificity at the card's threshold: the report's; else the card's, which have no interval."""
    judged = sources.judged(label)
    if judged and judged.called:
        return judged.called.sensitivity, judged.called.specificity
    finding = sources.finding(label)
    values = (number(finding.get("sensitivity")), number(finding.get("specificity")))
    sensitivity, specificity = (None if v is None else Estimate(v, math.nan, math.nan) for v in values)
    return sensitivity, specificity


def per_thousand(found: Estimate | None, share: float, *, missing: bool = False) -> str:
    """Of 1,000 images, of which `share` are asked about, so many; `missing`: those the share leaves out."""
    if found is None:
        return NOT_MEASURED
    ends = [found.value, found.low, found.high]
    value, low, high = (1000 * share * ((1 - end) if missing else end) for end in ends)
    low, high = (high, low) if missing else (low, high)
    return f"{value:.0f}" if math.isnan(low) else f"{value:.0f} [{low:.0f},{TIGHT}{high:.0f}]"
