"""What was converted, kept: a folder a network, named by a hash of all that it depends on.

    network.xml, network.bin    as OpenVINO writes them
    sums.json                   their SHA-256

The folder appears whole or not at all, so that processes may convert at the same time: the first one's stays.
What is read from here decides results on patients: it is hashed first, and the hashed bytes are those that are used.
Sums beside the files find damage; against somebody who may write here nothing helps, as with the model's own folder.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from errno import EEXIST, ENOTEMPTY
from pathlib import Path

XML, BIN, SUMS = "network.xml", "network.bin", "sums.json"

UNUSED_DAYS = 90
"""After which what nobody has read is removed: each version of a model or of OpenVINO leaves some 220 MB."""


@dataclass(frozen=True)
class Converted:
    """A network as OpenVINO reads it."""

    xml: bytes
    weights: bytes


def of_user() -> Path:
    """The folder for who names none: XDG_CACHE_HOME, else ~/.cache (XDG Base Directory Specification 0.8)."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if Path(named).is_absolute() else Path.home() / ".cache") / "hilum"


def read(folder: Path) -> Converted | None:
    """What lies in `folder`; None where nothing does, or something else than was written: then it is removed."""
    try:
        said = json.loads((folder / SUMS).read_bytes())
        converted = Converted((folder / XML).read_bytes(), (folder / BIN).read_bytes())
        is_whole = said == _sums(converted)
    except (OSError, ValueError):
        is_whole = False
    if not is_whole:
        remove(folder)
        return None
    with suppress(OSError):
        os.utime(folder)
    return converted


def write(folder: Path, converted: Converted) -> None:
    """Makes `folder`, unless another process was first. Raises OSError, leaving nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_unused(folder.parent)
    half = Path(tempfile.mkdtemp(prefix=".half-", dir=folder.parent))
    try:
        _write(half / XML, converted.xml)
        _write(half / BIN, converted.weights)
        _write(half / SUMS, json.dumps(_sums(converted)).encode())
        half.rename(folder)
    except OSError as error:
        shutil.rmtree(half, ignore_errors=True)
        if error.errno not in (EEXIST, ENOTEMPTY):
            raise


def remove(folder: Path) -> None:
    """Whatever lies there, as far as the file system lets us."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.unlink()


def _sums(converted: Converted) -> dict[str, str]:
    return {
        XML: hashlib.sha256(converted.xml).hexdigest(),
        BIN: hashlib.sha256(converted.weights).hexdigest(),
    }


def _write(file: Path, content: bytes) -> None:
    with file.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


def _remove_unused(parent: Path) -> None:
    """Halves of processes that were killed, too."""
    oldest = time.time() - UNUSED_DAYS * 86_400
    for folder in parent.iterdir():
        with suppress(OSError):
            if folder.stat().st_mtime < oldest:
                remove(folder)
