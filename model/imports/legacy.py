"""What Keras 2 leaves: my_model.json with weights in HDF5, or one HDF5 file of both. Keras 3 writes them too."""

from pathlib import Path

from model.errors import BadModel
from model.imports import hdf5
from model.imports.architecture import LARGEST_JSON, Network, parse


def from_json(path: Path) -> Network:
    """The description of a JSON file. Raises BadModel, OSError."""
    if path.stat().st_size > LARGEST_JSON:
        raise BadModel(f"has more than {LARGEST_JSON} bytes")
    return parse(path.read_bytes())


def from_hdf5(path: Path) -> Network:
    """The description inside an HDF5 file. Raises BadModel."""
    with hdf5.opened(path) as file:
        if "model_config" not in file.attrs:
            raise BadModel(
                "holds weights only: name the model's JSON file first, and this one with --weights"
            )
        return parse(hdf5.text(file.attrs["model_config"]))
