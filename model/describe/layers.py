"""What a network is made of: VGG16's layers from the code that builds it; an imported one's from its file.

No code of a model file is run, and no network is built.
"""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from math import prod
from typing import Any

from model import network
from model.card import GRAPH, KERAS, VGG16, Card
from model.errors import BadModel
from model.network import CONVOLUTIONS, HEAD

LARGEST_CONFIG = 50_000_000
"""Bytes of a .keras file's config.json; VGG16's has 20,000."""
CONFIG, WEIGHTS = "config.json", "model.weights.h5"


@dataclass(frozen=True)
class Layer:
    name: str
    kind: str
    shape: tuple[int, ...]
    """Of what it gives, without the batch."""
    parameters: int


@dataclass(frozen=True)
class Layers:
    """`named`: each layer, in order, where the network is one that this code builds; else `kinds`: kind -> how many."""

    named: tuple[Layer, ...]
    kinds: dict[str, int]
    parameters: int | None
    """None: the file does not say."""


def layers(card: Card) -> Layers:
    """Of the card's network. Raises BadModel where its file can't be read."""
    if card.architecture == VGG16:
        named = tuple(_vgg16(card))
        return Layers(named, {}, sum(layer.parameters for layer in named))
    try:
        return _keras(card) if card.architecture == KERAS else _graph(card)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        zipfile.BadZipFile,
    ) as error:
        kind = {KERAS: ".keras file", GRAPH: "frozen graph"}[card.architecture]
        raise BadModel(
            f"{card.weights_path}: is no {kind} that can be read ({type(error).__name__})"
        ) from error


def _vgg16(card: Card) -> Iterator[Layer]:
    order = network.pieces(card.pools)
    channels = 3
    for name, following in pairwise(order):
        shape = _over(card, following) if following != HEAD else _halved(_over(card, name))
        if name in CONVOLUTIONS:
            yield Layer(name, "convolution 3 x 3, ReLU", shape, 9 * channels * shape[-1] + shape[-1])
        else:
            yield Layer(name, "largest of 2 x 2", shape, 0)
        channels = shape[-1]
    features = network.carried_shapes(card.size, card.pools, HEAD, card.head)[0][0]
    words = {
        "averages": "averages of " + ", ".join(card.pools),
        "roots": "square roots of averages of " + ", ".join(card.pools),
        "flatten": f"all values of {card.pools[0]}",
    }
    yield Layer("features", words[card.head], (features,), 0)
    for number, units in enumerate(card.hidden, 1):
        yield Layer(f"hidden{number}", "dense, ReLU", (units,), features * units + units)
        features = units
    count = len(card.labels)
    yield Layer(HEAD, "dense, sigmoid", (count,), features * count + count)


def _over(card: Card, cut: str) -> tuple[int, ...]:
    """What the layer before `cut` gives to it."""
    return network.carried_shapes(card.size, card.pools, cut, card.head)[0]


def _halved(shape: tuple[int, ...]) -> tuple[int, ...]:
    """What the last pool gives: before the head the features alone go over a cut."""
    height, width, channels = shape
    return (height // 2, width // 2, channels)


def _keras(card: Card) -> Layers:
    """Counted in config.json; parameters by the shapes that the weights have. A .keras file is a zip of both."""
    kinds: dict[str, int] = {}
    with zipfile.ZipFile(card.weights_path) as archive:
        if archive.getinfo(CONFIG).file_size > LARGEST_CONFIG:
            raise ValueError("config.json is too large")
        for kind in _kinds(json.loads(archive.read(CONFIG))):
            kinds[kind] = kinds.get(kind, 0) + 1
        sizes: list[int] = []

        def count(name: str, item: Any) -> None:
            if hasattr(item, "shape") and not name.startswith("optimizer"):
                sizes.append(prod(item.shape))

        with archive.open(WEIGHTS) as packed, import_module("h5py").File(packed, "r") as file:
            file.visititems(count)
    return Layers((), kinds, sum(sizes))


def _kinds(config: Any) -> Iterator[str]:
    """Kinds of the layers of a model's configuration, those of models within it too."""
    inside = config["config"].get("layers") if isinstance(config.get("config"), dict) else None
    if inside is None:
        yield str(config["class_name"])
        return
    for layer in inside:
        yield from _kinds(layer)


def _graph(card: Card) -> Layers:
    """Counted by the nodes of a frozen graph; parameters are its constants of floating numbers."""
    GraphDef = import_module("tensorflow.core.framework.graph_pb2").GraphDef  # noqa: N806 - TensorFlow's name
    types = import_module("tensorflow.core.framework.types_pb2")
    graph = GraphDef.FromString(card.weights_path.read_bytes())
    kinds: dict[str, int] = {}
    parameters = 0
    for node in graph.node:
        if node.op == "Const":
            tensor = node.attr["value"].tensor
            if tensor.dtype in (types.DT_FLOAT, types.DT_HALF, types.DT_BFLOAT16, types.DT_DOUBLE):
                parameters += prod(side.size for side in tensor.tensor_shape.dim)
        elif node.op not in ("Placeholder", "Identity", "NoOp"):
            kinds[node.op] = kinds.get(node.op, 0) + 1
    return Layers((), kinds, parameters)
