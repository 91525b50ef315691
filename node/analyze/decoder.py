"""One decoder process: a path comes in, a header, the networks' inputs and a picture go out.

Started by node/analyze/decoders.py only. It imports no TensorFlow, may allocate so much and no more
(RLIMIT_AS), and dies with its parent. Everything hostile that an image can do happens in here.
"""

import mmap
import os
import pickle
import resource
import signal
import sys
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from model.card import Card
from model.errors import Undecodable, Unreadable
from model.files import is_picture
from model.header import slim, text
from model.pixels import open_dataset, prepare, read, to_uint8, wrap
from model.scope import RADIOGRAPHS, Policy, doubt, judge, judge_picture
from model.stored_only import OWN_RESULT, stored_only
from model.streams import libjpeg_turbo
from node.parent import die_with_parent

LONGEST_PICTURE = 4096
"""Pixels on the longer side of the picture handed back; a larger one is reduced to that."""

HEADER_BYTES = 1 << 20
"""Room for the pickled header, which `slim` keeps far smaller."""

MAX_REASON = 400
"""Characters: an answer stays so short that it is written at once or not at all."""


def distinct(cards: Sequence[Card]) -> list[Card]:
    """One card for each way of preparing a picture: what several models see alike is prepared once."""
    return list({preparation(card): card for card in cards}.values())


def preparation(card: Card) -> tuple[object, ...]:
    """All of a card that `pixels.prepare` asks for."""
    return card.size, card.fit, card.scale, card.mean, card.spread, card.each_picture, card.channels


def input_bytes(card: Card) -> int:
    return card.size * card.size * card.channels * 4


def room(cards: Sequence[Card]) -> int:
    """Bytes of shared memory for one answer: the inputs of `distinct` cards, picture, header, in this order."""
    return sum(map(input_bytes, distinct(cards))) + LONGEST_PICTURE**2 + HEADER_BYTES


def main() -> None:
    pipe_fd, memory_fd, parent = map(int, sys.argv[1:])
    for stop in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group: the parent's to answer
        signal.signal(stop, signal.SIG_IGN)
    die_with_parent()
    if os.getppid() != parent:  # it died before the line above
        return
    pipe = Connection(pipe_fd)
    memory_bytes, policy, cards = pipe.recv()
    memory = mmap.mmap(memory_fd, room(cards))
    _load_decoders()
    _limit_memory(memory_bytes)
    warnings.simplefilter("ignore")
    _silence()
    pipe.send(("ready",))
    while True:
        try:
            path, view, age = pipe.recv()
        except EOFError:
            return
        pipe.send(examine(Path(path), view, age, policy, cards, memory))


def _load_decoders() -> None:
    """Imported now, so that no image pays for it, in memory or in time."""
    import gdcm
    import jpeg_ls
    import openjpeg

    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    assert jpeg_ls and openjpeg
    libjpeg_turbo()


def _limit_memory(memory_bytes: int) -> None:
    """So much more address space than the process has by now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * mmap.PAGESIZE + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold a patient's picture


def _silence() -> None:
    """What the C libraries print about an image has no place in the node's log."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os.close(nothing)


def examine(
    path: Path, view: str, age: int, policy: Policy, cards: Sequence[Card], memory: mmap.mmap
) -> tuple[Any, ...]:
    """`("skipped", reason, header's length)`, `("failed", reason, kind)` or `("ready", rows, columns, header's
    length, doubt)`, header and arrays then lying in `memory`. Never raises. Small, so that sending it can't block."""
    try:
        return _examine(path, view, age, policy, cards, memory)
    except Undecodable as error:
        return "failed", str(error)[:MAX_REASON], "undecodable"
    except Unreadable as error:
        return "failed", str(error)[:MAX_REASON], "unreadable"
    except MemoryError:
        return "failed", "The image needs more memory than a decoder may use", "memory"
    except OSError as error:
        return "failed", f"The file can't be read ({error.strerror or type(error).__name__})", "io"
    except Exception as error:  # a fault of ours, or of a library on rubbish; its text may quote the header
        return "failed", f"The image can't be decoded ({type(error).__name__})", "undecodable"


def _examine(
    path: Path, view: str, age: int, policy: Policy, cards: Sequence[Card], memory: mmap.mmap
) -> tuple[Any, ...]:
    dataset = wrap(path, view=view, age=age) if is_picture(path) else open_dataset(path)
    reason = stored_only(text(dataset, "SOPClassUID"), text(dataset, "PresentationIntentType"))
    if reason:
        return "skipped", reason, 0
    reason = judge(dataset, policy)
    doubted = doubt(dataset, policy) if reason else None
    if reason and not doubted:
        # nobody asks why a CT slice or a result of ours has none
        tell = reason != OWN_RESULT and text(dataset, "SOPClassUID") in RADIOGRAPHS
        return _skipped(reason, _tellable(dataset) if tell else b"", memory)
    image = read(dataset)
    header = _pickled(dataset)
    del dataset
    reason = judge_picture(image)
    if reason:
        return _skipped(reason, header, memory)
    if len(header) > HEADER_BYTES:
        raise Undecodable("The header is larger than any radiograph's")
    picture = to_uint8(image, LONGEST_PICTURE)
    memory.seek(0)
    for card in distinct(cards):
        memory.write(prepare(image, card))  # type: ignore[arg-type]  # whatever lies in one piece
    memory.write(np.ascontiguousarray(picture))  # type: ignore[arg-type]
    memory.write(header)
    return "ready", *picture.shape, len(header), doubted or ""


def _skipped(reason: str, header: bytes, memory: mmap.mmap) -> tuple[Any, ...]:
    if len(header) > HEADER_BYTES:
        header = b""
    memory.seek(0)
    memory.write(header)
    return "skipped", reason, len(header)


def _tellable(dataset: Dataset) -> bytes:
    """Of an image that is skipped, and stays so whatever its header holds."""
    try:
        return _pickled(dataset)
    except Exception:
        return b""


def _pickled(dataset: Dataset) -> bytes:
    return pickle.dumps(slim(dataset), pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    main()
