"""A `.keras` file: a zip of config.json, model.weights.h5 and metadata.json, read without Keras's own reader."""

import io
import zipfile
from pathlib import Path

from model.errors import BadModel
from model.imports import hdf5
from model.imports.architecture import LARGEST_JSON, Network, parse
from model.imports.built import MOST_WEIGHTS, Built

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
LARGEST_WEIGHTS = 3 * 4 * MOST_WEIGHTS
"""Bytes; an optimizer keeps two more numbers for each weight."""


def read(path: Path) -> tuple[Network, io.BytesIO]:
    """The description, checked, and the weights file. Raises BadModel."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(set(names)) != len(names):
                raise BadModel("holds two files of one name")
            if CONFIG not in names or WEIGHTS not in names:
                raise BadModel(f"is no Keras file: it has no {CONFIG if CONFIG not in names else WEIGHTS}")
            config, weights = (
                _member(archive, CONFIG, LARGEST_JSON),
                _member(archive, WEIGHTS, LARGEST_WEIGHTS),
            )
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BadModel("is no whole Keras file: damaged, or breaks off") from error
    return parse(config), io.BytesIO(weights)


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """zipfile gives no more bytes than the archive's list of files says, whatever they unpack to."""
    if archive.getinfo(name).file_size > most:
        raise BadModel(f"{name} would unpack to more than {most} bytes")
    return archive.read(name)


def load(path: Path, size: int, channels: int) -> Built:
    """The network, filled. Raises BadModel."""
    network, weights = read(path)
    built = Built(network, size, channels)
    with hdf5.opened(weights) as file:
        hdf5.fill(file, built)
    return built
