import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from model import card, phantom, pixels, ship
from model import table as tables
from model.classifier import Classifier
from model.errors import BadModel
from model.table import OPACITY


@pytest.fixture(scope="module")
def shipped() -> Classifier:
    return Classifier.load(card.SHIPPED)


@pytest.fixture(scope="module")
def batch(shipped: Classifier) -> np.ndarray:
    """Five phantoms as the network sees them."""
    drawn = [phantom.draw(seed, patch=seed % 2 == 1) for seed in range(5)]
    return np.stack([pixels.prepare(pixels.read(each), shipped.card) for each in drawn])


def raw(classifier: Classifier, batch: np.ndarray) -> np.ndarray:
    return np.array([[finding.raw for finding in findings] for findings in classifier.predict(batch)])


def test_scores_are_shares_and_present_means_not_below_the_threshold(
    shipped: Classifier, batch: np.ndarray
) -> None:
    for findings in shipped.predict(batch):
        assert tuple(finding.label for finding in findings) == shipped.card.labels
        assert all(0 <= finding.score <= 1 for finding in findings)
        assert all(finding.present == (finding.score >= finding.threshold) for finding in findings)


def test_the_same_batch_gives_the_same_scores(shipped: Classifier, batch: np.ndarray) -> None:
    assert np.array_equal(raw(shipped, batch), raw(shipped, batch))


def test_a_pictures_scores_do_not_depend_on_its_neighbours(shipped: Classifier, batch: np.ndarray) -> None:
    together = raw(shipped, batch)
    alone = np.concatenate([raw(shipped, batch[i : i + 1]) for i in range(len(batch))])
    among_noise = raw(shipped, np.concatenate([batch[:1], 100 * np.ones_like(batch[:2])]))[:1]

    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(together[:1] - among_noise).max() < 1e-5


def test_pictures_are_told_apart(shipped: Classifier, batch: np.ndarray) -> None:
    assert np.ptp(raw(shipped, batch), axis=0).max() > 0.01


def test_a_batch_of_another_shape_or_without_numbers_is_refused(
    shipped: Classifier, batch: np.ndarray
) -> None:
    assert shipped.predict(batch[:0]) == []
    with pytest.raises(ValueError, match="shape"):
        shipped.predict(batch[0])
    with pytest.raises(ValueError, match="finite"):
        shipped.predict(np.full_like(batch[:1], np.nan))


def test_a_wrong_byte_in_the_weights_is_a_bad_model(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(card.SHIPPED, folder)
    weights = folder / card.load(folder).weights
    damaged = bytearray(weights.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    weights.write_bytes(damaged)

    with pytest.raises(BadModel, match="its hash is"):
        Classifier.load(folder)


def test_loading_is_silent_and_needs_no_scikit_learn() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = None; from model.classifier import Classifier; "
        "from model.card import SHIPPED; print(Classifier.load(SHIPPED).card.size)"
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert (done.stdout.strip(), done.stderr) == ("224", "")


def test_the_shipped_model_reproduces_its_cards_self_check(shipped: Classifier, shared_data: Path) -> None:
    tree = tomllib.loads((card.SHIPPED / card.CARD).read_text(encoding="utf-8"))
    table = tables.read(shared_data / "xray/labels.csv", shared_data / "xray/images", shipped.card.labels)
    rows = ship.check_rows(table.only(table.ages >= tree["data"]["min_age"]))

    scores = ship.measure(card.SHIPPED, rows)[:, table.names.index(OPACITY)]

    said = tree["self_check"]
    assert (said["of"], said["images"]) == (OPACITY, len(rows))
    assert abs(scores.mean() - said["mean_score"]) < 1e-3
