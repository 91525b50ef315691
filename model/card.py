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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from model.errors import BadModel

CARD = "card.toml"
SCHEMA = 1
SHIPPED = Path(__file__).parent / "shipped"
"""The model that comes with the package."""

_T = TypeVar("_T", str, int)

ARCHITECTURES = ("vgg16",)
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
LARGEST_SIDE = 1024
"""No VGG16 was ever trained on more; a typing error would take all memory (3 floats a pixel, batch times)."""


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
    head, hidden = _head(read)
    return Card(
        name=read.words("name"),
        version=read.words("version"),
        intended_use=read.words("intended_use"),
        limits=read.words("limits"),
        folder=folder,
        weights=read.matching("weights.file", r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", "a plain file name"),
        sha256=read.matching("weights.sha256", r"sha256:[0-9a-f]{64}", "`sha256:` and 64 hexadecimal digits"),
        architecture=read.one_of("network.architecture", ARCHITECTURES),
        pools=read.all_words("network.pools"),
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


def sha256_of(folder: Path) -> str:
    """The hash by which a folder's weights are named; empty where its card can't be used."""
    try:
        return load(folder).sha256
    except BadModel:
        return ""


def verify(card: Card) -> None:
    """Hashes the weights file (30 MB take some 20 ms) and compares it with the card; raises BadModel."""
    try:
        with card.weights_path.open("rb") as file:
            found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadModel(
            f"{card.weights_path}: can't be read ({error.strerror or type(error).__name__})"
        ) from error
    if found != card.sha256:
        raise BadModel(
            f"{card.weights_path}: its hash is {found}, {CARD} says {card.sha256} (weights.sha256)"
        )


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
        if isinstance(value, bool) or value not in choices:
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

    def three(self, key: str) -> tuple[float, float, float]:
        value = self._take(key)
        if (
            not isinstance(value, list)
            or len(value) != 3
            or not all(
                isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value
            )
        ):
            raise self.wrong(key, "must be a list of three numbers")
        return (float(value[0]), float(value[1]), float(value[2]))

    def tables(self, key: str) -> list["_Reader"]:
        value = self._take(key)
        if not isinstance(value, list) or not value or not all(isinstance(v, dict) for v in value):
            raise self.wrong(key, f"must be one or more [[{key}]] tables")
        return [_Reader(self._path, v, f"{self._where}{key}[{i}].") for i, v in enumerate(value)]
