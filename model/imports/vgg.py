"""Is an imported network VGG16 with a head that Hilum builds itself? Then it is kept as such, and marks can be drawn.

The Udacity project's is: VGG16 up to block5_pool, flattened, dense layers, one sigmoid.
"""

from typing import Any

from model.card import DEEPEST, WIDEST
from model.network import CONVOLUTIONS, HEAD, LAYERS, Weights, width_of
from model.npz import LARGEST_FILE

POOL = LAYERS[-1]


def recognized(model: Any) -> tuple[Weights, tuple[int, ...]] | None:
    """The weights under our names and the hidden layers' units; None where it is anything else.

    `model`: a flat Keras model, as `built.Built` makes it.
    """
    layers = _chain(model)
    below, above = layers[: len(LAYERS)], layers[len(LAYERS) :]
    if len(below) < len(LAYERS) or len(above) < 2 or type(above[0]).__name__ != "Flatten":
        return None
    if not all(_fits(layer, name) for layer, name in zip(below, LAYERS, strict=True)):
        return None
    dense = above[1:]
    activations = ["relu"] * (len(dense) - 1) + ["sigmoid"]
    if [_dense(layer) for layer in dense] != activations or len(dense) > DEEPEST + 1:
        return None
    hidden = tuple(layer.units for layer in dense[:-1])
    names = [*CONVOLUTIONS, *(f"hidden{n}" for n in range(1, len(dense))), HEAD]
    filled = [layer for layer in layers if layer.weights]
    weights = {
        f"{name}/{part}": array
        for name, layer in zip(names, filled, strict=True)
        for part, array in zip(("kernel", "bias"), layer.get_weights(), strict=True)
    }
    too_large = sum(array.nbytes for array in weights.values()) > LARGEST_FILE - 100_000
    return None if too_large or max(hidden, default=0) > WIDEST else (weights, hidden)


def _chain(model: Any) -> list[Any]:
    """The layers one behind the other, without the input; empty where they branch."""
    layers = list(model.layers[1:])
    if any(len(layer._inbound_nodes) != 1 or isinstance(layer.input, list) for layer in layers):
        return []
    tensors = [model.inputs[0], *(layer.output for layer in layers)]
    inline = all(layer.input is before for layer, before in zip(layers, tensors[:-1], strict=True))
    return layers if inline and tensors[-1] is model.outputs[0] else []


def _fits(layer: Any, name: str) -> bool:
    kind = type(layer).__name__
    if name not in CONVOLUTIONS:
        return bool(
            kind == "MaxPooling2D"
            and layer.pool_size == (2, 2)
            and layer.strides == (2, 2)
            and layer.padding == "valid"
        )
    return bool(
        kind == "Conv2D"
        and layer.filters == width_of(f"{name[:6]}_pool")
        and (layer.kernel_size, layer.strides, layer.dilation_rate) == ((3, 3), (1, 1), (1, 1))
        and (layer.padding, layer.groups, layer.use_bias) == ("same", 1, True)
        and layer.activation.__name__ == "relu"
    )


def _dense(layer: Any) -> str:
    """A dense layer's activation; empty for anything else."""
    return str(layer.activation.__name__) if type(layer).__name__ == "Dense" and layer.use_bias else ""
