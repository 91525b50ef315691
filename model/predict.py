"""hilum model predict: pictures in, one row of scores a picture out.

The columns are a contract that scripts outside the repository read: `image`, a column a label of the model's card in
the card's order and spelling, `status` (analyzed, skipped, failed), `reason`. Scores are the calibrated ones, written
with every digit, and empty where the status is not `analyzed`. Rows stand in the order of the inputs, one a file.

A picture goes the way that it goes through the node: header rules, `pixels.read`, picture rules, `pixels.prepare`,
the network, and what the guard says of its looks; without `scope` the same less rules and guard. No file stops the
run, whatever is in it.

At most two batches of pictures are in memory: while the network reads one, a thread decodes the next. It is one
thread and no more, because pydicom's complaints are caught by filters of `warnings`, which belong to the process.
"""

import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from csv import writer as csv_writer
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom import Dataset

from model.card import SHIPPED, Card
from model.classifier import Finding
from model.errors import BadData, Undecodable, Unreadable
from model.files import is_picture
from model.header import slim, text
from model.pixels import open_dataset, prepare, read, wrap
from model.progress import steps
from model.reader import Reader
from model.runtime import Floats, Wanted
from model.scope import Policy, judge, judge_looks, judge_picture, with_age
from model.stored_only import stored_only

BATCH = 8
"""Pictures that go through the network together."""

NO_IMAGES = frozenset({".csv", ".html", ".json", ".md", ".part", ".toml", ".tsv", ".txt", ".xml"})
"""What no one names an image: such files in a folder are passed over. A file that is named itself never is."""

Status = Literal["analyzed", "skipped", "failed"]
STATUSES: tuple[Status, ...] = ("analyzed", "skipped", "failed")


@dataclass(frozen=True)
class Source:
    """One file to read, and what the column `image` calls it."""

    path: Path
    name: str


@dataclass(frozen=True)
class Asked:
    """How files are looked at. `view` and `age` are what a PNG or JPEG, which says nothing, is taken to be."""

    scope: bool
    view: str
    age: int


@dataclass(frozen=True)
class Seen:
    """One file, decoded: what networks see of it where it is to be scored, else the reason why not."""

    status: Status
    reason: str = ""
    inputs: tuple[Floats, ...] = ()
    """(size, size, channels) for each of the reader's cards."""
    header: Dataset | None = None
    """Without pixels; of what is to be scored."""
    picture: bool = False
    """It is a PNG or JPEG."""


def predict(
    paths: Sequence[Path],
    csv: Path,
    folder: Path | None,
    *,
    scope: bool = True,
    view: str = "PA",
    age: int = 40,
    runtime: Wanted = "auto",
    guards: Path | None = SHIPPED,
) -> bool:
    """Scores the files `paths`, and all in those that are folders, into the table `csv`; whether none failed.

    `folder` is the model's, None the shipped one's; `guards`: as for `Reader.load`, and none without `scope`. The
    table is written as `csv` with `.part` behind its name, row by row, and takes the place of an older one at the end.
    Counts, rate and runtime are told on stderr.
    Raises BadData before any work where a path is absent or the table can't lie there; BadModel; OSError.
    """
    _check_place(csv)
    sources, passed_over = find(paths)
    asked = Asked(scope, view, age)
    reader = Reader.load(folder or SHIPPED, runtime, guards=guards if scope else None)
    classifier = reader.classifier

    started = time.monotonic()
    statuses: Counter[str] = Counter()
    pictures = 0
    empty = [""] * len(classifier.card.labels)
    half = csv.with_name(csv.name + ".part")
    # a file name that is no UTF-8 is written as the bytes that it is
    with half.open("w", encoding="utf-8", errors="surrogateescape", newline="") as lines:
        table = csv_writer(lines, lineterminator="\n")
        table.writerow(["image", *classifier.card.labels, "status", "reason"])
        looked = _scored([source.path for source in sources], reader, asked)
        for source, (seen, findings) in zip(steps("images", sources), looked, strict=True):
            scores = [repr(float(finding.score)) for finding in findings]
            table.writerow([source.name, *(scores or empty), seen.status, seen.reason])
            lines.flush()
            statuses[seen.status] += 1
            pictures += seen.picture
    half.replace(csv)
    seconds = time.monotonic() - started

    if passed_over:
        _say(f"{passed_over} files passed over: hidden, or no images by their names")
    if scope and pictures:
        _say(
            f"{pictures} PNG or JPEG files, which do not say what they show, were taken for chest X-rays, {view}, "
            f"of a {age}-year-old (--view, --age)"
        )
    if classifier.note:
        _say(classifier.note)
    _say("not a diagnosis; research use only")
    told = ", ".join(f"{statuses[status]} {status}" for status in STATUSES)
    _say(f"{told} in {seconds:.1f} s ({len(sources) / seconds:.1f} images/s), runtime {classifier.runtime}")
    return not statuses["failed"]


def _say(line: str) -> None:
    print(f"hilum: {line}", file=sys.stderr)


def find(paths: Sequence[Path]) -> tuple[list[Source], int]:
    """The files to read, in order, each once; and how many in the folders were passed over.

    Passed over are hidden files and those that are no images by their names. Raises BadData where a path does not
    exist or there is nothing to read at all.
    """
    found: dict[str, tuple[Path, Path]] = {}
    passed_over = 0
    for given in paths:
        if given.is_dir():
            inside = sorted(path for path in given.rglob("*") if path.is_file())
            chosen = [path for path in inside if _may_be_image(path.relative_to(given))]
            passed_over += len(inside) - len(chosen)
        elif given.is_file():
            chosen = [given]
        else:
            raise BadData(
                f"{given}: {'is no file and no folder' if given.exists() else 'there is no such file or folder'}"
            )
        for path in chosen:
            found.setdefault(os.path.abspath(path), (path, given))  # noqa: PTH100 - resolve() would follow links
    if not found:
        raise BadData(f"{', '.join(map(str, paths))}: no image lies there")
    names = _names(list(found.values()))
    return [Source(path, name) for (path, _), name in zip(found.values(), names, strict=True)], passed_over


def _may_be_image(inside: Path) -> bool:
    hidden = any(part.startswith(".") for part in inside.parts)
    return not hidden and inside.suffix.lower() not in NO_IMAGES and inside.name != "DICOMDIR"


def _names(found: Sequence[tuple[Path, Path]]) -> list[str]:
    """What each (file, PATH argument) is called: its name; where names repeat, its path inside the folder that was
    given; where these repeat too, that path behind the folder's own, as it was given."""
    choices = [
        (path.name, path.relative_to(given).as_posix() if path != given else path.as_posix(), path.as_posix())
        for path, given in found
    ]
    longer = [0] * len(choices)
    while True:
        names = [choice[i] for choice, i in zip(choices, longer, strict=True)]
        times = Counter(names)
        again = [n for n, name in enumerate(names) if times[name] > 1 and longer[n] < 2]
        if not again:
            return names
        for n in again:
            longer[n] += 1


def _check_place(csv: Path) -> None:
    """Raises BadData where no table can be put, before hours of work are lost for that."""
    if not csv.parent.is_dir():
        raise BadData(
            f"{csv}: the folder {csv.parent} does not exist: make it, or write elsewhere with --csv"
        )
    if csv.exists() and not csv.is_file():
        raise BadData(f"{csv}: is there already and no plain file: name another one with --csv")


def _scored(paths: Sequence[Path], reader: Reader, asked: Asked) -> Iterator[tuple[Seen, list[Finding]]]:
    """What was seen in each file, and found; no findings where it is not analyzed."""
    batches = [paths[at : at + BATCH] for at in range(0, len(paths), BATCH)]

    def look(batch: Sequence[Path]) -> list[Seen]:
        return [_look(path, reader.cards, asked) for path in batch]

    with ThreadPoolExecutor(1) as decoder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries say about a file may quote its header
        coming = decoder.submit(look, batches[0])
        for number in range(len(batches)):
            seen = coming.result()
            if number + 1 < len(batches):
                coming = decoder.submit(look, batches[number + 1])
            yield from _read(seen, reader, asked)


def _read(seen: Sequence[Seen], reader: Reader, asked: Asked) -> Iterator[tuple[Seen, list[Finding]]]:
    """One batch through the network; a picture that looks like something else is skipped after all."""
    inputs = [one.inputs for one in seen if one.inputs]
    looked = iter(reader.look([np.stack(batch) for batch in zip(*inputs, strict=True)]) if inputs else [])
    for one in seen:
        if not one.inputs:
            yield one, []
            continue
        said = next(looked)
        reason = None
        if asked.scope and said.scoped and one.header is not None:
            reason = judge_looks(with_age(said.scoped, one.header))
        yield (replace(one, status="skipped", reason=reason), []) if reason else (one, said.findings)


def _look(path: Path, cards: Sequence[Card], asked: Asked) -> Seen:
    """One file through scope and decoding. Never raises; the reasons are those of the node's decoder."""
    try:
        return _decoded(path, cards, asked)
    except (Undecodable, Unreadable) as error:
        return Seen("failed", str(error))
    except MemoryError:
        return Seen("failed", "The image needs more memory than there is")
    except OSError as error:
        return Seen("failed", f"The file can't be read ({error.strerror or type(error).__name__})")
    except Exception as error:  # of ours, or of a library on rubbish; its text may quote the header
        return Seen("failed", f"The image can't be decoded ({type(error).__name__})")


def _decoded(path: Path, cards: Sequence[Card], asked: Asked) -> Seen:
    picture = is_picture(path)
    dataset = wrap(path, view=asked.view, age=asked.age) if picture else open_dataset(path)
    if asked.scope:
        reason = stored_only(text(dataset, "SOPClassUID"), text(dataset, "PresentationIntentType"))
        reason = reason or judge(dataset, Policy())
        if reason:
            return Seen("skipped", reason, picture=picture)
    image = read(dataset)
    if asked.scope and (reason := judge_picture(image)):
        return Seen("skipped", reason, picture=picture)
    inputs = tuple(prepare(image, card) for card in cards)
    if not all(np.isfinite(prepared).all() for prepared in inputs):
        raise Undecodable("The header turns the pixels into values that are no numbers")
    return Seen("analyzed", inputs=inputs, header=slim(dataset), picture=picture)
