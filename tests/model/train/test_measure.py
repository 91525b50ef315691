import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

from model.train.measure import measure

RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.integers(0, 2, (200, 3)).astype(np.float32)
TRUTH[:, 2] = 0
TRUTH[5, 2] = 1
SCORES = np.clip(0.3 * TRUTH + RANDOM.uniform(0, 0.7, TRUTH.shape), 0, 1).astype(np.float32)
LABELS = ("Mass", "Nodule", "Hernia")


def test_figures_are_scikit_learns_over_what_is_known() -> None:
    truth, scores = TRUTH.copy(), SCORES.copy()
    truth[:50, 0] = np.nan
    scores[190:] = np.nan
    at = {"Mass": 0.4, "Nodule": 0.5, "Hernia": 0.5}

    found = measure(truth, scores, LABELS, 5, at)["labels"]["Mass"]

    wanted, score = TRUTH[50:190, 0], SCORES[50:190, 0]
    called = score >= 0.4
    assert found == pytest.approx(
        {
            "auroc": roc_auc_score(wanted, score),
            "accuracy": accuracy_score(wanted, called),
            "precision": precision_score(wanted, called),
            "recall": recall_score(wanted, called),
            "f1": f1_score(wanted, called),
        }
    )


def test_a_label_with_too_few_counts_in_no_mean() -> None:
    labels = measure(TRUTH, SCORES, LABELS, 5)["labels"]
    assert labels["mean"]["auroc"] == pytest.approx((labels["Mass"]["auroc"] + labels["Nodule"]["auroc"]) / 2)
    assert np.isnan(measure(TRUTH[:5], SCORES[:5], LABELS, 5)["labels"]["Hernia"]["auroc"])
