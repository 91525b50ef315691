"""Small models of others, as files; and what they say."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import keras2
from foreign.keras2 import Udacity

from model import card, phantom
from model.card import Card
from model.imports.run import Asked, import_model
from model.network import keras


@pytest.fixture(autouse=True, scope="session")
def chests_drawn_once() -> Iterator[None]:
    """Each self-check draws the same ones, a second each."""
    draw = phantom.picture
    phantom.picture = functools.cache(draw)  # type: ignore[assignment]
    yield
    phantom.picture = draw


ASKED = Asked(labels="Pneumonia", preprocess="unit")


@pytest.fixture(scope="session")
def udacity() -> Udacity:
    inner = keras2.functional(
        (32, 32, 3),
        keras2.conv("block1_conv1", 4, trainable=False),
        keras2.conv("block1_conv2", 4),
        keras2.layer("MaxPooling2D", "block1_pool", pool_size=[2, 2], strides=[2, 2], padding="valid"),
    )
    tree = keras2.sequential(
        {**inner, "config": inner["config"] | {"trainable": True}},
        keras2.layer("Flatten", "flatten_1", data_format="channels_last"),
        keras2.layer("Dropout", "dropout_1", rate=0.5, noise_shape=None, seed=None),
        keras2.dense("dense_1", 5),
        keras2.dense("dense_2", 1, "sigmoid"),
    )
    random = np.random.default_rng(3)
    drawn = {
        name: (random.normal(0, 0.1, shape).astype("f4"), random.normal(0, 0.1, shape[-1:]).astype("f4"))
        for name, shape in {
            "block1_conv1": (3, 3, 3, 4),
            "block1_conv2": (3, 3, 4, 4),
            "dense_1": (1024, 5),
            "dense_2": (5, 1),
        }.items()
    }

    def arrays(*names: str) -> keras2.Arrays:
        return {
            f"{n}/{part}:0": a for n in names for part, a in zip(("kernel", "bias"), drawn[n], strict=True)
        }

    layers = {
        "model_1": arrays("block1_conv2", "block1_conv1"),  # what was trained comes first
        "flatten_1": {},
        "dropout_1": {},
        "dense_1": arrays("dense_1"),
        "dense_2": arrays("dense_2"),
    }
    of = keras().layers
    whole = keras().Sequential(
        [
            keras().Input((32, 32, 3)),
            of.Conv2D(4, 3, padding="same", activation="relu", name="block1_conv1"),
            of.Conv2D(4, 3, padding="same", activation="relu", name="block1_conv2"),
            of.MaxPooling2D(),
            of.Flatten(),
            of.Dense(5, activation="relu", name="dense_1"),
            of.Dense(1, activation="sigmoid", name="dense_2"),
        ]
    )
    for name, pair in drawn.items():
        whole.get_layer(name).set_weights(list(pair))
    return Udacity(tree, layers, whole.predict_on_batch)


@pytest.fixture
def bring(tmp_path: Path) -> Callable[..., Card]:
    """Imports and returns the card; keywords are `Asked`'s."""

    def run(source: Path, weights: Path | None = None, **said: Any) -> Card:
        import_model(source, tmp_path / "model", weights, replace(ASKED, **said), None)
        return card.load(tmp_path / "model")

    return run
