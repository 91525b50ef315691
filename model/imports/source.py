"""What a person has: which kind of file, by its first bytes, read as far as its description."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import BadData, BadModel
from model.imports import hdf5, keras_file, legacy, saved_model
from model.imports.architecture import Network
from model.imports.built import Built

ZIP = b"PK\x03\x04"
KINDS = "my_model.json with --weights, an .h5 or .hdf5 file, a .keras file, a SavedModel folder"


@dataclass(frozen=True)
class Source:
    """A model that was found and can be made."""

    how: str
    """What it is, in words."""
    files: tuple[Path, ...]
    shape: tuple[int | None, ...]
    """Of the input: rows, columns, channels; empty where it does not say."""
    network: Network | None
    """None for a SavedModel."""
    fill: Callable[[Built], None] | None
    graph: Any = None
    """A SavedModel's, frozen."""


def look(source: Path, weights: Path | None, *, logits: bool) -> Source:
    """Raises BadData where the question is wrong, BadModel where a file is; both name the file."""
    for path in (source, weights):
        if path is not None and not path.exists():
            raise BadData(f"{path}: there is no such file or folder")
    try:
        return _folder(source, weights, logits) if source.is_dir() else _file(source, weights)
    except BadModel as error:
        raise BadModel(f"{source}: {error}") from error


def _folder(folder: Path, weights: Path | None, logits: bool) -> Source:
    if not (folder / saved_model.FILE).is_file():
        raise BadModel(f"holds no {saved_model.FILE}; what can be imported: {KINDS}")
    if weights is not None:
        raise BadData(f"{folder}: a SavedModel holds its weights: leave --weights out")
    frozen = saved_model.freeze(folder, logits=logits)
    files = sorted(path for path in (folder / saved_model.VARIABLES).glob("*") if path.is_file())
    return Source(
        "TensorFlow SavedModel", (folder / saved_model.FILE, *files), frozen.shape, None, None, frozen.graph
    )


def _file(path: Path, weights: Path | None) -> Source:
    start = _start(path)
    if start.lstrip()[:1] == b"{":
        return _json(path, weights)
    if weights is not None:
        raise BadData(f"{path}: holds its weights itself: leave --weights out")
    if start == hdf5.MAGIC:
        network = legacy.from_hdf5(path)
        return Source(
            "Keras model in HDF5", (path,), network.shape, network, lambda built: _fill(path, built)
        )
    if start.startswith(ZIP):
        network, archived = keras_file.read(path)

        def fill(built: Built) -> None:
            with hdf5.opened(archived) as file:
                hdf5.fill(file, built)

        return Source("Keras file", (path,), network.shape, network, fill)
    raise BadModel(_unknown(start))


def _json(path: Path, weights: Path | None) -> Source:
    network = legacy.from_json(path)
    if weights is None:
        raise BadData(f"{path}: describes a network without its weights: name their file with --weights")
    if weights.is_dir():
        raise BadData(f"{weights}: is a folder; the HDF5 file with the weights is wanted")
    start = _start(weights)
    if start != hdf5.MAGIC:
        raise BadModel(f"--weights {weights}: {_unknown(start, 'no HDF5 file')}")
    return Source(
        "Keras description in JSON, weights in HDF5",
        (path, weights),
        network.shape,
        network,
        lambda built: _fill(weights, built),
    )


def _fill(weights: Path, built: Built) -> None:
    try:
        with hdf5.opened(weights) as file:
            hdf5.fill(file, built)
    except BadModel as error:
        raise BadModel(f"{weights}: {error}") from error


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def _unknown(start: bytes, otherwise: str = f"is no model that can be imported: {KINDS}") -> str:
    if not start:
        return "is empty"
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "is a pickle: such a file runs code when it is opened, and is not"
    if start[:6] == b"\x93NUMPY":
        return "is an array of numbers, no model"
    return otherwise
