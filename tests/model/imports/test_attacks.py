"""Files made to run code, to read other files, or to take all memory. Each is one clear line, and nothing is left."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from foreign import keras2
from foreign.keras2 import Udacity
from hypothesis import given, settings
from hypothesis import strategies as st

from model.card import Card
from model.errors import BadModel
from model.imports.architecture import Network, parse
from model.imports.built import Built
from model.network import keras

Bring = Callable[..., Card]
Tree = dict[str, Any]


def keras3(*layers: Tree, module: str = "keras") -> Tree:
    rows = [each | {"module": each.get("module", "keras.layers"), "registered_name": None} for each in layers]
    start = {"module": "keras.layers", "class_name": "InputLayer", "registered_name": None}
    start["config"] = {"batch_shape": [None, 32, 32, 3], "dtype": "float32", "name": "input"}  # type: ignore[assignment]
    config = {"name": "sequential", "layers": [start, *rows]}
    return {"module": module, "class_name": "Sequential", "config": config, "registered_name": None}


def archive(path: Path, config: Tree, weights: bytes | None = None, **members: bytes) -> Path:
    if weights is None:
        held = io.BytesIO()
        with h5py.File(held, "w") as file:
            file.create_group("layers")
        weights = held.getvalue()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("config.json", json.dumps(config))
        zipped.writestr("metadata.json", "{}")
        zipped.writestr("model.weights.h5", weights)
        for name, content in members.items():
            zipped.writestr(name, content)
    return path


END = [keras2.layer("Flatten", "flat"), keras2.dense("out", 1, "sigmoid")]


def tricks(marker: Path) -> dict[str, Tree]:
    """A layer each, as published: every one of them ran, wrote or read something by Keras's own loader of its day."""
    write = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    code = keras().src.utils.python_utils.func_dump(eval(f"lambda x: ({write}, x)[1]"))
    python = {
        "class_name": "__lambda__",
        "config": dict(zip(("code", "defaults", "closure"), code, strict=True)),
    }
    called = {"class_name": "function", "module": "os", "config": "system", "registered_name": "system"}
    unlock = {"module": "keras.config", "config": "enable_unsafe_deserialization", "name": "l"}
    fetch = {"class_name": "function", "module": "keras.utils", "config": "get_file"}
    return {
        "CVE-2024-3660, a lambda": keras2.layer("Lambda", "l", function=python),
        "CVE-2024-3660, as Keras 2 wrote it": keras2.layer(
            "Lambda", "l", function=list(code), function_type="lambda"
        ),
        "CVE-2025-1550, any function": keras2.layer(
            "Lambda", "l", function=called, arguments={"x": f"touch {marker}"}
        ),
        "CVE-2025-8747, one of Keras's": keras2.layer(
            "Lambda", "l", function=fetch, arguments={"origin": f"file://{marker}"}
        ),
        "CVE-2025-9906, safe mode turned off": {"class_name": "function", "config": unlock},
        "CVE-2025-12058, a file as vocabulary": keras2.layer("StringLookup", "l", vocabulary="/etc/hostname"),
        "another module": keras2.dense("l", 3) | {"module": "os.path"},
        "a class of somebody's own": keras2.dense("l", 3) | {"registered_name": "evil>Dense"},
        "a pickle of PyTorch": keras2.layer("TorchModuleWrapper", "l", module="gAWVAA=="),
        "a SavedModel elsewhere": keras2.layer("TFSMLayer", "l", filepath="/tmp/evil"),
        "a function as activation": keras2.dense("l", 3, activation=called),
        "a layer as activation": keras2.dense(
            "l", 3, activation=keras2.layer("Lambda", "i", function=list(code))
        ),
        "an object as number": keras2.layer("Rescaling", "l", scale=python),
        "a type of numbers": keras2.layer("Flatten", "l")
        | {"config": {"name": "l", "dtype": {"class_name": "Lambda", "config": {"name": "x"}}}},
    }


NAMES = list(tricks(Path("unused")))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["keras", "json", "hdf5", "inside"])
def test_no_code_in_a_file_is_run(tmp_path: Path, bring: Bring, name: str, form: str) -> None:
    marker = tmp_path / "marker"
    row = tricks(marker)[name]
    weights = keras2.write_weights(tmp_path / "w.h5", {"out": {"out/bias:0": np.zeros(1, "f4")}})
    if form == "keras":
        source, beside = archive(tmp_path / "m.keras", keras3(row, *END)), None
    elif form == "hdf5":
        source, beside = keras2.write_weights(tmp_path / "m.h5", {}, keras2.sequential(row, *END)), None
    elif form == "json":
        source, beside = keras2.write_json(tmp_path / "m.json", keras2.sequential(row, *END)), weights
    else:
        inner = keras2.functional((32, 32, 3), row)
        source, beside = keras2.write_json(tmp_path / "m.json", keras2.sequential(inner, *END)), weights

    with pytest.raises(BadModel, match=r"layer '|layer 1 is|layer 2 is"):
        bring(source, beside)
    assert not marker.exists() and not list(tmp_path.glob("*model*"))


def test_keras_itself_would_have_run_such_a_lambda(tmp_path: Path) -> None:
    """The payload of the test above does what it is meant to do."""
    marker = tmp_path / "marker"
    row = tricks(marker)["CVE-2024-3660, a lambda"]
    tree = keras3(row)

    model = keras().saving.deserialize_keras_object(tree, safe_mode=False)

    assert model is not None and marker.exists()


class Runs:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("suffix", [".h5", ".keras", ".json", ".pkl"])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_in_disguise_is_not_opened(
    tmp_path: Path, bring: Bring, udacity: Udacity, suffix: str, protocol: int
) -> None:
    marker = tmp_path / "marker"
    disguised = tmp_path / f"model{suffix}"
    disguised.write_bytes(pickle.dumps(Runs(marker), protocol))

    with pytest.raises(BadModel, match="is a pickle" if protocol else "is no model"):
        bring(disguised)
    with pytest.raises(BadModel, match="is a pickle" if protocol else "no HDF5 file"):
        bring(keras2.write_json(tmp_path / "right.json", udacity.tree), disguised)
    assert not marker.exists()


def test_weights_that_are_pickles_inside_an_archive_are_not_opened(tmp_path: Path, bring: Bring) -> None:
    marker = tmp_path / "marker"
    held = io.BytesIO()
    np.savez(held, **{"layers/out": np.array([Runs(marker)], object)}, allow_pickle=True)
    config = keras3(*END)

    with pytest.raises(BadModel, match="no readable HDF5"):
        bring(archive(tmp_path / "a.keras", config, held.getvalue()))
    with zipfile.ZipFile(tmp_path / "b.keras", "w") as zipped:
        zipped.writestr("config.json", json.dumps(config))
        zipped.writestr("model.weights.npz", held.getvalue())
    with pytest.raises(BadModel, match=r"no model\.weights\.h5"):
        bring(tmp_path / "b.keras")
    assert not marker.exists()


def reaching_out(file: Any, secret: Path, how: str) -> None:
    """Puts what should be the bias of `out` somewhere else, or makes it something else (CVE-2026-1669 and -0897)."""
    place = file.require_group("layers/dense/vars")
    place.create_dataset("0", data=np.zeros((3072, 1), "f4"))
    if how == "external storage":
        place.create_dataset("1", (1,), "f4", external=[(str(secret), 0, 4)])
    elif how == "external link":
        place["1"] = h5py.ExternalLink(str(secret), "/x")
    elif how == "soft link":
        place["1"] = h5py.SoftLink("/layers/dense/vars/0")
    elif how == "virtual":
        layout = h5py.VirtualLayout((1,), "f4")
        layout[:] = h5py.VirtualSource(str(secret), "x", (1,))
        place.create_virtual_dataset("1", layout)
    elif how == "objects":
        place.create_dataset("1", data=np.array(["x"], object), dtype=h5py.string_dtype())
    elif how == "references":
        place.create_dataset("1", data=np.array([place.ref], object), dtype=h5py.ref_dtype)
    elif how == "beyond memory":
        place.create_dataset("1", (10**12,), "f4", chunks=(1024,), compression="gzip")
    elif how == "a circle":
        place["1"] = file["layers"]


WAYS = (
    "external storage",
    "external link",
    "soft link",
    "virtual",
    "objects",
    "references",
    "beyond memory",
    "a circle",
)


@pytest.mark.parametrize("how", WAYS)
def test_weights_that_reach_out_of_their_file_are_refused(tmp_path: Path, bring: Bring, how: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(np.ones(1, "f4").tobytes())
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        reaching_out(file, secret, how)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        reaching_out(file, secret, how)
    config = keras3(*END)

    with pytest.raises(BadModel):
        bring(archive(tmp_path / "m.keras", config, held.getvalue()))
    with pytest.raises(BadModel):
        bring(keras2.write_json(tmp_path / "m.json", config), tmp_path / "w.h5")


def test_archives_that_unpack_to_more_than_they_should_are_refused(
    tmp_path: Path, bring: Bring, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model.imports import keras_file

    monkeypatch.setattr(keras_file, "LARGEST_WEIGHTS", 1000)
    bomb = archive(tmp_path / "bomb.keras", keras3(*END), b"\0" * 1_000_000)
    twice = archive(tmp_path / "twice.keras", keras3(*END))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(twice, "a") as zipped:
        zipped.writestr("config.json", "{}")

    with pytest.raises(BadModel, match="would unpack to more"):
        bring(bomb)
    with pytest.raises(BadModel, match="two files of one name"):
        bring(twice)
    whole = bomb.read_bytes()
    bomb.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadModel, match="damaged, or breaks off"):
        bring(bomb)


def test_an_hdf5_file_that_breaks_off_is_refused(tmp_path: Path, bring: Bring, udacity: Udacity) -> None:
    source, weights = udacity.write(tmp_path)
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 3])

    with pytest.raises(BadModel, match="damaged, or breaks off"):
        bring(source, weights)


@pytest.mark.parametrize(
    "row",
    [
        keras2.dense("wide", 65536),
        keras2.conv("wide", 65536),
        keras2.layer("UpSampling2D", "wide", size=[64, 64]),
        keras2.layer("ZeroPadding2D", "wide", padding=[[1024, 1024], [1024, 1024]]),
    ],
)
def test_a_small_file_can_not_ask_for_all_memory(row: Tree) -> None:
    above = keras2.conv("many", 60000) if row["class_name"] in ("Dense", "Conv2D") else keras2.conv("few", 64)
    network = parse(json.dumps(keras2.functional((1024, 1024, 3), above, row)))

    with pytest.raises(BadModel, match=r"more than|than memory holds"):
        Built(network, 1024, 3)


WHOLE = keras2.functional(
    (32, 32, 3), keras2.conv("conv", 2), keras2.functional((32, 32, 2), keras2.layer("ReLU", "relu")), *END
)
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 10**20)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["conv", "Lambda", "Model"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["config", "class_name", "name", "layers"]), inner)
    ),
    max_leaves=5,
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(found for key, value in inside for found in places(value, (*path, key)))]


PLACES = places(WHOLE)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PLACES[1:]), JUNK)
def test_a_description_with_any_part_replaced_is_a_network_or_one_line(
    path: tuple[Any, ...], junk: Any
) -> None:
    tree = json.loads(json.dumps(WHOLE))
    inside = tree
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = junk

    try:
        network = parse(json.dumps(tree))
    except BadModel as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(network, Network)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"a": 1}', "[" * 100_000, "NaN", '{"class_name": "Lambda"}']
)
def test_a_text_that_describes_no_model_is_told(text: str) -> None:
    with pytest.raises(BadModel):
        parse(text)
