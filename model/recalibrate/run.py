"""hilum model calibrate: another calibration for a model, in a new folder; the old one stays as it is.

    table -> split -> raw scores (kept in scores.csv) -> a curve a label -> thresholds carried through -> new folder
                                               stated prevalences -> curves and thresholds moved -> new folder

No decision changes: a threshold goes through the same curve as its scores. What changes is the number that people read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from model import card
from model.calibrate import carried, moved, shares
from model.card import METHODS, Card, Curve, Knots
from model.card_text import Tree
from model.errors import BadData, BadModel
from model.evaluate.draws import RESAMPLES, draw
from model.evaluate.rows import open_shared, rows_of, trained_on
from model.evaluate.scores import score
from model.evaluate.subgroups import Rows
from model.recalibrate import folder as folders
from model.recalibrate import report
from model.recalibrate.fit import fit, out_of_fold, with_curves
from model.table import Table

CARRIED = "Carried through the calibration, so that every decision stays as it was."
FEW_FOR_STEPS = 1000
"""Images below which isotonic regression is pointed out (Niculescu-Mizil and Caruana 2005)."""


@dataclass(frozen=True)
class Data:
    """What a calibration is fitted on."""

    table: Path
    images: Path
    split: str = "validation"


def calibrate(
    folder: Path,
    out: Path,
    version: str,
    *,
    data: Data | None = None,
    method: str = METHODS[0],
    prevalences: Sequence[str] = (),
    pages: Path = Path("calibration"),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> str:
    """Makes `out`, a copy of the model in `folder` with another calibration, and returns a few lines about it.

    With `data` curves are fitted by `method`, and `pages` gets report.html, report.json and scores.csv. `prevalences`:
    `LABEL=SHARE` each, to which the scores, fitted now or before, are moved. `version`: of the new card. Raises
    BadData for options and tables that can't be used, BadModel for such a folder and for a card without a calibration
    to move.
    """
    old = card.load(folder)
    stated = _stated(old, prevalences)
    _check(old, version, data, method, stated)
    folders.check_place(out)
    card.verify(old)
    new, said = (old, []) if data is None else _fitted(old, data, method, pages, resamples, seed)
    new = _at(new, stated)
    thresholds = {
        label: carried(old.thresholds[label], old.calibrations.get(label), new.calibrations[label])
        for label in old.labels
    }
    new = replace(new, version=version, thresholds={label: each for label, (each, _) in thresholds.items()})
    folders.copy_with(folder, out, _tree(folders.tree_of(folder), new))
    said += [
        f"{label}: moved from a prevalence of {old.prevalence[label]:g} to {share:g}"
        for label, share in stated.items()
        if data is None
    ]
    said += [
        f"{label}: its threshold lies where all scores are the same; read it" for label in _tied(thresholds)
    ]
    return "\n".join([*said, f"{out}: {new.name} {version}; thresholds went with the scores, decisions stay"])


def _stated(old: Card, prevalences: Sequence[str]) -> dict[str, float]:
    found = {}
    for each in prevalences:
        label, _, said = each.rpartition("=")
        try:
            share = float(said)
        except ValueError:
            share = 0.0
        if label not in old.labels:
            raise BadData(f"--prevalence {each}: must be LABEL=SHARE; labels are {', '.join(old.labels)}")
        if not 1e-6 <= share <= 1 - 1e-6:
            raise BadData(f"--prevalence {each}: the share must be over 0 and under 1, as in {label}=0.05")
        found[label] = share
    return found


def _check(old: Card, version: str, data: Data | None, method: str, stated: Mapping[str, float]) -> None:
    if method not in METHODS:
        raise BadData(f"--method {method}: there is no such method; there are {', '.join(METHODS)}")
    if not version.strip() or version == old.version:
        raise BadData(
            f"--version: people will see other scores, so that the model needs another version than {old.version}"
        )
    if data is None and not stated:
        raise BadData("nothing to do: name a TABLE to fit on, or a --prevalence to move the scores to")
    if data is None and not old.is_calibrated:
        raise BadModel(
            f"{old.folder / card.CARD}: has no [calibration] that could be moved; fit one first: "
            "hilum model calibrate MODEL TABLE --images DIR"
        )


def _fitted(
    old: Card, data: Data, method: str, pages: Path, resamples: int, seed: int
) -> tuple[Card, list[str]]:
    """The card with curves of its own for this split, thresholds still the old ones; and what to tell."""
    table = open_shared(data.table, data.images, old.labels)
    table = table.only(rows_of(data.table, table, data.split))
    scored = score(old, table.images, data.images, pages)
    read: Rows = ~np.any(np.isnan(scored.raw), axis=1)
    if not read.any():
        name, why = next(iter(scored.reasons.items()))
        raise BadData(f"{data.images}: none of the images of split {data.split} could be read; {name}: {why}")
    table, raw = table.only(read), scored.raw[read]
    truth = np.full(raw.shape, np.nan)
    truth[:, [old.labels.index(name) for name in table.names]] = table.labels
    if np.isnan(truth).all():
        raise BadData(f"{data.table}: no finding is known on any image of split {data.split}")

    found = fit(old.labels, truth, raw, method, _older(old, method, table))
    people = len(np.unique(table.patients))
    images = f"split `{data.split}` of {data.table.name} ({len(table)} images of {people} patients)"
    new = replace(
        old, calibrations=found.curves, prevalence=found.prevalence, calibrated_how=found.how(images)
    )
    apart = out_of_fold(old.labels, truth, raw, method, table.folds)
    asked = report.Asked(
        old, new, found, data.table, data.split, table, scored.reasons, trained_on(old, data.table, data.split),
        resamples, seed,
    )  # fmt: skip
    columns = [old.labels.index(name) for name in table.names]
    before, after = shares(old.calibrations, old.labels, raw)[:, columns], apart[:, columns]
    judged = report.judge(asked, before, after, draw(table.patients, resamples, seed))
    page = report.page(asked, judged).write(pages, report.figures(asked, judged))
    said = report.lines(asked, judged, page)
    if method == "isotonic" and len(table) < FEW_FOR_STEPS:
        said.append(
            f"isotonic on {len(table)} images: under some {FEW_FOR_STEPS}, --method temperature is mostly nearer"
        )
    return new, said


def _older(old: Card, method: str, table: Table) -> dict[str, tuple[Curve, float]]:
    """Curves that the card has already. Raises BadData where a label that nobody looked for has one of steps, and the
    others are to be temperatures: a card holds one kind."""
    if method == "temperature":
        for label, curve in old.calibrations.items():
            seen = label in table.names and not np.isnan(table[label]).all()
            if isinstance(curve, Knots) and not seen:
                raise BadData(
                    f"{label}: nobody looked for it here, and its older calibration is isotonic; use --method isotonic"
                )
    return {label: (curve, old.prevalence[label]) for label, curve in old.calibrations.items()}


def _at(new: Card, stated: Mapping[str, float]) -> Card:
    """The card with its scores moved to the stated prevalences."""
    curves = new.calibrations | {
        label: moved(new.calibrations[label], new.prevalence[label], share) for label, share in stated.items()
    }
    how = new.calibrated_how
    if stated:
        each = ", ".join(f"{label} from {new.prevalence[label]:g} to {s:g}" for label, s in stated.items())
        how += f" Then moved by Bayes' rule to stated prevalences, which were not measured: {each}."
    return replace(new, calibrations=curves, prevalence=new.prevalence | dict(stated), calibrated_how=how)


def _tied(thresholds: Mapping[str, tuple[float, bool]]) -> list[str]:
    return [label for label, (_, apart) in thresholds.items() if not apart]


def _tree(old: Tree, new: Card) -> Tree:
    """The old card with the new one's version, curves and thresholds, each in its place."""
    isotonic = any(isinstance(curve, Knots) for curve in new.calibrations.values())
    found: Tree = {}
    for key, value in old.items():
        if key in ("calibration", "self_check"):  # what was measured of the old scores
            continue
        found[key] = value
        if key == "thresholds":
            rule = new.rule if CARRIED in new.rule else f"{new.rule} {CARRIED}"
            found[key] = value | {"rule": rule}
            found["calibration"] = {
                "method": METHODS[int(isotonic)],
                "how": new.calibrated_how,
            }
    found["version"] = new.version
    found["findings"] = [
        with_curves(
            each | {"threshold": new.thresholds[each["label"]]},
            new.calibrations[each["label"]],
            new.prevalence[each["label"]],
        )
        for each in old["findings"]
    ]
    return found
