"""The figures -> the page that a person reads: for each picture a sentence that says what to see in it."""

from typing import Any

from model.explore import pictures
from model.explore.figures import FEWEST, STRONG, large_groups
from model.explore.intensity import NONE
from model.explore.words import count, difference, interval, percent, share_of, times, warnings, years
from model.page import Page

Figures = dict[str, Any]

NAMED = 12
"""Differences that are shown; all are in report.json."""

VISIBLE = 0.5
"""Standard deviations of brightness from which a difference is named: a medium effect in Cohen's words."""


def page(found: Figures, name: str) -> Page:
    """The report about the table `name`."""
    report = Page(
        f"Data set: {name}",
        f"{count(found['images'])} images of {count(found['patients'])} patients, {len(found['labels'])} labels. "
        "Made by hilum model explore; every number is in report.json beside this page. Not for clinical use.",
    )
    _first(report, found)
    _people(report, found)
    if found["labels"]:
        _labels(report, found)
        _subject(report, found)
        _together(report, found)
    _repeats(report, found)
    _sources(report, found)
    if found.get("pixels"):
        _pixels(report, found["pixels"])
    return report


def _first(report: Page, found: Figures) -> None:
    report.heading("What to know first")
    told = warnings(found)
    for sentence in told:
        report.text(sentence)
    strong = found["strong_differences"]
    if strong:
        report.text(
            f"{len(strong)} strong differences of findings between views, sexes, collections or sizes; the largest: "
            f"{difference(strong[0])} See Shortcuts below."
        )
    if not told and not strong:
        report.text(
            "Nothing stands out: no impossible age, no missing file, no strong difference between groups."
        )


def _people(report: Page, found: Figures) -> None:
    ages = found["ages"]
    report.heading("Age, sex and view")
    if ages["known"]:
        report.text(
            f"Half of the images are of patients between {ages['quarter']:g} and {ages['three_quarters']:g} years, "
            f"median {ages['median']:g}; the youngest is {ages['least']:g}, the oldest {ages['most']:g}."
            + (" Impossible ages are left out here." if ages["impossible"]["count"] else "")
        )
        report.picture(
            pictures.ages(ages),
            "Images by age and sex. Where bars are low, a model has seen few such patients.",
        )
    impossible = ages["impossible"]
    if impossible["count"]:
        report.table(
            f"Impossible ages: {count(impossible['count'])} images, the most extreme first",
            ("image", "age"),
            [(each["image"], f"{each['age']:g}") for each in impossible["images"]],
        )
    total = found["images"]
    report.table(
        "Views and sexes",
        ("", "images", "share"),
        [
            (f"{kind} {word}", count(number), percent(number / total))
            for kind, words in (("view", found["views"]), ("sex", found["sexes"]))
            for word, number in words.items()
        ],
    )


def _labels(report: Page, found: Figures) -> None:
    prevalence = found["prevalence"]
    report.heading("Findings")
    report.text(
        f"{count(found['findings']['none'])} of {count(found['images'])} images "
        f"({percent(found['findings']['none'] / found['images'])}) have no finding that is 1. "
        "A model that says never is right that often: accuracy says nothing here, AUROC does."
    )
    if any(label["positive"] for label in prevalence.values()):
        report.picture(
            pictures.prevalence(prevalence),
            "Share of each finding, with 95 % intervals (Wilson). Each labelled tick is tenfold.",
        )
    report.table(
        "How frequent each finding is where it is known",
        ("finding", "images with it", "patients", "known", "unknown", "share", "95 % interval"),
        [
            (
                name, count(label["positive"]), count(label["patients"]), count(label["known"]),
                count(label["unknown"]), percent(label["share"]), interval(label),
            )
            for name, label in prevalence.items()
        ],
    )  # fmt: skip
    for group in ("view", "sex", "collection"):
        if len(large_groups(prevalence, group)) < 2:
            continue
        first = next(iter(prevalence.values()))[f"by_{group}"]
        report.picture(
            pictures.by_group(prevalence, group),
            f"Share of each finding by {group}. Dots that lie apart, lines not touching: the {group} alone says "
            f"something about the finding. A group without the finding, or of fewer than {FEWEST} images, has no dot.",
        )
        report.table(
            f"Share of each finding by {group}: images with it of those known",
            ("finding", *first),
            [
                (
                    name,
                    *(
                        f"{percent(s['share'])} ({count(s['positive'])}/{count(s['known'])})"
                        for s in each.values()
                    ),
                )
                for name, each in ((name, label[f"by_{group}"]) for name, label in prevalence.items())
            ],
        )


def _subject(report: Page, found: Figures) -> None:
    subject, groups = found["subject"], found["against_the_rest"]
    one, other = groups["with"], groups["without"]
    report.heading(f"{subject} against the rest")
    if not one["images"] or not other["images"]:
        report.text(f"There is nothing to compare: {subject} is the same in all images where it is known.")
        return
    report.text(
        f"{count(one['images'])} images of {count(one['patients'])} patients show it, {count(other['images'])} don't. "
        f"Median age {years(one)} against {years(other)}; {share_of(one, 'views', 'AP')} against "
        f"{share_of(other, 'views', 'AP')} taken AP; {share_of(one, 'sexes', 'F')} against "
        f"{share_of(other, 'sexes', 'F')} of women. "
        "What differs here a model can use without looking at the lungs: give AUROC for AP and PA apart."
    )
    report.picture(
        pictures.against_the_rest(groups, subject),
        f"{subject} beside the rest, each as a share of its own group. Bars of equal height mean no difference.",
    )


def _together(report: Page, found: Figures) -> None:
    subject, together = found["subject"], found["together"]
    if len(found["labels"]) < 2:
        return
    report.heading(f"What comes together with {subject}")
    beside = {
        n: b for n, b in together["beside_subject"].items() if b["with"]["known"] and b["without"]["known"]
    }
    if beside:
        above = sorted(
            (n for n in beside if (beside[n]["ratio"] or 0) >= STRONG), key=lambda n: -beside[n]["ratio"]
        )
        if above:
            told = ", ".join(f"{n} ({beside[n]['ratio']:.1f} times)" for n in above)
            report.text(f"At least {STRONG:g} times as frequent with {subject} as without: {told}.")
        report.picture(
            pictures.beside_subject(together, subject),
            f"Other findings in images with {subject} and without. Where bars differ, {subject} rarely comes alone.",
        )
        report.table(
            f"Other findings beside {subject}",
            ("finding", f"images with {subject}", "share", "share without", "times"),
            [
                (
                    n,
                    count(b["with"]["positive"]),
                    percent(b["with"]["share"]),
                    percent(b["without"]["share"]),
                    times(b["ratio"]),
                )
                for n, b in beside.items()
            ],
        )
    for name, each in together["beside_subject"].items():
        if found["prevalence"][name]["unknown"]:
            one, other = (
                each[side]["known"] / max(1, found["against_the_rest"][side]["images"])
                for side in ("with", "without")
            )
            report.text(
                f"{name} is known in {percent(one)} of the images with {subject} and in {percent(other)} of those "
                "without: where these differ, the choice of what was looked at shows in its share."
            )
    report.picture(
        pictures.together(together),
        "Of the images with the finding in the row (how many in brackets), the per cent that have the finding in the "
        "column too, where that is known. A dark field: the two come together, and a model will mix them up.",
    )


def _repeats(report: Page, found: Figures) -> None:
    follow_up = found["follow_up"]
    report.heading("Findings per image and patient, repeats" if found["labels"] else "Repeats")
    report.text(
        f"{count(follow_up['patients_with_several'])} of {count(found['patients'])} patients have more than one image "
        f"({count(follow_up['images_of_these'])} images, up to {count(follow_up['most_images'])} of one patient). "
        "Images of one patient resemble each other: a split by image would test on patients that it trained on."
    )
    if follow_up["known"]:
        report.text(
            f"{count(follow_up['first_images'])} images are their patient's first; "
            f"follow-up numbers go up to {follow_up['greatest']:g}."
        )
    if found["labels"]:
        report.picture(
            pictures.counts(found),
            "How many findings an image and a patient have, and how many images a patient.",
        )
    split = {name: part for name, part in found["splits"].items() if name != "patients_in_two"}
    if split:
        report.table(
            f"Splits; patients in two of them: {found['splits']['patients_in_two']}",
            ("split", "images", "patients"),
            [(name, count(part["images"]), count(part["patients"])) for name, part in split.items()],
        )


def _sources(report: Page, found: Figures) -> None:
    if not found["labels"]:
        return
    report.heading("Shortcuts: views, collections and sizes")
    if found["collections"]:
        report.table(
            "Collections",
            ("collection", "images", "patients", "AP"),
            [
                (name, count(part["images"]), count(part["patients"]), share_of(part, "views", "AP"))
                for name, part in found["collections"].items()
            ],
        )
    if found["sizes"]:
        report.text(
            f"Images were taken in {count(found['sizes']['different'])} different sizes; these are the most frequent. "
            "A size belongs to a device and often to a ward: never let a model see it."
        )
        report.table(
            "Sizes as taken",
            ("width x height", "images"),
            [(each["size"], count(each["images"])) for each in found["sizes"]["most_frequent"]],
        )
    strong = found["strong_differences"]
    if not strong:
        report.text(
            f"No finding is {STRONG:g} times as frequent in one group as in another (groups of {FEWEST} or more)."
        )
        return
    report.text(
        f"Findings that are at least {STRONG:g} times as frequent in one group as in another, their intervals apart "
        f"(groups of {FEWEST} known images or more). A model may learn to tell the groups apart instead of the "
        "finding: its AUROC over all images then flatters it. Judge it inside one group, and against a floor that "
        "knows the group only."
    )
    report.table(
        "The largest differences",
        ("finding", "by", "most frequent in", "share", "least frequent in", "share", "times"),
        [
            (
                each["finding"], each["by"], each["most"], percent(each["most_share"]),
                each["least"], percent(each["least_share"]), times(each["ratio"]),
            )
            for each in strong[:NAMED]
        ],
    )  # fmt: skip
    if len(strong) > NAMED:
        report.text(f"{len(strong) - NAMED} more are in report.json.")


def _pixels(report: Page, found: Figures) -> None:
    groups = found["groups"]
    report.heading("Brightness of the pictures")
    report.text(
        f"{count(found['read'])} of {count(found['drawn'])} pictures could be read. Pixels are as the network gets "
        "them: windowed, upright, from 0 (black) to 1 (white)."
        + (
            " Half of the pictures were drawn evenly over the findings: don't read shares off them."
            * found["sampled"]
        )
    )
    if found["unreadable"]:
        report.table(
            "Pictures that can't be read",
            ("image", "reason"),
            [(each["image"], each["reason"]) for each in found["unreadable"][:50]],
        )
    if not groups:
        return
    shown = {name: group for name, group in groups.items() if group["pictures"] >= 2} or groups
    visible = [
        n for n, g in groups.items() if abs(g.get("effect") or 0) >= VISIBLE and n not in (NONE, "all")
    ]
    if visible:
        told = ", ".join(f"{n} ({groups[n]['effect']:+.1f})" for n in visible)
        report.text(
            f"Brighter (+) or darker (-) than pictures without a finding by half a standard deviation or more: {told}. "
            "So much the mean grey value alone gives away; exposure, windowing, view and collection do that too."
        )
    elif NONE in groups:
        report.text(
            "No group is brighter or darker than the pictures without a finding by half a standard deviation."
        )
    report.picture(
        pictures.brightness(shown),
        "Mean brightness: the dot is the group's mean, the line reaches one standard deviation to each "
        "side, the dotted line is no finding. Lines that overlap widely: brightness does not tell the groups apart.",
    )
    report.picture(
        pictures.histograms(shown),
        "How many pixels are how bright: the line is the finding, the grey area pictures without one. "
        "A line that leaves the area shows where the pictures differ.",
    )
    report.table(
        "Pixels from 0 (black) to 1 (white), means over pictures",
        ("group", "pictures", "mean", "deviation", "5 %", "median", "95 %", "between pictures", "effect"),
        [
            (
                name, count(g["pictures"]), g["mean"], g["deviation"], g["p5"], g["median"], g["p95"],
                g["between_pictures"], g.get("effect"),
            )
            for name, g in groups.items()
        ],
    )  # fmt: skip
    report.table(
        "Sizes as opened",
        ("width x height", "images"),
        [(each["size"], count(each["images"])) for each in found["sizes"]],
    )
