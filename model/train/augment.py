"""Another picture of the same chest: turned, moved, enlarged, brighter or softer within what a department does.

Works on the picture as it is looked at (0 black … 1 white), before its mean is taken off. Which picture comes out is
decided by the seed, the moment and the image's number alone: a run that goes on after a kill sees what it would have
seen, on whatever backend and with however many threads.
"""

import math

import numpy as np
from PIL import Image as Pillow

from model.pixels import Image
from model.train.recipe import Augmentation

AS_IT_IS = 0
"""The moment at which no picture is changed."""


def augment(image: Image, size: int, most: Augmentation, seed: int, moment: int, number: int) -> Image:
    """The picture at `size` x `size` pixels, changed by what `seed`, `moment` and the image's `number` draw.

    `moment`: the epoch, or the number of the fixed view; at AS_IT_IS the image itself comes back.
    """
    if moment == AS_IT_IS:
        return image
    random = np.random.default_rng([seed, moment, number])
    # All are drawn whatever the recipe asks for: to change one amount leaves the others' draws as they were.
    turn, zoom, across, down, contrast, brightness, gamma = random.uniform(-1, 1, 7)
    noise, coin = random.uniform(0, 1, 2)

    grey = Pillow.fromarray(image.pixels).resize((size, size), Pillow.Resampling.BILINEAR)
    matrix = _matrix(
        size,
        angle=math.radians(turn * most.rotation),
        zoom=1 + zoom * most.scale,
        move=(across * most.shift * size, down * most.shift * size),
        mirrored=most.mirror and coin < 0.5,
    )
    if matrix != (1, 0, 0, 0, 1, 0):
        # What comes in from outside is black, as what a collimator hides.
        grey = grey.transform((size, size), Pillow.Transform.AFFINE, matrix, Pillow.Resampling.BICUBIC)
    pixels = np.clip(np.asarray(grey, np.float32), 0, 1)

    pixels = pixels ** np.float32((1 + most.gamma) ** gamma)
    pixels = (pixels - 0.5) * np.float32(1 + contrast * most.contrast) + 0.5
    pixels = pixels + np.float32(brightness * most.brightness)
    if most.noise:
        spread = np.float32(noise * most.noise)
        pixels = pixels + spread * random.standard_normal(pixels.shape, dtype=np.float32)
    return Image(np.clip(pixels, 0, 1).astype(np.float32))


def _matrix(
    size: int, *, angle: float, zoom: float, move: tuple[float, float], mirrored: bool
) -> tuple[float, float, float, float, float, float]:
    """Pillow's affine data: for each pixel of the new picture, where it lies in the old one; about the middle."""
    a, b = math.cos(angle) / zoom, math.sin(angle) / zoom
    flip = -1 if mirrored else 1
    middle = size / 2
    return (
        flip * a,
        flip * b,
        middle - flip * (a * (middle + move[0]) + b * (middle + move[1])),
        -b + 0.0,
        a,
        middle - (-b * (middle + move[0]) + a * (middle + move[1])),
    )
