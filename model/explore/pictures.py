"""The pictures of the report, drawn from its figures alone: each function takes (a part of) the dict, gives a Figure.

matplotlib belongs to the extra `train` and is imported inside `_figure`; pyplot, which is global, is not used.
"""

from typing import Any

import numpy as np

from model.explore.figures import DECADES, large_groups
from model.explore.intensity import BINS, NONE

INK, SUBJECT, REST, GRID = "#1c2733", "#c4501b", "#5b7f95", "#dde3e8"
SEXES = {"M": "#5b7f95", "F": "#d79a3d"}
GROUPS = ("#1f6f8b", "#d79a3d", "#c4501b", "#7a6aa8", "#6a9a58", "#8a8f98")


def ages(found: dict[str, Any]) -> Any:
    """Images by decade of age, stacked by sex."""
    figure, axes = _figure(7.5, 3.2)
    below = np.zeros(len(DECADES))
    for at, (sex, images) in enumerate(found["by_sex"].items()):
        axes.bar(DECADES, images, bottom=below, label=sex, color=SEXES.get(sex, GROUPS[5 - at % 3]))
        below += images
    axes.set(xlabel="age in years", ylabel="images")
    axes.legend(frameon=False, title="sex")
    return figure


def prevalence(found: dict[str, Any]) -> Any:
    """The share of each finding with its 95 % interval, the most frequent at the top; the axis is logarithmic."""
    names = [name for name in _by_share(found) if found[name]["positive"]]
    figure, axes = _figure(7.5, 0.8 + 0.3 * len(names))
    shares = np.array([found[name]["share"] for name in names])
    low = shares - [found[name]["low"] for name in names]
    high = [found[name]["high"] for name in names] - shares
    axes.errorbar(
        100 * shares, range(len(names)), xerr=100 * np.array([low, high]), fmt="o", color=SUBJECT, capsize=3
    )
    _named_rows(axes, names)
    _percent(axes)
    return figure


def by_group(found: dict[str, Any], group: str) -> Any:
    """The share of each finding in each large view (or sex, or collection), one dot a group, with intervals."""
    names = _by_share(found)
    words = list(large_groups(found, group))[: len(GROUPS)]
    figure, axes = _figure(7.5, 0.9 + 0.34 * len(names))
    for at, word in enumerate(words):
        shift = (at - (len(words) - 1) / 2) * 0.16
        rows = [row for row, name in enumerate(names) if found[name][f"by_{group}"][word]["positive"]]
        part = [found[names[row]][f"by_{group}"][word] for row in rows]
        share = 100 * np.array([p["share"] for p in part])
        spread = np.abs(100 * np.array([[p["low"] for p in part], [p["high"] for p in part]]) - share)
        axes.errorbar(
            share, np.array(rows) + shift, xerr=spread, fmt="o", ms=4, lw=1, color=GROUPS[at], label=word
        )
    _named_rows(axes, names)
    _percent(axes)
    axes.legend(frameon=False, title=group, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def against_the_rest(found: dict[str, Any], subject: str) -> Any:
    """Age, sex and view of the images with the finding beside those without, in per cent of each."""
    figure, (age, sex, view) = _figure(10, 3.2, columns=3, widths=(3, 1, 1))
    sides = ((found["with"], subject, SUBJECT, -0.2), (found["without"], "without", REST, 0.2))
    for part, word, color, shift in sides:
        total = max(1, sum(part["decades"]))
        age.bar(
            np.arange(len(DECADES)) + shift,
            100 * np.array(part["decades"]) / total,
            0.4,
            label=word,
            color=color,
        )
    age.set_xticks(range(len(DECADES)), DECADES, rotation=45)
    age.set(xlabel="age in years", ylabel="% of the group")
    age.legend(frameon=False)
    for axes, key, word_for_it in ((sex, "sexes", "sex"), (view, "views", "view")):
        words = list(dict.fromkeys([*found["with"][key], *found["without"][key]]))[:5]
        for part, _, color, shift in sides:
            shares = [100 * part[key].get(word, 0) / max(1, part["images"]) for word in words]
            axes.bar(np.arange(len(words)) + shift, shares, 0.4, color=color)
        axes.set_xticks(range(len(words)), words)
        axes.set(xlabel=word_for_it)
    return figure


def together(found: dict[str, Any]) -> Any:
    """Of the images with the finding in the row in which the column's is known, the share that has that too."""
    names, images, known = found["names"], np.array(found["images"], float), np.array(found["known"], float)
    own = np.diag(images)
    share = 100 * images / np.where(known, known, np.nan)
    np.fill_diagonal(share, np.nan)
    side = 2.2 + 0.42 * len(names)
    figure, axes = _figure(side, side * 0.9)
    most = np.nanmax(share, initial=1)
    axes.imshow(share, cmap="OrRd", vmin=0, vmax=most)
    for row, column in np.argwhere(~np.isnan(share)):
        color = "white" if share[row, column] > 0.6 * most else INK
        axes.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", fontsize=7, color=color)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), [f"{name} ({own[at]:.0f})" for at, name in enumerate(names)])
    axes.grid(False)
    return figure


def beside_subject(found: dict[str, Any], subject: str) -> Any:
    """Each other finding's share in images with the subject, and in those without."""
    beside = found["beside_subject"]
    names = sorted(
        (n for n in beside if beside[n]["with"]["known"]), key=lambda n: beside[n]["with"]["share"]
    )
    figure, axes = _figure(7.5, 0.9 + 0.34 * len(names))
    for key, color, shift, word in (("without", REST, -0.19, "without"), ("with", SUBJECT, 0.19, subject)):
        shares = [100 * (beside[name][key]["share"] or 0) for name in names]
        axes.barh(np.arange(len(names)) + shift, shares, 0.38, color=color, label=word)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="% of the group's images that have the finding too")
    axes.legend(frameon=False, reverse=True)
    return figure


def counts(found: dict[str, Any]) -> Any:
    """Three histograms: findings per image, different findings per patient, images per patient."""
    figure, all_axes = _figure(10, 2.8, columns=3)
    parts = (
        ("findings in an image", "images", found["findings"]["per_image"]),
        ("different findings in a patient", "patients", found["findings"]["per_patient"]),
        ("images of a patient", "patients", found["follow_up"]["images_per_patient"]),
    )
    for axes, (x, y, histogram) in zip(all_axes, parts, strict=True):
        axes.bar(list(histogram), list(histogram.values()), color=REST)
        axes.set(xlabel=x, ylabel=y)
    figure.tight_layout()
    return figure


def brightness(groups: dict[str, Any]) -> Any:
    """The mean brightness of each group's pictures: the dot is the mean over pictures, the line one deviation."""
    names = sorted(groups, key=lambda name: groups[name]["mean"])
    figure, axes = _figure(7.5, 0.8 + 0.28 * len(names))
    for row, name in enumerate(names):
        part = groups[name]
        color = (
            GROUPS[0]
            if name.startswith(("view ", "collection "))
            else REST
            if name in (NONE, "all")
            else SUBJECT
        )
        axes.errorbar(
            part["mean"], row, xerr=part["between_pictures"], fmt="o", ms=5, lw=1, color=color, capsize=2
        )
    axes.set_yticks(range(len(names)), [f"{name} ({groups[name]['pictures']})" for name in names])
    axes.set(xlabel="mean brightness, 0 black to 1 white")
    if NONE in groups:
        axes.axvline(groups[NONE]["mean"], color=REST, lw=1, ls=":")
    return figure


def histograms(groups: dict[str, Any]) -> Any:
    """How many pixels are how bright, for each finding over the curve of the pictures without one."""
    names = [name for name in groups if name not in (NONE, "all")] or list(groups)
    rows = -(-len(names) // 4)
    figure, all_axes = _figure(10, 0.4 + 1.6 * rows, rows=rows, columns=4, shared=True)
    level = (np.arange(BINS) + 0.5) / BINS
    top = 100 * max(max(groups[name]["histogram"][1:-1]) for name in groups)
    for at, axes in enumerate(np.ravel(all_axes)):
        if at >= len(names):
            axes.set_visible(False)
            continue
        if NONE in groups:
            axes.fill_between(level, 100 * np.array(groups[NONE]["histogram"]), color="#b9c7d0", lw=0)
        axes.plot(level, 100 * np.array(groups[names[at]]["histogram"]), color=SUBJECT, lw=1.4)
        axes.set_title(f"{names[at]} ({groups[names[at]]['pictures']})", fontsize=9)
        axes.set_ylim(0, 1.15 * top)
    figure.supxlabel("brightness, 0 black to 1 white", fontsize=9)
    figure.supylabel("% of pixels", fontsize=9)
    figure.tight_layout()
    return figure


def _figure(
    width: float,
    height: float,
    *,
    rows: int = 1,
    columns: int = 1,
    widths: tuple[int, ...] | None = None,
    shared: bool = False,
) -> tuple[Any, Any]:
    """A Figure of inches and its axes (an array where there are several), plainly dressed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.subplots(
        rows, columns, sharex=shared, sharey=shared, gridspec_kw={"width_ratios": widths} if widths else None
    )
    for each in np.ravel(axes):
        each.spines[["top", "right"]].set_visible(False)
        each.grid(color=GRID, lw=0.7)
        each.set_axisbelow(True)
        each.tick_params(labelsize=9)
    return figure, axes


def _by_share(found: dict[str, Any]) -> list[str]:
    """From the least frequent to the most: rows are counted from below."""
    return sorted(found, key=lambda name: found[name]["share"] or 0)


def _named_rows(axes: Any, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.7, len(names) - 0.3)


def _percent(axes: Any) -> None:
    """A logarithmic axis of shares: findings are 0.2 % as well as 20 %."""
    axes.set_xscale("log")
    axes.set(xlabel="% of the images in which it is known (logarithmic)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter("")
