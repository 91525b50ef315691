"""The range of a score: what heads say that learnt from fewer patients."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model import card as cards
from model import doubt
from model.calibrate import calibrated
from model.card import Card, Temperature
from model.classifier import Classifier, Finding
from model.doubt import Doubt
from model.errors import BadModel
from model.runtime import Running, Said

LABELS = ("Mass", "Nodule")
RANDOM = np.random.default_rng(0)
HEADS = [(RANDOM.normal(size=(6, 2)).astype(np.float32), np.zeros(2, np.float32)) for _ in range(4)]
FEATURES = RANDOM.normal(size=(3, 6)).astype(np.float32)


def of(folder: Path) -> Card:
    doubt.write(folder / doubt.FILE, HEADS)
    return replace(
        cards.load(cards.SHIPPED),
        folder=folder,
        labels=LABELS,
        thresholds=dict.fromkeys(LABELS, 0.5),
        calibrations={label: Temperature(2.0, -0.5) for label in LABELS},
        doubt=doubt.FILE,
    )


def test_a_range_is_that_of_the_heads_calibrated_as_the_score_is(tmp_path: Path) -> None:
    card = of(tmp_path)
    low, high = Doubt.load(card).ranges(FEATURES)

    kernels = [kernel.astype(np.float16).astype(np.float64) for kernel, _ in HEADS]
    each = [
        calibrated(card.calibrations["Mass"], 1 / (1 + np.exp(-(FEATURES @ kernel)[:, 0])))
        for kernel in kernels
    ]
    assert np.allclose(low[:, 0], np.min(each, axis=0), atol=1e-6)
    assert np.allclose(high[:, 0], np.max(each, axis=0), atol=1e-6)


def test_a_score_lies_in_its_range_and_a_call_is_close_where_the_threshold_does_too(tmp_path: Path) -> None:
    card = of(tmp_path)

    def run(batch: np.ndarray) -> Said:
        return Said(np.full((len(batch), 2), 0.999, np.float32), FEATURES[: len(batch)])

    model = Classifier(card, Running("tensorflow", run), doubt=Doubt.load(card))
    batch = np.zeros((3, card.size, card.size, 3), np.float32)
    for seen in model.look(batch):
        assert all(f.low is not None and f.low <= f.score <= (f.high or 0) for f in seen.findings)
    plain = Finding("Mass", 0.4, 0.4, 0.5, present=False)
    assert not plain.is_unsettled
    assert replace(plain, low=0.3, high=0.5).is_unsettled
    assert not replace(plain, low=0.3, high=0.49).is_unsettled


@pytest.mark.parametrize("content", [b"", b"\x80\x04]\x94.", b"PK\x03\x04 no zip"])
def test_a_file_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    card = of(tmp_path)
    (tmp_path / doubt.FILE).write_bytes(content)
    with pytest.raises(BadModel, match=r"doubt\.npz"):
        Doubt.load(card)


def test_heads_of_other_labels_or_features_are_refused(tmp_path: Path) -> None:
    card = of(tmp_path)
    with pytest.raises(BadModel, match="3 labels"):
        Doubt.load(replace(card, labels=("A", "B", "C")))
    with pytest.raises(BadModel, match="6 features"):
        Doubt.load(card).ranges(FEATURES[:, :5])
