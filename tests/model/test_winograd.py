"""Convolutions with fewer multiplications say what the convolutions said, and others are left alone."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.runtime import openvino, winograd

pytest.importorskip("openvino", reason="the extra openvino is not installed")

NEAR = 1e-4
"""Of the largest output: float32's rounding, made some times larger by the changes of basis."""


@pytest.fixture(scope="module")
def library() -> Any:
    return openvino.library()


@pytest.fixture(scope="module")
def core() -> Any:
    return openvino.core()


def network(
    library: Any, weights: np.ndarray, height: int, width: int, *, strides: int = 1, pads: int = 1, **how: Any
) -> Any:
    """One convolution of a free number of pictures."""
    ops = library.opset13
    given = ops.parameter([-1, weights.shape[1], height, width], weights.dtype)
    constant = ops.constant(weights)
    kernel = ops.abs(constant) if how.get("computed") else constant
    made = ops.convolution(
        given,
        kernel,
        [strides] * 2,
        [pads] * 2,
        [pads] * 2,
        [how.get("dilations", 1)] * 2,
        how.get("auto_pad", "explicit"),
    )
    return library.Model([made], [given])


def weights_of(outputs: int, inputs: int, kernel: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (outputs, inputs, kernel, kernel)).astype(np.float32)


def said(core: Any, made: Any, batch: np.ndarray) -> np.ndarray:
    compiled = core.compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled([batch])[0])


@settings(max_examples=25, deadline=None)
@given(
    outputs=st.integers(1, 9),
    inputs=st.integers(1, 9),
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    pictures=st.integers(1, 3),
)
def test_it_says_what_the_convolution_says_for_any_size(
    library: Any, core: Any, outputs: int, inputs: int, height: int, width: int, pictures: int
) -> None:
    weights = weights_of(outputs, inputs)
    batch = np.random.default_rng(1).uniform(-150, 150, (pictures, inputs, height, width)).astype(np.float32)
    fewer = network(library, weights, height, width)
    with pytest.MonkeyPatch.context() as patch:
        for least in ("LEAST_IN", "LEAST_OUT", "LEAST_TILES"):
            patch.setattr(winograd, least, 1)
        assert winograd.rewrite(fewer, library) == 1

    right = said(core, network(library, weights, height, width), batch)
    found = said(core, fewer, batch)

    assert found.shape == right.shape
    assert np.abs(found - right).max() <= NEAR * np.abs(right).max()


def test_what_is_large_enough_is_rewritten_and_no_convolution_remains(library: Any) -> None:
    made = network(library, weights_of(256, 128), 13, 13)
    assert winograd.rewrite(made, library) == 1
    assert "Convolution" not in {node.get_type_name() for node in made.get_ordered_ops()}


@pytest.mark.parametrize(
    ("weights", "sides", "how"),
    [
        (weights_of(256, 127), (16, 16), {}),
        (weights_of(255, 128), (16, 16), {}),
        (weights_of(256, 128), (12, 16), {}),
        (weights_of(256, 128, kernel=5), (16, 16), {"pads": 2}),
        (weights_of(256, 128), (16, 16), {"strides": 2}),
        (weights_of(256, 128), (18, 18), {"pads": 0}),
        (weights_of(256, 128), (16, 16), {"dilations": 2}),
        (weights_of(256, 128), (16, 16), {"computed": True}),
        (weights_of(256, 128), (16, 16), {"auto_pad": "valid"}),
        (weights_of(256, 128).astype(np.float64), (16, 16), {}),
        (weights_of(256, 128), (-1, 16), {}),
    ],
    ids=[
        "inputs",
        "outputs",
        "tiles",
        "kernel",
        "strides",
        "edges",
        "dilations",
        "weights",
        "no edges by name",
        "float64",
        "free side",
    ],
)
def test_any_other_convolution_is_left_alone(
    library: Any, weights: np.ndarray, sides: tuple[int, int], how: dict[str, Any]
) -> None:
    made = network(library, weights, *sides, **how)
    assert winograd.rewrite(made, library) == 0
    assert "Convolution" in {node.get_type_name() for node in made.get_ordered_ops()}
