"""What computes a network: OpenVINO says what TensorFlow says, is kept, is checked, and sends nothing anywhere."""

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model import card, network, phantom, runtime
from model import table as tables
from model.card_text import toml
from model.classifier import Classifier
from model.errors import BadModel
from model.runtime import Said, kept, openvino, winograd
from model.train.linear import prepare

pytest.importorskip("openvino", reason="the extra openvino is not installed")

ALLOWED = 0.01
"""Between the scores of two runtimes."""
IMAGES = 500


def small(folder: Path, seed: int = 0) -> Path:
    """A model folder: the shipped card's labels over two convolutions of random weights, 32 x 32."""
    folder.mkdir()
    tree = tomllib.loads((card.SHIPPED / card.CARD).read_text(encoding="utf-8"))
    for part in ("scope", "doubt", "calibration"):
        tree.pop(part, None)
    tree["network"] = {"architecture": "vgg16", "pools": ["block1_pool"]}
    tree["input"]["size"] = 32
    built = network.build(32, ("block1_pool",), len(tree["findings"]))
    rng = np.random.default_rng(seed)
    network.write_weights(
        folder / tree["weights"]["file"],
        {
            f"{layer.name}/{part}": rng.normal(0, 0.1, variable.shape).astype(np.float32)
            for layer in built.layers
            for part, variable in zip(("kernel", "bias"), layer.weights, strict=False)
        },
    )
    sha256 = hashlib.sha256((folder / tree["weights"]["file"]).read_bytes()).hexdigest()
    tree["weights"]["sha256"] = f"sha256:{sha256}"
    (folder / card.CARD).write_text(toml(tree), encoding="utf-8")
    return folder


@pytest.fixture(scope="module", autouse=True)
def chests_drawn_once() -> Iterator[None]:
    """Each takes a second, and every conversion looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom, "picture", functools.cache(phantom.picture))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def cache(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In which the small model is kept."""
    made = tmp_path_factory.mktemp("cache")
    Classifier.load(folder, "openvino", made)
    return made


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    return np.random.default_rng(0).uniform(-120, 150, (17, 32, 32, 3)).astype(np.float32)


def scores(classifier: Classifier, batch: np.ndarray) -> np.ndarray:
    return np.array([[finding.score for finding in findings] for findings in classifier.predict(batch)])


def folder_in(cache: Path) -> Path:
    (one,) = (cache / "openvino").iterdir()
    return one


@pytest.mark.timeout(1800)
def test_scores_of_500_images_are_within_a_hundredth_and_decisions_the_same_but_for_ties(
    shared_data: Path, tmp_path: Path
) -> None:
    """A tie: a score that is no farther from its threshold than the runtimes are from each other at most."""
    exact = Classifier.load(card.SHIPPED)
    fast = Classifier.load(card.SHIPPED, "openvino", tmp_path)
    table = tables.read(shared_data / "xray/labels.csv", shared_data / "xray/images", exact.card.labels)
    chosen = np.sort(np.random.default_rng(12).choice(len(table), IMAGES, replace=False))
    first, second = [], []
    for at in range(0, IMAGES, 8):
        pictures = np.stack([prepare(table.images[n], exact.card) for n in chosen[at : at + 8]])
        first.append(scores(exact, pictures))
        second.append(scores(fast, pictures))
    one, other = np.concatenate(first), np.concatenate(second)

    apart = float(np.abs(one - other).max())
    thresholds = np.array([exact.card.thresholds[label] for label in exact.card.labels])
    changed = (one >= thresholds) != (other >= thresholds)
    tie = np.abs(one - thresholds) <= apart
    print(f"largest difference {apart:.2g}, decisions changed {changed.sum()} of {changed.size}")

    assert (len(one), fast.runtime, exact.runtime) == (IMAGES, "openvino", "tensorflow")
    assert apart < ALLOWED
    assert not (changed & ~tie).any()


def test_batches_of_any_size_get_the_scores_of_tensorflow(
    folder: Path, cache: Path, batch: np.ndarray
) -> None:
    exact, fast = Classifier.load(folder), Classifier.load(folder, "openvino", cache)
    assert np.ptp(scores(exact, batch), axis=0).max() > 0.01
    for count in (1, 17, 3, 0, 1):
        assert fast.predict(batch[:count]) == [] or count
        assert np.allclose(scores(fast, batch[:count]), scores(exact, batch[:count]), atol=ALLOWED)


def keras_file(file: Path) -> None:
    keras = network.keras()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    keras.Sequential(
        [keras.Input((32, 32, 1)), layers.Conv2D(8, 3, activation="relu"), layers.GlobalAveragePooling2D(),
         layers.Dense(2, activation="sigmoid")]
    ).save(file)  # fmt: skip


def frozen_graph(file: Path) -> None:
    network.keras()
    import tensorflow

    rng = np.random.default_rng(0)
    with tensorflow.Graph().as_default() as graph:
        picture = tensorflow.compat.v1.placeholder(tensorflow.float32, (None, 32, 32, 1), "picture")
        kernel = tensorflow.constant(rng.normal(size=(3, 3, 1, 128)), tensorflow.float32)
        maps = tensorflow.nn.relu(tensorflow.nn.conv2d(picture, kernel, 1, "SAME"))
        weights = tensorflow.constant(rng.normal(size=(128, 2)) / 100, tensorflow.float32)
        tensorflow.sigmoid(tensorflow.reduce_mean(maps, (1, 2)) @ weights, name="scores")
    file.write_bytes(graph.as_graph_def().SerializeToString())


@pytest.mark.parametrize(("architecture", "write"), [("keras", keras_file), ("graph", frozen_graph)])
def test_imported_networks_run_by_openvino_too(
    architecture: str, write: Any, folder: Path, batch: np.ndarray, tmp_path: Path
) -> None:
    one = card.load(folder)
    write(tmp_path / "weights.keras")
    imported = replace(
        one, folder=tmp_path, weights="weights.keras", architecture=architecture, channels=1, scale=1.0,
        labels=one.labels[:2], mean=(0.5, 0.5, 0.5), sha256="sha256:" + architecture,
    )  # fmt: skip
    pictures = np.ascontiguousarray(batch[..., :1]) / 200
    exact = runtime.start(imported, "tensorflow").run(pictures)
    fast = runtime.start(imported, "openvino", tmp_path / "cache").run(pictures)
    assert fast.scores.shape == (17, 2) and np.ptp(exact.scores) > 1e-3
    assert openvino.holds(exact, fast)


def test_what_the_head_reads_is_said_too_where_the_card_needs_it(
    folder: Path, cache: Path, batch: np.ndarray
) -> None:
    guarded = replace(card.load(folder), scope="scope.npz")
    exact = runtime.start(guarded, "tensorflow").run(batch[:3])
    fast = runtime.start(guarded, "openvino", cache).run(batch[:3])
    assert exact.features is not None and fast.features is not None
    assert fast.features.shape == exact.features.shape == (3, 64)
    assert openvino.holds(exact, fast)
    assert runtime.start(card.load(folder), "openvino", cache).run(batch[:1]).features is None


def test_a_batch_does_not_change_what_was_said_of_the_one_before(
    folder: Path, cache: Path, batch: np.ndarray
) -> None:
    run = runtime.start(card.load(folder), "openvino", cache).run
    first = run(batch[:2])
    before = first.scores.copy()
    run(batch[2:4])
    assert np.array_equal(first.scores, before)


def in_a_process(code: str, *arguments: object, **more: str) -> str:
    env = {key: value for key, value in os.environ.items() if not key.startswith("TF_")} | more
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=env
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_the_second_load_needs_neither_tensorflow_nor_keras(folder: Path, cache: Path) -> None:
    code = (
        "import sys; sys.modules.update(tensorflow=None, keras=None)\n"
        "from pathlib import Path; from model.classifier import Classifier\n"
        "print(Classifier.load(Path(sys.argv[1]), 'auto', Path(sys.argv[2])).runtime)"
    )
    assert in_a_process(code, folder, cache, CUDA_VISIBLE_DEVICES="-1") == "openvino"


HEAR = """
import gc, os, signal, sys
from pathlib import Path
from model.classifier import Classifier
signal.signal(signal.SIGTERM, lambda number, frame: print("heard"))
first, second = (Classifier.load(Path(sys.argv[1]), "openvino", Path(sys.argv[2])) for _ in range(2))
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_process_still_hears_signals_when_models_were_dropped(folder: Path, cache: Path) -> None:
    """It died of the first signal where each model had an OpenVINO of its own."""
    assert in_a_process(HEAR, folder, cache) == "heard"


SPY = """
import sys
from pathlib import Path
seen = []
WATCHED = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request",
           "os.fork", "os.posix_spawn")
def note(event, arguments):
    if event in WATCHED:
        seen.append(event)
    # Keras's own imports ask for the processor and for fonts
    if event == "subprocess.Popen" and arguments[0] not in ("uname", "fc-list"):
        seen.append(arguments[0])
sys.addaudithook(note)
from model.classifier import Classifier
Classifier.load(Path(sys.argv[1]), "openvino", Path(sys.argv[2]))
assert "openvino" in sys.modules and "tensorflow" in sys.modules
print(seen, [name for name in sys.modules if name.startswith("openvino_telemetry.")], sys.modules["openvino_telemetry"])
"""


def test_converting_opens_no_connection_and_starts_nothing_that_could(folder: Path, tmp_path: Path) -> None:
    """By Python's audit events. `import openvino` alone would report to an analytics service, from another process."""
    home = tmp_path / "home"
    home.mkdir()
    assert in_a_process(SPY, folder, tmp_path / "cache", HOME=str(home)) == "[] [] None"
    assert not (home / "intel").exists()


def damage_a_byte(there: Path) -> None:
    content = bytearray((there / kept.BIN).read_bytes())
    content[len(content) // 2] ^= 1
    (there / kept.BIN).write_bytes(content)


def cut_the_network(there: Path) -> None:
    content = (there / kept.XML).read_bytes()
    (there / kept.XML).write_bytes(content[: len(content) // 2])


def lose_a_file(there: Path) -> None:
    (there / kept.BIN).unlink()


def write_rubbish(there: Path) -> None:
    (there / kept.SUMS).write_bytes(b"[\xff")


def put_a_file_there(there: Path) -> None:
    kept.remove(there)
    there.write_text("no folder")


def keep_no_network(there: Path) -> None:
    """Whole by its sums, and yet nothing that OpenVINO can read."""
    kept.remove(there)
    kept.write(there, kept.Converted(b"<net/>", b""))


@pytest.mark.parametrize(
    "damage",
    [damage_a_byte, cut_the_network, lose_a_file, write_rubbish, put_a_file_there, keep_no_network],
    ids=lambda damage: damage.__name__,
)
def test_what_is_kept_and_damaged_is_thrown_away_and_made_again(
    damage: Any, folder: Path, cache: Path, batch: np.ndarray, tmp_path: Path
) -> None:
    there = tmp_path / "openvino" / openvino.key(card.load(folder))
    shutil.copytree(cache / "openvino" / there.name, there)
    before = scores(Classifier.load(folder, "openvino", tmp_path), batch)
    whole = (there / kept.BIN).read_bytes()
    damage(there)

    again = Classifier.load(folder, "openvino", tmp_path)

    assert again.note == ""
    assert np.array_equal(scores(again, batch), before)
    assert (folder_in(tmp_path) / kept.BIN).read_bytes() == whole
    assert kept.read(there)


def test_what_is_kept_for_one_model_is_never_used_for_another(
    folder: Path, cache: Path, batch: np.ndarray, tmp_path: Path
) -> None:
    """The key holds all that the network depends on."""
    other = small(tmp_path / "other", seed=1)
    said = scores(Classifier.load(other, "openvino", cache), batch)
    assert np.allclose(said, scores(Classifier.load(other), batch), atol=ALLOWED)
    assert not np.allclose(said, scores(Classifier.load(folder), batch), atol=ALLOWED)

    one = card.load(folder)
    changes: list[dict[str, Any]] = [
        {}, {"sha256": "sha256:" + "0" * 64}, {"architecture": "keras"}, {"pools": ("block2_pool",)}, {"size": 64},
        {"head": "roots"}, {"hidden": (8,)}, {"channels": 1}, {"scope": "scope.npz"}, {"doubt": "doubt.npz"},
        {"labels": one.labels[1:]},
    ]  # fmt: skip
    assert len({openvino.key(replace(one, **change)) for change in changes}) == len(changes)


def test_of_two_processes_that_convert_at_once_the_first_ones_work_stays_whole(tmp_path: Path) -> None:
    first, second = (kept.Converted(b"<net/>", bytes([n]) * 1000) for n in range(2))
    kept.write(tmp_path / "a", first)
    kept.write(tmp_path / "a", second)
    assert kept.read(tmp_path / "a") == first
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_what_nobody_has_read_for_long_is_removed_and_what_is_read_stays(tmp_path: Path) -> None:
    one = kept.Converted(b"<net/>", b"weights")
    for name in ("read", "unread"):
        kept.write(tmp_path / name, one)
    for name in ("read", "unread"):
        os.utime(tmp_path / name, (0, 0))
    assert kept.read(tmp_path / "read") == one
    kept.write(tmp_path / "new", one)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["new", "read"]


def test_a_cache_that_cannot_be_written_is_said_and_the_model_runs(
    folder: Path, batch: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    loaded = Classifier.load(folder, "openvino", tmp_path / "file")
    assert "is converted at each start" in loaded.note
    assert len(loaded.predict(batch[:1])) == 1


def test_the_users_own_cache_is_where_the_desktops_rules_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kept.of_user() == tmp_path / "hilum"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, by these rules
    assert kept.of_user() == Path.home() / ".cache/hilum"


def test_openvino_that_is_wanted_and_not_installed_is_one_line_that_names_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    with pytest.raises(BadModel, match=r"hilum\[openvino\]") as error:
        Classifier.load(folder, "openvino")
    assert "\n" not in str(error.value)
    loaded = Classifier.load(folder, "auto")
    assert (loaded.runtime, loaded.note) == ("tensorflow", "")


def test_auto_is_tensorflow_where_it_has_a_gpu(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(runtime, "version", lambda name: "2.21.0")
    monkeypatch.setattr(runtime, "GPUS", (tmp_path / "nvidia0",))
    assert Classifier.load(folder, "auto", cache).runtime == "openvino"
    (tmp_path / "nvidia0").touch()
    assert Classifier.load(folder, "auto", cache).runtime == "tensorflow"
    assert Classifier.load(folder, "openvino", cache).runtime == "openvino"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Classifier.load(folder, "auto", cache).runtime == "openvino"


def test_a_network_that_openvino_gets_wrong_is_never_run_by_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`auto` takes TensorFlow and says why; who wants OpenVINO is told."""
    compiled = openvino.compiled

    def wrong(converted: kept.Converted) -> runtime.Run:
        run = compiled(converted)
        return lambda batch: Said(run(batch).scores + 2 * np.float32(openvino.SCORES))

    monkeypatch.setattr(openvino, "compiled", wrong)
    with pytest.raises(BadModel, match="something else by OpenVINO"):
        Classifier.load(folder, "openvino", tmp_path)
    loaded = Classifier.load(folder, "auto", tmp_path)
    assert loaded.runtime == "tensorflow" and "something else by OpenVINO" in loaded.note
    assert not (tmp_path / "openvino").exists()


def test_a_network_that_fewer_multiplications_get_wrong_is_kept_as_it_was_converted(
    folder: Path, batch: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(winograd, "is_worth_it", lambda: True)
    for least in ("LEAST_IN", "LEAST_OUT"):
        monkeypatch.setattr(winograd, least, 1)
    right = Classifier.load(folder, "openvino", tmp_path / "right")
    monkeypatch.setattr(winograd, "INPUT", 0 * winograd.INPUT)
    wrong = Classifier.load(folder, "openvino", tmp_path / "wrong")

    assert np.allclose(scores(right, batch), scores(Classifier.load(folder), batch), atol=1e-4)
    assert np.allclose(scores(wrong, batch), scores(right, batch), atol=1e-4)
    assert b'type="Convolution"' not in (folder_in(tmp_path / "right") / kept.XML).read_bytes()
    assert b'type="Convolution"' in (folder_in(tmp_path / "wrong") / kept.XML).read_bytes()


def test_a_network_that_openvino_cannot_convert_is_said_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(graph: Any) -> Any:
        raise RuntimeError("an operation\nthat nobody knows")

    monkeypatch.setattr(openvino.library(), "convert_model", fail)
    with pytest.raises(BadModel, match=r"can't convert this network \(RuntimeError\)$"):
        Classifier.load(folder, "openvino", tmp_path)
    assert Classifier.load(folder, "auto", tmp_path).runtime == "tensorflow"


def test_a_network_that_openvino_cannot_run_is_said_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(openvino, "_converted", lambda filled, card, fewer: kept.Converted(b"<net/>", b""))
    with pytest.raises(BadModel, match=r"can't run this network$"):
        Classifier.load(folder, "openvino", tmp_path)


def test_weights_that_do_not_fit_the_card_are_a_bad_model_by_any_runtime(
    folder: Path, tmp_path: Path
) -> None:
    wrong = replace(card.load(folder), pools=("block2_pool",))
    for wanted in runtime.RUNTIMES:
        with pytest.raises(BadModel, match="missing"):
            runtime.start(wrong, wanted, tmp_path)


def test_all_is_computed_in_float32_whatever_the_cpu_would_rather(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO takes bfloat16 by itself where the CPU has it; scores then move by more than is allowed."""
    asked = []

    class Core:
        def __getattr__(self, name: str) -> Any:
            return getattr(core, name)

        def compile_model(self, network: Any, device: str, wanted: dict[str, Any]) -> Any:
            asked.append((device, wanted["INFERENCE_PRECISION_HINT"]))
            return core.compile_model(network, device, wanted)

    core = openvino.core()
    monkeypatch.setattr(openvino, "core", Core)
    Classifier.load(folder, "openvino", cache)
    assert asked == [("CPU", "f32")]
