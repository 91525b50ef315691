"""What a network is computed with: a card in, a function from batches to outputs out.

    tensorflow.py    the network as Keras builds it, as one graph; also on a GPU
    openvino.py      the same, converted at the first load: on CPUs, without TensorFlow's import
    kept.py          what was converted, in a folder, checked before each use

Both give the same scores (within 0.01; measured on 500 images, docs/performance.md). `auto` is OpenVINO where it is
installed and no GPU is at hand, else TensorFlow.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.card import Card
from model.errors import BadModel

Floats = NDArray[np.float32]
Wanted = Literal["auto", "tensorflow", "openvino"]
RUNTIMES: tuple[Wanted, ...] = ("auto", "tensorflow", "openvino")

GPUS = (Path("/dev/nvidia0"), Path("/proc/driver/nvidia/gpus"))
"""One of them is there where NVIDIA's driver has a GPU."""


@dataclass(frozen=True)
class Said:
    """What a network says of n pictures."""

    scores: Floats
    """(n, outputs), each from 0 to 1."""
    features: Floats | None = None
    """(n, features) that its head read, where the card's scope needs them."""


Run = Callable[[Floats], Said]
"""(n, size, size, channels), n over 0 -> what the network says."""


@dataclass(frozen=True)
class Running:
    """A network that is ready."""

    name: str
    """`tensorflow` or `openvino`."""
    run: Run
    note: str = ""
    """What a person should know of how it came to run: one sentence, or nothing."""


def start(card: Card, wanted: Wanted = "tensorflow", cache: Path | None = None) -> Running:
    """The card's network, filled and ready; `cache`: where what was converted is kept, None: the user's own folder.

    The files' hashes are `card.verify`'s affair. Raises BadModel where the weights don't fit the card, and where
    `openvino` is wanted that is not installed or can't compute this network.
    """
    from model.runtime import openvino, tensorflow

    if wanted == "openvino" and not is_installed():
        raise BadModel("runtime openvino: OpenVINO is not installed; pip install 'hilum[openvino]' brings it")
    if wanted == "openvino":
        return openvino.start(card, cache)
    note = ""
    if wanted == "auto" and is_installed() and not tensorflow_has_gpu():
        try:
            return openvino.start(card, cache)
        except BadModel as error:  # where the model itself is bad, TensorFlow says so
            note = f"TensorFlow is used: {error}"
    return Running("tensorflow", tensorflow.start(card), note)


def is_installed() -> bool:
    """Whether OpenVINO is; it is not imported."""
    return find_spec("openvino") is not None


def tensorflow_has_gpu() -> bool:
    """Whether TensorFlow would find a GPU, by what can be known without its import, which takes seconds.

    NVIDIA's driver shows a GPU, CUDA_VISIBLE_DEVICES hides none, and the TensorFlow that is installed is not
    `tensorflow-cpu`. Where CUDA's libraries are missing this is wrong: TensorFlow then runs on the CPU.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    try:
        version("tensorflow")
    except PackageNotFoundError:
        return False
    return any(path.exists() for path in GPUS)
