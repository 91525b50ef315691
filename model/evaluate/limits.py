"""What may not be concluded from an evaluation: sentences made from its figures, each with the figure in it."""

from collections.abc import Iterator

from model.evaluate.auroc import FEWEST
from model.evaluate.judge import ALL, Judgement
from model.evaluate.subgroups import UNKNOWN
from model.table import Table

FEW = 30
"""Positives below which an interval is pointed out as wide."""


def limits(table: Table, split: str, unreadable: int, judgement: Judgement) -> Iterator[str]:
    """`table`: the images that were judged; `unreadable`: how many more there were."""
    if split in (ALL, "train"):
        yield f"Split {split} was judged: if the model was trained on such images, every figure flatters it."
    measured = {name: label for name, label in judgement.labels.items() if label.auroc}
    rates = [f"{name} {label.positive / label.images:.1%}" for name, label in measured.items()]
    if rates:
        yield (
            f"Prevalence is that of these images ({', '.join(rates)}): PPV, NPV, calibration and the decision curve "
            "hold for no clinic where it differs."
        )
    few = [f"{name} {label.positive}" for name, label in measured.items() if label.positive < FEW]
    if few:
        yield f"Fewer than {FEW} positives, so that little is known whatever the figure: {', '.join(few)}."
    none = [f"{name} {x.positive} of {x.images}" for name, x in judgement.labels.items() if not x.auroc]
    if none:
        yield f"Nothing is said for want of {FEWEST} images with and without the finding: {', '.join(none)}."
    partly = [f"{name} {x.images}" for name, x in measured.items() if x.images < len(table)]
    if partly:
        yield (
            f"Known on some of the {len(table)} images only, and judged there: {', '.join(partly)}. Who was looked at "
            "was chosen by somebody."
        )
    yield _where(judgement)
    yield _floors(judgement)
    children = judgement.parts["age"].get("under 18")
    if children:
        yield f"{children.images} images are of patients under 18; the age bands stand apart below."
    nobody = int((table.patients == "").sum())
    if nobody:
        yield f"{nobody} images name no patient and count as one patient each; intervals may be too narrow."
    if unreadable:
        yield f"{unreadable} images could not be read and count nowhere; they are listed at the end."


def _where(judgement: Judgement) -> str:
    parts = judgement.parts["collection"]
    if len(parts) > 1:
        shares = [f"{name} {part.images}" for name, part in parts.items()]
        return (
            f"The images come from {len(parts)} collections ({', '.join(shares)}). Where a collection was chosen by "
            "label it gives the label away: trust the figures inside one collection before those over all."
        )
    (name,) = parts
    known = (
        f"All images are of one collection ({name})" if name != UNKNOWN else "The table names no collection"
    )
    return f"{known}: nothing is known about other hospitals, detectors or processing."


def _floors(judgement: Judgement) -> str:
    if not judgement.floors:
        return "There are no floors to compare with: the table has no other rows to fit them on."
    of_all = [wheres[ALL].labels for wheres in judgement.floors.values()]
    clear = [name for name in of_all[0] if all(labels[name][1].over_zero for labels in of_all)]
    others = [name for name in of_all[0] if name not in clear]
    said = f"Above every floor, with the whole interval of each difference: {', '.join(clear) or 'no label'}."
    return f"{said} Not shown to be above all of them: {', '.join(others)}." if others else said
