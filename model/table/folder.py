"""Where the images of a table lie: a folder is searched once, its subfolders too."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import BadData
from model.table.sheet import Sheet
from model.table.table import Table


def located(sheet: Sheet, column: str, images: Path | None) -> tuple[Path, ...]:
    """The path of each row's image: as the table has it where that exists in the folder `images` or names a
    subfolder, else the one file of this name in any subfolder (NIH's lie in images_001/images and so on).

    An image that is nowhere keeps the path images/name; without `images` the path is what the table says.
    Raises BadData where an image is named twice or not at all, or a bare name fits several files.
    """
    names = sheet.words(column)
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        if not name:
            raise sheet.wrong(row, column, "no image is named")
        if rows.setdefault(name, row) != row:
            raise sheet.wrong(row, column, f"{name!r} is in line {sheet.lines[rows[name]]} already")
    if images is None:
        return tuple(map(Path, names))

    places = find(images, names)
    paths = []
    for row, name in enumerate(names):
        found = places.get(name.rpartition("/")[2], [])
        if name not in found and "/" not in name and len(found) > 1:
            first, second = sorted(found)[:2]
            raise sheet.wrong(
                row, column, f"{name!r} is {first} and {second} in {images}: name the subfolder"
            )
        paths.append(images / (found[0] if len(found) == 1 and "/" not in name else name))
    return tuple(paths)


def find(folder: Path, names: Iterable[str]) -> dict[str, list[str]]:
    """File name -> the paths, relative to `folder`, of all files of that name; only of the names asked for.

    Links to folders are followed, each folder once.
    """
    wanted = {name.rpartition("/")[2] for name in names}
    places: dict[str, list[str]] = {}
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        try:
            here = (folder / inside).stat()
            if (here.st_dev, here.st_ino) in seen:
                continue
            seen.add((here.st_dev, here.st_ino))
            with os.scandir(folder / inside) as entries:
                for entry in entries:
                    if entry.is_dir():
                        waiting.append(f"{inside}{entry.name}/")
                    elif entry.name in wanted:
                        places.setdefault(entry.name, []).append(f"{inside}{entry.name}")
        except OSError as error:
            raise BadData(f"{folder / inside}: not a folder that can be read ({error.strerror})") from error
    return places


def missing(table: Table) -> NDArray[np.bool_]:
    """(n,): whether there is no file where the row's image should lie."""
    return np.array([not path.is_file() for path in table.images], bool)
