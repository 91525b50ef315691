"""The pictures of the report, as matplotlib Figures without pyplot."""

from collections.abc import Sequence
from typing import Any

from model.evaluate.draws import Estimate
from model.evaluate.judge import Label

MODEL, OTHER, BAND = "#1f5f8b", "#8a97a3", "#c9dcea"

Line = tuple[str, Estimate, str]
"""Of a forest plot: name, figure, and what it was measured on."""


def curves(name: str, label: Label) -> Any:
    """ROC, precision and recall, reliability, decision curve of one label side by side."""
    assert (
        label.roc and label.precision_recall and label.calibration and label.decision and label.at_threshold
    )
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9.2), layout="constrained")
    roc, recall, reliability, decision = figure.subplots(2, 2).ravel()
    at = label.at_threshold

    roc.plot([0, 1], [0, 1], color=OTHER, linewidth=1, linestyle=":")
    roc.plot(label.roc.x, label.roc.y, color=MODEL)
    roc.plot(
        1 - at.specificity.value, at.sensitivity.value, "o", color=MODEL, label=f"threshold {at.threshold:g}"
    )
    roc.set(title=f"ROC: AUROC {label.auroc}", xlabel="1 - specificity", ylabel="sensitivity")
    roc.legend(loc="lower right", frameon=False)

    recall.axhline(
        at.prevalence, color=OTHER, linewidth=1, linestyle=":", label=f"prevalence {at.prevalence:.3f}"
    )
    recall.plot(label.precision_recall.x, label.precision_recall.y, color=MODEL, drawstyle="steps-pre")
    recall.plot(at.sensitivity.value, at.ppv.value, "o", color=MODEL)
    recall.set(
        title=f"Precision and recall: average precision {label.average_precision}",
        xlabel="recall (sensitivity)",
        ylabel="precision (PPV)",
        ylim=(0, 1.02),
    )
    recall.legend(loc="upper right", frameon=False)

    bins = label.calibration.bins
    said = [each.score for each in bins]
    shares = [each.positive.value for each in bins]
    reach = [
        [max(0.0, each.positive.value - each.positive.low) for each in bins],
        [max(0.0, each.positive.high - each.positive.value) for each in bins],
    ]
    end = 1.05 * max(*said, *(each.positive.high for each in bins), 0.02)
    reliability.plot([0, end], [0, end], color=OTHER, linewidth=1, linestyle=":")
    reliability.errorbar(
        said, shares, yerr=reach, color=MODEL, marker="o", markersize=4, capsize=2, linewidth=1
    )
    reliability.set(
        title=f"Reliability: ECE {label.calibration.ece}",
        xlabel="mean score of a tenth of the images",
        ylabel="share of them with the finding",
        xlim=(0, end),
        ylim=(0, end),
    )

    curve = label.decision
    top = max(at.prevalence, *curve.model)
    decision.fill_between(curve.risk, curve.low, curve.high, color=BAND, linewidth=0)
    decision.plot(curve.risk, curve.model, color=MODEL, label="by the model")
    decision.plot(curve.risk, curve.treat_all, color=OTHER, linestyle="--", label="act on all")
    decision.axhline(0, color="black", linewidth=1, label="act on none")
    decision.set(
        title="Decision curve, the score taken for a probability",
        xlabel="risk from which on one would act",
        ylabel="net benefit (true positives an image)",
        xlim=(0, 1),
        ylim=(-0.35 * top, 1.15 * top),
    )
    decision.legend(loc="upper right", frameon=False)
    for axes in (roc, recall):
        axes.set_xlim(-0.02, 1.02)
    for axes in (roc, recall, reliability, decision):
        axes.title.set_fontsize(11)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{name}: {label.positive} of {label.images} images")
    return figure


def forest(lines: Sequence[Line], axis: str, *, middle: float = 0.5) -> Any:
    """Figures with their intervals, one below the other; a dotted line at `middle`, where nothing is told apart."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.9 + 0.3 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for place, (_, found, _) in enumerate(lines):
        axes.plot([found.low, found.high], [place, place], color=MODEL, linewidth=1.5)
        axes.plot(found.value, place, "o", color=MODEL, markersize=5)
    axes.axvline(middle, color=OTHER, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(lines)), [name for name, _, _ in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlabel(axis)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(lines)), [f"{found}  {on}" for _, found, on in lines])
    for side in (axes, right):
        side.tick_params(axis="y", length=0)
    for spines in (axes.spines, right.spines):
        spines[["top", "right", "left"] if spines is axes.spines else ["right"]].set_visible(False)
    return figure
