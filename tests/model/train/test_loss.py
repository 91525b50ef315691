from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model import network
from model.train.loss import class_weights, losses
from model.train.recipe import Recipe, read_recipe

UNKNOWN = np.nan


@pytest.fixture(scope="module")
def plain() -> Recipe:
    """Two labels, nothing but cross-entropy."""
    recipe = read_recipe("tuned")
    loss = replace(recipe.loss, balance="none", smoothing=0.0, weights={})
    return replace(recipe, labels=("Mass", "Lung Opacity"), loss=loss)


def loss(recipe: Recipe, truth: Any, logits: Any, output: str = "head") -> np.ndarray:
    """Each image's."""
    function = losses(recipe, np.float32([[1, 1], [0, 0], [0, 0], [0, 0]]))[output]
    convert = network.keras().ops.convert_to_tensor
    said = function(convert(np.float32(truth)), convert(np.float32(logits)))
    return np.asarray(network.keras().ops.convert_to_numpy(said))


def test_it_is_the_cross_entropy_of_what_is_known(plain: Recipe) -> None:
    share = 1 / (1 + np.exp(-2))
    assert loss(plain, [[1, 0]], [[2, 2]])[0] == pytest.approx((-np.log(share) - np.log(1 - share)) / 2)
    assert loss(plain, [[1, UNKNOWN]], [[2, 2]])[0] == pytest.approx(-np.log(share) / 2)
    assert loss(plain, [[UNKNOWN, UNKNOWN]], [[2, 2]])[0] == 0


@pytest.mark.parametrize("robust", [0.0, 0.7])
def test_unknown_labels_do_not_touch_the_weights(plain: Recipe, robust: float) -> None:
    """One step of a dense layer: a label that no image has keeps its weights, and a padded row moves nothing."""
    recipe = replace(plain, loss=replace(plain.loss, robust=robust))
    keras = network.keras()
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)

    def after_a_step(truth: np.ndarray, x: np.ndarray) -> np.ndarray:
        inputs = keras.Input((3,))
        said = keras.layers.Dense(2, name="head", kernel_initializer="ones")(inputs)
        part = keras.Model(inputs, {"head": said})
        part.compile(keras.optimizers.SGD(1.0), loss={"head": losses(recipe, truth)["head"]})
        part.train_on_batch(x, {"head": truth})
        return np.asarray(part.get_layer("head").get_weights()[0])

    truth = np.float32([[1, UNKNOWN], [0, UNKNOWN], [1, UNKNOWN], [UNKNOWN, UNKNOWN]])
    kernel = after_a_step(truth, x)
    upset = x.copy()
    upset[3] = 1e3

    assert np.all(kernel[:, 1] == 1) and np.all(kernel[:, 0] != 1) and np.isfinite(kernel).all()
    assert np.array_equal(kernel, after_a_step(truth, upset))


def test_balanced_classes_weigh_the_same_up_to_the_cap(plain: Recipe) -> None:
    labels = np.float32([[1, 1]] * 2 + [[0, 0]] * 98 + [[UNKNOWN, 1]] * 98)
    balanced = replace(plain, loss=replace(plain.loss, balance="balanced", cap=5.0))
    up, down = class_weights(balanced, labels)

    assert up[0] == 5 and down[0] == pytest.approx(100 / 196)
    assert up[1] * 100 == pytest.approx(down[1] * 98)


def test_a_wrong_label_pulls_less_on_the_robust_loss(plain: Recipe) -> None:
    robust = replace(plain, loss=replace(plain.loss, robust=0.7))
    sure = [[8.0, 8.0]]
    assert loss(plain, [[0, 0]], sure)[0] > 7
    assert loss(robust, [[0, 0]], sure)[0] < 1.5
    nearly_plain = replace(plain, loss=replace(plain.loss, robust=1e-3))
    assert loss(nearly_plain, [[0, 1]], sure)[0] == pytest.approx(loss(plain, [[0, 1]], sure)[0], rel=0.01)


def test_smoothing_asks_for_no_certainty(plain: Recipe) -> None:
    smoothed = replace(plain, loss=replace(plain.loss, smoothing=0.1))
    at = np.log(0.95 / 0.05)
    best = loss(smoothed, [[1, 1]], [[at, at]])[0]
    assert best < loss(smoothed, [[1, 1]], [[at + 0.5] * 2])[0]
    assert best < loss(smoothed, [[1, 1]], [[at - 0.5] * 2])[0]


def test_a_labels_weight_is_its_share_of_the_loss(plain: Recipe) -> None:
    heavy = replace(plain, loss=replace(plain.loss, weights={"Mass": 3.0}))
    only_mass, only_opacity = ([[1, UNKNOWN]], [[UNKNOWN, 1]])
    assert loss(heavy, only_mass, [[0, 0]])[0] == pytest.approx(3 * loss(heavy, only_opacity, [[0, 0]])[0])


def test_unknown_ages_cost_nothing_and_far_ones_count_in_proportion(plain: Recipe) -> None:
    told = loss(plain, [[UNKNOWN], [0.0], [0.0]], [[5.0], [0.5], [3.0]], "age")
    assert told == pytest.approx([0, 0.125, 2.5])
