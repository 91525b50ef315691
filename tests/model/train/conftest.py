"""Small drawn pictures, a recipe that trains on them in seconds, and VGG16 with weights by chance."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model import network

RECIPE = """
name = "tiny"
version = "1.0.0"
labels = ["Mass", "Lung Opacity"]
min_age = 18
size = 32

[network]
head = "averages"
pools = ["block4_pool", "block5_pool"]
hidden = []
dropout = 0.0
standardize = true

[augmentation]
rotation = 5.0
scale = 0.05
shift = 0.05
contrast = 0.1
brightness = 0.05
gamma = 0.1
noise = 0.01
mirror = true

[loss]
balance = "balanced"
cap = 5.0
smoothing = 0.02
robust = 0.0
weights = { "Lung Opacity" = 2.0 }

[auxiliary]
age = 0.1
sex = 0.1
view = 0.1

[training]
views = 2
average = 1.0
patience = 10
precision = "auto"

[thresholds]
rule = "f1"
least = 2

[[stages]]
name = "head"
train = "head"
epochs = 2
rate = 1e-2
optimizer = "adam"
weight_decay = 1e-3
schedule = "cosine"
batch = 8

[[stages]]
name = "block5"
train = "block5_conv3"
epochs = 2
rate = 1e-4
optimizer = "adam"
weight_decay = 1e-3
schedule = "constant"
batch = 8
"""
IMAGES = 36

Written = Callable[..., Path]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images of 40 x 40 pixels and labels.csv: a Mass is a bright spot, an opacity a grey half."""
    folder = tmp_path_factory.mktemp("drawn")
    random = np.random.default_rng(7)
    rows = []
    for number in range(IMAGES):
        mass, opacity = number % 2, number // 2 % 2
        picture = 90 + 8 * random.standard_normal((40, 40))
        if mass:
            picture[12:22, 8:18] += 120
        if opacity:
            picture[:, 20:] += 60
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(folder / f"{number:02}.png")
        rows.append(
            {
                "image": f"{number:02}.png",
                "patient": f"p{number // 2}",
                "view": "AP" if opacity else "PA",
                "age": 20 + number if number != 5 else 12,
                "sex": "MF"[number % 2],
                "Mass": mass,
                "Lung Opacity": opacity if number % 3 else "",
                "split": "validation" if number >= 24 else "train",
            }
        )
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return folder


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of VGG16's convolutions as nobody trained them."""
    file = tmp_path_factory.mktemp("weights") / "vgg16.npz"
    random = np.random.default_rng(3)
    weights, channels = {}, 3
    for block, (width, convolutions) in network._WIDTHS.items():
        for c in range(1, convolutions + 1):
            spread = np.float32(np.sqrt(2 / (9 * channels)))
            kernel = spread * random.standard_normal((3, 3, channels, width), dtype=np.float32)
            weights[f"block{block}_conv{c}/kernel"] = kernel
            weights[f"block{block}_conv{c}/bias"] = np.zeros(width, np.float32)
            channels = width
    network.write_weights(file, weights)
    return file


@pytest.fixture
def recipe(tmp_path: Path) -> Written:
    """`recipe(("epochs = 2", "epochs = 3"), …)`: the tiny recipe's file, with these words replaced."""

    def write(*changes: tuple[str, str], name: str = "tiny.toml") -> Path:
        text = RECIPE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return file

    return write


@pytest.fixture(scope="session")
def whole(drawn: Path, imagenet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the tiny recipe that nothing interrupted; its cache lies in `cache`."""
    from model.train.run import train

    folder = tmp_path_factory.mktemp("whole")
    file = folder / "tiny.toml"
    file.write_text(RECIPE, encoding="utf-8")
    train(
        drawn / "labels.csv",
        drawn,
        folder / "run",
        recipe=str(file),
        weights=imagenet,
        cache=folder / "run/cache",
    )
    return folder / "run"
