"""A TensorFlow SavedModel folder -> one frozen graph. TensorFlow's loader, which runs what a file says, is not used.

    saved_model.pb   read as protobuf; of it only what the serving signature reaches is looked at, and checked
    variables/       read by name and number (tf.train.load_checkpoint); no restore operation is run

Each variable becomes a constant, each function is put in its caller's place. assets/, initializers, the saver and
Keras's own metadata are never touched.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import BadModel
from model.imports.built import MOST_WEIGHTS
from model.imports.graph import FLOAT, LARGEST_GRAPH, OPERATIONS, PICTURE, SCORES, check
from model.network import keras

FILE, VARIABLES = "saved_model.pb", "variables"
SIGNATURES = ("serving_default", "serve")
CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
READABLE = OPERATIONS | CALLS | {"VarHandleOp", "ReadVariableOp", "VariableV2"}
"""What the serving signature may be made of; variables and calls are gone once it is frozen."""
RESOURCE = 20
"""DataType of TensorFlow."""


@dataclass(frozen=True)
class Frozen:
    """A graph from `picture` to `scores`."""

    graph: Any
    """A GraphDef, checked."""
    shape: tuple[int | None, ...]
    """Of the input: rows, columns, channels; None where any number is taken."""


def freeze(folder: Path, *, logits: bool = False) -> Frozen:
    """`logits`: a sigmoid is put behind the output. Raises BadModel."""
    keras()
    meta = _meta(folder)
    signature = next((meta.signature_def[name] for name in SIGNATURES if name in meta.signature_def), None)
    if signature is None or len(signature.inputs) != 1 or len(signature.outputs) != 1:
        raise BadModel("has no serving signature with one input and one output")
    (given,), (said,) = signature.inputs.values(), signature.outputs.values()
    shape = _shape(given)
    graph = _reachable(meta.graph_def, said.name.partition(":")[0])
    check(_nodes(graph), READABLE)
    values = _values(folder, meta, graph)
    _rename_functions(graph)
    _pass_by_value(graph, values)
    return Frozen(_flat(graph, values, given.name, said.name, logits), shape)


def _meta(folder: Path) -> Any:
    """The graph of the tag `serve`."""
    from tensorflow.core.protobuf import saved_model_pb2

    for path in (folder, *sorted(folder.rglob("*"))):
        if path.is_symlink():
            raise BadModel(f"{path.name!r} is a link: a SavedModel's files must lie in its folder")
    saved = saved_model_pb2.SavedModel()
    try:
        if (folder / FILE).stat().st_size > LARGEST_GRAPH:
            raise BadModel(f"{FILE} has more than {LARGEST_GRAPH} bytes")
        saved.ParseFromString((folder / FILE).read_bytes())
    except OSError as error:
        raise BadModel(f"{FILE} can't be read ({error.strerror or type(error).__name__})") from error
    except BadModel:
        raise
    except Exception as error:  # protobuf's DecodeError, whichever implementation it is
        raise BadModel(f"{FILE} is damaged or breaks off") from error
    served = [meta for meta in saved.meta_graphs if "serve" in meta.meta_info_def.tags]
    if len(served) != 1:
        raise BadModel(f"{FILE} has {len(served)} graphs with the tag 'serve'; one is wanted")
    return served[0]


def _shape(given: Any) -> tuple[int | None, ...]:
    sides = [side.size for side in given.tensor_shape.dim]
    if given.dtype != FLOAT or len(sides) != 4:
        raise BadModel(
            "its input is no batch of pictures in float32: (pictures, rows, columns, channels) is wanted"
        )
    if sides[0] != -1:
        raise BadModel(f"takes batches of {sides[0]} only: export it with a free first dimension")
    return tuple(None if side < 0 else side for side in sides[1:])


def _reachable(whole: Any, output: str) -> Any:
    """A copy of the graph with nothing but what `output` needs, and the functions that are called there."""
    from tensorflow.core.framework import graph_pb2

    by_name = {node.name: node for node in whole.node}
    functions = {function.signature.name: function for function in whole.library.function}
    kept, waiting = {}, [output]
    while waiting:
        name = waiting.pop().lstrip("^").partition(":")[0]
        if name in kept:
            continue
        if name not in by_name:
            raise BadModel(f"its graph names {name!r}, which is not there")
        kept[name] = by_name[name]
        waiting += by_name[name].input
    graph = graph_pb2.GraphDef(versions=whole.versions)
    graph.node.extend(node for node in whole.node if node.name in kept)
    called: dict[str, Any] = {}
    waiting = [name for node in graph.node for name in _called(node)]
    while waiting:
        name = waiting.pop()
        if name in called:
            continue
        if name not in functions:
            raise BadModel(f"its graph calls {name!r}, which is not there")
        called[name] = functions[name]
        waiting += [inner for node in functions[name].node_def for inner in _called(node)]
    graph.library.function.extend(called.values())
    return graph


def _rename_functions(graph: Any) -> None:
    """TensorFlow knows functions by name in the whole process, where others may have the same."""
    own = hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()[:16]
    for function in graph.library.function:
        function.signature.name = f"imported_{own}_{function.signature.name}"
    for node in _nodes(graph):
        for value in node.attr.values():
            if value.HasField("func"):
                value.func.name = f"imported_{own}_{value.func.name}"


def _called(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (each.name for each in value.list.func)


def _nodes(graph: Any) -> Iterator[Any]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _values(folder: Path, meta: Any, graph: Any) -> dict[str, Any]:
    """The numbers of each variable node of the graph."""
    import tensorflow

    nodes = [node.name for node in graph.node if node.op in ("VarHandleOp", "VariableV2")]
    if not nodes:
        return {}
    try:
        reader = tensorflow.train.load_checkpoint(str(folder / VARIABLES / "variables"))
        shapes = reader.get_variable_to_shape_map()
        keys = _keys(meta, graph, reader)
        missing = [name for name in nodes if keys.get(name, name) not in shapes]
        if missing:
            raise BadModel(f"the variable {missing[0]!r} is not in {VARIABLES}/")
        numbers = 0
        for name in nodes:
            sides = shapes[keys.get(name, name)]
            numbers += tensorflow.TensorShape(sides).num_elements() or 0
        if numbers > MOST_WEIGHTS:
            raise BadModel(f"has more than {MOST_WEIGHTS} weights")
        return {name: reader.get_tensor(keys.get(name, name)) for name in nodes}
    except (tensorflow.errors.OpError, ValueError, RuntimeError) as error:
        raise BadModel(f"{VARIABLES}/ is missing, damaged or breaks off") from error


def _keys(meta: Any, graph: Any, reader: Any) -> dict[str, str]:
    """Variable node -> its name in the checkpoint.

    A function's captured variables stand, in their order, in the object graph, whose objects are known to the
    checkpoint by the path from the root. TensorFlow 1 knew a variable by its node's name.
    """
    from tensorflow.core.protobuf import trackable_object_graph_pb2 as tracked

    if not reader.has_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"):
        return {}
    saved = tracked.TrackableObjectGraph()
    saved.ParseFromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    objects = meta.object_graph_def
    place, waiting = {0: 0}, [0]
    while waiting:
        number = waiting.pop()
        there = {child.local_name: child.node_id for child in saved.nodes[place[number]].children}
        for child in objects.nodes[number].children:
            if child.node_id not in place and child.local_name in there:
                place[child.node_id] = there[child.local_name]
                waiting.append(child.node_id)
    found = {}
    for node in graph.node:
        if node.op not in CALLS or node.attr["f"].func.name not in objects.concrete_functions:
            continue
        bound = objects.concrete_functions[node.attr["f"].func.name].bound_inputs
        inputs = [name for name in node.input if not name.startswith("^")]
        for name, number in zip(inputs[len(inputs) - len(bound) :], bound, strict=True):
            attributes = saved.nodes[place[number]].attributes if number in place else []
            if attributes:
                found[name.partition(":")[0]] = attributes[0].checkpoint_key
    return found


def _pass_by_value(graph: Any, values: dict[str, Any]) -> None:
    """Variables become inputs of the graph; what took a variable's handle takes its numbers, call by call."""
    import tensorflow

    types: dict[str, int] = {}
    for node in graph.node:
        if node.op in ("VarHandleOp", "VariableV2"):
            types[node.name] = tensorflow.as_dtype(values[node.name].dtype).as_datatype_enum
            node.op = "Placeholder"
            node.ClearField("attr")
            node.attr["dtype"].type = types[node.name]
            node.attr["shape"].shape.CopyFrom(tensorflow.TensorShape(values[node.name].shape).as_proto())
    functions = {function.signature.name: function for function in graph.library.function}
    done: dict[str, list[int]] = {}

    def through(nodes: Any, kinds: dict[str, int]) -> set[str]:
        """`kinds`: DataType of what were variables, by name. The names of what were reads."""
        reads = set()
        for node in nodes:
            inputs = [name.partition(":")[0] for name in node.input if not name.startswith("^")]
            if node.op == "ReadVariableOp":
                _known(inputs[0], kinds)
                node.op = "Identity"
                node.attr["T"].type = kinds[inputs[0]]
                del node.attr["dtype"]
                reads.add(node.name)
            elif node.op in CALLS:
                taken = list(node.attr["Tin"].list.type)
                for n, kind in enumerate(taken):
                    if kind == RESOURCE:
                        _known(inputs[n], kinds)
                        taken[n] = kinds[inputs[n]]
                node.attr["Tin"].list.ClearField("type")
                node.attr["Tin"].list.type.extend(taken)
                inside(node.attr["f"].func.name, taken)
        return reads

    def inside(name: str, taken: list[int]) -> None:
        if name in done:
            if done[name] != taken:
                raise BadModel(f"{name!r} is called with variables of several types")
            return
        done[name] = taken
        function = functions[name]
        kinds = {}
        for argument, kind in zip(function.signature.input_arg, taken, strict=True):
            if argument.type == RESOURCE:
                argument.type = kind
                argument.ClearField("handle_data")
                kinds[argument.name] = kind
        function.ClearField("resource_arg_unique_id")
        function.ClearField("arg_attr")
        reads = through(function.node_def, kinds)

        def renamed(source: str) -> str:
            node, _, rest = source.partition(":")
            return f"{node}:output:0" if node in reads and rest else source

        for node in function.node_def:
            node.input[:] = [renamed(source) for source in node.input]
        for key in function.ret:
            function.ret[key] = renamed(function.ret[key])

    through(graph.node, types)


def _known(name: str, kinds: dict[str, int]) -> None:
    if name not in kinds:
        raise BadModel(f"{name!r} is read as a variable and is none")


def _flat(graph: Any, values: dict[str, Any], given: str, said: str, logits: bool) -> Any:
    """Calls replaced by what is called, variables by constants; input and output under their names here.

    Nothing is run. Constants come last, since TensorFlow copies what it rewrites several times.
    """
    import tensorflow
    from tensorflow.core.framework import graph_pb2
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    try:
        wrapped = tensorflow.compat.v1.wrap_function(
            lambda: tensorflow.graph_util.import_graph_def(graph, name=""), []
        )
        pruned = wrapped.prune([given, *(f"{name}:0" for name in values)], [said])
        function = convert_variables_to_constants_v2(pruned, lower_control_flow=False)
    except (ValueError, TypeError, KeyError, tensorflow.errors.OpError) as error:
        raise BadModel("its operations don't fit together") from error
    inlined = function.graph.as_graph_def()
    old, *variables = [tensor.name.partition(":")[0] for tensor in function.inputs]
    arrays = dict(zip(variables, values.values(), strict=True))
    flat = graph_pb2.GraphDef(versions=inlined.versions)
    for node in inlined.node:
        copied = flat.node.add()
        copied.CopyFrom(node)
        copied.name = _renamed(node.name, old)
        # what only says "not before": nothing here changes anything else
        copied.input[:] = [_renamed(name, old) for name in node.input if not name.startswith("^")]
        copied.ClearField("device")
        if node.name in arrays:
            _make_constant(copied, arrays[node.name])
    end = flat.node.add(name=SCORES, op="Sigmoid" if logits else "Identity")
    end.input.append(_renamed(function.outputs[0].name, old))
    end.attr["T"].type = FLOAT
    check(flat.node, OPERATIONS)
    return flat


def _make_constant(node: Any, array: Any) -> None:
    import tensorflow

    tensor = tensorflow.make_tensor_proto(array)
    node.op = "Const"
    node.ClearField("attr")
    node.attr["dtype"].type = tensor.dtype
    node.attr["value"].tensor.CopyFrom(tensor)


def _renamed(name: str, picture: str) -> str:
    """The input is called PICTURE; what else is called so, or SCORES, gets out of the way."""
    node, colon, rest = name.partition(":")
    if node == picture:
        node = PICTURE
    elif node in (PICTURE, SCORES):
        node = f"imported_{node}"
    return f"{node}{colon}{rest}"
