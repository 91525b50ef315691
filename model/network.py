"""VGG16 and its head as one Keras 3 model, and the weights file that it is filled from.

    picture (size, size, 3) -> VGG16's convolutions -> features -> hidden layers, if any -> one sigmoid a label

The features are the averages of some pools over the picture or over regions of it (`block4_pool/3`: nine of them),
their square roots (`roots`), or all values of one pool (`flatten`).

The network can be cut before any of its layers (`segment`): what comes out of one part goes into the next, so that
a part whose weights never change needs to be run once only.

The weights file is a NumPy .npz: `block1_conv1/kernel` … `block5_conv3/bias` and hidden layers in float16 (VGG16's
are 29.4 MB; the pooled features differ from float32's by less than 0.1 %), `head/kernel` and `head/bias` in float32.
The same bytes give the same float32 arrays, bit for bit; the same arrays give the same bytes.

Keras and what it computes with are imported inside functions only: they take seconds and 400 MB.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.card import GRAPH, VGG16, Card
from model.errors import BadModel, NotFetched
from model.npz import read_arrays, write_arrays

Weights = dict[str, NDArray[np.float32]]

_WIDTHS = {1: (64, 2), 2: (128, 2), 3: (256, 3), 4: (512, 3), 5: (512, 3)}
"""Block -> channels and convolutions: configuration D of Simonyan and Zisserman, 2014."""

CONVOLUTIONS = tuple(f"block{b}_conv{c}" for b, (_, n) in _WIDTHS.items() for c in range(1, n + 1))
LAYERS = tuple(
    f"block{b}_{part}"
    for b, (_, n) in _WIDTHS.items()
    for part in (*(f"conv{c}" for c in range(1, n + 1)), "pool")
)
"""VGG16's layers in order, `block1_conv1` to `block5_pool`."""
HEAD = "head"
LEAST = 1e-4
"""Added to an average before its root, whose slope at 0 has no bound."""


def keras(backend: str = "tensorflow") -> Any:
    """Keras, without its backend's greetings on stderr. Set threads by TF_NUM_INTRAOP_THREADS.

    Who imports Keras first decides what a process computes with: `backend` is a wish that comes too late afterwards.
    On a GPU TensorFlow takes memory as it needs it, not all of it: several workers, or a training, share one.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = backend
    import keras

    return keras


def pieces(pools: tuple[str, ...]) -> tuple[str, ...]:
    """What a network with these pools consists of, in order: VGG16's layers up to the last pool needed, and the head.

    Each is a place to cut before.
    """
    return (*LAYERS[: max(LAYERS.index(layer_of(pool)) for pool in pools) + 1], HEAD)


def layer_of(pool: str) -> str:
    """`block4_pool/3` -> `block4_pool`."""
    return pool.partition("/")[0]


def regions_of(pool: str) -> int:
    """`block4_pool/3` -> 3 regions a side; 1 where it says nothing: the whole picture."""
    return int(pool.partition("/")[2] or 1)


def width_of(pool: str) -> int:
    """Numbers that a pool gives to the head by its averages."""
    return regions_of(pool) ** 2 * _WIDTHS[int(pool[5])][0]


def segment(size: int, pools: tuple[str, ...], start: str, stop: str, head: str = "averages") -> Any:
    """VGG16 from the layer `start` up to, not including, the layer `stop`, not filled yet; a Model of lists of arrays.

    What goes over a cut: what the layer before it says, (n, height, width, channels), then the averages of those
    `pools` that lie before the cut, in the network's order, (n, channels) each. Before the first layer
    that is the picture alone, (n, size, size, 3); before the head the features alone, (n, features).
    """
    layers, order = keras().layers, pieces(pools)
    if start == HEAD:
        features = keras().Input(carried_shapes(size, pools, HEAD, head)[0])
        return keras().Model([features], [features])
    carried = [keras().Input(shape) for shape in carried_shapes(size, pools, start, head)]
    x, *before = carried
    below = _carried(pools, order[: order.index(start)], head)
    means = dict(zip(below, before, strict=True))
    for name in order[order.index(start) : order.index(stop)]:
        width, _ = _WIDTHS[int(name[5])]
        if name in CONVOLUTIONS:
            x = layers.Conv2D(width, 3, padding="same", activation="relu", name=name)(x)
        else:
            x = layers.MaxPooling2D(2, 2, name=name)(x)
        for pool in _carried(pools, (name,), head):
            means[pool] = _averages(x, pool)
    if stop != HEAD:
        return keras().Model(carried, [x, *means.values()])
    if head == "flatten":
        features = layers.Flatten(name="features")(x)
    elif len(pools) == 1:
        features = means[pools[0]]
    else:
        features = layers.Concatenate(name="features", dtype="float32")([means[pool] for pool in pools])
    if head == "roots":
        features = keras().ops.sqrt(features + LEAST)
    return keras().Model(carried, [features])


def _carried(pools: tuple[str, ...], layers: tuple[str, ...], head: str) -> list[str]:
    """The pools at these layers whose averages are features."""
    return [pool for layer in layers for pool in pools if layer_of(pool) == layer and head != "flatten"]


def _averages(x: Any, pool: str) -> Any:
    """(n, side, side, channels) -> (n, width_of(pool)). Regions are squares that overlap where the side is no multiple.

    float32 in mixed precision too: a sum over a picture leaves float16's range.
    """
    layers, name, count = keras().layers, pool.replace("/", "_"), regions_of(pool)
    if count == 1:
        return layers.GlobalAveragePooling2D(name=f"{name}_mean", dtype="float32")(x)
    step = x.shape[1] // count
    side = x.shape[1] - (count - 1) * step
    means = layers.AveragePooling2D(side, step, name=f"{name}_mean", dtype="float32")(x)
    return layers.Flatten(name=f"{name}_means", dtype="float32")(means)


def carried_shapes(
    size: int, pools: tuple[str, ...], cut: str, head: str = "averages"
) -> list[tuple[int, ...]]:
    """The shapes, without the batch, of what goes over the cut before the layer `cut`; see `segment`."""
    order = pieces(pools)
    above = size
    x: tuple[int, ...] = (size, size, 3)
    for name in order[: order.index(cut)]:
        width, _ = _WIDTHS[int(name[5])]
        above //= 2 if name not in CONVOLUTIONS else 1
        x = (above, above, width)
    if cut == HEAD:
        return [(above * above * x[2],)] if head == "flatten" else [(sum(map(width_of, pools)),)]
    return [x, *((width_of(pool),) for pool in _carried(pools, order[: order.index(cut)], head))]


def base(size: int) -> Any:
    """VGG16's convolutions with random weights: (n, size, size, 3) -> (n, size/32, size/32, 512)."""
    whole = segment(size, (LAYERS[-1],), LAYERS[0], HEAD)
    return keras().Model(whole.input, whole.get_layer(LAYERS[-1]).output, name="vgg16")


def averages(size: int, pools: tuple[str, ...], head: str = "averages") -> Any:
    """VGG16 with what the head reads as its output: (n, size, size, 3) -> (n, features)."""
    whole = segment(size, pools, LAYERS[0], HEAD, head)
    return keras().Model(whole.inputs[0], whole.outputs[0], name="vgg16_averages")


def build(
    size: int, pools: tuple[str, ...], labels: int, head: str = "averages", hidden: tuple[int, ...] = ()
) -> Any:
    """The whole network, not filled yet: (n, size, size, 3) -> (n, labels), each from 0 to 1."""
    below = segment(size, pools, LAYERS[0], HEAD, head)
    x = below.outputs[0]
    for number, units in enumerate(hidden, 1):
        x = keras().layers.Dense(units, activation="relu", name=f"hidden{number}")(x)
    scores = keras().layers.Dense(labels, activation="sigmoid", name=HEAD)(x)
    return keras().Model(below.inputs[0], scores, name="hilum")


def fill(network: Any, weights: Weights) -> None:
    """Puts the arrays into the layers of their names; layers without weights are passed over.

    Raises BadModel naming the array that is missing, left over or has another shape than its layer.
    """
    wanted = {
        f"{layer.name}/{part}": (layer, tuple(variable.shape))
        for layer in network.layers
        for part, variable in zip(("kernel", "bias"), layer.weights, strict=False)
    }
    for name in sorted(wanted.keys() ^ weights.keys()):
        raise BadModel(f"weights: {name} is {'missing' if name in wanted else 'not of this network'}")
    for name, (_, shape) in wanted.items():
        if weights[name].shape != shape:
            raise BadModel(f"weights: {name} has shape {weights[name].shape}, the network needs {shape}")
    for layer in network.layers:
        if layer.weights:
            layer.set_weights([weights[f"{layer.name}/{part}"] for part in ("kernel", "bias")])


def load(card: Card) -> Any:
    """The network that `card` describes, filled from its weights file (not hashed here: `card.verify` does).

    A Keras model; for a frozen graph something that is called as one is (`imports.graph.Graph`).
    Raises BadModel when the file can't be read or its arrays don't fit the card.
    """
    if card.architecture != VGG16:
        return _imported(card)
    network = build(card.size, card.pools, len(card.labels), card.head, card.hidden)
    try:
        fill(network, read_weights(card.weights_path))
    except BadModel as error:
        raise BadModel(f"{card.weights_path}: {error}") from error
    return network


def _imported(card: Card) -> Any:
    from model.imports import graph, keras_file

    try:
        if card.architecture == GRAPH:
            return graph.load(card.weights_path)
        return keras_file.load(card.weights_path, card.size, card.channels).model
    except BadModel as error:
        raise BadModel(f"{card.weights_path}: {error}") from error


def with_features(filled: Any, card: Card) -> Any:
    """The same network saying what its head reads as well, where the card's scope or doubt need it; else as it is."""
    if not (card.scope or card.doubt):
        return filled
    if card.architecture != VGG16:
        raise BadModel(
            f"{card.folder}: only a model of the architecture vgg16 can have a scope or doubt of its own"
        )
    head = filled.get_layer("hidden1" if card.hidden else HEAD)
    return keras().Model(filled.inputs[0], [filled.outputs[0], head.input])


def read_weights(path: Path) -> Weights:
    """The arrays of a weights file as float32; raises BadModel as `npz.read_arrays` does."""
    return read_arrays(path)


def write_weights(path: Path, weights: Weights) -> None:
    """Writes a weights file: the head as float32, all else as float16. The same arrays make the same bytes."""
    kinds = {name: np.float32 if name.startswith(f"{HEAD}/") else np.float16 for name in weights}
    write_arrays(path, {name: array.astype(kinds[name]) for name, array in weights.items()})


def imagenet(path: Path | None = None) -> Weights:
    """VGG16's convolutions as trained on ImageNet: from a weights file, or, without one, by Keras's download.

    Keras's values are rounded to float16 as the file's are, so that both ways lead to the same network.
    Raises BadModel naming the file that holds something else, and NotFetched when the download fails.
    """
    if path is not None:
        try:
            weights = read_weights(path)
            fill(base(32), weights)
        except BadModel as error:
            raise BadModel(f"{path}: {error}; VGG16's convolutions and nothing else are wanted") from error
        return weights
    try:
        network = keras().applications.VGG16(include_top=False, weights="imagenet")
    except Exception as error:  # Keras's download raises whatever its many layers raise
        raise NotFetched(
            f"Keras could not download VGG16's weights ({error}); --weights takes a file"
        ) from error
    return {
        f"{name}/{part}": array.astype(np.float16).astype(np.float32)
        for name in CONVOLUTIONS
        for part, array in zip(("kernel", "bias"), network.get_layer(name).get_weights(), strict=True)
    }
