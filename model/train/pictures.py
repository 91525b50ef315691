"""Images in, batches of the network's input out; several are read at once, in the order asked for.

An image that can't be read is named once, left out from then on (its picture is black, its labels are taken as
unknown), and counted. More than a few of them mean that something is wrong with the folder, not with an image.
"""

import os
import sys
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model import files, pixels
from model.card import Card
from model.errors import BadData, Undecodable, Unreadable
from model.header import quietly
from model.train.augment import augment
from model.train.recipe import Augmentation

MOST_UNREADABLE = 0.01
"""Share of the images; one of them may always be unreadable."""
AHEAD = 3
"""Batches that are read while one is computed."""
MOST_THREADS = 16

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass
class Pictures:
    """The images of a run's table, by their numbers in it."""

    images: Sequence[Path]
    card: Card
    augmentation: Augmentation
    seed: int
    unreadable: dict[int, str] = field(default_factory=dict)
    """The image's number -> why; grows as images are read."""

    def batches(self, picked: Sequence[tuple[Rows, NDArray[np.int64]]], size: int) -> Generator[Floats]:
        """For each (numbers, moments) the pictures, (size, side, side, 3); black beyond the numbers given.

        Raises BadData once too many images were unreadable.
        """
        side = self.card.size
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        waiting: deque[list[Future[Floats | str]]] = deque()
        # `quietly` sets the process's filters of warnings: held open here, threads can't undo it for one another
        with quietly(), ThreadPoolExecutor(min(cores, MOST_THREADS)) as threads:
            left = iter(picked)
            for numbers, _ in picked:
                while len(waiting) < AHEAD and (more := next(left, None)) is not None:
                    waiting.append(
                        [threads.submit(self._one, int(n), int(m)) for n, m in zip(*more, strict=True)]
                    )
                batch = np.zeros((size, side, side, 3), np.float32)
                for place, (number, read) in enumerate(zip(numbers, waiting.popleft(), strict=True)):
                    found = read.result()
                    if isinstance(found, str):
                        self._leave_out(int(number), found)
                    else:
                        batch[place] = found
                yield batch

    def _one(self, number: int, moment: int) -> Floats | str:
        """The network's input, or why there is none."""
        path = self.images[number]
        try:
            dataset = files.wrap(path) if files.is_picture(path) else files.open_dataset(path)
            image = pixels.read(dataset)
        except (Unreadable, Undecodable) as error:
            return str(error)
        except OSError as error:
            return error.strerror or type(error).__name__
        changed = augment(image, self.card.size, self.augmentation, self.seed, moment, number)
        return pixels.prepare(changed, self.card)

    def _leave_out(self, number: int, reason: str) -> None:
        if number in self.unreadable:
            return
        print(f"{self.images[number]}: left out: {reason}", file=sys.stderr, flush=True)
        self.unreadable[number] = reason
        self.judge()

    def judge(self) -> None:
        """Raises BadData where too many images are unreadable."""
        count, of = len(self.unreadable), len(self.images)
        if count == of or count > max(1, MOST_UNREADABLE * of):
            first = min(self.unreadable)
            raise BadData(
                f"{count} of {of} images can't be read, more than {MOST_UNREADABLE:.0%}; the first is "
                f"{self.images[first]}: {self.unreadable[first]}; is --images the right folder?"
            )
