"""3. How the model was trained: parameters, curves, what its scores tell apart at which threshold, and why there."""

from model.card import Card
from model.describe.charts import Series, Small, lines, small
from model.describe.document import Block, Drawn, Facts, Heading, Table, Words
from model.describe.drawing import Picture
from model.describe.figures import (
    NOT_KNOWN,
    NOT_MEASURED,
    best_f1,
    best_sensitivity,
    facts_of,
    rates,
    said,
    shown,
    words_of,
)
from model.describe.sources import Judged, Sources, Tree, number, rows_of
from model.train.measure import MEAN
from model.train.recipe import Recipe, Stage

SPECIFICITIES = (0.95, 0.9, 0.8, 0.5)
"""At which a ROC curve is read off."""
MOST_EPOCHS = 60
"""Rows of a training's history that are printed; the curves have all."""


def trained(sources: Sources) -> list[Block]:
    return [
        Heading("3. Algorithm training", 1),
        Heading("3.1 Parameters"),
        *_parameters(sources),
        Heading("3.2 Training curves"),
        *_history(sources),
        *_learning(sources),
        Heading("3.3 ROC and precision-recall"),
        *_curves(sources),
        Heading("3.4 Final thresholds, and why"),
        *_thresholds(sources),
    ]


def _parameters(sources: Sources) -> list[Block]:
    told = sources.table("training")
    found: list[Block] = []
    if told:
        found += [Words("As the card says:"), facts_of(told)]
    else:
        found.append(
            Words(f"Training parameters: {NOT_KNOWN}; the card says nothing of how the model was trained.")
        )
    if sources.recipe is None:
        if told:
            found.append(Words(f"The recipe's own words: {NOT_KNOWN}; no recipe at hand is this card's."))
        return found
    return [
        *found,
        Words(f"Recipe {sources.recipe.name} {sources.recipe.version}:"),
        *_recipe(sources.recipe),
    ]


def _recipe(recipe: Recipe) -> list[Block]:
    network, loss, exact = recipe.network, recipe.loss, recipe.exact
    facts = [
        ("Input side", f"{recipe.size} pixels"),
        ("Least age", f"{recipe.min_age} years"),
        ("Head reads", f"{network.head} of {', '.join(network.pools)}"),
        ("Added dense layers", shown(list(network.hidden)) if network.hidden else "none but the head"),
        ("Dropout", f"{network.dropout:g}"),
    ]
    if exact.strengths:
        facts += [
            ("Exact head", f"logistic regressions; strengths tried {shown(list(exact.strengths))}"),
            ("Labels borrowed where nobody read", shown(dict(exact.borrowed))),
        ]
    if recipe.stages:
        facts += [
            ("Loss", f"binary cross-entropy; {_loss(recipe)}"),
            ("Class balance", f"{loss.balance}, at most {loss.cap:g} an image"),
            ("Augmentation", _augmentation(recipe)),
            ("Kept views an image", f"{recipe.training.views or 'a new one each epoch'}"),
            ("Early stopping", f"after {recipe.training.patience} epochs without a better mean AUROC"),
            (
                "Averaging of weights",
                f"over {recipe.training.average:g} epochs" if recipe.training.average else "none",
            ),
        ]
    else:
        facts += [
            ("Augmentation, batches, optimizer, rates", "none: the head is solved exactly, in one step")
        ]
    found: list[Block] = [Facts(facts)]
    if recipe.stages:
        found.append(
            Table(
                "Stages, one after the other; all layers before the one named are frozen",
                [
                    "stage",
                    "trained from",
                    "epochs at most",
                    "batch",
                    "optimizer",
                    "rate",
                    "weight decay",
                    "schedule",
                ],
                [_stage(stage) for stage in recipe.stages],
                frozenset({2, 3, 5, 6}),
            )
        )
    return found


def _loss(recipe: Recipe) -> str:
    loss = recipe.loss
    weights = f"; weights {shown(dict(loss.weights))}" if loss.weights else ""
    return f"label smoothing {loss.smoothing:g}; robust {loss.robust:g}{weights}"


def _augmentation(recipe: Recipe) -> str:
    told = vars(recipe.augmentation)
    return "; ".join(f"{words_of(key)} {shown(value)}" for key, value in told.items())


def _stage(stage: Stage) -> list[str]:
    return [
        stage.name,
        stage.cut,
        str(stage.epochs),
        str(stage.batch),
        stage.optimizer,
        f"{stage.rate:g}",
        f"{stage.weight_decay:g}",
        stage.schedule,
    ]


def _history(sources: Sources) -> list[Block]:
    rows = [row for row in sources.history if _cell(row.get("epoch")) is not None]
    if not rows:
        if sources.recipe is not None and not sources.recipe.stages:
            return [Words("No curve over epochs: the head is solved exactly, in one step.")]
        return [Words(f"Training curves over epochs: {NOT_KNOWN}; no run folder was given.")]
    names = {
        "training/loss": "loss, training",
        "validation/loss": "loss, validation",
        f"training/{MEAN}/auroc": "AUROC, training",
        f"validation/{MEAN}/auroc": "AUROC, validation",
    }
    found: list[Block] = []
    for y_name, keys in (("loss", list(names)[:2]), ("mean AUROC", list(names)[2:])):
        series = [
            Series(names[key].split(", ")[1], [(x, y) for row in rows if (x := _cell(row["epoch"])) is not None
                                               and (y := _cell(row.get(key))) is not None])
            for key in keys
        ]  # fmt: skip
        if any(len(each.points) > 1 for each in series):
            caption = (
                "Loss by epoch. The training loss is weighted and smoothed as the recipe says, the validation loss is "
                "plain: compare each with itself only."
                if y_name == "loss"
                else "Mean AUROC by epoch, on validation images and on as many training images: what lies between is "
                "learnt by heart."
            )
            found.append(Drawn(caption, lines(series, "epoch", y_name)))
    shown_rows = rows if len(rows) <= MOST_EPOCHS else rows[-MOST_EPOCHS:]
    few = "" if len(shown_rows) == len(rows) else f" (the last {MOST_EPOCHS} of {len(rows)})"
    found.append(
        Table(
            f"Epochs{few}",
            ["epoch", "stage", *names.values()],
            [
                [row["epoch"], row.get("stage") or "", *(_figure(row.get(key)) for key in names)]
                for row in shown_rows
            ],
            frozenset({0, 2, 3, 4, 5}),
        )
    )
    return found


def _cell(text: str | None) -> float | None:
    try:
        return number(float(text)) if text else None
    except ValueError:
        return None


def _figure(text: str | None) -> str:
    value = _cell(text)
    return "" if value is None else f"{value:.3f}"


def _learning(sources: Sources) -> list[Block]:
    """The learning curve of the card: what more images have brought so far."""
    rows = rows_of(sources.tree.get("curve"))
    if not rows:
        return []
    keys = [key for key in rows[0] if key not in ("share", "images") and number(rows[0][key]) is not None]
    series = [
        Series(
            words_of(key),
            [
                (x, y)
                for row in rows
                if (x := number(row.get("images"))) and (y := number(row.get(key))) is not None
            ],
        )
        for key in keys
    ]
    found: list[Block] = [
        Table(
            "Learning curve: the same training with a part of the patients",
            [words_of(key) for key in rows[0]],
            [[_learnt(row, key) for key in rows[0]] for row in rows],
            frozenset(range(len(rows[0]))),
        )
    ]
    if any(len(each.points) > 1 for each in series):
        found.insert(
            0,
            Drawn(
                "AUROC by the number of training images.",
                lines(series, "training images", "AUROC", is_log=True),
            ),
        )
    return found


def _learnt(row: Tree, key: str) -> str:
    value = number(row.get(key))
    if value is None or key in ("share", "images"):
        return shown(row.get(key))
    return f"{value:.3f}"


def _curves(sources: Sources) -> list[Block]:
    card, report = sources.card, sources.report
    if report is None:
        return [Words(f"Curves: {NOT_MEASURED}; no evaluation report was given.")]
    rocs, recalls, rows = [], [], []
    for label in card.labels:
        judged = report.labels.get(label)
        rows.append(_row(card, label, judged))
        if judged is None or judged.called is None or not judged.roc or not judged.precision_recall:
            continue
        called = judged.called
        under = f"{judged.positive} of {judged.images}"
        at_roc = at_recall = None
        if called.sensitivity and called.specificity:
            at_roc = (1 - called.specificity.value, called.sensitivity.value)
        if called.sensitivity and called.ppv:
            at_recall = (called.sensitivity.value, called.ppv.value)
        area, precision = judged.auroc, judged.average_precision
        name = card.display[label]
        rocs.append(Small(name, f"{area.value:.3f}, {under}" if area else under, judged.roc, at_roc))
        recalls.append(
            Small(
                name,
                f"{precision.value:.3f}, {under}" if precision else under,
                judged.precision_recall,
                at_recall,
                called.prevalence,
            )
        )
    table = Table(
        f"On {report.images} images of {report.patients} patients ({report.split}). F1: at the card's threshold, and "
        "the largest on the curve, which was chosen on the same images and flatters; its interval counts images "
        "(Wilson)",
        [
            "finding",
            "average precision",
            *(f"sensitivity at specificity {each:g}" for each in SPECIFICITIES),
            "F1 at the threshold",
            "largest F1",
        ],
        rows,
        frozenset(range(1, 8)),
    )
    return [
        table,
        *_drawn(
            small(rocs, "1 - specificity", "sensitivity"),
            "ROC of each finding, with its AUROC and the positives of all images. The dot is the card's threshold, the "
            "dashed line is guessing.",
        ),
        *_drawn(
            small(recalls, "recall", "precision"),
            "Precision and recall of each finding, with its average precision and the positives of all images. The "
            "dot is the card's threshold, the dashed line is the share of positives, which is what guessing gives.",
        ),
    ]


def _row(card: Card, label: str, judged: Judged | None) -> list[str]:
    sensitivities = [best_sensitivity(judged, each) for each in SPECIFICITIES]
    return [
        card.display[label],
        said(judged.average_precision if judged else None, 2),
        *(NOT_MEASURED if each is None else f"{each:.2f}" for each in sensitivities),
        said(judged.called.f1 if judged and judged.called else None, 2),
        said(best_f1(judged), 2),
    ]


def _drawn(pictures: list[Picture], caption: str) -> list[Block]:
    return [Drawn(caption, picture) for picture in pictures]


def _thresholds(sources: Sources) -> list[Block]:
    card = sources.card
    rows = []
    for label in card.labels:
        sensitivity, specificity = rates(sources, label)
        rows.append(
            [card.display[label], f"{card.thresholds[label]:.4g}", said(sensitivity), said(specificity)]
        )
    on = "the evaluation report" if sources.report else "the card, without intervals"
    of = "calibrated scores" if card.is_calibrated else "the network's outputs"
    return [
        Words(f"The rule, as the card says it: {card.rule}"),
        Table(
            f"Thresholds apply to {of}. Sensitivity and specificity by {on}",
            ["finding", "threshold", "sensitivity", "specificity"],
            rows,
            frozenset({1, 2, 3}),
        ),
    ]
