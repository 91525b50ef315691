"""A model's scores on a table's images, kept in a file so that no image is scored twice.

scores.csv: image, a column a label of the model, bytes (the file's size), reason (why an image has no scores). The
scores are raw: what the network says, before any calibration, which is the card's and may be another tomorrow. Rows are
added batch by batch; a run that was killed goes on after the last whole row. scores.json beside it says which model's
they are (weights, network and input, not its thresholds and its calibration) and that they are raw; all others are
thrown away.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model import pixels
from model.calibrate import shares
from model.card import Card, verify
from model.classifier import Classifier
from model.errors import ModelError
from model.files import is_picture
from model.page import replace
from model.progress import steps

BATCH = 8
SCORES, WHOSE = "scores.csv", "scores.json"
HOLDS = "raw"
"""What scores.json says of the scores; older files say nothing, and theirs may be calibrated."""

NO_MATTER = {
    "name", "version", "intended_use", "limits", "folder", "display", "thresholds", "rule",
    "calibrations", "prevalence", "calibrated_how", "scope", "scope_sha256", "doubt", "doubt_sha256",
}  # fmt: skip
"""Of a card: what can change without changing what the network says of a finding."""


@dataclass(frozen=True)
class Scored:
    labels: tuple[str, ...]
    """The model's."""
    raw: NDArray[np.float64]
    """(n, labels), in the order of the images asked for; NaN where an image could not be read."""
    scores: NDArray[np.float64]
    """The same, calibrated as the card says: what a person would see."""
    reasons: dict[str, str]
    """Image -> why it could not be read."""


@dataclass(frozen=True)
class _Row:
    raw: tuple[float, ...] | None
    size: int
    reason: str


def score(card: Card, images: tuple[Path, ...], root: Path, out: Path) -> Scored:
    """Scores the images that `out`/scores.csv does not have yet, and returns all that were asked for.

    An image's name is its path below `root`. A file whose size has changed is scored again. The network is loaded only
    if there is something to score; its weights' hash is verified all the same. Raises BadModel.
    """
    verify(card)
    out.mkdir(parents=True, exist_ok=True)
    names = [image_name(image, root) for image in images]
    kept = _kept(card, out)
    wanted = [
        (image, name)
        for image, name in dict(zip(images, names, strict=True)).items()
        if name not in kept or kept[name].size != _size(image)
    ]
    if wanted:
        model = Classifier.load(card.folder)
        with (out / SCORES).open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            starts = range(0, len(wanted), BATCH)
            for at in steps("Scoring", starts):
                for name, row in _scored(model, wanted[at : at + BATCH]):
                    kept[name] = row
                    cells = row.raw or [""] * len(card.labels)
                    writer.writerow([name, *cells, row.size, row.reason])
                file.flush()

    unknown = (np.nan,) * len(card.labels)
    raw = np.array([kept[name].raw or unknown for name in names], np.float64)
    raw = raw.reshape(len(names), len(card.labels))
    reasons = {name: kept[name].reason for name in names if kept[name].raw is None}
    return Scored(card.labels, raw, shares(card.calibrations, card.labels, raw), reasons)


def _scored(model: Classifier, batch: list[tuple[Path, str]]) -> Iterator[tuple[str, _Row]]:
    pictures, read = [], []
    for image, name in batch:
        try:
            dataset = pixels.wrap(image) if is_picture(image) else pixels.open_dataset(image)
            pictures.append(pixels.prepare(pixels.read(dataset), model.card))
            read.append((image, name))
        except ModelError as error:
            yield name, _Row(None, _size(image), str(error))
        except OSError as error:
            yield name, _Row(None, _size(image), error.strerror or type(error).__name__)
    if pictures:
        for (image, name), findings in zip(read, model.predict(np.stack(pictures)), strict=True):
            yield name, _Row(tuple(finding.raw for finding in findings), _size(image), "")


def network_of(card: Card) -> str:
    """A hash of all that decides what the network says of an image: alike in two cards, one set of scores will do."""
    matters = {key: value for key, value in asdict(card).items() if key not in NO_MATTER}
    return hashlib.sha256(json.dumps(matters, sort_keys=True).encode()).hexdigest()


def _kept(card: Card, out: Path) -> dict[str, _Row]:
    """What an earlier run left for the same model; else an empty file is begun."""
    file, whose = out / SCORES, out / WHOSE
    model = network_of(card)
    try:
        same = json.loads(whose.read_text(encoding="utf-8")) == {"model": model, "scores": HOLDS}
        whole = file.read_bytes()
    except (OSError, ValueError):
        same, whole = False, b""
    if not same:
        whose.unlink(missing_ok=True)
        first = io.StringIO()
        csv.writer(first, lineterminator="\n").writerow(["image", *card.labels, "bytes", "reason"])
        replace(file, first.getvalue())
        replace(whose, json.dumps({"model": model, "scores": HOLDS}) + "\n")
        return {}
    ends = whole.rfind(b"\n") + 1
    if ends < len(whole):  # the last row was half written
        with file.open("r+b") as cut:
            cut.truncate(ends)
    rows = csv.reader(io.StringIO(whole[:ends].decode("utf-8"), newline=""))
    next(rows, None)
    return {
        name: _Row(tuple(map(float, cells)) if cells[0] else None, int(size), reason)
        for name, *cells, size, reason in rows
    }


def image_name(image: Path, root: Path) -> str:
    return image.relative_to(root).as_posix() if image.is_relative_to(root) else str(image)


def _size(image: Path) -> int:
    """Bytes; -1 where there is no file."""
    try:
        return image.stat().st_size
    except OSError:
        return -1
