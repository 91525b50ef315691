"""A model of two labels that can be judged by hand, and pictures that it tells apart."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model import network

CARD = """\
# a comment
schema = 1
name = "brightness"
version = "1"
intended_use = "Tests."
limits = "All."

[weights]
file = "weights.npz"
sha256 = "sha256:{sha256}"

[network]
architecture = "vgg16"
pools = ["block1_pool"]

[input]
size = 32
fit = "stretch"
scale = 255.0
mean = [0.0, 0.0, 0.0]

[thresholds]
rule = "Thrown by dice."

[[findings]]
label = "Mass"
display = "Mass"
threshold = 0.875

[[findings]]
label = "Hernia"
display = "Hernia"
threshold = 0.125
"""

Draw = Callable[[Path, float], None]
Make = Callable[[Path], Path]


@pytest.fixture(scope="session")
def make_model() -> Make:
    """Makes a model folder: `Mass` is scored the higher the brighter a picture is on the whole, `Hernia` always 0.5."""
    convolutions = ("block1_conv1", "block1_conv2")
    kernels = [np.zeros((3, 3, 3, 64), np.float32), np.zeros((3, 3, 64, 64), np.float32)]
    kernels[0][1, 1, 0, 0], kernels[1][1, 1, 0, 0] = 1 / 256, 1
    head = np.zeros((64, 2), np.float32)
    head[0, 0] = 8
    weights = {f"{name}/kernel": kernel for name, kernel in zip(convolutions, kernels, strict=True)}
    weights |= {f"{name}/bias": np.zeros(64, np.float32) for name in convolutions}
    weights |= {"head/kernel": head, "head/bias": np.array([-4, 0], np.float32)}

    def make(folder: Path) -> Path:
        folder.mkdir()
        network.write_weights(folder / "weights.npz", weights)
        sha256 = hashlib.sha256((folder / "weights.npz").read_bytes()).hexdigest()
        (folder / "card.toml").write_text(CARD.format(sha256=sha256))
        return folder

    return make


@pytest.fixture
def model(make_model: Make, tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


@pytest.fixture(scope="session")
def draw() -> Draw:
    def write(file: Path, brightness: float) -> None:
        """A grey picture (0 to 1) with a black and a white corner, which set its window."""
        levels = np.full((40, 40), round(255 * brightness), np.uint8)
        levels[0, 0], levels[-1, -1] = 0, 255
        Image.fromarray(levels).save(file)

    return write
