from collections.abc import Callable
from dataclasses import replace
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.train import tuned
from model.train.loss import losses
from model.train.recipe import Recipe, read_recipe

FEATURES, IMAGES, STEPS = 1024, 8, 3
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(STEPS, IMAGES, FEATURES)).astype(np.float32)
TRUTH = {
    "head": np.float32(RANDOM.integers(0, 2, (IMAGES, 2))),
    **{name: np.float32(RANDOM.integers(0, 2, (IMAGES, 1))) for name in ("age", "sex", "view")},
}


@pytest.fixture
def tiny(recipe: Callable[..., Path]) -> Recipe:
    return read_recipe(str(recipe(("dropout = 0.0", "dropout = 0.5"), ("average = 1.0", "average = 2.0"))))


def part_of(recipe: Recipe) -> Any:
    """The head, on 1,024 features."""
    weights = tuned.first_weights(recipe, 0)
    return tuned.trained_part(recipe, recipe.stages[0], weights, losses(recipe, TRUTH["head"]), STEPS, 0)


def stepped(part: Any, x: np.ndarray) -> float:
    return float(part.train_on_batch([x], TRUTH, return_dict=True)["loss"])


def test_the_average_of_the_weights_is_the_exponential_one(tiny: Recipe) -> None:
    part, momentum = part_of(tiny), exp(-1 / (2 * STEPS))
    seen = []
    for x in X:
        stepped(part, x)
        seen.append(tuned.taken(part)["head/kernel"])
    expected = seen[0]
    for kernel in seen[1:]:
        expected = momentum * expected + (1 - momentum) * kernel

    averaged = tuned.averaged(part, tuned.taken(part))["head/kernel"]

    assert np.allclose(averaged, expected, atol=1e-6)
    assert np.abs(averaged - seen[-1]).max() > 1e-4
    assert np.array_equal(tuned.taken(part)["head/kernel"], seen[-1])


def test_without_an_average_the_weights_are_the_last_steps(tiny: Recipe) -> None:
    part = part_of(replace(tiny, training=replace(tiny.training, average=0.0)))
    stepped(part, X[0])
    weights = tuned.taken(part)
    assert tuned.averaged(part, weights) is weights


def test_weights_and_memory_are_all_that_a_step_depends_on(tiny: Recipe) -> None:
    """The dropout's chance too: it follows from the epoch."""
    one, other = part_of(tiny), part_of(tiny)
    tuned.reseed(one, 0, 1)
    stepped(one, X[0])
    tuned.fill(other, tuned.taken(one))
    tuned.remember(other, tuned.memory_of(one))
    for part in (one, other):
        tuned.reseed(part, 0, 2)
        stepped(part, X[1])

    assert np.array_equal(tuned.taken(one)["head/kernel"], tuned.taken(other)["head/kernel"])
    assert all(np.array_equal(a, b) for a, b in zip(*map(tuned.memory_of, (one, other)), strict=True))


def test_epochs_drop_other_features(tiny: Recipe) -> None:
    part, told = part_of(tiny), []
    for epoch in (1, 1, 2):
        tuned.reseed(part, 0, epoch)
        told.append(np.asarray(part([X[0]], training=True)["head"]))
    assert np.array_equal(told[0], told[1]) and not np.array_equal(told[0], told[2])
