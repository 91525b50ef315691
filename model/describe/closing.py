"""8. What the description was made from, its citations, and all else that the card says: nothing of it is left out."""

from collections.abc import Mapping

from model.describe.document import Block, Facts, Heading, Points, Table, Words
from model.describe.figures import facts_of, shown, tables_of, words_of
from model.describe.sources import Sources

TOLD = {
    "schema", "name", "version", "intended_use", "limits", "weights", "network", "input", "thresholds", "data",
    "training", "credits", "findings", "figures", "calibration", "scope", "doubt", "curve", "ground_truth",
}  # fmt: skip
"""Keys of a card that the sections above have told."""
CITATIONS = (
    "P. Rajpurkar et al., CheXNet: Radiologist-Level Pneumonia Detection on Chest X-Rays with Deep Learning, 2017, "
    "arXiv:1711.05225; figures as on https://stanfordmlgroup.github.io/projects/chexnet.",
    "U.S. Food and Drug Administration, Marketing Submission Recommendations for a Predetermined Change Control "
    "Plan for Artificial Intelligence-Enabled Device Software Functions, final guidance, December 2024.",
    "K. Simonyan and A. Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014, "
    "arXiv:1409.1556.",
    "E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, J. Am. Stat. Assoc. 1927, "
    "22:209-212.",
    "J. A. Hanley and B. J. McNeil, The Meaning and Use of the Area under a Receiver Operating Characteristic (ROC) "
    "Curve, Radiology 1982, 143:29-36.",
)


def closing(sources: Sources) -> list[Block]:
    return [
        Heading("8. Sources", 1),
        Heading("8.1 Made from"),
        made_from(sources),
        Heading("8.2 Citations"),
        Points(CITATIONS),
        *_rest(sources),
    ]


def made_from(sources: Sources) -> Facts:
    report, recipe = sources.report, sources.recipe
    return Facts(
        [
            ("Card", f"card.toml of {sources.card.name} {sources.card.version}"),
            ("Weights", sources.card.sha256),
            (
                "Evaluation report",
                f"split {report.split} of {report.table}, {report.images} images"
                if report
                else "none was given",
            ),
            ("Recipe", f"{recipe.name} {recipe.version}" if recipe else "none is known"),
            ("Epochs of a training run", str(len(sources.history)) if sources.history else "none were given"),
        ]
    )


def _rest(sources: Sources) -> list[Block]:
    """Whatever else a card holds: keys that this version does not know."""
    found: list[Block] = []
    loose: list[tuple[str, str]] = []
    for key, value in sources.tree.items():
        if key in TOLD:
            continue
        if isinstance(value, Mapping):
            found += [Words(f"{words_of(key)}:"), facts_of(dict(value)), *tables_of(dict(value), {})]
        elif tables := tables_of({key: value}, {}):
            found += tables
        else:
            loose.append((words_of(key), shown(value)))
    if loose:
        found.append(Facts(loose))
    more = _more_of_findings(sources)
    if more:
        found.append(more)
    return [Heading("8.3 What else the card says"), *found] if found else []


def _more_of_findings(sources: Sources) -> Table | None:
    """Keys of the findings that no section has told."""
    known = {
        "label", "display", "threshold", "sensitivity", "specificity", "training_known", "training_positive",
        "validation_auroc", "temperature", "shift", "knots", "prevalence",
    }  # fmt: skip
    keys = list(dict.fromkeys(key for each in sources.tree["findings"] for key in each if key not in known))
    if not keys:
        return None
    rows = [
        [sources.card.display[each["label"]], *(shown(each[key]) if key in each else "" for key in keys)]
        for each in sources.tree["findings"]
    ]
    return Table("Of each finding", ["finding", *map(words_of, keys)], rows)
