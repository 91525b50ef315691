"""A `.keras` file, written by Keras itself, and read without it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign.keras2 import noise, raw

from model.card import Card
from model.errors import BadModel
from model.imports import keras_file
from model.network import keras

Bring = Callable[..., Card]


def small(*layers: Any, side: int | None = 32, channels: int = 3) -> Any:
    model = keras().Sequential([keras().Input((side, side, channels)), *layers])
    random = np.random.default_rng(5)
    model.set_weights([random.uniform(0.1, 0.6, weight.shape).astype("f4") for weight in model.get_weights()])
    return model


def test_branches_models_inside_models_and_shared_layers_come_through(tmp_path: Path) -> None:
    of = keras().layers
    inner = keras().Sequential([of.DepthwiseConv2D(3, padding="same"), of.BatchNormalization(), of.ReLU(6.0)])
    shared = of.Conv2D(3, 3, padding="same", activation="relu")
    normal = of.Normalization()
    normal.adapt(noise(32, count=8) * 3)
    picture = keras().Input((32, 32, 3))
    x = of.RandomRotation(0.1)(normal(picture))
    x = of.Average()([inner(shared(shared(x))), of.SeparableConv2D(3, 3, padding="same")(x)])
    x = of.Dropout(0.5)(of.GlobalAveragePooling2D()(of.ZeroPadding2D(((0, 1), (2, 0)))(of.LeakyReLU(0.2)(x))))
    model = keras().Model(picture, of.Dense(3, activation="softmax")(x))
    random = np.random.default_rng(5)
    for layer in (*inner.layers, shared):
        layer.set_weights([random.uniform(0.1, 0.6, weight.shape) for weight in layer.get_weights()])
    model.save(tmp_path / "m.keras")

    read = keras_file.load(tmp_path / "m.keras", 32, 3).model

    own = keras().saving.load_model(tmp_path / "m.keras", compile=False)
    said = own(noise(32), training=False)
    assert np.ptp(said, axis=0).min() > 1e-4
    assert np.abs(read.predict_on_batch(noise(32)) - said).max() < 1e-6


def test_a_rescaling_layer_says_how_pictures_were_prepared(tmp_path: Path, bring: Bring) -> None:
    of = keras().layers
    model = small(
        of.Rescaling(1 / 255),
        of.Conv2D(2, 3),
        of.GlobalAveragePooling2D(),
        of.Dense(2, "softmax"),
        channels=1,
    )
    model.save(tmp_path / "m.keras")

    card = bring(tmp_path / "m.keras", preprocess="", labels="-,Pneumonia")

    assert (card.scale, card.mean, card.channels, card.columns) == (255.0, (0.0, 0.0, 0.0), 1, (1,))
    said = model.predict_on_batch(noise(32, 1) * 255)
    assert np.abs(raw(card, noise(32, 1) * 255) - said[:, 1:]).max() < 1e-6


def test_an_output_called_pneumonia_needs_no_label(tmp_path: Path, bring: Bring) -> None:
    of = keras().layers
    small(of.Flatten(), of.Dense(1, "sigmoid", name="is_pneumonia")).save(tmp_path / "m.keras")

    assert bring(tmp_path / "m.keras", labels="").labels == ("Pneumonia",)


def test_logits_get_a_sigmoid_where_that_is_asked_for(tmp_path: Path, bring: Bring) -> None:
    of = keras().layers
    model = small(of.Conv2D(2, 3), of.GlobalAveragePooling2D(), of.Dense(1))
    model.save(tmp_path / "m.keras")

    with pytest.raises(BadModel, match=r"no probabilities.*--logits"):
        bring(tmp_path / "m.keras")
    card = bring(tmp_path / "m.keras", logits=True)

    said = 1 / (1 + np.exp(-model.predict_on_batch(noise(32))))
    assert np.abs(raw(card, noise(32)) - said).max() < 1e-6


def test_a_batch_normalization_left_in_training_is_refused(tmp_path: Path, bring: Bring) -> None:
    of = keras().layers
    picture = keras().Input((32, 32, 3))
    x = of.GlobalAveragePooling2D()(of.BatchNormalization()(picture, training=True))
    keras().Model(picture, of.Dense(1, "sigmoid")(x)).save(tmp_path / "m.keras")

    with pytest.raises(BadModel, match="behave as in training"):
        bring(tmp_path / "m.keras")


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((32, 48, 3), "a square"),
        ((32, 32, 4), "4 channels"),
        ((16, 16, 3), "16 x 16"),
        ((32, 32), "rows, columns"),
    ],
)
def test_an_input_that_is_no_picture_of_ours_is_refused(
    tmp_path: Path, bring: Bring, shape: tuple[int, ...], told: str
) -> None:
    of = keras().layers
    model = keras().Sequential([keras().Input(shape), of.Flatten(), of.Dense(1, "sigmoid")])
    model.save(tmp_path / "m.keras")

    with pytest.raises(BadModel, match=told):
        bring(tmp_path / "m.keras")


def test_outputs_with_places_are_refused(tmp_path: Path, bring: Bring) -> None:
    small(keras().layers.Conv2D(1, 3, activation="sigmoid")).save(tmp_path / "m.keras")

    with pytest.raises(BadModel, match=r"\(pictures, labels\) is wanted"):
        bring(tmp_path / "m.keras")
