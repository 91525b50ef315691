from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from model.evaluate.auroc import auroc, paired_difference, ranked
from model.evaluate.draws import draw, estimate
from model.table import Table


def table_of(truth: np.ndarray, patients: list[str]) -> Table:
    """One label, `Mass`."""
    n = len(truth)
    return Table(
        names=("Mass",),
        labels=np.asarray(truth, np.float32)[:, None],
        images=tuple(Path(f"{i}.png") for i in range(n)),
        patients=np.array(patients),
        views=np.full(n, "PA"),
        ages=np.full(n, 40, np.float32),
        sexes=np.full(n, "F"),
        collections=np.full(n, ""),
        follow_ups=np.zeros(n, np.float32),
        splits=np.full(n, ""),
    )


def paired(
    random: np.random.Generator, people: int, apart: float
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Two images of each patient, alike in truth and nearly in score; scores normal, `apart` standard deviations."""
    truth = np.repeat(random.random(people) < 0.4, 2).astype(np.float32)
    own = np.repeat(random.normal(0, 0.9**0.5, people), 2)
    score = apart * truth + own + random.normal(0, 0.1**0.5, 2 * people)
    return truth, score, [str(i // 2) for i in range(2 * people)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 80), st.integers(1, 40), st.integers(1, 12))
def test_every_draw_is_scikit_learns_weighted_figure(seed: int, n: int, people: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, n).astype(np.float32)
    score = random.integers(0, levels, n) / levels
    draws = draw(random.integers(0, people, n).astype(str), 5, seed)

    area, precision = ranked(truth, score, draws)

    for row, weights in enumerate(draws.weights):
        weight = weights[draws.person].astype(float)
        if not (weight[truth == 1].any() and weight[truth == 0].any()):
            assert np.isnan(area[row]) and np.isnan(precision[row])
            continue
        assert area[row] == pytest.approx(roc_auc_score(truth, score, sample_weight=weight), abs=1e-9)
        wanted = average_precision_score(truth, score, sample_weight=weight)
        assert precision[row] == pytest.approx(wanted, abs=1e-6)


def test_a_patients_images_are_drawn_together() -> None:
    random = np.random.default_rng(3)
    truth = (random.random(60) < 0.4).astype(np.float32)
    score = truth + random.normal(0, 1, 60)
    names = [f"{i:02d}" for i in range(60)]
    once = auroc(table_of(truth, names), score[:, None], ["Mass"])
    four = auroc(
        table_of(np.repeat(truth, 4), list(np.repeat(names, 4))), np.repeat(score, 4)[:, None], ["Mass"]
    )
    apart = auroc(
        table_of(np.repeat(truth, 4), [str(i) for i in range(240)]), np.repeat(score, 4)[:, None], ["Mass"]
    )

    assert once and four and apart
    assert (once.auroc, once.low, once.high) == (four.auroc, four.low, four.high)
    assert apart.high - apart.low < 0.7 * (four.high - four.low)


def test_an_image_without_a_patient_is_a_patient_of_its_own() -> None:
    assert draw(np.array(["", "a", "", "a"]), 1).weights.shape[1] == 3


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(11)
    apart, held, times = 1.0, 0, 150
    expected = norm.cdf(apart / 2**0.5)
    for time in range(times):
        truth, score, patients = paired(random, 80, apart)
        found = estimate(ranked(truth, score, draw(np.array(patients), 300, time))[0])
        held += found.low <= expected <= found.high

    assert 0.90 <= held / times <= 0.99


def test_a_paired_difference_is_that_of_the_two_and_narrower_than_either() -> None:
    random = np.random.default_rng(5)
    truth, score, patients = paired(random, 150, 1.2)
    table = table_of(truth, patients)
    worse = score + random.normal(0, 0.6, len(score))

    found = paired_difference(table, score[:, None], worse[:, None], ["Mass"])
    alone = auroc(table, score[:, None], ["Mass"])

    assert found and alone
    assert found.difference == pytest.approx(roc_auc_score(truth, score) - roc_auc_score(truth, worse))
    assert found.low < found.difference < found.high
    assert found.high - found.low < 0.8 * (alone.high - alone.low)
    assert found.over_zero == (found.low > 0)


def test_a_score_against_itself_differs_by_nothing() -> None:
    truth, score, patients = paired(np.random.default_rng(1), 50, 1.0)
    same = paired_difference(table_of(truth, patients), score[:, None], score[:, None], ["Mass"])
    assert same and (same.difference, same.low, same.high, same.over_zero) == (0, 0, 0, False)


def test_too_few_positives_make_no_figure_and_unknown_labels_count_nowhere() -> None:
    truth = np.float32([1] * 4 + [0] * 30)
    names = [str(i) for i in range(34)]
    table = table_of(truth, names)
    score = np.linspace(0, 1, 34)[:, None]
    assert auroc(table, score, ["Mass"]) is None and paired_difference(table, score, score, ["Mass"]) is None

    known = table_of(np.float32([1] * 5 + [0] * 5 + [np.nan] * 24), names)
    upset = np.where(np.isnan(known.labels), 1 - score, score)
    assert auroc(known, score, ["Mass"]) == auroc(known, upset, ["Mass"])


def test_the_mean_over_labels_is_the_mean() -> None:
    truth, score, patients = paired(np.random.default_rng(2), 60, 1.0)
    one = table_of(truth, patients)
    two = replace(one, names=("Mass", "Edema"), labels=np.column_stack([truth, 1 - truth]).astype(np.float32))
    both = np.column_stack([score, np.zeros(len(score))])

    found = auroc(two, both, ["Mass", "Edema"], resamples=0)

    assert found and found.auroc == round((roc_auc_score(truth, score) + 0.5) / 2, 3)
    assert found.positive == len(truth)
