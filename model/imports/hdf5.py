"""HDF5 files of weights: opened, checked link by link, and read by the two layouts that Keras writes.

    legacy, Keras 1 and 2    /<layer>/<weight name>, in the order of the attributes `layer_names` and `weight_names`;
                             under /model_weights where the file holds the description too
    Keras 3                  /layers/<class>_<n>/vars/<i>, models inside models alike

HDF5 can point elsewhere: to other files by links, external storage and virtual data sets, which Keras followed
(CVE-2026-1669). All of these are refused before a number is read, and so is a shape beyond all memory (CVE-2026-0897).
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import BadModel
from model.imports.architecture import Layer, Network
from model.imports.built import MOST_WEIGHTS, Built

MAGIC = b"\x89HDF\r\n\x1a\n"
LAYERS, OLD_LAYERS = "layers", "_layer_checkpoint_dependencies"
"""The second until Keras 2.12."""
MOST_OBJECTS = 200_000
DEEPEST = 40
FILTERS = {1, 2, 3, 32000}
"""Deflate, shuffle, Fletcher-32, LZF: for any other HDF5 would look for a plug-in."""


@contextmanager
def opened(source: Path | io.BytesIO) -> Iterator[Any]:
    """An h5py file that holds plain arrays of numbers only. Raises BadModel."""
    import h5py

    try:
        with h5py.File(source, "r", **({"locking": False} if isinstance(source, Path) else {})) as file:
            _check(file)
            yield file
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        raise BadModel("is no readable HDF5 file: damaged, or breaks off") from error


def _check(file: Any) -> None:
    import h5py

    waiting: list[tuple[Any, int]] = [(file, 0)]
    seen, numbers = 0, 0
    while waiting:
        group, depth = waiting.pop()
        if depth > DEEPEST:
            raise BadModel("its groups are nested too deeply")
        for name in group:
            seen += 1
            if seen > MOST_OBJECTS:
                raise BadModel(f"holds more than {MOST_OBJECTS} objects")
            if type(group.get(name, getlink=True)) is not h5py.HardLink:
                raise BadModel(f"{name!r} is a link to somewhere else: such a file is not read")
            found = group[name]
            if isinstance(found, h5py.Group):
                waiting.append((found, depth + 1))
            elif isinstance(found, h5py.Dataset):
                if found.external or found.is_virtual:
                    raise BadModel(f"{name!r} has its numbers in another file: such a file is not read")
                if found.dtype.kind not in "fiu" or not _filters(found) <= FILTERS:
                    raise BadModel(
                        f"{name!r} holds something else than plain numbers: such a file is not read"
                    )
                numbers += int(found.size or 0)
                if numbers > 3 * MOST_WEIGHTS:  # an optimizer keeps two more for each weight
                    raise BadModel(f"holds more than {3 * MOST_WEIGHTS} numbers")
            else:
                raise BadModel(f"{name!r} is neither a group nor an array")


def _filters(dataset: Any) -> set[int]:
    made = dataset.id.get_create_plist()
    return {made.get_filter(n)[0] for n in range(made.get_nfilters())}


def words(group: Any, name: str) -> list[str]:
    """A list of texts among the attributes; long ones are cut into `name0`, `name1`, … Empty where there is none."""
    names = [name] if name in group.attrs else []
    while not names or names[-1] != name:
        piece = f"{name}{len(names)}"
        if piece not in group.attrs:
            break
        names.append(piece)
    found: list[str] = []
    for each in names:
        value = group.attrs[each]
        found += map(text, value.tolist() if hasattr(value, "tolist") else [value])
    return found


def text(value: Any) -> str:
    """An attribute's text, bytes or not; raises BadModel where it is none."""
    if isinstance(value, np.bytes_ | bytes):
        return value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise BadModel("an attribute is no text")
    return value


def fill(file: Any, built: Built) -> None:
    """Puts an opened weights file's arrays into the network, by whichever layout it has. Raises BadModel."""
    if LAYERS in file or OLD_LAYERS in file:
        _by_place(file, built.network, built)
        return
    group = file["model_weights"] if "model_weights" in file and not words(file, "layer_names") else file
    if not words(group, "layer_names"):
        raise BadModel("holds no weights as Keras saves them (no `layer_names`)")
    if "backend" in group.attrs and text(group.attrs["backend"]) == "theano":
        raise BadModel(
            "was saved by Keras on Theano, whose convolutions are turned round: save it on TensorFlow"
        )
    _by_order(group, built)


def _by_place(group: Any, network: Network, built: Built) -> None:
    """Keras 3: each class's layers are counted in their order."""
    below: Any = next((group[name] for name in (LAYERS, OLD_LAYERS) if name in group), {})
    counts: dict[str, int] = {}
    for part in network.parts:
        place = _snake(part.kind)
        number = counts.get(place, 0)
        counts[place] = number + 1
        place = f"{place}_{number}" if number else place
        if isinstance(part, Network):
            if place not in below:
                raise BadModel(f"weights: the model {part.name!r} is missing")
            _by_place(below[place], part, built)
            continue
        wanted = built.variables(part)
        if not wanted:
            continue
        values = below[place].get("vars", {}) if place in below else {}
        names = sorted(values, key=lambda name: (len(name), name))
        built.fill(part, [_array(values[name]) for name in names])


def _snake(kind: str) -> str:
    """`GlobalMaxPooling2D` -> `global_max_pooling2d`, as Keras does."""
    name = re.sub(r"\W+", "", kind)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _by_order(group: Any, built: Built) -> None:
    """Legacy: layer by layer, those without weights left out on both sides; names may differ."""
    parts = [part for part in built.network.parts if any(built.variables(leaf) for leaf in leaves(part))]
    saved = {
        name: words(group[name], "weight_names") for name in words(group, "layer_names") if name in group
    }
    saved = {name: names for name, names in saved.items() if names}
    if len(parts) != len(saved):
        raise BadModel(
            f"weights: the file has {len(saved)} layers with weights, the architecture {len(parts)}: "
            "they don't belong together"
        )
    if {part.name for part in parts} == saved.keys():
        saved = {part.name: saved[part.name] for part in parts}
    for part, (name, names) in zip(parts, saved.items(), strict=True):
        _fill_part(part, group[name], names, built)


def leaves(part: Layer | Network) -> list[Layer]:
    if isinstance(part, Layer):
        return [part]
    return [leaf for each in part.parts for leaf in leaves(each)]


def _fill_part(part: Layer | Network, group: Any, names: list[str], built: Built) -> None:
    """One layer, or a model that is a layer, whose weights lie in one row: what was trained first, then the rest.

    Where names tell which is which, they decide: the row's order depends on what was frozen when it was saved.
    """
    slots = _slots(part, built, frozen=False)
    wanted = [(leaf.name, variable.name) for leaf, variable in slots]
    for simpler in (lambda name: name, lambda name: re.sub(r"_\d+$", "", name)):
        ours = [(simpler(layer), variable) for layer, variable in wanted]
        theirs = {(simpler(layer), variable): name for name in names for layer, variable in [_split(name)]}
        if len(set(ours)) == len(ours) == len(names) and set(ours) == set(theirs):
            names = [theirs[key] for key in ours]
            break
    if len(names) != len(slots):
        raise BadModel(
            f"weights: {part.name!r} has {len(slots)} arrays, the file {len(names)}: they don't belong together"
        )
    arrays: dict[Layer, dict[int, NDArray[Any]]] = {}
    for (leaf, variable), name in zip(slots, names, strict=True):
        if name not in group:
            raise BadModel(f"weights: {name!r} is missing")
        arrays.setdefault(leaf, {})[id(variable)] = _array(group[name])
    for leaf, found in arrays.items():
        built.fill(leaf, [found[id(variable)] for variable in built.variables(leaf)])


def _slots(part: Layer | Network, built: Built, *, frozen: bool) -> list[tuple[Layer, Any]]:
    """The variables of a part in the order in which Keras 2 saves them."""
    first: list[tuple[Layer, Any]] = []
    rest: list[tuple[Layer, Any]] = []
    still = _frozen(part, frozen)
    for leaf in leaves(part):
        trained = {id(v) for v in built.trained(leaf)} if not still[leaf] else set()
        for variable in built.variables(leaf):
            (first if id(variable) in trained else rest).append((leaf, variable))
    return first + rest


def _frozen(part: Layer | Network, above: bool) -> dict[Layer, bool]:
    frozen = above or part.frozen
    if isinstance(part, Layer):
        return {part: frozen}
    return {leaf: still for each in part.parts for leaf, still in _frozen(each, frozen).items()}


def _split(name: str) -> tuple[str, str]:
    """`model_1/block1_conv1/kernel:0` -> block1_conv1, kernel."""
    layer, _, variable = name.rpartition("/")
    return layer.rpartition("/")[2], variable.partition(":")[0]


def _array(dataset: Any) -> NDArray[Any]:
    if not hasattr(dataset, "dtype"):
        raise BadModel("weights: a group stands where an array should")
    return np.asarray(dataset[()])
