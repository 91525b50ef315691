"""What a stage's trained layers are fed: what the frozen layers below them say of each picture.

Either each picture goes through the frozen layers whenever it is wanted (`Fresh`), or, where a recipe asks for N fixed
views, what they say is computed once and kept in the cache folder (`Kept`): one float16 .npy an image view, read as a
memory map. It is kept under a hash of all that it depends on, so that nothing stale is ever read; a view's file is
whole or absent. Stages share: what lies above the lowest cut is computed from what is kept at that cut.

Both give the same arrays, up to float16's rounding.
"""

import hashlib
import json
import shutil
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model import network
from model.errors import BadData
from model.network import LAYERS, Weights
from model.progress import steps
from model.train.pictures import Pictures, Rows
from model.train.recipe import Network

Floats = NDArray[np.float32]
Picked = Sequence[tuple[Rows, Rows]]
"""Per batch the images' numbers, and for each its moment: an epoch, a view, or augment.AS_IT_IS."""

BATCH = 16
"""Pictures that go through frozen layers together while the cache is made."""
LARGEST = 65504.0
"""float16's; VGG16's activations stay far below, a wild fine-tuning's might not."""


class Inputs(Protocol):
    def batches(self, picked: Picked, size: int) -> Generator[list[Floats]]:
        """For each of `picked` the arrays that go over the cut, `size` rows each; rows beyond it say nothing."""


@dataclass(frozen=True)
class Cut:
    """Where a stage's network is cut: the layer `before` is the first that is trained."""

    size: int
    net: Network
    before: str

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return network.carried_shapes(self.size, self.net.pools, self.before, self.net.head)

    def above(self, lower: str, weights: Weights) -> Any:
        """The frozen layers from `lower` up to this cut, filled."""
        part = network.segment(self.size, self.net.pools, lower, self.before, self.net.head)
        fill(part, weights)
        part.trainable = False
        return part


def fill(part: Any, weights: Weights) -> None:
    """Fills a part of the network with those of `weights` that are its."""
    names = {layer.name for layer in part.layers}
    network.fill(part, {name: array for name, array in weights.items() if name.split("/")[0] in names})


class Fresh:
    """Pictures, through the frozen layers each time."""

    def __init__(self, pictures: Pictures, cut: Cut, weights: Weights) -> None:
        self._pictures = pictures
        self._below = None if cut.before == LAYERS[0] else cut.above(LAYERS[0], weights)

    def batches(self, picked: Picked, size: int) -> Generator[list[Floats]]:
        with closing(self._pictures.batches(picked, size)) as batches:
            for batch in batches:
                yield [batch] if self._below is None else _arrays(self._below.predict_on_batch([batch]))


class Kept:
    """Rows of memory maps, one a view; `key` names what they depend on."""

    def __init__(self, folder: Path, shapes: list[tuple[int, ...]], key: str) -> None:
        self.folder, self.shapes, self.key = folder, shapes, key
        self._views: dict[int, NDArray[np.float16]] = {}

    def view(self, view: int) -> Path:
        return self.folder / f"view-{view}.npy"

    def batches(self, picked: Picked, size: int) -> Generator[list[Floats]]:
        for numbers, views in picked:
            rows = np.zeros((size, sum(map(prod, self.shapes))), np.float32)
            for place, (number, view) in enumerate(zip(numbers, views, strict=True)):
                rows[place] = self._rows(int(view))[number]
            yield _split(rows, self.shapes)

    def _rows(self, view: int) -> NDArray[np.float16]:
        if view not in self._views:
            self._views[view] = np.load(self.view(view), mmap_mode="r", allow_pickle=False)
        return self._views[view]


def keep(
    pictures: Pictures, cut: Cut, weights: Weights, cache: Path, views: int, lower: Kept | None, lowest: str
) -> Kept:
    """What the layers below `cut` say of all images at the moments 0 to `views` - 1, from the cache or computed now.

    `lower` is what is kept at the cut before the layer `lowest`, whence this is computed; without it, from the
    pictures. Raises BadData when the disk can't hold it.
    """
    key = _key(pictures, cut, weights, lower.key if lower else "", lowest)
    kept = Kept(cache / key, cut.shapes, key)
    kept.folder.mkdir(parents=True, exist_ok=True)
    left_out = kept.folder / "unreadable.json"
    if left_out.exists():
        known = json.loads(left_out.read_text(encoding="utf-8"))
        pictures.unreadable.update({int(number): reason for number, reason in known.items()})
        pictures.judge()
    absent = [view for view in range(views) if not kept.view(view).exists()]
    if not absent:
        return kept

    width, count = sum(map(prod, cut.shapes)), len(pictures.images)
    wanted, free = len(absent) * count * width * 2, shutil.disk_usage(cache).free
    if wanted > free:
        raise BadData(
            f"{cache}: {views} views of {count} images take {wanted / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
            "name another folder by --cache, or set training.views lower (0: nothing is kept) in the recipe"
        )
    source = lower or Fresh(pictures, Cut(cut.size, cut.net, lowest), weights)
    between = None if cut.before == lowest else cut.above(lowest, weights)
    numbers = np.arange(count)
    chunks = [numbers[start : start + BATCH] for start in range(0, count, BATCH)]
    for view in absent:
        half = kept.view(view).with_suffix(".part")
        rows = np.lib.format.open_memmap(half, mode="w+", dtype=np.float16, shape=(count, width))
        picked = [(chunk, np.full(len(chunk), view)) for chunk in chunks]
        with closing(source.batches(picked, BATCH)) as batches:
            for chunk, arrays in zip(
                steps(f"frozen layers, view {view + 1} of {views}", chunks), batches, strict=False
            ):
                said = arrays if between is None else _arrays(between.predict_on_batch(arrays))
                flat = np.concatenate([array.reshape(BATCH, -1) for array in said], axis=1)
                rows[chunk] = np.clip(flat[: len(chunk)], -LARGEST, LARGEST)
        rows.flush()
        del rows
        left_out.write_text(json.dumps(pictures.unreadable), encoding="utf-8")
        half.replace(kept.view(view))
    return kept


def _key(pictures: Pictures, cut: Cut, weights: Weights, lower: str, lowest: str) -> str:
    """32 hexadecimal digits of all that decides what is kept."""
    order = network.pieces(cut.net.pools)
    start, stop = (order.index(lowest) if lower else 0), order.index(cut.before)
    hashed = hashlib.sha256()
    head = [cut.before, lower, cut.size, cut.net.pools, cut.net.head]
    hashed.update(repr([*head, pictures.augmentation, pictures.seed, pictures.card.mean]).encode())
    for layer in order[start:stop]:
        for name in (f"{layer}/kernel", f"{layer}/bias"):
            hashed.update(weights[name].tobytes() if name in weights else b"")
    for path in pictures.images:
        size = path.stat().st_size if path.is_file() else -1
        hashed.update(f"{path}\0{size}\0".encode())
    return hashed.hexdigest()[:32]


def _arrays(said: Any) -> list[Floats]:
    """What predict_on_batch gives back, as float32 arrays."""
    listed = said if isinstance(said, list | tuple) else [said]
    return [np.asarray(array, np.float32) for array in listed]


def _split(rows: Floats, shapes: list[tuple[int, ...]]) -> list[Floats]:
    found, start = [], 0
    for shape in shapes:
        width = prod(shape)
        found.append(np.ascontiguousarray(rows[:, start : start + width]).reshape(len(rows), *shape))
        start += width
    return found


def lowest_cut(net: Network, cuts: Sequence[str]) -> str:
    """The lowest of several cuts: nothing below it changes in the whole run."""
    return min(cuts, key=network.pieces(net.pools).index)
