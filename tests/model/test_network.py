from pathlib import Path

import numpy as np
import pytest

from model import card, network
from model.errors import BadModel
from model.network import Weights

POOLS = ("block3_pool", "block5_pool")


def some_weights(labels: int = 2) -> Weights:
    """Random weights of the whole network at 32 pixels, as a training run would leave them."""
    built = network.build(32, POOLS, labels)
    parts = ("kernel", "bias")
    return {
        f"{layer.name}/{part}": array
        for layer in built.layers
        for part, array in zip(parts, layer.get_weights(), strict=False)
    }


def test_the_convolutions_are_vgg16s() -> None:
    base = network.base(224)
    assert base.count_params() == 14_714_688
    assert base.output_shape == (None, 7, 7, 512)
    assert len(network.CONVOLUTIONS) == 13


def test_the_same_arrays_make_the_same_file(tmp_path: Path) -> None:
    arrays = {
        "b/kernel": np.linspace(-1, 1, 50, dtype=np.float32).reshape(5, 10),
        "head/bias": np.float32([0.1, 0.2]),
    }
    network.write_weights(tmp_path / "one.npz", arrays)
    network.write_weights(tmp_path / "two.npz", dict(reversed(arrays.items())))

    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    read = network.read_weights(tmp_path / "one.npz")
    assert read["head/bias"].tobytes() == arrays["head/bias"].tobytes()
    assert read["b/kernel"].tobytes() == arrays["b/kernel"].astype(np.float16).astype(np.float32).tobytes()


def test_the_shipped_weights_load_bit_for_bit_and_bring_vgg16() -> None:
    path = card.load(card.SHIPPED).weights_path
    one, two = network.read_weights(path), network.read_weights(path)

    assert one.keys() == two.keys()
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    assert sum(array.size for name, array in one.items() if name.startswith("block")) == 14_714_688


def test_the_shipped_convolutions_are_imagenets(shared_data: Path) -> None:
    shipped = network.read_weights(card.load(card.SHIPPED).weights_path)
    imagenet = network.imagenet(shared_data / "weights" / "vgg16-imagenet-notop.f16.npz")

    assert all(np.array_equal(shipped[name], imagenet[name]) for name in imagenet)


def test_weights_that_do_not_fit_the_network_are_named() -> None:
    weights = some_weights()
    built = network.build(32, POOLS, 2)

    network.fill(built, weights)
    with pytest.raises(BadModel, match="head/bias is missing"):
        network.fill(built, {name: array for name, array in weights.items() if name != "head/bias"})
    with pytest.raises(BadModel, match="tail/bias is not of this network"):
        network.fill(built, weights | {"tail/bias": np.zeros(1, np.float32)})
    with pytest.raises(BadModel, match=r"head/bias has shape \(3,\)"):
        network.fill(built, weights | {"head/bias": np.zeros(3, np.float32)})


@pytest.mark.parametrize("damage", ["not a zip", "pickle", "nan", "cut", "integers"])
def test_a_damaged_weights_file_is_a_bad_model(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "weights.npz"
    arrays = {"nan": np.float32([np.nan]), "integers": np.arange(3)}
    np.savez(path, array=arrays.get(damage, np.float32([1, 2, 3])))
    if damage == "pickle":
        np.savez(path, array=np.array([{"a": 1}], dtype=object))
    elif damage == "not a zip":
        path.write_bytes(b"\x80\x04not a zip")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])

    with pytest.raises(BadModel):
        network.read_weights(path)
