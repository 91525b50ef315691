"""Wrong pictures made from right ones: what a guard is shown so that it knows them (`model.train.guard`).

Each is made on the picture as it is looked at (0 black … 1 white), before it is brought to the network's size, from the
same files as the right ones: JPEG, resolution and frame are the same, so that nothing but what is wrong tells them
apart. What is drawn by chance is decided by the seed and the picture's number alone.

`collimated` and `rewindowed` are *right* pictures changed within what departments do: a guard must let them pass.
"""

from collections.abc import Callable

import numpy as np

from model.pixels import Floats, Image

Random = np.random.Generator
Made = Callable[[Image, Random], Image]

SMALLEST_PART, LARGEST_PART = 0.25, 0.5
"""Share of a picture's area that makes it a cropped one."""
LEAST_SIDE = 0.9
"""Share of each side that is left where a picture is collimated a little."""
SOFTEST, HARDEST = 0.35, 1.25
"""Contrast, relative to the picture as it is."""
LONGEST = 1.6
"""Longer than wide, or wider than long, at most, relative to the whole: a part is no strip."""


def turned_left(image: Image, _: Random) -> Image:
    """By 90 degrees against the clock."""
    return _image(np.rot90(image.pixels, 1))


def on_its_head(image: Image, _: Random) -> Image:
    return _image(np.rot90(image.pixels, 2))


def turned_right(image: Image, _: Random) -> Image:
    return _image(np.rot90(image.pixels, 3))


def inverted(image: Image, _: Random) -> Image:
    """Air white, bone black."""
    return _image(1 - image.pixels)


def mirrored(image: Image, _: Random) -> Image:
    """Left and right changed: the heart at the picture's left."""
    return _image(image.pixels[:, ::-1])


def cropped(image: Image, random: Random) -> Image:
    """A part of SMALLEST_PART to LARGEST_PART of the area, from anywhere."""
    return part(image, random.uniform(SMALLEST_PART, LARGEST_PART), random)


def part(image: Image, share: float, random: Random) -> Image:
    """A rectangle of `share` of the area, from anywhere, at most LONGEST times as long as wide (or as wide as long)."""
    most = min(LONGEST, 1 / share)
    ratio = float(np.exp(random.uniform(-np.log(most), np.log(most))))
    rows, columns = image.pixels.shape
    high = min(rows, max(1, round(rows * np.sqrt(share * ratio))))
    wide = min(columns, max(1, round(columns * np.sqrt(share / ratio))))
    top, left = int(random.integers(rows - high + 1)), int(random.integers(columns - wide + 1))
    return _image(image.pixels[top : top + high, left : left + wide])


def collimated(image: Image, random: Random) -> Image:
    """Right: LEAST_SIDE or more of each side is left, from anywhere."""
    rows, columns = image.pixels.shape
    high, wide = (round(side * random.uniform(LEAST_SIDE, 1)) for side in (rows, columns))
    top, left = int(random.integers(rows - high + 1)), int(random.integers(columns - wide + 1))
    return _image(image.pixels[top : top + high, left : left + wide])


def rewindowed(image: Image, random: Random) -> Image:
    """Right: darker or brighter, harder or much softer, as another maker's window or none shows it."""
    gamma = float(np.exp(random.uniform(-0.35, 0.35)))
    contrast = float(np.exp(random.uniform(np.log(SOFTEST), np.log(HARDEST))))
    brightness = random.uniform(-0.08, 0.08)
    return _image(np.clip((image.pixels**gamma - 0.5) * contrast + 0.5 + brightness, 0, 1))


def cropped_and_rewindowed(image: Image, random: Random) -> Image:
    """So that a soft picture is no sign of a cropped one, nor of a whole one."""
    return rewindowed(cropped(image, random), random)


SIDE = 300
"""Rows and columns of what is drawn from nothing."""


def flat(random: Random) -> Image:
    """Nearly blank: one grey, a little noise, perhaps a bright marker in a corner."""
    grey = np.full((SIDE, SIDE), random.uniform(0.02, 0.98))
    grey += random.uniform(0.005, 0.05) * random.standard_normal(grey.shape)
    if random.random() < 0.5:
        top, left = random.integers(10, SIDE - 40, 2)
        grey[top : top + 24, left : left + 14] = 1
    return _image(np.clip(grey, 0, 1))


def noise(random: Random) -> Image:
    """Grain of 1 to 40 pixels and nothing else."""
    from PIL import Image as Pillow

    grain = int(random.choice([1, 2, 4, 8, 20, 40]))
    cells = random.standard_normal((SIDE // grain + 1, SIDE // grain + 1)).astype(np.float32)
    grown = np.asarray(Pillow.fromarray(cells).resize((SIDE, SIDE), Pillow.Resampling.BICUBIC))
    return _image(np.clip(0.5 + random.uniform(0.05, 0.3) * grown, 0, 1))


def gradient(random: Random) -> Image:
    """From dark to bright along a line or from the middle, as an exposure without a patient may be."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    angle = random.uniform(0, 2 * np.pi)
    way = np.hypot(x, y) if random.random() < 0.5 else x * np.cos(angle) + y * np.sin(angle)
    level = (way - way.min()) / np.ptp(way)
    level = level if random.random() < 0.5 else 1 - level
    low, high = np.sort(random.uniform(0, 1, 2))
    grey = low + (high - low) * level + random.uniform(0, 0.03) * random.standard_normal(level.shape)
    return _image(np.clip(grey, 0, 1))


def pattern(random: Random) -> Image:
    """A test pattern: bars, squares, steps, rings or a grid of lines."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    period = int(random.integers(6, 80))
    shape = int(random.integers(5))
    if shape == 0:
        level = (x if random.random() < 0.5 else y) // period % 2
    elif shape == 1:
        level = (x // period + y // period) % 2
    elif shape == 2:
        level = (x if random.random() < 0.5 else y) // period / (SIDE // period)
    elif shape == 3:
        level = (np.hypot(x - SIDE / 2, y - SIDE / 2) // period) % 2
    else:
        level = ((x % period < 3) | (y % period < 3)).astype(float)
    low, high = np.sort(random.uniform(0, 1, 2))
    grey = low + max(high - low, 0.2) * level + random.uniform(0, 0.02) * random.standard_normal(level.shape)
    return _image(np.clip(grey, 0, 1))


DRAWN: dict[str, Callable[[Random], Image]] = {
    "flat": flat,
    "noise": noise,
    "gradient": gradient,
    "test pattern": pattern,
}
"""The ways of the kind `blank`."""


def random_of(seed: int, way: str, number: int) -> Random:
    """What is drawn for the `number`-th picture of a way."""
    return np.random.default_rng([seed, *way.encode(), number])


def _image(pixels: Floats) -> Image:
    return Image(np.ascontiguousarray(pixels, np.float32))
