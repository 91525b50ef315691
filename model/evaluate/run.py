"""hilum model evaluate: judges a model on images that it never saw, and chooses thresholds on others.

    table -> splits -> scores (kept in scores.csv) -> thresholds -> floors -> judgement -> report.html, report.json

What decides (thresholds, floors) comes from rows outside the split that is judged; a patient on both sides is refused.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model import card
from model.errors import BadData
from model.evaluate import report, thresholds
from model.evaluate.auroc import Scores, enough, operating_point
from model.evaluate.draws import RESAMPLES
from model.evaluate.floors import MOST_FITTED, as_found, fitted, five_fold, floors
from model.evaluate.judge import ALL, judge
from model.evaluate.rows import names_of, open_shared, rows_of
from model.evaluate.scores import Scored, score
from model.evaluate.subgroups import Rows
from model.evaluate.thresholds import KEEP, Chosen
from model.table import Table

LEARN = ("train", "validation")
"""Splits that floors may be fitted on, the judged one aside."""


def evaluate(
    folder: Path,
    file: Path,
    images: Path,
    out: Path,
    *,
    split: str = "test",
    validation: str = "validation",
    rule: str = KEEP,
    write_card: bool = False,
    prevalences: Sequence[float] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> str:
    """Judges the model in `folder` on the rows of `split` (`all`: every row) and returns a few lines about it.

    Writes into `out`: report.html, report.json, scores.csv (which a second run goes on from). With a `rule` other than
    `card` thresholds are chosen on the split `validation` alone, and with `write_card` put into the model's card.
    Raises BadData for options, tables and splits that can't be used, BadModel for such a folder.
    """
    _check(split, validation, rule, write_card)
    about = card.load(folder)
    table = open_shared(file, images, about.labels)
    judged = rows_of(file, table, split)
    choosing = np.zeros(len(table), np.bool_) if rule == KEEP else rows_of(file, table, validation)

    wanted = np.flatnonzero(judged | choosing)
    scored = score(about, tuple(table.images[row] for row in wanted), images, out)
    scores = np.full(table.labels.shape, np.nan)
    scores[wanted] = scored.scores[:, [about.labels.index(name) for name in table.names]]
    read = ~np.isnan(scores).any(axis=1)
    unreadable = {
        name: why for name, why in scored.reasons.items() if name in names_of(table, judged, images)
    }
    judged, choosing = judged & read, choosing & read
    if not judged.any():
        raise BadData(f"{images}: none of the images of split {split} could be read; {_first(scored)}")

    chosen = _choose(table, scores, choosing, rule, validation, about.thresholds)
    by_floor, fitted_on = _floors(file, table, judged, split, seed)
    test = table.only(judged)
    judgement = judge(
        test,
        scores[judged],
        chosen.thresholds,
        by_floor,
        prevalences=prevalences,
        fitted=about.prevalence,
        resamples=resamples,
        seed=seed,
    )
    asked = report.Asked(
        card=about,
        file=file,
        split=split,
        resamples=resamples,
        seed=seed,
        table=test,
        left_out=tuple(label for label in about.labels if label not in table.names),
        unreadable=unreadable,
        rule=chosen.words or about.rule,
        fitted=fitted_on,
    )
    page = report.page(asked, judgement).write(out, report.figures(asked, judgement))
    said = report.lines(asked, judgement, page)
    if rule != KEEP and chosen.kept:
        said += f"\ntoo few positives or negatives in split {validation}, threshold kept: {', '.join(chosen.kept)}"
    if write_card:
        thresholds.write_card(folder, chosen, _measured(test, scores[judged], chosen))
        said += f"\nthresholds and their rule written: {folder / card.CARD}"
    return said


def _check(split: str, validation: str, rule: str, write_card: bool) -> None:
    thresholds.check(rule)
    if rule == KEEP:
        if write_card:
            raise BadData(
                "--write-card: nothing to write; choose a --rule: f1, youden, sensitivity=…, specificity=…"
            )
        return
    if ALL in (split, validation) or split == validation:
        raise BadData(
            f"--rule {rule}: thresholds are chosen on images that are not judged, and --split {split} and "
            f"--validation {validation} share some; name two splits"
        )


def _first(scored: Scored) -> str:
    name, why = next(iter(scored.reasons.items()))
    return f"{name}: {why}"


def _choose(table: Table, scores: Scores, rows: Rows, rule: str, split: str, old: dict[str, float]) -> Chosen:
    """The card's own thresholds where the rule says so."""
    if rule == KEEP:
        return Chosen(old, (), "")
    if not rows.any():
        raise BadData(
            f"--validation {split}: none of its images could be read, so that nothing can be chosen"
        )
    return thresholds.choose_all(table.only(rows), scores[rows], rule, old, split)


def _measured(table: Table, scores: Scores, chosen: Chosen) -> dict[str, tuple[float, float] | None]:
    """Sensitivity and specificity on the judged images of each threshold that is new."""
    found: dict[str, tuple[float, float] | None] = {}
    for column, name in enumerate(table.names):
        if name not in chosen.kept:
            truth, threshold = table[name], chosen.thresholds[name]
            found[name] = operating_point(truth, scores[:, column], threshold) if enough(truth) else None
    return found


def _floors(file: Path, table: Table, judged: Rows, split: str, seed: int) -> tuple[dict[str, Scores], str]:
    """Each floor's scores on the judged rows, and in words what it was fitted on; nothing where nothing is left."""
    learn = np.isin(table.splits, LEARN) & (table.splits != split) & ~judged
    if split == ALL:
        learn[:] = False
    elif not learn.any():
        return {}, ""
    of = int(learn.sum())
    if of > MOST_FITTED:
        drawn = np.random.default_rng(seed).choice(np.flatnonzero(learn), MOST_FITTED, replace=False)
        learn = np.isin(np.arange(len(table)), drawn)
    used = judged | learn
    rows, here = table.only(used), judged[used]
    inputs = floors(rows, as_found(file)[used]).items()
    if split == ALL:
        return {name: five_fold(x, c, rows) for name, (x, c) in inputs}, (
            "each image scored by regressions that were fitted on the other four of five folds of patients"
        )
    count = f"{MOST_FITTED} images, drawn by chance from the {of}" if of > MOST_FITTED else f"the {of} images"
    splits = " and ".join(name for name in LEARN if (rows.splits[~here] == name).any())
    return (
        {name: fitted(x, c, rows.labels, ~here)[here] for name, (x, c) in inputs},
        f"fitted on {count} of {splits}",
    )
