"""What is made from a right picture is what its name says."""

import numpy as np
import pytest

from model.pixels import Image
from model.train import wrong_pictures as wrong

RISING = Image((np.arange(120 * 100, dtype=np.float32).reshape(120, 100)) / (120 * 100))


def chance() -> np.random.Generator:
    return np.random.default_rng(5)


def test_turns_put_the_corners_where_they_belong() -> None:
    p = RISING.pixels
    assert wrong.turned_left(RISING, chance()).pixels[0, 0] == p[0, -1]
    assert wrong.turned_right(RISING, chance()).pixels[0, 0] == p[-1, 0]
    assert wrong.on_its_head(RISING, chance()).pixels[0, 0] == p[-1, -1]
    assert wrong.mirrored(RISING, chance()).pixels[0, 0] == p[0, -1]
    twice = wrong.on_its_head(wrong.on_its_head(RISING, chance()), chance())
    np.testing.assert_array_equal(twice.pixels, p)


def test_inverted_is_white_where_it_was_black() -> None:
    np.testing.assert_allclose(wrong.inverted(RISING, chance()).pixels + RISING.pixels, 1)


@pytest.mark.parametrize("seed", range(20))
def test_a_cropped_picture_is_a_quarter_to_half_of_the_area_and_no_strip(seed: int) -> None:
    rows, columns = wrong.cropped(RISING, np.random.default_rng(seed)).pixels.shape
    assert 0.24 <= rows * columns / RISING.pixels.size <= 0.51
    assert 1 / 1.7 <= (rows / 120) / (columns / 100) <= 1.7


@pytest.mark.parametrize("seed", range(20))
def test_a_collimated_picture_keeps_nine_tenths_of_each_side(seed: int) -> None:
    rows, columns = wrong.collimated(RISING, np.random.default_rng(seed)).pixels.shape
    assert 108 <= rows <= 120
    assert 90 <= columns <= 100


@pytest.mark.parametrize("make", [wrong.rewindowed, wrong.cropped_and_rewindowed])
def test_a_rewindowed_picture_stays_in_range_and_keeps_what_is_brighter(make: wrong.Made) -> None:
    pixels = make(RISING, chance()).pixels
    assert 0 <= pixels.min() <= pixels.max() <= 1
    assert (np.diff(pixels.ravel()) >= 0).all()


@pytest.mark.parametrize("way", wrong.DRAWN)
def test_what_is_drawn_is_a_picture_and_the_same_for_the_same_number(way: str) -> None:
    draw = wrong.DRAWN[way]
    pixels = draw(wrong.random_of(0, way, 3)).pixels
    assert pixels.dtype == np.float32
    assert 0 <= pixels.min() <= pixels.max() <= 1
    np.testing.assert_array_equal(pixels, draw(wrong.random_of(0, way, 3)).pixels)
    assert not np.array_equal(pixels, draw(wrong.random_of(0, way, 4)).pixels)
