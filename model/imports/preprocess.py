"""What the network was trained to see: named ways to make its input, as the card's scale, mean, spread, each_picture.

A wrong choice gives scores that look like scores and mean nothing. So it is inferred only where the model does the
scaling itself, and asked for otherwise.
"""

import re
from dataclasses import dataclass

from model.errors import BadData
from model.imports.architecture import Layer, Network
from model.imports.layers import PASSED_OVER

Three = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocess:
    """As in the card; channels in the order in which the network takes them, all three of the same grey."""

    scale: float
    mean: Three = (0.0, 0.0, 0.0)
    spread: Three = (1.0, 1.0, 1.0)
    each_picture: bool = False


NAMED: dict[str, tuple[Preprocess, str]] = {
    "vgg16": (
        Preprocess(255.0, (103.939, 116.779, 123.68)),
        "0 to 255 less ImageNet's means in blue, green, red: Keras's preprocess_input of VGG16, VGG19, ResNet50",
    ),
    "unit": (Preprocess(1.0), "0 to 1: ImageDataGenerator(rescale=1/255)"),
    "signed": (
        Preprocess(2.0, (1.0, 1.0, 1.0)),
        "-1 to 1: Keras's preprocess_input of MobileNet, Inception, Xception, ResNet50V2",
    ),
    "imagenet-unit": (
        Preprocess(1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "0 to 1 less ImageNet's means, over its spreads, red first: Keras's preprocess_input of DenseNet; PyTorch",
    ),
    "each-picture": (
        Preprocess(1.0, each_picture=True),
        "each picture to mean 0 and spread 1: ImageDataGenerator's samplewise_center, samplewise_std_normalization",
    ),
    "raw": (Preprocess(255.0), "0 to 255 as it is: nothing was done, or the model's first layers do it"),
}
OWN = "scale=S,mean=M,spread=D"
"""(S x grey - M) / D, grey from 0 to 1; M and D one number, or one a channel: 0.485/0.456/0.406."""
_THREE = ("vgg16", "imagenet-unit")
"""They have a mean a channel."""


def named(words: str, channels: int) -> Preprocess:
    """Raises BadData where it is none of NAMED and not written as OWN."""
    if words in NAMED:
        if channels == 1 and words in _THREE:
            raise BadData(f"--preprocess {words}: is for three channels, and this model takes one")
        return NAMED[words][0]
    return _own(words)


def _own(words: str) -> Preprocess:
    given: dict[str, Three] = {}
    for part in words.split(","):
        key, _, value = part.strip().partition("=")
        if key not in ("scale", "mean", "spread") or key in given:
            raise _unknown(words)
        given[key] = _numbers(words, value)
    scale, spread = given.get("scale"), given.get("spread", (1.0, 1.0, 1.0))
    if scale is None or len(set(scale)) != 1 or not 1e-6 <= scale[0] <= 65535 or min(spread) <= 0:
        raise _unknown(words)
    return Preprocess(scale[0], given.get("mean", (0.0, 0.0, 0.0)), spread)


def _numbers(words: str, value: str) -> Three:
    parts = value.split("/")
    if len(parts) not in (1, 3) or not all(re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", part) for part in parts):
        raise _unknown(words)
    first, second, third = map(float, parts if len(parts) == 3 else parts * 3)
    return first, second, third


def _unknown(words: str) -> BadData:
    return BadData(
        f"--preprocess {words}: must be {', '.join(NAMED)} or {OWN} (numbers; a channel each: 1/2/3)"
    )


def explained() -> str:
    """All choices, a line each."""
    width = max(map(len, NAMED))
    return "\n".join(f"  {name:<{width}}  {meaning}" for name, (_, meaning) in NAMED.items())


def inferred(network: Network) -> str:
    """`raw` where the model's first layer that does something brings 0 to 255 to a smaller range; else empty."""
    first = _first(network)
    if first is None or first.kind != "Rescaling":
        return ""
    scale = first.options.get("scale")
    return "raw" if isinstance(scale, float) and 0 < abs(scale) <= 1 / 64 else ""


def _first(network: Network) -> Layer | None:
    """The layer that the picture comes to first."""
    key = network.input
    while True:
        calls = [call for call in network.calls if key in call.inputs]
        if len(calls) != 1:
            return None
        part = calls[0].of
        if isinstance(part, Network):
            return _first(part)
        if part.kind not in PASSED_OVER and part.kind != "InputLayer":
            return part
        key = calls[0].key
