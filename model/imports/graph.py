"""A frozen TensorFlow graph: which operations it may have, and how it becomes a function. Architecture `graph`.

A graph is a program: TensorFlow has operations that read and write files, call Python, open connections. What may stand
in one here is arithmetic on arrays and nothing else; that is checked when a model is imported and at each load.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from model.errors import BadModel
from model.imports.built import MOST_WEIGHTS
from model.network import keras

PICTURE, SCORES = "picture", "scores"
"""The names of a frozen graph's input and output."""
LARGEST_GRAPH = 2_000_000_000
"""Bytes; protobuf reads no more than 2 GiB."""

_ARITHMETIC = """
Abs Add AddN AddV2 ArgMax AvgPool BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchToSpaceND BiasAdd
BroadcastArgs BroadcastTo Cast ClipByValue Concat ConcatV2 Const Conv2D Conv2DBackpropInput DepthToSpace
DepthwiseConv2dNative Div DivNoNan Einsum Elu EnsureShape Equal Erf Exp ExpandDims Expm1 Fill Floor
FloorDiv FloorMod FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 GatherV2 Greater GreaterEqual
Identity IdentityN LRN LeakyRelu Less LessEqual Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr
MatMul Max MaxPool MaxPoolV2 Maximum Mean Min Minimum MirrorPad Mul Neg NoOp NotEqual OnesLike Pack Pad
PadV2 Placeholder Pow PreventGradient Prod Range Rank RealDiv Reciprocal Relu Relu6 Reshape
ResizeBilinear ResizeNearestNeighbor Round Rsqrt Select SelectV2 Selu Shape ShapeN Sigmoid Sign Size
Slice Softmax Softplus Softsign SpaceToBatchND SpaceToDepth Split SplitV Sqrt Square SquaredDifference
Squeeze StopGradient StridedSlice Sub Sum Tanh Tile Transpose Unpack ZerosLike
"""
OPERATIONS = frozenset(_ARITHMETIC.split())
FLOAT = 1
"""DataType of TensorFlow, as are these."""
LARGE = 1024
"""Numbers from which on a constant is a weight."""
_NUMBERS = (1, 2, 3, 4, 5, 6, 9, 10, 14, 17, 19, 22, 23)
"""Floats and whole numbers of all widths, bool; no text, no handle, no variant."""


class Graph:
    """A frozen graph as a function of a batch, with the faces of a Keras model that are used here."""

    def __init__(self, light: Any, weights: dict[str, Any]) -> None:
        """`light`: the graph without its large constants; `weights`: these, as variables, by name."""
        self._light, self._weights = light, weights
        self._traced: Any = None

    def __call__(self, batch: Any, training: bool = False) -> Any:
        """Called where TensorFlow builds a graph."""
        import tensorflow

        given = {f"{name}:0": variable.read_value() for name, variable in self._weights.items()}
        (scores,) = tensorflow.graph_util.import_graph_def(
            self._light, input_map={f"{PICTURE}:0": batch, **given}, return_elements=[f"{SCORES}:0"], name=""
        )
        return scores

    def predict_on_batch(self, batch: Any) -> Any:
        import tensorflow

        if self._traced is None:
            shape = tensorflow.TensorSpec((None, *batch.shape[1:]), tensorflow.float32)
            self._traced = tensorflow.function(self.__call__, input_signature=[shape], autograph=False)
        return self._traced(tensorflow.constant(batch)).numpy()


def load(path: Path) -> Graph:
    """Raises BadModel where the file is no frozen graph, or may do more than arithmetic."""
    keras()  # before TensorFlow, so that neither says hello
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef()
    try:
        if path.stat().st_size > LARGEST_GRAPH:
            raise BadModel(f"has more than {LARGEST_GRAPH} bytes")
        graph.ParseFromString(path.read_bytes())
    except OSError as error:
        raise BadModel(f"can't be read ({error.strerror or type(error).__name__})") from error
    except Exception as error:  # protobuf's DecodeError, whichever implementation it is
        raise BadModel("is no TensorFlow graph: damaged, or breaks off") from error
    return start(graph)


def start(graph: Any) -> Graph:
    """A frozen GraphDef, checked and ready. Raises BadModel."""
    import tensorflow

    if graph.library.function:
        raise BadModel("holds functions: it is no frozen graph")
    check(graph.node, OPERATIONS)
    names = {node.name: node.op for node in graph.node}
    if (
        names.get(PICTURE) != "Placeholder"
        or SCORES not in names
        or list(names.values()).count("Placeholder") != 1
    ):
        raise BadModel(f"must have one input, {PICTURE!r}, and the output {SCORES!r}")
    loaded = Graph(*_lightened(graph))
    sides = [
        side.size for node in graph.node if node.name == PICTURE for side in node.attr["shape"].shape.dim
    ]
    shape = [None if side < 0 else side for side in sides]
    given = tensorflow.TensorSpec(shape, tensorflow.float32)
    try:
        tensorflow.function(loaded, autograph=False).get_concrete_function(given)
    except (ValueError, TypeError, KeyError, tensorflow.errors.OpError) as error:
        raise BadModel("its operations don't fit together") from error
    return loaded


def _lightened(graph: Any) -> tuple[Any, dict[str, Any]]:
    """Large constants taken out as variables: TensorFlow copies a graph a dozen times before it runs.

    They and the picture are left out of the graph altogether, as what is handed in takes their places.
    """
    import tensorflow
    from tensorflow.core.framework import graph_pb2

    light = graph_pb2.GraphDef(versions=graph.versions)
    weights = {}
    for node in graph.node:
        tensor = node.attr["value"].tensor if node.op == "Const" else None
        if tensor is not None and tensor.dtype == FLOAT and _size(tensor) > LARGE:
            weights[node.name] = tensorflow.Variable(tensorflow.make_ndarray(tensor), trainable=False)
        elif node.name != PICTURE:
            light.node.add().CopyFrom(node)
    return light, weights


def _size(tensor: Any) -> int:
    return math.prod(side.size for side in tensor.tensor_shape.dim)


def check(nodes: Iterable[Any], allowed: frozenset[str]) -> None:
    """Raises BadModel for the first operation that is not allowed, and for numbers beyond all memory."""
    total = 0
    for node in nodes:
        if node.op not in allowed:
            raise refused(node)
        if node.op == "Const":
            tensor = node.attr["value"].tensor
            if tensor.dtype not in _NUMBERS:
                raise BadModel(f"{node.name!r} holds something else than numbers: such a graph is not run")
            total += _size(tensor)
            if any(side.size < 0 for side in tensor.tensor_shape.dim) or total > MOST_WEIGHTS:
                raise BadModel(f"{node.name!r}: the graph holds more than {MOST_WEIGHTS} numbers")


def refused(node: Any) -> BadModel:
    if "Random" in node.op or "Rng" in node.op or "Multinomial" in node.op:
        return BadModel(
            f"{node.name!r} ({node.op}) draws random numbers: export the model without its augmentation and dropout"
        )
    if "Assign" in node.op:
        return BadModel(
            f"{node.name!r} ({node.op}) changes a variable while it predicts: export the model without its augmentation"
        )
    return BadModel(
        f"{node.name!r} is the operation {node.op}, which is not among the plain arithmetic that is run here"
    )
