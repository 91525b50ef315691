"""Files as Keras 2 writes them, by json and h5py alone: the layout was compared with tf.keras 2.15's own files."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from model.card import Card
from model.classifier import Classifier

Tree = dict[str, Any]
Arrays = dict[str, np.ndarray]


def layer(kind: str, name: str, /, *, trainable: bool = True, **config: Any) -> Tree:
    return {
        "class_name": kind,
        "config": {"name": name, "trainable": trainable, "dtype": "float32", **config},
    }


def conv(name: str, filters: int, **config: Any) -> Tree:
    given: Tree = {
        "filters": filters,
        "kernel_size": [3, 3],
        "padding": "same",
        "activation": "relu",
    } | config
    return layer("Conv2D", name, data_format="channels_last", kernel_initializer=initializer(), **given)


def dense(name: str, units: int, activation: str = "relu", **config: Any) -> Tree:
    return layer("Dense", name, units=units, activation=activation, use_bias=True, **config)


def initializer() -> Tree:
    return {"class_name": "GlorotUniform", "config": {"seed": None}}


def sequential(*layers: Tree, name: str = "sequential") -> Tree:
    return {"class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def functional(shape: Sequence[int | None], *layers: Tree, name: str = "model_1") -> Tree:
    """Layers one behind the other."""
    given = {"batch_input_shape": [None, *shape], "dtype": "float32", "sparse": False, "ragged": False}
    start = {"class_name": "InputLayer", "config": given | {"name": "input_1"}}
    rows, before = [start | {"name": "input_1", "inbound_nodes": []}], "input_1"
    for each in layers:
        own = each["config"]["name"]
        rows.append(each | {"name": own, "inbound_nodes": [[[before, 0, 0, {}]]]})
        before = own
    config = {"name": name, "trainable": True, "layers": rows}
    ends = {"input_layers": [["input_1", 0, 0]], "output_layers": [[before, 0, 0]]}
    return {"class_name": "Functional", "config": config | ends}


def write_json(path: Path, tree: Tree) -> Path:
    path.write_text(json.dumps(tree | {"keras_version": "2.15.0", "backend": "tensorflow"}), encoding="utf-8")
    return path


def write_weights(path: Path, layers: dict[str, Arrays], description: Tree | None = None) -> Path:
    """`layers`: name -> the arrays by `layer/kernel:0`, in order; with a description the whole model's file."""
    with h5py.File(path, "w") as file:
        group = file
        if description is not None:
            file.attrs["model_config"] = json.dumps(description)
            group = file.create_group("model_weights")
        group.attrs["layer_names"] = list(layers)
        group.attrs["backend"], group.attrs["keras_version"] = "tensorflow", "2.15.0"
        for name, arrays in {**layers, "top_level_model_weights": {}}.items():
            inside = group.create_group(name)
            inside.attrs["weight_names"] = list(arrays)
            for weight, array in arrays.items():
                inside.create_dataset(weight, data=array)
    return path


@dataclass(frozen=True)
class Udacity:
    """A model as the Udacity project leaves it, but small: a frozen network inside, flattened, dense layers."""

    tree: Tree
    layers: dict[str, Arrays]
    says: Callable[[Any], Any]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """my_model.json, and its weights."""
        weights = write_weights(folder / "xray_class_my_model.best.hdf5", self.layers)
        return write_json(folder / "my_model.json", self.tree), weights


def noise(side: int, channels: int = 3, count: int = 5) -> Any:
    return np.random.default_rng(0).random((count, side, side, channels)).astype("f4")


def raw(card: Card, batch: Any) -> Any:
    """What a written folder says, by the way that a node takes: (n, labels)."""
    findings = Classifier.load(card.folder).predict(batch)
    return np.array([[finding.raw for finding in found] for found in findings])
