from dataclasses import replace

import numpy as np

from model.pixels import Image
from model.train.augment import AS_IT_IS, augment
from model.train.recipe import Augmentation, read_recipe

NOTHING = Augmentation(0, 0, 0, 0, 0, 0, 0, mirror=False)
MOST = read_recipe("tuned").augmentation


def picture(height: int = 60, width: int = 50) -> Image:
    """Brighter to the right and to the feet, with a white spot at the upper left."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = 0.2 + 0.3 * x / width + 0.2 * y / height
    pixels[5:12, 5:12] = 1
    return Image(pixels.astype(np.float32))


def test_the_moment_zero_leaves_the_picture_as_it_is() -> None:
    image = picture()
    assert augment(image, 32, MOST, 1, AS_IT_IS, 4) is image


def test_chance_is_the_seeds_the_moments_and_the_images_alone() -> None:
    def drawn(seed: int, moment: int, number: int) -> bytes:
        return augment(picture(), 32, MOST, seed, moment, number).pixels.tobytes()

    assert drawn(1, 2, 3) == drawn(1, 2, 3)
    assert len({drawn(1, 2, 3), drawn(2, 2, 3), drawn(1, 3, 3), drawn(1, 2, 4)}) == 4


def test_pictures_keep_their_shape_and_range() -> None:
    for moment in range(1, 40):
        pixels = augment(picture(), 32, MOST, 0, moment, 0).pixels
        assert pixels.shape == (32, 32) and pixels.dtype == np.float32
        assert pixels.min() >= 0 and pixels.max() <= 1


def test_nothing_asked_for_is_the_reduced_picture() -> None:
    same = augment(Image(np.asarray(picture(32, 32).pixels)), 32, NOTHING, 0, 1, 0).pixels
    assert np.allclose(same, picture(32, 32).pixels, atol=1e-6)


def test_some_pictures_are_mirrored_left_to_right_and_none_top_to_bottom() -> None:
    plain = picture(32, 32).pixels
    seen = [
        augment(Image(plain), 32, replace(NOTHING, mirror=True), 0, moment, 0).pixels
        for moment in range(1, 30)
    ]
    mirrored = [np.allclose(pixels, plain[:, ::-1], atol=1e-5) for pixels in seen]
    as_it_is = [np.allclose(pixels, plain, atol=1e-5) for pixels in seen]
    assert 5 < sum(mirrored) < 25
    assert all(one != other for one, other in zip(mirrored, as_it_is, strict=True))


def test_a_turn_moves_the_spot_no_further_than_the_recipe_says() -> None:
    dark = np.zeros((101, 101), np.float32)
    dark[9:12, 49:52] = 1
    angles = []
    for moment in range(1, 60):
        turned = augment(Image(dark), 101, replace(NOTHING, rotation=10.0), 0, moment, 0).pixels
        y, x = (np.average(axis, weights=turned) - 50 for axis in np.mgrid[0:101, 0:101])
        assert abs(np.hypot(x, y) - 40) < 1
        angles.append(np.degrees(np.arctan2(x, -y)))
    assert 7 < max(angles) < 10.5 and -10.5 < min(angles) < -7
