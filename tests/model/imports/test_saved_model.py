"""A TensorFlow SavedModel folder becomes one frozen graph of plain arithmetic."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign.keras2 import noise, raw

from model import runtime
from model.card import Card
from model.classifier import Classifier
from model.errors import BadModel
from model.network import keras

Bring = Callable[..., Card]


@pytest.fixture(scope="module")
def tf() -> Any:
    keras()
    import tensorflow

    return tensorflow


def save(tf: Any, folder: Path, says: Callable[[Any, Any, Any], Any]) -> Any:
    """A module with two variables; `says` gets the picture and both. Returns what it says."""
    module = tf.Module()
    module.kernel = tf.Variable(
        np.random.default_rng(1).normal(0, 0.4, (3, 3, 3, 2)).astype("f4"), name="same"
    )
    module.inner = tf.Module()
    module.inner.bias = tf.Variable(np.array([0.3, -0.2], "f4"), name="same")
    shape = tf.TensorSpec((None, 32, 32, 3), tf.float32, name="x")
    module.say = tf.function(lambda x: says(x, module.kernel, module.inner.bias), [shape], autograph=False)
    tf.saved_model.save(module, str(folder), signatures=module.say)
    return module.say


def shares(tf: Any) -> Callable[[Any, Any, Any], Any]:
    @tf.function
    def inside(x: Any, kernel: Any) -> Any:
        return tf.nn.conv2d(x, kernel, 1, "VALID")

    return lambda x, kernel, bias: tf.sigmoid(tf.reduce_mean(inside(x, kernel), (1, 2)) * 9 + bias)


def test_a_saved_model_says_what_it_said(tf: Any, tmp_path: Path, bring: Bring) -> None:
    say = save(tf, tmp_path / "saved", shares(tf))

    card = bring(tmp_path / "saved", labels="Pneumonia,Effusion")

    assert card.architecture == "graph"
    assert np.ptp(say(noise(32))) > 0.01
    assert np.abs(raw(card, noise(32)) - say(noise(32))).max() < 1e-6


def test_what_keras_exports_is_read(tf: Any, tmp_path: Path, bring: Bring) -> None:
    of = keras().layers
    picture = keras().Input((None, None, 1))
    x = of.Conv2D(40, 5, activation="relu")(picture)  # more weights than stay inside a graph
    x = of.Dropout(0.5)(of.GlobalAveragePooling2D()(of.BatchNormalization()(x)))
    model = keras().Model(picture, of.Dense(1, "sigmoid")(x))
    model.export(tmp_path / "saved", verbose=False)

    card = bring(tmp_path / "saved", size=48)

    assert (card.size, card.channels) == (48, 1)
    said = model.predict_on_batch(noise(48, 1))
    assert np.abs(raw(card, noise(48, 1)) - said).max() < 1e-6
    if runtime.is_installed():
        converted = Classifier.load(card.folder, "openvino", tmp_path / "cache").predict(noise(48, 1))
        assert np.abs([found[0].raw for found in converted] - said[:, 0]).max() < 0.01


def test_logits_are_told_and_get_a_sigmoid(tf: Any, tmp_path: Path, bring: Bring) -> None:
    say = save(tf, tmp_path / "saved", lambda x, k, b: tf.nn.bias_add(tf.reduce_mean(x, (1, 2))[:, :2], b))

    with pytest.raises(BadModel, match=r"no probabilities.*--logits"):
        bring(tmp_path / "saved", labels="A,B")
    card = bring(tmp_path / "saved", labels="A,B", logits=True)

    assert np.abs(raw(card, noise(32)) - 1 / (1 + np.exp(-say(noise(32)).numpy()))).max() < 1e-6


def bad(tf: Any, folder: Path) -> dict[str, tuple[Callable[[Any, Any, Any], Any], str]]:
    """What a graph must not do, and what is told."""
    plain = shares(tf)

    def after(act: Callable[[Any], Any]) -> Callable[[Any, Any, Any], Any]:
        def says(x: Any, kernel: Any, bias: Any) -> Any:
            with tf.control_dependencies([act(x)]):
                return plain(x, kernel, bias) + 0.0

        return says

    return {
        "python": (
            lambda x, k, b: tf.ensure_shape(
                tf.py_function(lambda t: t, [plain(x, k, b)], tf.float32), (None, 2)
            ),
            "EagerPyFunc",
        ),
        "read": (
            lambda x, k, b: (
                plain(x, k, b) + 0 * tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)
            ),
            "something else than numbers",
        ),
        "write": (
            after(lambda x: tf.io.write_file(str(folder / "never"), tf.as_string(x[0, 0, 0, 0]))),
            "AsString|WriteFile",
        ),
        "print": (
            after(lambda x: tf.print(x, output_stream=f"file://{folder}/never")),
            "PrintV2|StringFormat",
        ),
        "random": (lambda x, k, b: plain(x + tf.random.normal((1,)), k, b), "draws random numbers"),
        "loop": (
            lambda x, k, b: tf.while_loop(lambda y: True, lambda y: (y + 1,), (plain(x, k, b),))[0],
            "is the operation",
        ),
    }


@pytest.mark.parametrize("what", ["python", "read", "write", "print", "random", "loop"])
def test_a_graph_that_does_more_than_arithmetic_is_refused(
    tf: Any, tmp_path: Path, bring: Bring, what: str
) -> None:
    says, told = bad(tf, tmp_path)[what]
    save(tf, tmp_path / "saved", says)

    with pytest.raises(BadModel, match=told):
        bring(tmp_path / "saved", labels="A,B")
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_what_the_serving_signature_does_not_reach_is_never_run(
    tf: Any, tmp_path: Path, bring: Bring
) -> None:
    """An initializer that reads a file, which TensorFlow's own loader runs."""
    words = tmp_path / "words.txt"
    words.write_text("a\t1\n")
    module = tf.Module()
    module.kernel = tf.Variable(np.ones((3, 3, 3, 2), "f4"))
    reads = tf.lookup.TextFileInitializer(str(words), tf.string, 0, tf.int64, 1, delimiter="\t")
    module.table = tf.lookup.StaticHashTable(reads, -1)
    say = tf.function(
        lambda x: tf.sigmoid(tf.reduce_mean(tf.nn.conv2d(x - 0.5, module.kernel, 1, "VALID"), (1, 2))),
        [tf.TensorSpec((None, 32, 32, 3), tf.float32)],
    )
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=say)
    for asset in (tmp_path / "saved" / "assets").iterdir():
        asset.write_text("no number")

    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.saved_model.load(str(tmp_path / "saved"))
    card = bring(tmp_path / "saved", labels="A,B")

    assert np.abs(raw(card, noise(32)) - say(noise(32))).max() < 1e-6


def test_a_graph_is_checked_again_at_each_load(tf: Any, tmp_path: Path, bring: Bring) -> None:
    from tensorflow.core.framework import graph_pb2

    from model import network

    save(tf, tmp_path / "saved", shares(tf))
    card = bring(tmp_path / "saved", labels="A,B")
    graph = graph_pb2.GraphDef.FromString(card.weights_path.read_bytes())
    graph.node.add(name="evil", op="ReadFile")
    card.weights_path.write_bytes(graph.SerializeToString())

    with pytest.raises(BadModel, match="'evil' is the operation ReadFile"):
        network.load(card)
    card.weights_path.write_bytes(b"\xff" * 100)
    with pytest.raises(BadModel, match="no TensorFlow graph"):
        network.load(card)


@pytest.mark.parametrize("missing", ["variables", "saved_model.pb", "half of it"])
def test_a_folder_that_is_not_whole_is_told(tf: Any, tmp_path: Path, bring: Bring, missing: str) -> None:
    folder = tmp_path / "saved"
    save(tf, folder, shares(tf))
    if missing == "variables":
        shutil.rmtree(folder / "variables")
    elif missing == "saved_model.pb":
        (folder / missing).unlink()
    else:
        whole = (folder / "saved_model.pb").read_bytes()
        (folder / "saved_model.pb").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(BadModel):
        bring(folder, labels="A,B")
    assert not list(tmp_path.glob("*model*"))


def test_a_link_inside_the_folder_is_not_followed(tf: Any, tmp_path: Path, bring: Bring) -> None:
    save(tf, tmp_path / "saved", shares(tf))
    data = next((tmp_path / "saved" / "variables").glob("*.data*"))
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(BadModel, match="is a link"):
        bring(tmp_path / "saved", labels="A,B")
