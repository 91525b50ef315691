"""Convolutions of 3 x 3 with a quarter of their multiplications, in an OpenVINO network (Winograd's F(4 x 4, 3 x 3);
Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016).

A tile of 4 x 4 outputs is made of 6 x 6 inputs: 36 multiplications for each pair of channels instead of 144, between
two changes of basis whose cost does not grow with the number of pairs. OpenVINO does not do so by itself on the CPUs
that were measured; here it is written in its own operations. It is faster where there are many channels, and costs
memory: weights become four times as large. From where on it is worth that was measured (docs/performance.md).

The outputs are those of the convolution but for float32's rounding, some 1e-5 of the largest.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

TILE, PATCH = 4, 6
"""Outputs and inputs of a tile, a side."""
LEAST_IN, LEAST_OUT = 128, 256
"""Channels from which on it is faster."""
LEAST_TILES = 16
"""Of a picture; with fewer it was not measured."""
CPU_INFO = Path("/proc/cpuinfo")

INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
WEIGHTS = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
OUTPUT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
"""The three changes of basis along one axis; those of a tile are their Kronecker squares."""


def is_worth_it() -> bool:
    """Whether this CPU is of the kind for which it was measured: one without AVX-512."""
    try:
        return "avx512f" not in CPU_INFO.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False


def rewrite(network: Any, openvino: Any) -> int:
    """Replaces the convolutions of an `openvino.Model` for which it is faster; how many they were.

    `openvino`: the library, as `model.runtime.openvino.library` imports it.
    """
    found = [each for each in network.get_ordered_ops() if _fits(each)]
    for each in found:
        openvino.utils.replace_node(each, _rewritten(each, openvino.opset13))
    return len(found)


def _fits(node: Any) -> bool:
    """A convolution of 3 x 3 in float32 that keeps the picture's size, of constant weights, with enough to do."""
    if node.get_type_name() != "Convolution" or node.input_value(1).get_node().get_type_name() != "Constant":
        return False
    how, given, made = (
        node.get_attributes(),
        node.get_input_partial_shape(0),
        node.get_output_partial_shape(0),
    )
    plain = how["strides"] == how["dilations"] == how["pads_begin"] == how["pads_end"] == [1, 1]
    same = (
        given[2] == made[2]
        and given[3] == made[3]
        and node.get_output_element_type(0).get_type_name() == "f32"
    )
    outputs, inputs, *kernel = node.get_input_shape(1)
    if not plain or not same or kernel != [3, 3] or given[2].is_dynamic or given[3].is_dynamic:
        return False
    tiles = _tiles(given[2].get_length()) * _tiles(given[3].get_length())
    return bool(inputs >= LEAST_IN and outputs >= LEAST_OUT and tiles >= LEAST_TILES)


def _tiles(side: int) -> int:
    return -(-side // TILE)


def _rewritten(node: Any, ops: Any) -> Any:
    """(n, inputs, height, width) -> (n, outputs, height, width), as nodes; n stays free (0 in a shape: as it is)."""
    weights = np.asarray(node.input_value(1).get_node().data, np.float64)
    height, width = (node.get_input_partial_shape(0)[axis].get_length() for axis in (2, 3))
    outputs, inputs = weights.shape[:2]
    down, across = _tiles(height), _tiles(width)

    after = np.array([0, 0, TILE * down - height + 1, TILE * across - width + 1])
    padded = ops.pad(node.input_value(0), np.array([0, 0, 1, 1]), after, "constant", np.float32(0))
    patches = ops.extract_image_patches(padded, [PATCH, PATCH], [TILE, TILE], [1, 1], "VALID")
    told = _changed(ops, INPUT, patches, inputs * down * across)
    apart = ops.reshape(told, np.array([0, PATCH**2, inputs, down * across]), special_zero=True)
    multiplied = ops.matmul(ops.constant(_transformed(weights)[np.newaxis]), apart, False, False)
    tiles = _changed(ops, OUTPUT, multiplied, outputs * down * across)
    split = ops.reshape(tiles, np.array([0, TILE, TILE, outputs, down, across]), special_zero=True)
    ordered = ops.transpose(split, np.array([0, 3, 4, 1, 5, 2]))
    whole = ops.reshape(ordered, np.array([0, outputs, TILE * down, TILE * across]), special_zero=True)
    axes = np.array([2, 3])
    return ops.slice(whole, np.zeros(2, np.int64), np.array([height, width]), np.ones(2, np.int64), axes)


def _changed(ops: Any, basis: NDArray[Any], given: Any, length: int) -> Any:
    """The change of basis of tiles that lie behind one another; `length` numbers for each place in a tile."""
    square = np.kron(basis, basis).astype(np.float32)[np.newaxis]
    flat = ops.reshape(given, np.array([0, PATCH**2, length]), special_zero=True)
    return ops.matmul(ops.constant(square), flat, False, False)


def _transformed(weights: NDArray[np.float64]) -> Floats:
    """(outputs, inputs, 3, 3) -> (36, outputs, inputs)."""
    changed = np.einsum("ax,ocxy,by->aboc", WEIGHTS, weights, WEIGHTS, optimize=True)
    return changed.reshape(PATCH**2, *weights.shape[:2]).astype(np.float32)
