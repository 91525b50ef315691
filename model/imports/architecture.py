"""A model's description in JSON, as Keras 2 and Keras 3 write it, read into layers of the table in `layers`.

    {"class_name": "Sequential", "config": {"layers": [...]}}      one behind the other
    {"class_name": "Functional", "config": {"layers": [...]}}      each says whose outputs it takes

Each may hold the other as a layer. What the file says of modules and registered names is only read to refuse what is
not Keras's own; compilation (losses, metrics, optimizer) is not read at all.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from model.errors import BadModel
from model.imports.layers import LAYERS, PASSED_OVER, checked, refused

Tree = dict[str, Any]
Key = tuple[str, int]
"""A layer's name, and which of its calls."""

LARGEST_JSON = 50_000_000
"""Bytes; a ResNet152's description has 0.4 MB."""
MOST_LAYERS = 10_000
DEEPEST = 8
"""Models inside models."""
NETWORKS = ("Sequential", "Functional", "Model")
_OF_KERAS = re.compile(r"(tensorflow\.(python\.)?)?(tf_)?keras(\.\w+)*")


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer, checked; each is equal to itself only."""

    kind: str
    """Key of `layers.LAYERS`, or one of `layers.PASSED_OVER`."""
    name: str
    options: Tree
    frozen: bool
    """It was not trained: old weights files put such layers last."""


@dataclass(frozen=True, eq=False)
class Network:
    """A model, or a model inside one."""

    kind: str
    name: str
    parts: "tuple[Layer | Network, ...]"
    """In the file's order, by which weights files go; a Sequential's without its InputLayer."""
    calls: "tuple[Call, ...]"
    input: Key
    output: Key
    shape: tuple[int | None, ...]
    """Of the input: rows, columns, channels; empty where the file does not say."""
    frozen: bool


@dataclass(frozen=True)
class Call:
    """A layer taking outputs of others."""

    of: Layer | Network
    key: Key
    inputs: tuple[Key, ...]


def parse(text: str | bytes) -> Network:
    """The model of a JSON text; raises BadModel."""
    if len(text) > LARGEST_JSON:
        raise BadModel(f"the model's description has more than {LARGEST_JSON} bytes")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadModel("is no JSON text, or breaks off") from error
    if not isinstance(tree, dict) or tree.get("class_name") not in NETWORKS:
        kind = tree.get("class_name") if isinstance(tree, dict) else None
        raise BadModel(
            f"is a {kind}, no Sequential or Functional model: export it by `model.export(folder)`, import that folder"
            if isinstance(kind, str)
            else "is no model's description: Keras writes one by `model.to_json()`"
        )
    return _network(tree, "model", 0)


def _network(tree: Tree, name: str, depth: int) -> Network:
    if depth > DEEPEST:
        raise BadModel(f"has models inside models, more than {DEEPEST} deep")
    _check_origin(tree, name)
    kind, config = tree["class_name"], tree.get("config")
    rows = config.get("layers") if isinstance(config, dict) else config  # a bare list before Keras 2.2.3
    if not isinstance(rows, list) or not rows or len(rows) > MOST_LAYERS:
        raise BadModel(f"model {name!r}: has no list of layers")
    about = config if isinstance(config, dict) else {}
    if kind == "Sequential":
        return _chain(name, rows, about, depth)
    return _graph(name, rows, about, depth)


def _chain(name: str, rows: list[Any], about: Tree, depth: int) -> Network:
    parts = [_part(row, n, depth) for n, row in enumerate(rows)]
    start: Key = (" input", 0)
    calls, last = [], start
    for part in parts:
        if part.kind != "InputLayer":
            calls.append(Call(part, (part.name, 0), (last,)))
            last = (part.name, 0)
    if len({call.key for call in calls}) != len(calls):
        raise BadModel(f"model {name!r}: two layers have the same name")
    inside = parts[0].shape if isinstance(parts[0], Network) else ()
    said = _said_shape(rows[0]) or inside or _picture_of(about.get("build_input_shape"))
    kept = tuple(part for part in parts if part.kind != "InputLayer")
    return Network("Sequential", _name_of(about, name), kept, tuple(calls), start, last, said, _frozen(about))


def _graph(name: str, rows: list[Any], about: Tree, depth: int) -> Network:
    parts = [_part(row, n, depth) for n, row in enumerate(rows)]
    if len({part.name for part in parts}) != len(parts):
        raise BadModel(f"model {name!r}: two layers have the same name")
    taken = {part.name: _inputs(row, part.name) for row, part in zip(rows, parts, strict=True)}
    inputs, outputs = _keys(about.get("input_layers")), _keys(about.get("output_layers"))
    if len(inputs) != 1 or len(outputs) != 1:
        raise BadModel(
            f"model {name!r}: has {len(inputs)} inputs and {len(outputs)} outputs; one each is wanted"
        )
    said = [key for calls in taken.values() for keys in calls for key in keys] + outputs
    calls = []
    for part in parts:
        # a model inside a model was called once when it was made: most versions of Keras count from 1 then
        first = min((number for other, number in said if other == part.name), default=0)
        first = min(first, 1) if isinstance(part, Network) else 0
        calls += [Call(part, (part.name, first + n), keys) for n, keys in enumerate(taken[part.name])]
    about_input = [row for row, part in zip(rows, parts, strict=True) if part.name == inputs[0][0]]
    shape = _said_shape(about_input[0]) if about_input else ()
    return Network(
        "Functional",
        _name_of(about, name),
        tuple(parts),
        tuple(calls),
        inputs[0],
        outputs[0],
        shape,
        _frozen(about),
    )


def _part(row: Any, number: int, depth: int) -> Layer | Network:
    if not isinstance(row, dict) or not isinstance(row.get("config"), dict | list):
        raise BadModel(f"layer {number + 1} is no layer's description")
    config = row["config"]
    name = (
        row.get("name") or (config.get("name") if isinstance(config, dict) else None) or f"layer{number + 1}"
    )
    kind = row.get("class_name")
    if not isinstance(name, str) or not isinstance(kind, str) or len(name) > 200:
        raise BadModel(f"layer {number + 1} is no layer's description")
    if kind in NETWORKS:
        inner = _network(row, name, depth + 1)
        return Network(
            inner.kind, name, inner.parts, inner.calls, inner.input, inner.output, inner.shape, inner.frozen
        )
    if (kind not in LAYERS and kind not in PASSED_OVER) or not isinstance(config, dict):
        raise refused(kind, name)
    _check_origin(row, name)
    return Layer(kind, name, checked(kind, name, config), _frozen(config))


def _check_origin(row: Tree, name: str) -> None:
    """A class of somebody's own may have the name of one of Keras's and do something else."""
    module, registered = row.get("module"), row.get("registered_name")
    if module is not None and not (isinstance(module, str) and _OF_KERAS.fullmatch(module)):
        raise BadModel(f"layer {name!r} is of the module {str(module)[:80]!r}, not one of Keras's own layers")
    if registered not in (None, row.get("class_name")):
        raise BadModel(
            f"layer {name!r} is registered as {str(registered)[:80]!r}, not one of Keras's own layers"
        )


def _inputs(row: Tree, name: str) -> list[tuple[Key, ...]]:
    """For each call of the layer, whose outputs it takes."""
    calls = row.get("inbound_nodes", [])
    if not isinstance(calls, list) or not all(isinstance(call, dict | list) for call in calls):
        raise BadModel(f"layer {name!r}: inbound_nodes can't be read")
    return [_taken(call, row, name) for call in calls] or [()]


def _taken(call: Any, row: Tree, name: str) -> tuple[Key, ...]:
    if isinstance(call, dict):  # Keras 3
        _check_told(call.get("kwargs"), row, name)
        given = call.get("args")
        tensors = (
            given[0] if isinstance(given, list) and len(given) == 1 and isinstance(given[0], list) else given
        )
        return tuple(_tensor(each, name) for each in (tensors if isinstance(tensors, list) else [None]))
    taken: list[Key] = []
    for each in call:  # Keras 2
        if not isinstance(each, list) or len(each) not in (3, 4):
            raise BadModel(f"layer {name!r}: inbound_nodes can't be read")
        taken += _keys(each[:3])
        _check_told(each[3] if len(each) == 4 else None, row, name)
    return tuple(taken)


def _tensor(value: Any, name: str) -> Key:
    config = value.get("config") if isinstance(value, dict) else None
    if isinstance(config, dict) and value.get("class_name") == "__keras_tensor__":
        keys = _keys(config.get("keras_history"))
        if len(keys) == 1:
            return keys[0]
    raise BadModel(f"layer {name!r}: takes something else than other layers' outputs")


def _check_told(told: Any, row: Tree, name: str) -> None:
    """What a layer is told when called: nothing, but that it is not in training."""
    if not isinstance(told, dict | None):
        raise BadModel(f"layer {name!r}: inbound_nodes can't be read")
    for key, value in (told or {}).items():
        passed_over = row["class_name"].startswith("Random")  # Keras 3 writes `training: true` for these
        if value is None or (key == "training" and (not value or passed_over)):
            continue
        if key == "training":
            raise BadModel(
                f"layer {name!r} is told to behave as in training: scores would change from one time to the next"
            )
        raise BadModel(f"layer {name!r}: is called with {key!r}, which this version does not know")


def _keys(value: Any) -> list[Key]:
    """`["dense", 0, 0]` or `[["dense", 0, 0]]`: layer, call, output (always the first)."""
    if not isinstance(value, list):
        return []
    if len(value) == 3 and isinstance(value[0], str):
        value = [value]
    found = []
    for each in value:
        if not (isinstance(each, list) and len(each) >= 3 and isinstance(each[0], str)):
            raise BadModel("a layer's inputs or outputs can't be read")
        if type(each[1]) is not int or each[2] != 0:
            raise BadModel(f"layer {each[0]!r}: a layer with several outputs can't be imported")
        found.append((each[0], each[1]))
    return found


def _said_shape(row: Tree) -> tuple[int | None, ...]:
    config = row["config"] if isinstance(row["config"], dict) else {}
    return _picture_of(config.get("batch_input_shape") or config.get("batch_shape"))


def _picture_of(shape: Any) -> tuple[int | None, ...]:
    """[None, rows, columns, channels] -> rows, columns, channels."""
    if not isinstance(shape, list) or not all(side is None or type(side) is int for side in shape):
        return ()
    return tuple(shape[1:])


def _name_of(about: Tree, name: str) -> str:
    said = about.get("name")
    return said if isinstance(said, str) and said else name


def _frozen(config: Tree) -> bool:
    return config.get("trainable") is False
