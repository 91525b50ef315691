"""From which score on a finding counts as present: chosen by a stated rule, and written into the card with it.

The images that choose are never those that judge: a threshold that was tuned on the images it is judged by looks
better than it is.
"""

import json
import os
import re
import tempfile
import textwrap
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import card
from model.errors import BadData, BadModel
from model.evaluate.auroc import Scores, enough
from model.table import Table

KEEP = "card"
"""The rule that leaves the card's thresholds as they are."""

RULES = "card, f1, youden, sensitivity=0.9 or specificity=0.95 (any share between 0 and 1)"

WORDS = {
    "f1": "The threshold with the greatest F1",
    "youden": "The threshold with the greatest sum of sensitivity and specificity (Youden)",
    "sensitivity": "The greatest threshold that leaves a sensitivity of at least {}",
    "specificity": "The least threshold that leaves a specificity of at least {}",
}


@dataclass(frozen=True)
class Chosen:
    """What a rule chose, for the labels of a table; where there were too few positives, what it kept."""

    thresholds: dict[str, float]
    kept: tuple[str, ...]
    """The labels that keep their old threshold: fewer than FEWEST positives or negatives to choose by."""
    words: str
    """The rule, the images that it saw, and how many of them were positive."""


def check(rule: str) -> None:
    """Raises BadData where there is no such rule."""
    if rule != KEEP:
        _parsed(rule)


def choose(truth: NDArray[np.float32], score: Scores, rule: str) -> float:
    """The threshold, from 0 to 1, that the rule `f1`, `youden`, `sensitivity=S` or `specificity=S` takes.

    `truth`: (n,) 1, 0, or NaN (left out); `score`: (n,) from 0 to 1. Called is what scores no less than the threshold.
    Of all numbers that call the same of these images it is a short one. Between equals the greatest threshold wins
    (fewer calls); for a specificity the least. Raises BadData for another rule, ValueError where a class is missing.
    """
    kind, wanted = _parsed(rule)
    positive, negative = np.sort(score[truth == 1]), np.sort(score[truth == 0])
    if not (len(positive) and len(negative)):
        raise ValueError("a threshold takes positives and negatives")
    levels = np.unique(np.concatenate([positive, negative]))
    tp = len(positive) - np.searchsorted(positive, levels, side="left")
    fp = len(negative) - np.searchsorted(negative, levels, side="left")
    sensitivity, specificity = tp / len(positive), (len(negative) - fp) / len(negative)

    if kind == "specificity":
        enough_below = np.flatnonzero(specificity >= wanted)
        if not len(enough_below):  # the greatest score is a negative's: call only what lies above
            return _short(float(levels[-1]), 1.0)
        best = int(enough_below[0])
    elif kind == "sensitivity":
        best = int(np.flatnonzero(sensitivity >= wanted)[-1])
    else:
        merit = 2 * tp / (tp + fp + len(positive)) if kind == "f1" else sensitivity + specificity
        best = len(levels) - 1 - int(np.argmax(np.round(merit[::-1], 12)))
    below = float(levels[best - 1]) if best else -1.0
    return _short(below, float(levels[best]))


def choose_all(table: Table, scores: Scores, rule: str, old: Mapping[str, float], split: str) -> Chosen:
    """The thresholds of the table's labels on the images of one split. `scores`: (n, labels of the table), none NaN.
    `old`: the card's, of all labels of the model."""
    found, kept, seen = dict(old), [], []
    for column, name in enumerate(table.names):
        truth = table[name]
        if enough(truth):
            found[name] = choose(truth, scores[:, column], rule)
            seen.append(f"{name} {int((~np.isnan(truth)).sum())}/{int((truth == 1).sum())}")
        else:
            kept.append(name)
    patients = len(np.unique(table.patients))
    kind, wanted = _parsed(rule)
    words = (
        f"{WORDS[kind].format(f'{wanted:g}')}, a finding by itself, on the split `{split}` alone "
        f"({len(table)} images of {patients} patients; images where the finding is known/positive: {', '.join(seen)})."
    )
    others = [*kept, *(name for name in old if name not in table.names)]
    if others:
        words += f" Older thresholds, for want of positives or labels: {', '.join(others)}."
    return Chosen(found, tuple(kept), words)


def write_card(folder: Path, chosen: Chosen, measured: Mapping[str, tuple[float, float] | None]) -> None:
    """Puts thresholds and rule into `folder`/card.toml; all else stays as it is, comments and order too.

    `measured`: sensitivity and specificity at the new threshold. They replace those that the card gives for the old
    one; None takes such lines out. The new card is read by `model.card` before it takes the old one's place. Raises
    BadModel, the old card left, where the text is not laid out as `[thresholds]` and `[[findings]]`.
    """
    path = folder / card.CARD
    text = path.read_text(encoding="utf-8")
    new = _edited(text, chosen, measured)
    if new is None or not _only_so(tomllib.loads(text), new, chosen):
        raise BadModel(
            f"{path}: [thresholds] and [[findings]] are not where they can be edited; do it by hand"
        )
    with tempfile.TemporaryDirectory(prefix=".card-", dir=folder) as beside:
        draft = Path(beside) / card.CARD
        with draft.open("w", encoding="utf-8", newline="") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(path.stat().st_mode & 0o777)
        card.load(Path(beside))
        draft.replace(path)


MEASURED = ("sensitivity", "specificity")
"""What a card may say of a finding's threshold."""

_WORDS = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*', re.DOTALL
)
"""Strings and comments of TOML."""
_HEADER = re.compile(r"^\[.*\]", re.MULTILINE)


def _edited(text: str, chosen: Chosen, measured: Mapping[str, tuple[float, float] | None]) -> str | None:
    """None where something is not there, or there twice."""
    # of the same length, with nothing in it that looks like TOML and is only words
    bare = _WORDS.sub(lambda found: ("#" if found[0][0] == "#" else "x") * len(found[0]), text)
    starts = [header.start() for header in _HEADER.finditer(bare)]
    sections = list(pairwise([*starts, len(text)]))
    findings = [each for each in sections if re.match(r"\[\[[ \t]*findings[ \t]*\]\]", bare[slice(*each)])]
    rules = [each for each in sections if re.match(r"\[[ \t]*thresholds[ \t]*\]", bare[slice(*each)])]
    labels = [each["label"] for each in tomllib.loads(text)["findings"]]
    if len(rules) != 1 or len(findings) != len(labels) or set(labels) != set(chosen.thresholds):
        return None
    edits: list[tuple[int, int, str, str | None]] = [(*rules[0], "rule", _toml(chosen.words))]
    for section, label in zip(findings, labels, strict=True):
        edits.append((*section, "threshold", repr(chosen.thresholds[label])))
        if label in measured:
            pair = measured[label]
            for at, key in enumerate(MEASURED):
                edits.append((*section, key, repr(round(pair[at], 3)) if pair else None))
    spans = []
    for start, end, key, value in edits:
        line = re.compile(rf"^{key}[ \t]*=[ \t]*([^\s#]+)[^\n]*\n?", re.MULTILINE)
        lines = list(line.finditer(bare, start, end))
        if len(lines) > 1 or not (lines or key in MEASURED):
            return None
        spans += [(*found.span(1 if value else 0), value or "") for found in lines]
    for start, end, value in sorted(spans, reverse=True):
        text = text[:start] + value + text[end:]
    return text


def _only_so(old: dict[str, Any], new: str, chosen: Chosen) -> bool:
    """Whether the new text says what the old one said, but for the thresholds, their rule and what they measure."""
    try:
        tree = tomllib.loads(new)
    except tomllib.TOMLDecodeError:
        return False
    right = all(each["threshold"] == chosen.thresholds[each["label"]] for each in tree["findings"])
    for side in (old, tree):
        side["thresholds"].pop("rule")
        for each in side["findings"]:
            for key in ("threshold", *MEASURED):
                each.pop(key, None)
    return right and old == tree


def _toml(words: str) -> str:
    lines = textwrap.wrap(" ".join(words.split()), 108, break_long_words=False, break_on_hyphens=False)
    inside = " \\\n  ".join(json.dumps(line, ensure_ascii=False)[1:-1] for line in lines)
    return f'"""\\\n  {inside}"""'


def _parsed(rule: str) -> tuple[str, float]:
    """Its kind, and the share that it asks for."""
    kind, _, share = rule.partition("=")
    try:
        wanted = float(share) if share else None
    except ValueError:
        wanted = -1.0
    if kind in ("f1", "youden") and wanted is None and "=" not in rule:
        return kind, 0.0
    if kind in ("sensitivity", "specificity") and wanted is not None and 0 < wanted < 1:
        return kind, wanted
    raise BadData(f"--rule {rule}: there is no such rule; there are {RULES}")


def _short(below: float, threshold: float) -> float:
    """The number with the fewest digits, four at least, above `below` and not above `threshold`."""
    for digits in range(4, 17):
        for number in (round(threshold, digits), float(np.floor(threshold * 10**digits) / 10**digits)):
            if below < number <= threshold:
                return number
    return threshold
