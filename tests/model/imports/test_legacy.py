"""What Keras 2 leaves behind: a description in JSON and weights in HDF5."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from foreign import keras2
from foreign.keras2 import Udacity, noise, raw

from model import network, phantom, pixels
from model.card import Card
from model.classifier import Classifier
from model.errors import BadModel
from model.reader import Reader

Bring = Callable[..., Card]


def test_a_keras_2_model_says_what_it_always_said(tmp_path: Path, udacity: Udacity, bring: Bring) -> None:
    card = bring(*udacity.write(tmp_path))

    assert np.abs(raw(card, noise(32)) - udacity.says(noise(32))).max() < 1e-6
    assert (card.labels, card.architecture, card.size, card.name) == (("Pneumonia",), "keras", 32, "my_model")


def test_it_goes_the_way_of_every_image_and_draws_no_marks(
    tmp_path: Path, udacity: Udacity, bring: Bring
) -> None:
    card = bring(*udacity.write(tmp_path))
    image = pixels.read(phantom.draw(0, patch=True))

    reader = Reader.load(card.folder, guards=None)
    seen = reader.look([pixels.prepare(image, each)[None] for each in reader.cards])

    assert 0 <= seen[0].findings[0].score <= 1
    assert Classifier.load(card.folder).explain(noise(32, count=1), [["Pneumonia"]]) == [{}]


def test_one_hdf5_file_holds_both(tmp_path: Path, udacity: Udacity, bring: Bring) -> None:
    whole = keras2.write_weights(tmp_path / "model.h5", udacity.layers, udacity.tree)

    assert np.abs(raw(bring(whole), noise(32)) - udacity.says(noise(32))).max() < 1e-6


def test_names_from_another_session_leave_the_order_to_decide(
    tmp_path: Path, udacity: Udacity, bring: Bring
) -> None:
    """Layers of equal shapes, renamed: what was frozen when the file was written stands last."""
    renamed = {
        f"x_{name}": {
            weight.replace("block1_conv1", "a").replace("block1_conv2", "b"): array
            for weight, array in arrays.items()
        }
        for name, arrays in udacity.layers.items()
    }
    weights = keras2.write_weights(tmp_path / "weights.hdf5", renamed)

    card = bring(keras2.write_json(tmp_path / "model.json", udacity.tree), weights)

    assert np.abs(raw(card, noise(32)) - udacity.says(noise(32))).max() < 1e-6


def test_the_json_of_old_versions_is_read(tmp_path: Path, udacity: Udacity, bring: Bring) -> None:
    """Keras 2.0 to 2.2: layers in a bare list, the inner model a `Model`, without a name of its own."""
    tree = copy.deepcopy(udacity.tree)
    tree["config"] = tree["config"]["layers"]
    tree["config"][0]["class_name"] = "Model"

    card = bring(
        keras2.write_json(tmp_path / "old.json", tree),
        keras2.write_weights(tmp_path / "old.h5", udacity.layers),
    )

    assert np.abs(raw(card, noise(32)) - udacity.says(noise(32))).max() < 1e-6


def test_vgg16_under_dense_layers_is_kept_as_one_of_ours_and_draws_marks(
    tmp_path: Path, bring: Bring
) -> None:
    random = np.random.default_rng(0)
    convolutions, pools = network.CONVOLUTIONS, [name for name in network.LAYERS if "pool" in name]
    shapes = {
        name: tuple(v.shape) for name in convolutions for v in network.base(32).get_layer(name).weights[:1]
    }
    shapes |= {"dense_1": (2048, 4), "dense_2": (4, 1)}
    arrays = {
        name: {
            f"{name}/kernel:0": random.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype("f4"),
            f"{name}/bias:0": random.normal(0, 0.1, shape[-1:]).astype("f4"),
        }
        for name, shape in shapes.items()
    }
    below = [
        keras2.layer("MaxPooling2D", name, pool_size=[2, 2], strides=[2, 2], padding="valid")
        if name in pools
        else keras2.conv(name, shapes[name][-1])
        for name in network.LAYERS
    ]
    head = [keras2.dense("dense_1", 4), keras2.dense("dense_2", 1, "sigmoid")]
    inner = {key: array for name in convolutions for key, array in arrays[name].items()}
    tree = keras2.sequential(
        keras2.functional((64, 64, 3), *below), keras2.layer("Flatten", "flatten"), *head
    )
    layers = {"model_1": inner, "flatten": {}, "dense_1": arrays["dense_1"], "dense_2": arrays["dense_2"]}
    source = keras2.write_json(tmp_path / "my_model.json", tree)

    card = bring(source, keras2.write_weights(tmp_path / "best.hdf5", layers), preprocess="vgg16")

    plain = network.build(64, ("block5_pool",), 1, "flatten", (4,))
    named = {"dense_1": "hidden1", "dense_2": "head"}
    for name in shapes:
        plain.get_layer(named.get(name, name)).set_weights(list(arrays[name].values()))
    pictures = noise(64) * 255 - 120
    assert (card.architecture, card.hidden) == ("vgg16", (4,))
    assert np.abs(raw(card, pictures) - plain.predict_on_batch(pictures)).max() < 1e-6
    assert "Pneumonia" in Classifier.load(card.folder).explain(pictures[:1], [["Pneumonia"]])[0]


def test_weights_of_another_architecture_are_named_by_their_layer(
    tmp_path: Path, udacity: Udacity, bring: Bring
) -> None:
    source, _ = udacity.write(tmp_path)
    wide = udacity.layers | {
        "dense_1": {"dense_1/kernel:0": np.zeros((1024, 6), "f4"), "dense_1/bias:0": np.zeros(6, "f4")}
    }
    fewer = {name: arrays for name, arrays in udacity.layers.items() if name != "dense_2"}

    with pytest.raises(BadModel, match=r"layer 'dense_1' \(Dense\) needs kernel .* another architecture"):
        bring(source, keras2.write_weights(tmp_path / "wide.h5", wide))
    with pytest.raises(BadModel, match="the file has 2 layers with weights, the architecture 3"):
        bring(source, keras2.write_weights(tmp_path / "fewer.h5", fewer))


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, udacity: Udacity, bring: Bring) -> None:
    source, _ = udacity.write(tmp_path)
    broken = udacity.layers | {
        "dense_2": {"dense_2/kernel:0": np.full((5, 1), np.nan, "f4"), "dense_2/bias:0": np.zeros(1, "f4")}
    }

    with pytest.raises(BadModel, match="not finite"):
        bring(source, keras2.write_weights(tmp_path / "nan.h5", broken))
