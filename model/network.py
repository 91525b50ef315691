"""VGG16 and its head as one Keras 3 model, and the weights file that it is filled from.

    picture (size, size, 3) -> VGG16's convolutions -> averages of some pools over the picture -> one sigmoid a label

The weights file is a NumPy .npz: `block1_conv1/kernel` … `block5_conv3/bias` in float16 (29.4 MB; the pooled
features differ from float32's by less than 0.1 %), `head/kernel` and `head/bias` in float32. The same bytes give
the same float32 arrays, bit for bit; the same arrays give the same bytes.

TensorFlow and Keras are imported inside functions only: they take seconds and 400 MB.
"""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.card import Card
from model.errors import BadModel

Weights = dict[str, NDArray[np.float32]]

_WIDTHS = {1: (64, 2), 2: (128, 2), 3: (256, 3), 4: (512, 3), 5: (512, 3)}
"""Block -> channels and convolutions: configuration D of Simonyan and Zisserman, 2014."""

CONVOLUTIONS = tuple(f"block{b}_conv{c}" for b, (_, n) in _WIDTHS.items() for c in range(1, n + 1))
HEAD = "head"
LARGEST_FILE = 100_000_000
"""Bytes that a weights file may unpack to; VGG16's convolutions take 59 MB as float32."""


def keras() -> Any:
    """Keras on TensorFlow, without their greetings on stderr. Set threads by TF_NUM_INTRAOP_THREADS."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    return keras


def base(size: int) -> Any:
    """VGG16's convolutions with random weights: (n, size, size, 3) -> (n, size/32, size/32, 512)."""
    layers = keras().layers
    x = picture = keras().Input((size, size, 3), name="picture")
    for block, (width, convolutions) in _WIDTHS.items():
        for c in range(1, convolutions + 1):
            x = layers.Conv2D(width, 3, padding="same", activation="relu", name=f"block{block}_conv{c}")(x)
        x = layers.MaxPooling2D(2, 2, name=f"block{block}_pool")(x)
    return keras().Model(picture, x, name="vgg16")


def averages(size: int, pools: tuple[str, ...]) -> Any:
    """The base with the averages of `pools` over the picture as its output: (n, size, size, 3) -> (n, features)."""
    below = base(size)
    layers = keras().layers
    means = [
        layers.GlobalAveragePooling2D(name=f"{pool}_mean")(below.get_layer(pool).output) for pool in pools
    ]
    features = means[0] if len(means) == 1 else layers.Concatenate(name="features")(means)
    return keras().Model(below.input, features, name="vgg16_averages")


def build(size: int, pools: tuple[str, ...], labels: int) -> Any:
    """The whole network, not filled yet: (n, size, size, 3) -> (n, labels), each from 0 to 1."""
    below = averages(size, pools)
    scores = keras().layers.Dense(labels, activation="sigmoid", name=HEAD)(below.output)
    return keras().Model(below.input, scores, name="hilum")


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

    Raises BadModel when the file can't be read or its arrays don't fit the card.
    """
    network = build(card.size, card.pools, len(card.labels))
    try:
        fill(network, read_weights(card.weights_path))
    except BadModel as error:
        raise BadModel(f"{card.weights_path}: {error}") from error
    return network


def read_weights(path: Path) -> Weights:
    """The arrays of a weights file as float32. Nothing in it is ever executed (no pickles).

    Raises BadModel when it is no .npz of float16 and float32 arrays, holds a number that is not finite,
    or would unpack to more than LARGEST_FILE bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST_FILE:
                raise BadModel(f"unpacks to more than {LARGEST_FILE} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            weights = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BadModel(f"is no readable .npz file ({type(error).__name__})") from error
    for name, array in weights.items():
        if array.dtype not in (np.float16, np.float32) or not np.isfinite(array).all():
            raise BadModel(f"{name} must be finite float16 or float32 numbers")
    return {name: array.astype(np.float32) for name, array in weights.items()}


def write_weights(path: Path, weights: Weights) -> None:
    """Writes a weights file: convolutions as float16, the rest as float32, in the order of their names.

    The zip's members carry no time and no compression, so that the same arrays make the same bytes.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(weights):
            kind = np.float32 if name.startswith(f"{HEAD}/") else np.float16
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                array = np.ascontiguousarray(weights[name], dtype=kind)
                np.lib.format.write_array(member, array, allow_pickle=False)


def imagenet(path: Path | None = None) -> Weights:
    """VGG16's convolutions as trained on ImageNet: from a weights file, or, without one, by Keras's download.

    Keras's values are rounded to float16 as the file's are, so that both ways lead to the same network.
    """
    if path is not None:
        return read_weights(path)
    network = keras().applications.VGG16(include_top=False, weights="imagenet")
    return {
        f"{name}/{part}": array.astype(np.float16).astype(np.float32)
        for name in CONVOLUTIONS
        for part, array in zip(("kernel", "bias"), network.get_layer(name).get_weights(), strict=True)
    }
