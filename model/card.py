"""card.toml: what a model folder holds, how its input is made, and from which score on a finding counts as present.

A model folder is a weights file and a card. The card is all that the node needs to know about a model
before TensorFlow is imported: reading it takes a millisecond and touches no weights. `verify` is the slow,
separate question whether the weights are the ones the card was written for.

The card is data from outside (a hospital imports its own models): every key is checked, and each complaint
names the file and the key.
"""

import hashlib
import math
import re
import tomllib
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from model.errors import BadModel

CARD = "card.toml"
SCHEMA = 1
SHIPPED = Path(__file__).parent / "shipped"
"""The model that comes with the package."""

_T = TypeVar("_T", str, int)

VGG16, KERAS, GRAPH = "vgg16", "keras", "graph"
ARCHITECTURES = (VGG16, KERAS, GRAPH)
"""Built here and filled from an .npz; a `.keras` file; a frozen TensorFlow graph. The last two are imported."""
POOLS = tuple(
    f"block{block}_pool{regions}"
    for block in range(1, 6)
    for regions in ("", *(f"/{n}" for n in range(2, 8)))
)
"""Averaged over the whole picture, or over 2 x 2 to 7 x 7 regions of it (`block4_pool/3`)."""
HEADS = ("averages", "roots", "flatten")
WIDEST, DEEPEST = 4096, 4
"""Units of a hidden layer, and hidden layers: VGG16's own head had two of 4,096."""
FITS = ("stretch",)
MOST_OUTPUTS = 1000
MOST_KNOTS = 10_000
LARGEST_SIDE = 1024
"""No VGG16 was ever trained on more; a typing error would take all memory (3 floats a pixel, batch times)."""


@dataclass(frozen=True)
class Temperature:
    """score = sigmoid(logit(raw) / temperature + shift)."""

    temperature: float
    """Over 0; above 1 the network was too sure."""
    shift: float
    """Added to the logit."""


@dataclass(frozen=True)
class Knots:
    """The corners of isotonic regression, straight lines between them."""

    raw: tuple[float, ...]
    """Rising strictly, two at least."""
    score: tuple[float, ...]
    """Never falling, 0 to 1."""


Curve = Temperature | Knots
"""From a network's output to a share of images; `model.calibrate` fits and draws them."""
METHODS = ("temperature", "isotonic")


@dataclass(frozen=True)
class Card:
    """One model folder's card, checked. Labels, thresholds and displays name the same findings in the same order."""

    name: str
    version: str
    intended_use: str
    limits: str
    folder: Path
    weights: str
    """The weights' file name inside `folder`."""
    sha256: str
    """Of the weights file, as `sha256:` and 64 hexadecimal digits."""
    architecture: str
    pools: tuple[str, ...]
    """The layers that the head reads: their averages over the picture, or all values of the only one."""
    size: int
    """Side of the network's square input in pixels."""
    fit: str
    """How a picture comes to that square: `stretch` gives each axis its own scale."""
    scale: float
    """What bright (1.0) becomes; black (0.0) stays 0."""
    mean: tuple[float, float, float]
    """Subtracted from the three equal channels after scaling."""
    labels: tuple[str, ...]
    display: dict[str, str]
    """Label -> the words that a person reads."""
    thresholds: dict[str, float]
    """Label -> the score from which on the finding counts as present."""
    rule: str
    """How the thresholds were chosen, in words."""
    head: str = HEADS[0]
    """`averages`, `roots` of them, or `flatten`: how the pools come to the head. Averages where a card is silent."""
    hidden: tuple[int, ...] = ()
    """Units of the dense layers (ReLU) between features and head."""
    channels: int = 3
    """1 or 3; three are equal but for their means and spreads."""
    spread: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """What the channels are divided by, their means once subtracted."""
    each_picture: bool = False
    """Whether each picture is brought to mean 0 and spread 1 by itself, after scaling, before `mean`."""
    columns: tuple[int, ...] = ()
    """Which of the network's outputs are the labels'; empty: all, in their order."""
    calibrations: dict[str, Curve] = field(default_factory=dict)
    """Label -> from the network's output to a share of images; empty where the card has no calibration."""
    prevalence: dict[str, float] = field(default_factory=dict)
    """Label -> the share of positives for which calibrated scores hold."""
    calibrated_how: str = ""
    """On which images and by what, in words; empty where there is no calibration."""
    scope: str = ""
    """The file inside `folder` by which pictures out of scope are known; empty: the shipped model's is used."""
    scope_sha256: str = ""
    doubt: str = ""
    """The file inside `folder` by which a score gets its range; empty: scores have none."""
    doubt_sha256: str = ""

    @property
    def is_calibrated(self) -> bool:
        return bool(self.calibrations)

    @cached_property
    def identity(self) -> str:
        """`sha256:…` of the weights' hash and all that the card says: two models may share weights and differ in a
        threshold, a curve or a word, and what they say of a picture is then not the same."""
        told = [f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.name != "folder"]
        return "sha256:" + hashlib.sha256("\0".join(told).encode()).hexdigest()

    @property
    def weights_path(self) -> Path:
        return self.folder / self.weights


def load(folder: Path) -> Card:
    """Reads and checks `folder`/card.toml; the weights are neither opened nor looked for.

    Raises BadModel when the card is missing, is no TOML, lacks a key or holds a value that can't be used.
    """
    path = folder / CARD
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadModel(f"{path}: can't be read ({error.strerror or type(error).__name__})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadModel(f"{path}: is no TOML file: {error}") from error
    read = _Reader(path, tree)

    read.one_of("schema", (SCHEMA,))
    findings = read.tables("findings")
    labels = tuple(finding.words("label") for finding in findings)
    if len(set(labels)) != len(labels):
        raise read.wrong("findings", "each label may stand there once")
    architecture = read.one_of("network.architecture", ARCHITECTURES)
    head, hidden = _head(read) if architecture == VGG16 else ("", ())
    calibrations, how = _calibrations(read, findings, labels)
    scope, scope_sha256 = _part(read, "scope")
    doubt, doubt_sha256 = _part(read, "doubt")
    return Card(
        name=read.words("name"),
        version=read.words("version"),
        intended_use=read.words("intended_use"),
        limits=read.words("limits"),
        folder=folder,
        weights=read.file("weights.file"),
        sha256=read.hash("weights.sha256"),
        architecture=architecture,
        pools=read.all_words("network.pools") if architecture == VGG16 else (),
        size=int(read.number("input.size", 32, LARGEST_SIDE, whole=True)),
        fit=read.one_of("input.fit", FITS),
        scale=read.number("input.scale", 1e-6, 65535),
        mean=read.three("input.mean"),
        labels=labels,
        display={label: finding.words("display") for label, finding in zip(labels, findings, strict=True)},
        thresholds={
            label: finding.number("threshold", 0, 1) for label, finding in zip(labels, findings, strict=True)
        },
        rule=read.words("thresholds.rule"),
        head=head,
        hidden=hidden,
        channels=read.one_of("input.channels", (1, 3), 3) if architecture != VGG16 else 3,
        spread=read.three("input.spread", (1.0, 1.0, 1.0), above=0),
        each_picture=read.truth("input.each_picture"),
        columns=_columns(read, len(labels)) if architecture != VGG16 else (),
        calibrations=calibrations,
        prevalence={
            label: finding.number("prevalence", 1e-6, 1 - 1e-6)
            for label, finding in zip(labels, findings, strict=True)
            if calibrations
        },
        calibrated_how=how,
        scope=scope,
        scope_sha256=scope_sha256,
        doubt=doubt,
        doubt_sha256=doubt_sha256,
    )


def _head(read: "_Reader") -> tuple[str, tuple[int, ...]]:
    """`network.head` and `network.hidden`, which older cards leave out; and whether the pools suit the head."""
    head = read.one_of("network.head", HEADS, HEADS[0])
    hidden = read.wholes("network.hidden", 1, WIDEST, DEEPEST)
    pools = read.all_words("network.pools")
    if set(pools) - set(POOLS) or len(set(pools)) != len(pools):
        raise read.wrong(
            "network.pools",
            "must be some of block1_pool to block5_pool, each once, or regions of them: block4_pool/3",
        )
    if head == "flatten" and (len(pools) != 1 or "/" in pools[0]):
        raise read.wrong("network.pools", "must be one pool without regions where network.head is 'flatten'")
    return head, hidden


def _columns(read: "_Reader", labels: int) -> tuple[int, ...]:
    columns = read.wholes("network.columns", 0, MOST_OUTPUTS - 1, MOST_OUTPUTS)
    if columns and (len(columns) != labels or len(set(columns)) != len(columns)):
        raise read.wrong("network.columns", f"must name one output for each of the {labels} findings")
    return columns


def _calibrations(
    read: "_Reader", findings: list["_Reader"], labels: tuple[str, ...]
) -> tuple[dict[str, Curve], str]:
    """Each label's curve, and how they were fitted; nothing where the card has no [calibration]."""
    if not read.has("calibration"):
        return {}, ""
    method = read.one_of("calibration.method", METHODS)
    curves: dict[str, Curve] = {}
    for label, finding in zip(labels, findings, strict=True):
        if method == "temperature":
            curves[label] = Temperature(
                finding.number("temperature", 1e-3, 1e3), finding.number("shift", -50, 50)
            )
        else:
            curves[label] = finding.knots("knots")
    return curves, read.words("calibration.how")


def _part(read: "_Reader", key: str) -> tuple[str, str]:
    """The file that a table names, and its hash; empty where the card has no such table."""
    if not read.has(key):
        return "", ""
    return read.file(f"{key}.file"), read.hash(f"{key}.sha256")


def sha256_of(folder: Path) -> str:
    """The hash by which a folder's weights are named; empty where its card can't be used."""
    try:
        return load(folder).sha256
    except BadModel:
        return ""


def verify(card: Card) -> None:
    """Hashes the folder's files (30 MB take some 20 ms) and compares them with the card; raises BadModel."""
    _verify(card.weights_path, card.sha256, "weights.sha256")
    if card.scope:
        _verify(card.folder / card.scope, card.scope_sha256, "scope.sha256")
    if card.doubt:
        _verify(card.folder / card.doubt, card.doubt_sha256, "doubt.sha256")


def _verify(file: Path, said: str, key: str) -> None:
    try:
        with file.open("rb") as opened:
            found = "sha256:" + hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise BadModel(f"{file}: can't be read ({error.strerror or type(error).__name__})") from error
    if found != said:
        raise BadModel(f"{file}: its hash is {found}, {CARD} says {said} ({key})")


class _Reader:
    """Values of one TOML table, each checked as it is taken; `a.b` is key b of table a."""

    def __init__(self, path: Path, tree: dict[str, Any], where: str = "") -> None:
        self._path, self._tree, self._where = path, tree, where

    def wrong(self, key: str, should: str) -> BadModel:
        return BadModel(f"{self._path}: {self._where}{key}: {should}")

    def _take(self, key: str, otherwise: Any = None) -> Any:
        value: Any = self._tree
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                if otherwise is not None:
                    return otherwise
                raise self.wrong(key, "is missing")
            value = value[part]
        return value

    def words(self, key: str) -> str:
        value = self._take(key)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, "must be a text that is not empty")
        return value.strip()

    def all_words(self, key: str) -> tuple[str, ...]:
        value = self._take(key)
        if not isinstance(value, list) or not value or not all(isinstance(v, str) and v for v in value):
            raise self.wrong(key, "must be a list of texts that is not empty")
        return tuple(value)

    def matching(self, key: str, pattern: str, should: str) -> str:
        value = self.words(key)
        if not re.fullmatch(pattern, value):
            raise self.wrong(key, f"must be {should}")
        return value

    def has(self, key: str) -> bool:
        return key in self._tree

    def file(self, key: str) -> str:
        return self.matching(key, r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", "a plain file name")

    def hash(self, key: str) -> str:
        return self.matching(key, r"sha256:[0-9a-f]{64}", "`sha256:` and 64 hexadecimal digits")

    def truth(self, key: str) -> bool:
        """False where it is left out."""
        value = self._take(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "must be true or false")
        return value

    def knots(self, key: str) -> Knots:
        """[[raw, score], …]: raw scores rising, scores never falling, all from 0 to 1."""
        value = self._take(key)
        pairs = value if isinstance(value, list) else []
        right = 2 <= len(pairs) <= MOST_KNOTS and all(
            isinstance(pair, list)
            and len(pair) == 2
            and all(isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= 1 for v in pair)
            for pair in pairs
        )
        neighbours = list(pairwise(pairs)) if right else []
        if not right or any(b[0] <= a[0] or b[1] < a[1] for a, b in neighbours):
            raise self.wrong(
                key, "must be two or more [raw, score] from 0 to 1, raw rising and score never falling"
            )
        return Knots(tuple(float(raw) for raw, _ in pairs), tuple(float(score) for _, score in pairs))

    def wholes(self, key: str, least: int, most: int, longest: int) -> tuple[int, ...]:
        """A list of whole numbers, which may be empty or left out."""
        value = self._take(key, ())
        if not isinstance(value, list | tuple) or len(value) > longest:
            raise self.wrong(key, f"must be a list of at most {longest} whole numbers")
        if not all(type(v) is int and least <= v <= most for v in value):
            raise self.wrong(key, f"must hold whole numbers from {least} to {most}")
        return tuple(value)

    def one_of(self, key: str, choices: tuple[_T, ...], otherwise: _T | None = None) -> _T:
        value = self._take(key, otherwise)
        if isinstance(value, bool | list | dict) or value not in choices:
            raise self.wrong(key, f"is {value!r}; this version knows {', '.join(map(repr, choices))}")
        return value

    def number(self, key: str, least: float, most: float, *, whole: bool = False) -> float:
        value = self._take(key)
        kind = int if whole else int | float
        if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
            raise self.wrong(key, f"must be a {'whole ' if whole else ''}number")
        if not least <= value <= most:
            raise self.wrong(key, f"must be from {least} to {most}")
        return float(value)

    def three(
        self, key: str, otherwise: tuple[float, float, float] | None = None, above: float = -math.inf
    ) -> tuple[float, float, float]:
        value = self._take(key, otherwise)
        if (
            not isinstance(value, list | tuple)
            or len(value) != 3
            or not all(
                isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) and v > above
                for v in value
            )
        ):
            more = f" above {above:g}" if math.isfinite(above) else ""
            raise self.wrong(key, f"must be a list of three numbers{more}")
        return (float(value[0]), float(value[1]), float(value[2]))

    def tables(self, key: str) -> list["_Reader"]:
        value = self._take(key)
        if not isinstance(value, list) or not value or not all(isinstance(v, dict) for v in value):
            raise self.wrong(key, f"must be one or more [[{key}]] tables")
        return [_Reader(self._path, v, f"{self._where}{key}[{i}].") for i, v in enumerate(value)]
