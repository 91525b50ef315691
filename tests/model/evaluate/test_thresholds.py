import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import card
from model.errors import BadData, BadModel
from model.evaluate.thresholds import Chosen, check, choose, write_card

CARD = '''# kept as it is
schema = 1
name = "small"
version = "1"
intended_use = "Tests."
limits = """
[[findings]]
threshold = 1, rule = 2: only words
"""

[weights]
file = "weights.npz"
sha256 = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

[network]
architecture = "vgg16"
pools = ["block5_pool"]

[input]
size = 32
fit = "stretch"
scale = 255.0
mean = [103.939, 116.779, 123.68]

[thresholds]   # all of them
rule = """\\
  Thrown \\
  by "dice"."""

[[findings]]
label = "Mass"
display = "Mass"
threshold = 0.25  # by hand
sensitivity = 0.9
specificity = 0.1

[[findings]]
label = "Edema"
threshold = 0.5
display = "Edema"
sensitivity = 0.8
specificity = 0.2

[figures]
rows = [{ threshold = 3 }]
'''

WORDS = 'The threshold with the greatest F1, "quoted" \\ and a long line: ' + "word " * 60

scores = st.lists(st.tuples(st.booleans(), st.integers(0, 1000)), min_size=2, max_size=30).filter(
    lambda rows: len({truth for truth, _ in rows}) == 2
)


def columns(rows: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.float32([truth for truth, _ in rows]), np.array([score / 1000 for _, score in rows])


@settings(max_examples=80, deadline=None)
@given(scores)
def test_no_threshold_has_a_greater_f1_or_youden_index(rows: list[tuple[bool, int]]) -> None:
    truth, score = columns(rows)

    def youden(threshold: float) -> float:
        called = score >= threshold
        return float(called[truth == 1].mean() - called[truth == 0].mean())

    def f1(threshold: float) -> float:
        called = score >= threshold
        return float(2 * called[truth == 1].sum() / (called.sum() + truth.sum()))

    assert f1(choose(truth, score, "f1")) == pytest.approx(max(map(f1, score)))
    assert youden(choose(truth, score, "youden")) == pytest.approx(max(map(youden, score)))


@settings(max_examples=80, deadline=None)
@given(scores, st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_a_share_that_is_asked_for_is_held_and_barely(rows: list[tuple[bool, int]], share: float) -> None:
    truth, score = columns(rows)
    up, down = score[truth == 1], score[truth == 0]

    sensitive = choose(truth, score, f"sensitivity={share}")
    assert (up >= sensitive).mean() >= share
    fewer = [level for level in score if (score >= level).sum() < (score >= sensitive).sum()]
    assert all((up >= level).mean() < share for level in fewer)

    specific = choose(truth, score, f"specificity={share}")
    if (down < 1).mean() >= share:  # a card's threshold is 1 at most
        assert (down < specific).mean() >= share
        more = [level for level in score if (score >= level).sum() > (score >= specific).sum()]
        assert all((down < level).mean() < share for level in more)


@settings(max_examples=50, deadline=None)
@given(scores)
def test_unknown_images_choose_nothing(rows: list[tuple[bool, int]]) -> None:
    truth, score = columns(rows)
    more = np.append(truth, [np.nan] * 5).astype(np.float32), np.append(score, np.linspace(0, 1, 5))
    for rule in ("f1", "youden", "sensitivity=0.9", "specificity=0.9"):
        assert choose(*more, rule) == choose(truth, score, rule)


@pytest.mark.parametrize(
    "rule", ["f2", "sensitivity", "sensitivity=", "specificity=95", "f1=0.5", "youden=x", ""]
)
def test_a_rule_that_does_not_exist_is_refused_with_those_that_do(rule: str) -> None:
    with pytest.raises(BadData, match=r"f1, youden, sensitivity=0\.9"):
        check(rule)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "card.toml").write_text(CARD)
    return tmp_path


def test_a_card_gets_thresholds_and_rule_and_keeps_all_else(folder: Path) -> None:
    write_card(folder, Chosen({"Mass": 0.1234, "Edema": 0.5}, ("Edema",), WORDS), {"Mass": (0.71, 0.66)})

    text = (folder / "card.toml").read_text()
    before, after = CARD.splitlines(), text.splitlines()
    head, tail = before.index('rule = """\\'), len(before) - before.index("[[findings]]", 12)
    assert after[:head] == before[:head]
    assert [line for line in after[-tail:] if line not in before[-tail:]] == [
        "threshold = 0.1234  # by hand", "sensitivity = 0.71", "specificity = 0.66",
    ]  # fmt: skip
    read = card.load(folder)
    assert read.thresholds == {"Mass": 0.1234, "Edema": 0.5}
    assert read.rule == " ".join(WORDS.split())
    assert [entry.name for entry in folder.iterdir()] == ["card.toml"]


def test_figures_of_an_old_threshold_go_where_none_could_be_measured(folder: Path) -> None:
    write_card(folder, Chosen({"Mass": 0.2, "Edema": 0.4}, (), "Dice."), {"Mass": None, "Edema": None})
    findings = tomllib.loads((folder / "card.toml").read_text())["findings"]
    assert all("sensitivity" not in each and "specificity" not in each for each in findings)


@pytest.mark.parametrize(
    "change",
    [("[thresholds]   # all of them", "[ thresholds.by ]"), ("threshold = 0.25", '"threshold" = 0.25')],
)
def test_a_card_that_is_laid_out_otherwise_is_left_alone(folder: Path, change: tuple[str, str]) -> None:
    text = CARD.replace(*change)
    (folder / "card.toml").write_text(text)
    with pytest.raises(BadModel, match=r"card\.toml.*by hand"):
        write_card(folder, Chosen({"Mass": 0.1, "Edema": 0.5}, (), "Dice."), {})
    assert (folder / "card.toml").read_text() == text


def test_a_broken_card_never_takes_the_old_ones_place(folder: Path) -> None:
    with pytest.raises(BadModel, match="from 0 to 1"):
        write_card(folder, Chosen({"Mass": 7.0, "Edema": 0.5}, (), "Dice."), {})
    assert (folder / "card.toml").read_text() == CARD
    assert [entry.name for entry in folder.iterdir()] == ["card.toml"]
