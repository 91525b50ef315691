"""The trained part of the network: its layers from a stage's cut on, the head and what is learnt beside it.

Weights go in and out by name (`block5_conv3/kernel`), so that stages with different cuts hand them on, and any backend
reads what another wrote. The head's first weights come from numpy, not from Keras: they are the same on all backends.
"""

import zlib
from collections.abc import Sequence
from math import exp, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import network
from model.network import HEAD, Weights
from model.train.exact import Head
from model.train.inputs import Cut, fill
from model.train.loss import Losses, weight
from model.train.recipe import Recipe, Stage

MIDDLE, SPREAD = "standard/middle", "standard/spread"
"""Mean and standard deviation of each feature over training images, where the recipe standardizes."""
LEAST_SPREAD = 0.1
"""Of its pool's median: a feature that is (nearly) always 0 would else be thousands where it is not."""


def outputs(recipe: Recipe) -> dict[str, int]:
    """Output -> units."""
    beside = {name: 1 for name in ("age", "sex", "view") if weight(recipe, name)}
    return {HEAD: len(recipe.labels), **beside}


def first_weights(recipe: Recipe, seed: int) -> Weights:
    """All dense layers at random: Glorot and Bengio's uniform, biases 0."""
    width = prod(network.carried_shapes(recipe.size, recipe.network.pools, HEAD, recipe.network.head)[0])
    sizes = {}
    for number, units in enumerate(recipe.network.hidden, 1):
        sizes[f"hidden{number}"] = (width, units)
        width = units
    sizes |= {name: (width, units) for name, units in outputs(recipe).items()}
    weights = {}
    for name, shape in sizes.items():
        random = np.random.default_rng([seed, zlib.crc32(name.encode())])
        most = sqrt(6 / sum(shape))
        weights[f"{name}/kernel"] = random.uniform(-most, most, shape).astype(np.float32)
        weights[f"{name}/bias"] = np.zeros(shape[1], np.float32)
    return weights


def spread_of(features: NDArray[np.float32], widths: Sequence[int]) -> Weights:
    """What standardizes: (n, features), of pools of these widths -> each feature's mean and standard deviation."""
    spread = features.std(axis=0, dtype=np.float64)
    pools = np.split(spread, np.cumsum(widths)[:-1])
    least = np.concatenate([np.full(len(pool), LEAST_SPREAD * np.median(pool) + 1e-6) for pool in pools])
    return {
        MIDDLE: features.mean(axis=0, dtype=np.float64).astype(np.float32),
        SPREAD: np.maximum(spread, least).astype(np.float32),
    }


def trained_part(
    recipe: Recipe, stage: Stage, weights: Weights, losses: Losses, steps: int, seed: int
) -> Any:
    """A compiled Model from what goes over the stage's cut to {output: logits}, filled from `weights`.

    `steps`: batches an epoch. The age comes out as `loss.targets` counts it.
    """
    keras = network.keras()
    net = recipe.network
    below = network.segment(recipe.size, net.pools, stage.cut, HEAD, net.head)
    x = below.outputs[0]
    if MIDDLE in weights:
        variance = np.square(weights[SPREAD])
        x = keras.layers.Normalization(axis=-1, mean=weights[MIDDLE], variance=variance, dtype="float32")(x)
    for number, units in enumerate(net.hidden, 1):
        x = _dropped(x, net.dropout, seed + number)
        x = keras.layers.Dense(units, activation="relu", name=f"hidden{number}", dtype="float32")(x)
    x = _dropped(x, net.dropout, seed)
    # Logits, not shares: cross-entropy from logits loses no digits; `scores` makes the shares.
    said = {name: keras.layers.Dense(n, name=name, dtype="float32")(x) for name, n in outputs(recipe).items()}
    part = keras.Model(below.inputs, said)
    fill(part, weights)
    part.compile(
        optimizer=_optimizer(recipe, stage, steps),
        loss=losses,
        loss_weights={name: weight(recipe, name) for name in said},
        # XLA is JAX's only way; TensorFlow's own kernels are faster than XLA on CPUs and as fast for VGG16 on GPUs
        jit_compile=keras.backend.backend() == "jax",
    )
    part.optimizer.build(part.trainable_variables)
    return part


def _dropped(x: Any, rate: float, seed: int) -> Any:
    return network.keras().layers.Dropout(rate, seed=seed, dtype="float32")(x) if rate else x


def _optimizer(recipe: Recipe, stage: Stage, steps: int) -> Any:
    keras = network.keras()
    rate: Any = stage.rate
    if stage.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(stage.rate, stage.epochs * steps)
    memory = recipe.training.average * steps
    common = {
        "weight_decay": stage.weight_decay or None,
        "use_ema": memory > 0,
        "ema_momentum": exp(-1 / memory) if memory else 0.0,
    }
    if stage.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate, **common)
    else:
        optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, **common)
    if stage.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def reseed(part: Any, seed: int, epoch: int) -> None:
    """Dropout's chance depends on the seed and the epoch alone, so that a resumed epoch drops what it would have."""
    for place, layer in enumerate(part.layers):
        if hasattr(layer, "seed_generator") and layer.seed_generator is not None:
            words = np.array([seed * 1000 + place, epoch * 1_000_000]) % (2**31 - 1)
            layer.seed_generator.state.assign(words.astype(np.uint32))


def taken(part: Any) -> Weights:
    """The weights of a part by name."""
    return {
        f"{layer.name}/{kind}": np.asarray(array, np.float32)
        for layer in part.layers
        for kind, array in zip(("kernel", "bias"), layer.get_weights(), strict=False)
    }


def averaged(part: Any, weights: Weights) -> Weights:
    """The weights' average over the steps so far, if the recipe wants one; `weights`, the part's own, are put back."""
    if not getattr(part.optimizer, "inner_optimizer", part.optimizer).use_ema:
        return weights
    part.optimizer.finalize_variable_values(part.trainable_variables)
    found = taken(part)
    fill(part, weights)
    return found


def memory_of(part: Any) -> list[NDArray[Any]]:
    """The optimizer's variables, the weights' average among them."""
    return [np.asarray(network.keras().ops.convert_to_numpy(v)) for v in part.optimizer.variables]


def remember(part: Any, memory: Sequence[NDArray[Any]]) -> None:
    for variable, array in zip(part.optimizer.variables, memory, strict=True):
        variable.assign(array)


def scores(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Logits -> shares, 0 to 1."""
    return (1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -60, 60)))).astype(np.float32)


def as_trained(head: Head, weights: Weights) -> Weights:
    """An exact head's weights, as the layer over the standardized features has them where the recipe standardizes."""
    kernel, bias = head.kernel.astype(np.float64), head.bias.astype(np.float64)
    if MIDDLE in weights:
        bias = bias + weights[MIDDLE].astype(np.float64) @ kernel
        kernel = kernel * weights[SPREAD][:, None]
    return {f"{HEAD}/kernel": kernel.astype(np.float32), f"{HEAD}/bias": bias.astype(np.float32)}


def shipped(recipe: Recipe, weights: Weights) -> Weights:
    """The weights as the shipped network has them: without what was learnt beside, standardization folded in."""
    dense = [f"hidden{n}" for n in range(1, len(recipe.network.hidden) + 1)] + [HEAD]
    layers = {*dense, *network.pieces(recipe.network.pools)}
    found = {name: weights[name] for name in weights if name.split("/")[0] in layers}
    if MIDDLE in weights:
        first = dense[0]
        kernel = weights[f"{first}/kernel"].astype(np.float64) / weights[SPREAD][:, None]
        found[f"{first}/kernel"] = kernel.astype(np.float32)
        bias = weights[f"{first}/bias"] - weights[MIDDLE].astype(np.float64) @ kernel
        found[f"{first}/bias"] = bias.astype(np.float32)
    return found


def cut_of(recipe: Recipe, before: str) -> Cut:
    return Cut(recipe.size, recipe.network, before)
