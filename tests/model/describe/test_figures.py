"""The arithmetic of a description: intervals, F1 at another prevalence, how many images a study needs."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import card
from model.card import SHIPPED
from model.describe import sources
from model.describe.drawing import shortened, width_of, wrapped
from model.describe.figures import best_f1, f1_at, f1_of_overlap, interval, overlap_of_f1, table_of
from model.describe.samples import Asked, Target, _deviation, for_auroc, for_f1, for_sensitivity, trials
from model.describe.sources import plain, sentences

REPORT = Path(__file__).parents[3] / "docs/model/report.json"
ASKED = Asked(confidence=0.95, power=0.9, prevalence=0.05)


@given(st.integers(0, 500), st.integers(1, 500))
def test_a_share_lies_within_its_interval(part: int, more: int) -> None:
    found = interval(part, part + more)
    assert found is not None
    assert 0 <= found.low <= found.value <= found.high <= 1


@given(st.floats(0, 1))
def test_f1_and_overlap_are_each_others_inverse(share: float) -> None:
    assert overlap_of_f1(f1_of_overlap(share)) == pytest.approx(share)


def test_f1_at_the_prevalence_of_the_images_is_the_measured_one() -> None:
    read = sources.read(SHIPPED, REPORT)
    assert read.report is not None
    compared = 0
    for judged in read.report.labels.values():
        if judged.called and judged.called.f1 and judged.called.f1.value:
            turned = f1_at(judged.called, judged.called.prevalence)
            assert turned is not None
            assert turned.value == pytest.approx(judged.called.f1.value)
            assert turned.low <= judged.called.f1.value <= turned.high
            best = best_f1(judged)
            # the curve is thinned: a little may be lost
            assert best is not None and best.value > judged.called.f1.value - 0.02
            compared += 1
    assert compared > len(card.load(SHIPPED).labels) - 3  # of the rarest nothing may be called at all


def test_a_study_of_that_many_images_shows_it_nine_times_in_ten() -> None:
    target = Target(0.40, 0.50)
    count = trials(target, ASKED)
    drawn = np.random.default_rng(1).binomial(count, target.expected, 4000)
    shown = [low.low > target.floor for each in drawn if (low := interval(int(each), count))]
    assert np.mean(shown) == pytest.approx(ASKED.power, abs=0.03)
    assert for_sensitivity(target, ASKED) == pytest.approx(count / ASKED.prevalence, abs=1)


def test_the_f1_of_a_study_of_that_many_images_lies_above_its_floor_nine_times_in_ten() -> None:
    target, sensitivity = Target(0.387, 0.45), 0.5
    images = for_f1(target, sensitivity, ASKED)
    random = np.random.default_rng(2)
    positives = round(images * ASKED.prevalence)
    right = sensitivity * ASKED.prevalence
    alarms = 2 * right / target.expected - right - ASKED.prevalence
    shown = []
    for _ in range(3000):
        hits = int(random.binomial(positives, sensitivity))
        wrong = int(random.binomial(images - positives, alarms / (1 - ASKED.prevalence)))
        overlap = interval(hits, positives + wrong)
        assert overlap is not None
        shown.append(f1_of_overlap(overlap.low) > target.floor)
    # J's trials are taken for independent; positives that are fixed make it vary a little less
    assert np.mean(shown) == pytest.approx(ASKED.power, abs=0.05)


def test_the_standard_error_of_an_area_that_tells_nothing_is_the_rank_sums() -> None:
    positives, ratio = 30, 4.0
    negatives = positives * ratio
    exact = (positives + negatives + 1) / (12 * positives * negatives)
    assert _deviation(0.5, positives, ratio) ** 2 == pytest.approx(exact)


def test_less_to_show_takes_more_images() -> None:
    assert for_auroc(Target(0.80, 0.82), ASKED) > for_auroc(Target(0.80, 0.85), ASKED) > 0


def test_a_rows_interval_stands_beside_its_figure() -> None:
    table = table_of("x", [{"of": "a", "ece": 0.1, "low": 0.05, "high": 0.2, "n": 3}, {"of": "b", "n": 4}])
    assert table.columns == ["of", "ece", "n"]
    assert table_of("x", [{"low": 0.1, "of": "a", "high": 0.2}]).columns == ["low", "of", "high"]
    assert [[cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in table.rows] == [
        ["a", "0.100 [0.050, 0.200]", "3"],
        ["b", "", "4"],
    ]


@given(st.text())
def test_a_plain_text_is_one_line_without_code(text: str) -> None:
    found = plain(text)
    assert "\n" not in found and "`" not in found
    assert json.loads(json.dumps(found)) == found


def test_sentences_end_where_the_next_begins() -> None:
    text = "Seen at 224 x 224 pixels, e.g. small. Only 0.5 of them. 14 findings."
    assert sentences(text) == ["Seen at 224 x 224 pixels, e.g. small.", "Only 0.5 of them.", "14 findings."]


@given(st.text(min_size=1), st.floats(10, 200))
def test_wrapped_lines_hold_every_word_and_shortened_ones_fit(text: str, width: float) -> None:
    assert " ".join(wrapped(text, width, 7)).split() == text.split()
    assert width_of(shortened(text, width, 7), 7) <= max(width, width_of("…", 7))
