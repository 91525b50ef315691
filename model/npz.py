"""Arrays in a NumPy .npz file, read with nothing executed and written so that the same arrays make the same bytes."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import BadModel

LARGEST_FILE = 200_000_000
"""Bytes that a file may unpack to; 25,088 features into 1,024 hidden units take 51 MB as float16."""

Floats = NDArray[np.float32]


def read_arrays(path: Path) -> dict[str, Floats]:
    """The arrays of a file as float32. Nothing in it is ever executed (no pickles).

    Raises BadModel, which does not name the file, when it is no .npz of float16 and float32 arrays, holds a number that
    is not finite, or would unpack to more than LARGEST_FILE bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST_FILE:
                raise BadModel(f"unpacks to more than {LARGEST_FILE} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BadModel(f"is no readable .npz file ({type(error).__name__})") from error
    for name, array in found.items():
        if array.dtype not in (np.float16, np.float32) or not np.isfinite(array).all():
            raise BadModel(f"{name} must be finite float16 or float32 numbers")
    return {name: array.astype(np.float32) for name, array in found.items()}


def write_arrays(path: Path, arrays: Mapping[str, NDArray[np.floating]]) -> None:
    """Writes them in the order of their names, as they are (float16 or float32).

    The zip's members carry no time and no compression.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                np.lib.format.write_array(member, np.ascontiguousarray(arrays[name]), allow_pickle=False)
