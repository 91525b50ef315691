"""Model folders to describe: a small one that Hilum could have made, and an imported one of which little is known."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from model import network

TRAINED = """\
schema = 1
name = "small"
version = "1.2.3"
intended_use = "Tests. Not for people."
limits = "All of it. Labels were thrown by dice."

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
mean = [1.0, 2.0, 3.0]

[thresholds]
rule = "Thrown by dice."

[[findings]]
label = "Mass"
display = "Mass"
threshold = 0.875
{mass}

[[findings]]
label = "Hernia"
display = "Hernia"
threshold = 0.125
{hernia}
"""
IMPORTED = """\
schema = 1
name = "their model"
version = "1"
intended_use = "{words}"
limits = "{words}"

[weights]
file = "model.keras"
sha256 = "sha256:{sha256}"

[network]
architecture = "keras"

[input]
size = 64
fit = "stretch"
scale = 1.0
mean = [0.5, 0.5, 0.5]
channels = 1

[thresholds]
rule = "{words}"

[[findings]]
label = "Pneumonia"
display = "Pneumonia"
threshold = 0.5
"""
Make = Callable[..., Path]


@pytest.fixture
def trained(tmp_path: Path) -> Make:
    """`trained(more, mass=…, hernia=…)`: a folder whose card ends with `more`, its findings with the others."""

    def make(more: str = "", mass: str = "", hernia: str = "", name: str = "trained") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        shapes = {"block1_conv1": (3, 3, 3, 64), "block1_conv2": (3, 3, 64, 64), "head": (64, 2)}
        weights = {f"{name}/kernel": np.zeros(shape, np.float32) for name, shape in shapes.items()}
        weights |= {f"{name}/bias": np.zeros(shape[-1], np.float32) for name, shape in shapes.items()}
        network.write_weights(folder / "weights.npz", weights)
        sha256 = hashlib.sha256((folder / "weights.npz").read_bytes()).hexdigest()
        card = TRAINED.format(sha256=sha256, mass=mass, hernia=hernia)
        (folder / "card.toml").write_text(card + more, encoding="utf-8")
        return folder

    return make


@pytest.fixture
def imported(tmp_path: Path) -> Make:
    """`imported(words)`: a folder with a .keras file of two layers, and a card that says nothing but `words`."""

    def make(words: str = "Not stated.") -> Path:
        folder = tmp_path / "imported"
        folder.mkdir()
        layers = [{"class_name": "Conv2D", "config": {}}, {"class_name": "Dense", "config": {}}]
        told = {"class_name": "Sequential", "config": {"layers": layers}}
        packed = io.BytesIO()
        with h5py.File(packed, "w") as file:
            file["layers/conv2d/vars/0"] = np.zeros((3, 3, 1, 4), np.float32)
            file["layers/dense/vars/0"] = np.zeros((4, 1), np.float32)
            file["optimizer/vars/0"] = np.zeros(1000, np.float32)
        with zipfile.ZipFile(folder / "model.keras", "w") as archive:
            archive.writestr("config.json", json.dumps(told))
            archive.writestr("model.weights.h5", packed.getvalue())
        sha256 = hashlib.sha256((folder / "model.keras").read_bytes()).hexdigest()
        card = IMPORTED.format(sha256=sha256, words=words.replace("\\", "\\\\").replace('"', '\\"'))
        (folder / "card.toml").write_text(card, encoding="utf-8")
        return folder

    return make
