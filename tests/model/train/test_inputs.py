from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model import network
from model.errors import BadData
from model.network import HEAD, LAYERS
from model.train.finish import blank_card
from model.train.inputs import Fresh, keep
from model.train.pictures import Pictures
from model.train.recipe import Recipe, read_recipe
from model.train.tuned import cut_of

IMAGES, SIZE = 6, 4
PICKED = [(np.array([0, 3, 5]), np.array([0, 1, 0])), (np.array([1, 2, 4]), np.array([1, 1, 0]))]


@pytest.fixture
def tiny(recipe: Callable[..., Path]) -> Recipe:
    return read_recipe(str(recipe()))


@pytest.fixture
def pictures(tiny: Recipe, drawn: Path) -> Pictures:
    images = [drawn / f"{number:02}.png" for number in range(IMAGES)]
    return Pictures(images, blank_card(tiny), tiny.augmentation, 0)


def test_what_is_kept_is_what_the_frozen_layers_say(
    tiny: Recipe, pictures: Pictures, imagenet: Path, tmp_path: Path
) -> None:
    """At the lowest cut from the pictures, above it from what is kept there; as if each picture went through."""
    weights = network.read_weights(imagenet)
    lowest = cut_of(tiny, "block5_conv3")
    lower = keep(pictures, lowest, weights, tmp_path, 2, None, LAYERS[0])
    upper = keep(pictures, cut_of(tiny, HEAD), weights, tmp_path, 2, lower, lowest.before)

    for kept, cut in ((lower, lowest), (upper, cut_of(tiny, HEAD))):
        fresh = Fresh(pictures, cut, weights)
        for one, other in zip(kept.batches(PICKED, SIZE), fresh.batches(PICKED, SIZE), strict=True):
            for ours, theirs in zip(one, other, strict=True):
                assert ours.shape == theirs.shape and len(ours) == SIZE
                apart = np.abs(ours[:3] - theirs[:3]).max() / np.abs(theirs[:3]).max()
                assert apart < 2e-3


def test_what_is_kept_is_computed_once_and_never_for_other_weights(
    tiny: Recipe, pictures: Pictures, imagenet: Path, tmp_path: Path
) -> None:
    weights = network.read_weights(imagenet)
    cut = cut_of(tiny, "block5_conv3")
    first = keep(pictures, cut, weights, tmp_path, 1, None, LAYERS[0])
    written = first.view(0).stat().st_mtime_ns
    again = keep(pictures, cut, weights, tmp_path, 1, None, LAYERS[0])
    assert again.view(0).stat().st_mtime_ns == written

    above = keep(
        pictures, cut, weights | {"block5_conv3/bias": np.ones(512, np.float32)}, tmp_path, 1, None, LAYERS[0]
    )
    below = keep(
        pictures, cut, weights | {"block1_conv1/bias": np.ones(64, np.float32)}, tmp_path, 1, None, LAYERS[0]
    )
    assert above.key == first.key != below.key


def test_a_cut_anywhere_leaves_the_networks_scores_as_they_are(tiny: Recipe, imagenet: Path) -> None:
    weights = network.read_weights(imagenet)
    batch = np.random.default_rng(0).uniform(-100, 100, (2, 32, 32, 3)).astype(np.float32)
    whole = cut_of(tiny, HEAD).above(LAYERS[0], weights).predict_on_batch([batch])[0]
    for cut in ("block1_conv2", "block4_conv1", "block5_conv1", "block5_pool"):
        said = cut_of(tiny, cut).above(LAYERS[0], weights).predict_on_batch([batch])
        said = said if isinstance(said, list) else [said]
        assert [array.shape[1:] for array in said] == cut_of(tiny, cut).shapes
        above = cut_of(tiny, HEAD).above(cut, weights).predict_on_batch(said)[0]
        assert np.allclose(above, whole, rtol=1e-4, atol=1e-4)


def test_views_that_the_disk_can_not_hold_are_refused(
    tiny: Recipe, pictures: Pictures, imagenet: Path, tmp_path: Path
) -> None:
    weights = network.read_weights(imagenet)
    pictures.images = [*pictures.images] * 200
    with pytest.raises(BadData, match=r"GB are free; name another folder by --cache"):
        keep(pictures, cut_of(tiny, "block1_conv2"), weights, tmp_path, 50_000, None, LAYERS[0])
