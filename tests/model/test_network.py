from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model import card, network, npz
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


def test_a_flat_head_reads_every_place_of_its_pool() -> None:
    """Udacity's at 224 pixels: 7 x 7 x 512 values, three hidden layers; its weights file is one that loads."""
    built = network.build(224, ("block5_pool",), 1, "flatten", (1024, 512, 256))
    shapes = {
        layer.name: layer.kernel.shape for layer in built.layers if layer.name.startswith(("hid", "head"))
    }
    assert list(shapes) == ["hidden1", "hidden2", "hidden3", "head"]
    assert tuple(shapes["hidden1"]) == (25_088, 1024)
    assert built.count_params() * 4 < npz.LARGEST_FILE


def test_averages_stand_in_the_order_of_the_pools() -> None:
    """Also where the network has them the other way round."""
    assert network.carried_shapes(64, ("block5_pool", "block3_pool"), "block4_conv1") == [(8, 8, 256), (256,)]
    batch = np.random.default_rng(0).uniform(-100, 100, (1, 32, 32, 3)).astype(np.float32)
    one = network.averages(32, ("block3_pool", "block5_pool"))
    other = network.averages(32, ("block5_pool", "block3_pool"))
    other.set_weights(one.get_weights())
    ours, theirs = one.predict_on_batch(batch), other.predict_on_batch(batch)
    assert np.allclose(np.roll(ours, 512, axis=1), theirs, rtol=1e-5)


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


def said(part: Any, x: np.ndarray) -> np.ndarray:
    """What the part of a network says of one batch."""
    out = part.predict_on_batch([x])
    return np.asarray(out[0] if isinstance(out, list) else out)


@pytest.mark.parametrize(("regions", "side", "step"), [(2, 2, 2), (3, 2, 1)])
def test_regions_are_averages_over_squares_that_cover_the_picture(regions: int, side: int, step: int) -> None:
    """At 64 pixels block 4's pool is 4 x 4: two squares of 2 a side, or three that overlap."""
    pools = ("block4_pool", f"block4_pool/{regions}")
    above = network.segment(64, pools, "block4_pool", network.HEAD)
    x = np.random.default_rng(0).random((2, 8, 8, 512), np.float32)

    whole, parts = np.split(said(above, x), [512], axis=1)

    pool = x.reshape(2, 4, 2, 4, 2, 512).max(axis=(2, 4))
    squares = [
        pool[:, y : y + side, z : z + side].mean(axis=(1, 2))
        for y in range(0, step * regions, step)
        for z in range(0, step * regions, step)
    ]
    assert np.abs(whole - pool.mean(axis=(1, 2))).max() < 1e-6
    assert np.abs(parts - np.concatenate(squares, axis=1)).max() < 1e-6
    assert network.carried_shapes(64, pools, network.HEAD) == [(512 + regions**2 * 512,)]


def test_roots_are_those_of_the_averages() -> None:
    x = np.random.default_rng(1).random((2, 4, 4, 512), np.float32)
    plain, roots = (
        said(network.segment(64, ("block5_pool",), "block5_pool", network.HEAD, head), x)
        for head in ("averages", "roots")
    )
    assert np.abs(roots - np.sqrt(plain + network.LEAST)).max() < 1e-6
