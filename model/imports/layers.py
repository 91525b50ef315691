"""The layers that an imported model may have, and what each may be told. Nothing else is ever built.

A model file names classes and gives them arguments, and whoever looks such a name up runs what the file's writer chose:
Keras's own reader did so time and again, its safe mode notwithstanding (CVE-2024-3660, CVE-2025-1550, -8747, -9905,
-9906, -12058). Here a name is a key of this table, and an argument a number or a word that was checked. What changes
a network only while it is trained (dropout, augmentation) is passed over.
"""

import math
from collections.abc import Callable
from typing import Any

from model.errors import BadModel

Check = Callable[[Any], Any]
"""Returns the argument as Keras takes it; raises ValueError saying what it must be."""

LAMBDAS = ("Lambda", "TFOpLambda", "SlicingOpLambda", "ClassMethod", "__lambda__", "function")
_AS_IT_IS = """
ActivityRegularization AlphaDropout Dropout GaussianDropout GaussianNoise SpatialDropout2D RandomBrightness
RandomContrast RandomFlip RandomRotation RandomTranslation RandomZoom
"""
PASSED_OVER = frozenset(_AS_IT_IS.split())
"""The picture goes through them unchanged, but in training."""
_CURVES = (
    "elu exponential gelu leaky_relu linear relu relu6 selu sigmoid silu softmax softplus softsign swish tanh"
)
ACTIVATIONS = tuple(_CURVES.split())
"""Those that Keras 2 and 3 compute alike; `hard_sigmoid` is not among them."""
DTYPES = ("float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16")
"""All are computed in float32 here."""
_NO_MATTER = """
activity_regularizer batch_input_shape batch_shape build_input_shape dtype fused input_dtype input_shape momentum name
optional ragged renorm_momentum seed sparse synchronized trainable
"""
IN_TRAINING = frozenset(_NO_MATTER.split())
"""Arguments that leave the outputs of a trained network as they are; so do initializers, regularizers, constraints."""


def _whole(least: int, most: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return check


def _pair(most: int) -> Check:
    one = _whole(1, most)

    def check(value: Any) -> tuple[int, int]:
        values = value if isinstance(value, list) else [value, value]
        if len(values) != 2:
            raise ValueError("must be two whole numbers")
        return one(values[0]), one(values[1])

    return check


def _edges(value: Any) -> tuple[tuple[int, int], ...]:
    """`1`, `[1, 2]` or `[[1, 1], [2, 2]]`: rows and columns before and after."""
    one = _whole(0, 1024)
    sides = value if isinstance(value, list) else [value, value]
    if len(sides) != 2:
        raise ValueError("must be one, two or twice two whole numbers")
    pairs = [side if isinstance(side, list) else [side, side] for side in sides]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("must be one, two or twice two whole numbers")
    return tuple((one(first), one(last)) for first, last in pairs)


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("must be a number")
    return float(value)


def _reals(value: Any) -> float | list[float]:
    """A number, or one a channel."""
    if not isinstance(value, list):
        return _real(value)
    if not 1 <= len(value) <= 4096:
        raise ValueError("must be a number, or a list of numbers")
    return [_real(each) for each in value]


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _one_of(*choices: Any) -> Check:
    def check(value: Any) -> Any:
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            raise ValueError(f"must be {' or '.join(map(repr, choices))}")
        return value

    return check


def _activation(value: Any) -> str:
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise ValueError(f"must be one of {', '.join(ACTIVATIONS)}")
    return value


def _channels(value: Any) -> int:
    """The last axis, which old files write as [3]; a Dense layer's as 1."""
    axis = value[0] if isinstance(value, list) and len(value) == 1 else value
    if type(axis) is not int or axis not in (-1, 1, 3):
        raise ValueError("must be the last axis")
    return axis


def _axis(value: Any) -> int:
    return int(_whole(-4, 4)(value))


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= 4:
        raise ValueError("must be one to four whole numbers")
    return tuple(_whole(-1, 2**24)(each) for each in value)


def _or_none(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


_LAST = _one_of("channels_last")
_ANY_PLACE = {"data_format": _or_none(_LAST)}
_PADDING = _one_of("valid", "same")
_SUMS = {"activation": _activation, "use_bias": _truth}
_WINDOW = {"kernel_size": _pair(64), "strides": _pair(64), "padding": _PADDING, "dilation_rate": _pair(64)}
_POOL = {"pool_size": _pair(1024), "strides": _or_none(_pair(1024)), "padding": _PADDING, **_ANY_PLACE}
_UNITS = _whole(1, 65536)
_SPREAD = {"epsilon": _real, "center": _truth, "scale": _truth}

LAYERS: dict[str, dict[str, Check]] = {
    "Activation": {"activation": _activation},
    "Add": {},
    "Average": {},
    "AveragePooling2D": _POOL,
    "BatchNormalization": {"axis": _channels, **_SPREAD, "renorm": _one_of(False)},
    "Concatenate": {"axis": _axis},
    "Conv2D": {"filters": _UNITS, **_WINDOW, **_SUMS, **_ANY_PLACE, "groups": _UNITS},
    "Cropping2D": {"cropping": _edges, **_ANY_PLACE},
    "Dense": {"units": _UNITS, **_SUMS},
    "DepthwiseConv2D": {**_WINDOW, **_SUMS, **_ANY_PLACE, "depth_multiplier": _whole(1, 64)},
    "ELU": {"alpha": _real},
    "Flatten": _ANY_PLACE,
    "GlobalAveragePooling2D": {"keepdims": _truth, **_ANY_PLACE},
    "GlobalMaxPooling2D": {"keepdims": _truth, **_ANY_PLACE},
    "InputLayer": {},
    "LayerNormalization": {"axis": _channels, **_SPREAD, "rms_scaling": _one_of(False)},
    "LeakyReLU": {"negative_slope": _real, "alpha": _real},
    "MaxPooling2D": _POOL,
    "Maximum": {},
    "Minimum": {},
    "Multiply": {},
    "Normalization": {
        "axis": _or_none(_channels),
        "mean": _or_none(_reals),
        "variance": _or_none(_reals),
        "invert": _one_of(False),
    },
    "PReLU": {"shared_axes": _or_none(_shape)},
    "ReLU": {"max_value": _or_none(_real), "negative_slope": _or_none(_real), "threshold": _or_none(_real)},
    "Rescaling": {"scale": _reals, "offset": _reals},
    "Reshape": {"target_shape": _shape},
    "SeparableConv2D": {
        "filters": _UNITS,
        **_WINDOW,
        **_SUMS,
        **_ANY_PLACE,
        "depth_multiplier": _whole(1, 64),
    },
    "Softmax": {"axis": _channels},
    "Subtract": {},
    "UpSampling2D": {
        "size": _pair(64),
        "interpolation": _one_of("nearest", "bilinear"),
        **_ANY_PLACE,
    },
    "ZeroPadding2D": {"padding": _edges, **_ANY_PLACE},
}
"""Class -> its arguments. An argument that is missing in the file has Keras's default."""

_GROUPED = {
    "DepthwiseConv2D": {"groups": _UNITS, "filters": _or_none(_UNITS)},
    "SeparableConv2D": {"groups": _one_of(1)},
}
"""Arguments that Keras 2 writes into files and that say nothing: its classes inherited them."""


def checked(kind: str, name: str, config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the layer `name` of class `kind`; raises BadModel naming the layer and what is wrong."""
    _check_dtype(name, config.get("dtype"))
    if kind in PASSED_OVER:
        return {}
    known, said = LAYERS[kind], _GROUPED.get(kind, {})
    found = {}
    for key, value in config.items():
        if key in IN_TRAINING or key.endswith(("_initializer", "_regularizer", "_constraint")):
            continue
        if key not in known and key not in said:
            if value is None or value is False or value in ([], {}):
                continue
            raise BadModel(f"layer {name!r} ({kind}): {key} is nothing that this version knows")
        try:
            clean = (known.get(key) or said[key])(value)
        except ValueError as error:
            raise BadModel(f"layer {name!r} ({kind}): {key} {error}") from error
        if key in known and clean is not None:
            found[key] = clean
    if "alpha" in found and kind == "LeakyReLU":
        found["negative_slope"] = found.pop("alpha")  # Keras 2's name
    found.pop("renorm", None)
    found.pop("rms_scaling", None)
    return found


def refused(kind: str, name: str) -> BadModel:
    """Why a layer of this class is not built."""
    if kind in LAMBDAS:
        return BadModel(
            f"layer {name!r} is a {kind}: code inside a model file is never run. Export the model by "
            "`model.export(folder)` where it was trained, and import that folder"
        )
    return BadModel(
        f"layer {name!r} is a {kind}, which can't be imported from this kind of file. Export the model by "
        "`model.export(folder)` where it was trained, and import that folder"
    )


def _check_dtype(name: str, dtype: Any) -> None:
    if isinstance(dtype, dict):  # a policy
        config = dtype.get("config")
        dtype = config.get("name") if isinstance(config, dict) else None
    if dtype is not None and (not isinstance(dtype, str) or dtype not in DTYPES):
        raise BadModel(f"layer {name!r}: dtype must be one of {', '.join(DTYPES)}")
