"""hilum model import: a person's model in, a model folder out, whole or not at all.

What the file says is taken from the file; what it does not say and nobody gave is asked for, at a terminal, or named in
one line.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model import card
from model.card import GRAPH, KERAS, LARGEST_SIDE, VGG16
from model.card_text import Tree, toml
from model.errors import BadData, BadModel
from model.imports import card_tree, preprocess, vgg
from model.imports.built import Built
from model.imports.card_tree import Network
from model.imports.check import Checked, check
from model.imports.source import Source, look
from model.npz import write_arrays

Ask = Callable[[str], str]
"""A question to a person -> the answer."""

NO_FINDING = "-"
LEAST_SIDE = 32
SPARE = 50_000_000
"""Bytes that must be free beside the weights."""
FILES = {VGG16: "weights.npz", KERAS: "model.keras", GRAPH: "model.pb"}
OPEN = {"linear": "linear", "BiasAdd": "linear", "MatMul": "linear", "AddV2": "linear", "Add": "linear"}
"""Last steps that bound nothing."""


@dataclass(frozen=True)
class Asked:
    """What the person said; empty or None: to be inferred or asked for."""

    name: str = ""
    version: str = "1"
    labels: str = ""
    """Separated by commas, one an output; `-` for an output that is no finding."""
    display: tuple[str, ...] = ()
    """LABEL=WORDS each."""
    size: int | None = None
    preprocess: str = ""
    thresholds: tuple[str, ...] = ()
    """A number for all, or LABEL=NUMBER each."""
    logits: bool = False
    """A sigmoid is to be put behind the outputs."""
    images: Path | None = None
    """Looked at in the self-check too."""


@dataclass(frozen=True)
class Made:
    """The source as a network that answers."""

    model: Any
    """A Keras model or a `graph.Graph`."""
    outputs: int
    architecture: str
    side: int
    channels: int
    named: str
    """What the file calls its output, or itself."""


def import_model(source: Path, out: Path, weights: Path | None, asked: Asked, ask: Ask | None) -> str:
    """Writes the model folder `out`, which must not be there yet; the lines for the person.

    `ask`: None where nobody can be asked. Raises BadData, BadModel, OSError; then nothing is left behind.
    """
    _check_place(out)
    found = look(source, weights, logits=asked.logits)
    _check_room(out, found)
    try:
        return _imported(found, source, out, asked, ask)
    except BadModel as error:
        raise error if str(error).startswith(str(source)) else BadModel(f"{source}: {error}") from error


def _imported(found: Source, source: Path, out: Path, asked: Asked, ask: Ask | None) -> str:
    side, channels = _input(found, asked)
    words = asked.preprocess or (preprocess.inferred(found.network) if found.network else "")
    words = words or _answer(
        ask,
        f"How were pictures prepared for this network?\n{preprocess.explained()}\nPreprocessing",
        "--preprocess",
    )
    prepared = preprocess.named(words, channels)
    made = _make(found, side, channels, asked.logits)
    named = asked.labels or _said_label(made) or _answer(ask, _labels_question(made), "--labels")
    labels, columns = _labels(named, made.outputs)
    thresholds, rule = _thresholds(asked.thresholds, labels)
    display = _display(asked.display, labels)

    half = out.with_name(f".{out.name}.{os.getpid()}.part")
    half.mkdir()
    try:
        network = _write(half, made, columns)
        tree = card_tree.tree(
            name=asked.name or source.stem or source.name,
            version=asked.version,
            network=network,
            preprocess=prepared,
            labels=labels,
            columns=columns,
            display=display,
            thresholds=thresholds,
            rule=rule,
            how=found.how,
            files={path: _hash(path) for path in found.files},
        )
        checked = _checked(half, tree, made, asked.images)
        half.rename(out)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return "\n".join(_said(out, tree, words, found, checked))


def _check_place(out: Path) -> None:
    if os.path.lexists(out):
        raise BadData(f"{out}: is there already: name a folder that is not, with --out")
    if not out.parent.is_dir():
        raise BadData(f"{out}: the folder {out.parent} does not exist: make it first")


def _check_room(out: Path, found: Source) -> None:
    needed = sum(path.stat().st_size for path in found.files) + SPARE
    free = shutil.disk_usage(out.parent).free
    if free < needed:
        raise BadModel(f"{out}: {free // 10**6} MB are free there, {needed // 10**6} MB are needed")


def _input(found: Source, asked: Asked) -> tuple[int, int]:
    """Side and channels of the network's input."""
    if found.shape and len(found.shape) != 3:
        raise BadModel(f"its input has the shape {list(found.shape)}: rows, columns, channels are wanted")
    rows, columns, channels = found.shape or (None, None, 3)
    if channels not in (1, 3):
        raise BadModel(f"its input has {channels} channels: 1 or 3 are wanted, channels last")
    if rows != columns:
        raise BadModel(f"its input has {rows} x {columns} pixels: a square is wanted")
    if rows and asked.size and rows != asked.size:
        raise BadData(f"--size {asked.size}: the model takes {rows} x {rows}")
    side = rows or asked.size
    if not side:
        raise BadData(
            "--size is needed: the model takes pictures of any size; name the side that it was trained with"
        )
    if not LEAST_SIDE <= side <= LARGEST_SIDE:
        raise BadModel(f"its input has {side} x {side} pixels: {LEAST_SIDE} to {LARGEST_SIDE} are possible")
    return side, channels


def _make(found: Source, side: int, channels: int, logits: bool) -> Made:
    """The network, filled; raises BadModel."""
    if found.network is None or found.fill is None:
        return _make_graph(found, side, channels, logits)
    built = Built(found.network, side, channels, logits=logits)
    found.fill(built)
    last = built.model.layers[-2 if logits else -1]
    _check_end(getattr(getattr(last, "activation", None), "__name__", type(last).__name__), logits)
    return Made(
        built.model,
        built.model.outputs[0].shape[1],
        KERAS,
        side,
        channels,
        f"{last.name} {found.network.name}",
    )


def _make_graph(found: Source, side: int, channels: int, logits: bool) -> Made:
    import numpy as np

    from model.imports import graph

    nodes = {node.name: node for node in found.graph.node}
    last = nodes[graph.SCORES]
    while last.op == "Identity" or (logits and last.name == graph.SCORES):
        last = nodes[last.input[0].partition(":")[0]]
    _check_end(last.op, logits)
    started = graph.start(found.graph)
    try:
        scores = started.predict_on_batch(np.zeros((2, side, side, channels), np.float32))
    except Exception as error:  # TensorFlow's, of many kinds
        raise BadModel(f"can't be run on pictures of {side} x {side}: {type(error).__name__}") from error
    if scores.ndim != 2 or len(scores) != 2 or not scores.shape[1]:
        raise BadModel(f"says an array of the shape {scores.shape} for 2 pictures; (2, labels) is wanted")
    return Made(_Frozen(started, found.graph), scores.shape[1], GRAPH, side, channels, "")


@dataclass(frozen=True)
class _Frozen:
    """A graph, and what it was started from."""

    started: Any
    graph: Any

    def predict_on_batch(self, batch: Any) -> Any:
        return self.started.predict_on_batch(batch)

    def save(self, path: Path) -> None:
        path.write_bytes(self.graph.SerializeToString(deterministic=True))


def _check_end(last: str, logits: bool) -> None:
    if logits and last.lower() in ("sigmoid", "softmax"):
        raise BadData(f"--logits: the model ends in a {last.lower()} already: leave it out")
    if not logits and last in OPEN:
        raise BadModel(
            "its outputs are no probabilities: no sigmoid or softmax stands at its end. --logits puts a sigmoid there"
        )


def _said_label(made: Made) -> str:
    """A single output that the file itself calls pneumonia."""
    return "Pneumonia" if made.outputs == 1 and "pneumonia" in made.named.lower() else ""


def _labels_question(made: Made) -> str:
    outputs = "1 output" if made.outputs == 1 else f"{made.outputs} outputs"
    return (
        f"The network has {outputs}. What does each say? Labels, separated by commas; - for one that is no finding.\n"
        "Labels"
    )


def _labels(words: str, outputs: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The labels, and their columns; no columns where every output has a label."""
    given = [word.strip() for word in words.split(",")]
    if len(given) != outputs:
        raise BadData(
            f"--labels {words}: {len(given)} given, the model has {outputs}: one for each, {NO_FINDING} for none"
        )
    labels = [label for label in given if label != NO_FINDING]
    if not labels:
        raise BadData(f"--labels {words}: at least one output must be a finding")
    for label in labels:
        if not re.fullmatch(r"\w[\w /()+-]{0,63}", label):
            raise BadData(f"--labels {words}: {label!r} must be 1 to 64 letters, digits, spaces, _ or -")
    if len(set(labels)) != len(labels):
        raise BadData(f"--labels {words}: each label may stand there once")
    columns = tuple(n for n, label in enumerate(given) if label != NO_FINDING)
    return tuple(labels), columns if len(columns) < outputs else ()


def _thresholds(words: Sequence[str], labels: Sequence[str]) -> tuple[dict[str, float], str]:
    """Each label's, and the rule in words."""
    given = _pairs("--threshold", words, labels)
    found = {label: given.get(label, given.get("", "0.5")) for label in labels}
    numbers = {}
    for label, said in found.items():
        try:
            numbers[label] = float(said)
        except ValueError:
            numbers[label] = -1.0
        if not 0 <= numbers[label] <= 1:
            raise BadData(f"--threshold {said}: must be a number from 0 to 1")
    if not given:
        return numbers, card_tree.UNCHOSEN
    unsaid = [label for label in labels if label not in given and "" not in given]
    return numbers, card_tree.GIVEN + (f" 0.5 for {', '.join(unsaid)}, which nobody chose." if unsaid else "")


def _display(words: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    given = _pairs("--display", words, labels)
    if "" in given:
        raise BadData(f"--display {given['']}: must be LABEL=WORDS")
    for label, said in given.items():
        if not said.strip() or not said.isprintable() or len(said) > 64:
            raise BadData(f"--display {label}: must be 1 to 64 characters that can be printed")
    return {label: given.get(label, label.replace("_", " ")) for label in labels}


def _pairs(option: str, words: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """LABEL=VALUE each; a value alone is that of the empty label."""
    found: dict[str, str] = {}
    for word in words:
        label, equals, value = word.rpartition("=")
        if equals and label not in labels:
            raise BadData(f"{option} {word}: the labels are {', '.join(labels)}")
        if label in found:
            raise BadData(f"{option} {word}: is given twice")
        found[label] = value
    return found


def _answer(ask: Ask | None, question: str, option: str) -> str:
    if ask is None:
        raise BadData(f"{option} is needed: the file does not say it (`hilum model import --help` explains)")
    return ask(question).strip()


def _write(half: Path, made: Made, columns: Sequence[int]) -> Network:
    """The weights' file, made anew: nothing of the source but numbers and how layers follow each other."""
    known = (
        vgg.recognized(made.model)
        if made.architecture == KERAS and not columns and made.channels == 3
        else None
    )
    architecture = VGG16 if known else made.architecture
    path = half / FILES[architecture]
    if known:
        write_arrays(path, known[0])
    else:
        made.model.save(path)
    return Network(
        weights=path.name,
        sha256=f"sha256:{_hash(path)}",
        size=path.stat().st_size,
        architecture=architecture,
        side=made.side,
        channels=made.channels,
        hidden=known[1] if known else (),
    )


def _checked(half: Path, tree: Tree, made: Made, images: Path | None) -> Checked:
    """The self-check on the folder as written, its figures put into the card."""
    file = half / card.CARD
    file.write_text(toml(tree), encoding="utf-8")
    checked = check(card.load(half), made.model.predict_on_batch, images)
    file.write_text(toml(tree | {"self_check": checked.tree()}), encoding="utf-8")
    card.load(half)
    return checked


def _said(out: Path, tree: Mapping[str, Any], words: str, found: Source, checked: Checked) -> list[str]:
    architecture = tree["network"]["architecture"]
    marks = "marks can be drawn" if architecture == VGG16 else "no marks: its layers are not known here"
    labels = ", ".join(f"{each['label']} from {each['threshold']:g}" for each in tree["findings"])
    return [
        f"{out}: {tree['name']} {tree['version']}, from {found.how}, kept as {architecture} ({marks})",
        f"input {tree['input']['size']} x {tree['input']['size']}, preprocessing {words}; {labels}",
        *checked.lines(),
        f"not judged yet: `hilum model evaluate {out} TABLE --images DIR` says what it is worth",
    ]


def _hash(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
