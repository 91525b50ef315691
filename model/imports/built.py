"""A checked description -> a Keras model: each layer made by its class in Keras with arguments that `layers` checked.

What comes out has no models inside, no dropout and no augmentation: it only predicts.
"""

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import BadModel
from model.imports.architecture import Layer, Network
from model.imports.layers import PASSED_OVER
from model.network import keras

MOST_WEIGHTS = 400_000_000
"""Numbers in a network: 1.6 GB. VGG16 with its own head has 138 million."""
MOST_VALUES = 100_000_000
"""Numbers that one layer may make of one picture; VGG16's first makes 67 million of 1024 x 1024 pixels."""


class Built:
    """A Keras model, and which of its layers came from which of the file."""

    def __init__(self, network: Network, size: int, channels: int, *, logits: bool = False) -> None:
        """`logits`: a sigmoid is put behind the output. Raises BadModel naming the layer that can't be built."""
        self._layers: dict[Layer, Any] = {}
        self._names: set[str] = set()
        self._weights = 0
        picture = keras().Input((size, size, channels), name="picture")
        scores = self._through(network, picture)
        if logits:
            scores = keras().layers.Activation("sigmoid", name=self._name("scores"))(scores)
        if len(scores.shape) != 2 or not scores.shape[1]:
            raise BadModel(
                f"says an array of the shape {tuple(scores.shape)} for pictures; (pictures, labels) is wanted"
            )
        self.model = keras().Model(picture, scores, name="imported")
        self.network = network

    def variables(self, layer: Layer) -> list[Any]:
        """Keras's variables of a layer in the file's order; none for a layer that is passed over."""
        return list(self._layers[layer].weights) if layer in self._layers else []

    def trained(self, layer: Layer) -> list[Any]:
        """Those of them that training changes."""
        return list(self._layers[layer].trainable_variables) if layer in self._layers else []

    def fill(self, layer: Layer, arrays: list[NDArray[Any]]) -> None:
        """Raises BadModel where number or shapes of the arrays are not the layer's, or a number is not finite."""
        wanted = self.variables(layer)
        if len(arrays) != len(wanted):
            raise BadModel(
                f"weights: layer {layer.name!r} ({layer.kind}) has {len(wanted)} arrays, the file {len(arrays)}"
            )
        for variable, array in zip(wanted, arrays, strict=True):
            if tuple(variable.shape) != array.shape:
                raise BadModel(
                    f"weights: layer {layer.name!r} ({layer.kind}) needs {variable.name} of the shape "
                    f"{tuple(variable.shape)}, the file has {array.shape}: the weights are of another architecture"
                )
            if not np.isfinite(array).all():
                raise BadModel(
                    f"weights: {variable.name} of layer {layer.name!r} holds numbers that are not finite"
                )
            variable.assign(array)
        if layer.kind == "Normalization" and wanted:
            self._layers[layer].finalize_state()

    def _through(self, network: Network, x: Any) -> Any:
        done = {network.input: x}
        waiting = [call for call in network.calls if call.key != network.input]
        while waiting:
            ready = [call for call in waiting if all(key in done for key in call.inputs) and call.inputs]
            if not ready:
                raise BadModel(f"layer {waiting[0].key[0]!r} takes the output of a layer that is not there")
            for call in ready:
                done[call.key] = self._one(call.of, [done[key] for key in call.inputs])
            made = {call.key for call in ready}
            waiting = [call for call in waiting if call.key not in made]
        if network.output not in done:
            raise BadModel(f"the output {network.output[0]!r} is none of the layers")
        return done[network.output]

    def _one(self, part: Layer | Network, inputs: list[Any]) -> Any:
        if isinstance(part, Network):
            return self._through(part, inputs[0])
        if part.kind in PASSED_OVER or part.kind == "InputLayer":
            return inputs[0]
        self._check_size(part, inputs[0])
        try:
            if part not in self._layers:
                make = getattr(keras().layers, part.kind)  # a key of `layers.LAYERS`
                self._layers[part] = make(name=self._name(part.name), **part.options)
            out = self._layers[part](inputs if len(inputs) > 1 else inputs[0])
        except (ValueError, TypeError, IndexError, ZeroDivisionError) as error:
            raise BadModel(
                f"layer {part.name!r} ({part.kind}) can't be built: {str(error).strip().splitlines()[0]}"
            ) from error
        if math.prod(side or 1 for side in out.shape[1:]) > MOST_VALUES:
            raise BadModel(
                f"layer {part.name!r} ({part.kind}) makes more numbers of a picture than memory holds"
            )
        return out

    def _check_size(self, part: Layer, x: Any) -> None:
        """Before the layer's memory is taken: a file of 1 kB may ask for any number of units."""
        options = part.options
        window = math.prod(options.get("kernel_size", (1, 1)))
        made = options.get("units") or options.get("filters") or options.get("depth_multiplier") or 0
        if part not in self._layers:
            self._weights += window * made * int(x.shape[-1] or 1) // max(1, options.get("groups", 1))
        if self._weights > MOST_WEIGHTS:
            raise BadModel(
                f"layer {part.name!r} ({part.kind}): the network has more than {MOST_WEIGHTS} weights"
            )

    def _name(self, wanted: str) -> str:
        """As in the file where that is a plain word; each once."""
        plain = re.sub(r"[^A-Za-z0-9_.]", "_", wanted)[:80] or "layer"
        plain = plain if plain[0].isalpha() else f"layer_{plain}"
        name, number = plain, 1
        while name in self._names:
            number += 1
            name = f"{plain}_{number}"
        self._names.add(name)
        return name
