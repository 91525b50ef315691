"""Confusion, calibration, curves and subgroups."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, confusion_matrix, f1_score

from model.calibrate import at_prevalence
from model.evaluate.calibration import at_stated_prevalence, calibration, pooled
from model.evaluate.confusion import confusion
from model.evaluate.curves import POINTS, decision, precision_recall, roc
from model.evaluate.draws import Draws, draw
from model.evaluate.subgroups import subgroups
from model.table import Table

seeds = st.integers(0, 2**32 - 1)


def some(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and truths that they know."""
    random = np.random.default_rng(seed)
    score = random.beta(1, 4, n)
    return (random.random(n) < score).astype(np.float32), score


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(2, 60), st.floats(0, 1))
def test_counts_f1_and_brier_are_scikit_learns(seed: int, n: int, threshold: float) -> None:
    truth, score = some(seed, n)
    draws = draw(np.arange(n).astype(str), 3, seed)
    found = confusion(truth, score, threshold, draws)
    called = score >= threshold

    cells = confusion_matrix(truth, called, labels=[0, 1]).ravel().tolist()
    assert cells == [found.true_negative, found.false_positive, found.false_negative, found.true_positive]
    if called.any() or truth.any():
        assert found.f1.value == pytest.approx(f1_score(truth, called, zero_division=0))
    assert calibration(truth, score, draws).brier.value == pytest.approx(brier_score_loss(truth, score))


def test_predictive_values_follow_bayes_rule() -> None:
    truth, score = some(0, 4000)
    here = float(truth.mean())
    found = confusion(truth, score, 0.3, draw(np.arange(4000).astype(str), 50), [here, 0.01])
    same, rare = found.elsewhere

    assert same.ppv.value == pytest.approx(found.ppv.value) and same.npv.value == pytest.approx(
        found.npv.value
    )
    hit, alarm = found.sensitivity.value * 0.01, (1 - found.specificity.value) * 0.99
    assert rare.ppv.value == pytest.approx(hit / (hit + alarm))
    assert rare.ppv.low < rare.ppv.value < rare.ppv.high < same.ppv.value


def test_a_share_of_nothing_is_not_a_number() -> None:
    truth, score = some(1, 50)
    found = confusion(truth, score, 1.0, draw(np.arange(50).astype(str), 20), [0.1])
    assert np.isnan(found.ppv.value) and np.isnan(found.elsewhere[0].ppv.value) and str(found.ppv) == "-"
    assert found.specificity.value == 1


def test_a_calibrated_score_has_an_ece_near_zero_and_near_that_of_chance() -> None:
    truth, score = some(2, 20_000)
    draws = draw(np.arange(20_000).astype(str), 30)
    right = calibration(truth, score, draws)
    tripled = calibration(truth, np.minimum(3 * score, 1), draws)

    assert right.ece.value < 0.012 and right.ece.value == pytest.approx(right.by_chance, abs=0.006)
    assert tripled.ece.low > 0.2
    assert right.brier.value < right.brier_of_prevalence


def test_bins_hold_equally_many_images_and_equal_scores_share_one() -> None:
    truth, score = some(3, 1000)
    draws = draw(np.arange(1000).astype(str), 5)
    assert [each.images for each in calibration(truth, score, draws).bins] == [100] * 10

    coarse = calibration(truth, np.round(score, 1), draws).bins
    assert sum(each.images for each in coarse) == 1000
    assert len({each.score for each in coarse}) == len(coarse) < 10


def test_few_images_show_an_ece_by_chance_alone() -> None:
    truth, score = some(4, 60)
    found = calibration(truth, score, draw(np.arange(60).astype(str), 5))
    assert found.by_chance > 0.05


def test_an_ece_is_numpys_over_ten_bins_of_equally_many_images_in_every_draw() -> None:
    truth, score = some(7, 500)
    score = score**2
    draws = draw(np.repeat(np.arange(250), 2).astype(str), 3, 1)
    found = calibration(truth, score, draws)

    def by_hand(weight: np.ndarray) -> float:
        bins = np.array_split(np.argsort(score, kind="stable"), 10)
        return sum(abs((weight[b] * (score - truth)[b]).sum()) for b in bins) / weight.sum()

    assert found.ece.value == pytest.approx(by_hand(np.ones(500)))
    drawn = [by_hand(weights[draws.person]) for weights in draws.weights]
    assert (found.ece.low, found.ece.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))


@pytest.mark.parametrize("stated", [0.02, 0.2, 0.6])
def test_a_calibrated_score_stays_so_where_the_finding_is_rarer_or_more_frequent(stated: float) -> None:
    truth, score = some(8, 30_000)
    here = float(truth.mean())
    draws = draw(np.arange(30_000).astype(str), 40)
    right = at_stated_prevalence(truth, score, here, stated, draws)
    unmoved = at_stated_prevalence(truth, score, stated, stated, draws)

    assert right.ece.value < 0.012 and right.ece.value == pytest.approx(right.by_chance, abs=0.006)
    if stated != 0.2:
        assert unmoved.ece.low > 0.05
    assert right.brier_of_prevalence == pytest.approx(stated * (1 - stated))
    assert sum(each.images for each in right.bins) == 30_000
    masses = [each.positive.value for each in right.bins]
    assert np.mean(masses) == pytest.approx(stated, abs=0.005)  # bins of equal weight


def test_the_stated_prevalence_is_that_of_a_place_where_it_holds() -> None:
    """The ECE is the one that is measured among as many patients with and without, drawn to that share."""
    truth, score = some(9, 60_000)
    score = score**1.3
    draws = draw(np.arange(60_000).astype(str), 0)
    found = at_stated_prevalence(truth, score, 0.2, 0.05, draws)

    negative = np.flatnonzero(truth == 0)
    positive = np.flatnonzero(truth == 1)[: round(len(negative) * 0.05 / 0.95)]
    there = np.concatenate([positive, negative])
    moved = at_prevalence(score[there], 0.2, 0.05)
    measured = calibration(truth[there], moved, draw(there.astype(str), 0))

    assert found.ece.value == pytest.approx(measured.ece.value, abs=0.003)
    assert found.brier.value == pytest.approx(measured.brier.value, abs=0.002)


def test_at_the_prevalence_that_is_there_nothing_moves() -> None:
    truth, score = some(10, 2000)
    draws = draw(np.arange(2000).astype(str), 0)
    here = float((truth == 1).mean())
    found, plain = at_stated_prevalence(truth, score, here, here, draws), calibration(truth, score, draws)
    assert found.ece.value == pytest.approx(plain.ece.value) and found.brier.value == pytest.approx(
        plain.brier.value
    )
    # drawn anew in each, the share of positives makes no doubt there
    assert found.by_chance <= plain.by_chance


def test_pooled_are_all_pairs_that_are_known_and_a_patient_is_drawn_with_all_of_them() -> None:
    truth, score = some(11, 4000)
    first = np.where(np.arange(2000) % 3, truth[:2000], np.nan).astype(np.float32)
    table = Table(
        names=("Mass", "Edema"),
        labels=np.column_stack([first, truth[2000:]]),
        images=tuple(Path(f"{i}.png") for i in range(2000)),
        patients=np.repeat(np.arange(500), 4).astype(str),
        views=np.full(2000, "PA"),
        ages=np.full(2000, 40, np.float32),
        sexes=np.full(2000, "F"),
        collections=np.full(2000, ""),
        follow_ups=np.zeros(2000, np.float32),
        splits=np.full(2000, ""),
    )
    scores = np.column_stack([score[:2000], score[2000:]])
    scores[5, 1] = np.nan
    draws = draw(table.patients, 20)
    found = pooled(table, scores, draws)

    there = ~np.isnan(first)
    pairs = np.concatenate([there, np.arange(2000) != 5])
    every = np.concatenate([truth[:2000], truth[2000:]])[pairs]
    person = np.tile(draws.person, 2)[pairs]
    alike = calibration(every, score[pairs], Draws(draws.weights, person))
    assert sum(each.images for each in found.bins) == int(pairs.sum())
    assert (found.ece, found.brier) == (alike.ece, alike.brier)
    assert found.ece.value == pytest.approx(found.by_chance, abs=0.02)


def test_curves_run_from_corner_to_corner_and_are_thinned() -> None:
    truth, score = some(5, 5000)
    ways, exact = roc(truth, score), precision_recall(truth, score)
    assert (ways.x[0], ways.y[0], ways.x[-1], ways.y[-1]) == (0, 0, 1, 1) and len(ways.x) <= POINTS
    assert exact.x[0] == 0 and exact.x[-1] == 1 and exact.y[-1] == pytest.approx(truth.mean(), abs=0.01)


def test_net_benefit_is_vickers_and_elkins() -> None:
    truth, score = some(6, 800)
    found = decision(truth, score, draw(np.arange(800).astype(str), 40))
    at = found.risk.index(0.2)
    called = score >= 0.2
    benefit = (called & (truth == 1)).mean() - (called & (truth == 0)).mean() * 0.25

    assert found.model[at] == pytest.approx(benefit)
    assert found.treat_all[at] == pytest.approx(truth.mean() - (1 - truth.mean()) * 0.25)
    assert found.low[at] < benefit < found.high[at]


def test_every_image_is_in_one_part_of_each_kind() -> None:
    ages = np.float32([3, 18, 39, 40, 79, 80, 414, np.nan])
    n = len(ages)
    table = Table(
        names=("Mass",),
        labels=np.zeros((n, 1), np.float32),
        images=(),
        patients=np.arange(n).astype(str),
        views=np.array(["PA", "AP"] * 4),
        ages=ages,
        sexes=np.array(["M", "F", "", "O"] * 2),
        collections=np.full(n, ""),
        follow_ups=np.zeros(n, np.float32),
        splits=np.full(n, "test"),
    )
    found = subgroups(table)

    assert {name: rows.nonzero()[0].tolist() for name, rows in found["age"].items()} == {
        "under 18": [0], "18-39": [1, 2], "40-59": [3], "60-79": [4], "80 and over": [5], "unknown": [6, 7],
    }  # fmt: skip
    assert list(found["sex"]) == ["F", "M", "O", "unknown"] and list(found["collection"]) == ["unknown"]
    assert all((np.sum(list(parts.values()), axis=0) == 1).all() for parts in found.values())
