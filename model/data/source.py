"""A source: a TOML file that says what to fetch, from where, and how to know that it arrived whole.

[[file]]
name = "images_01.tar.gz"     under this name it lies in the download folder
url = "https://…"             http or https, nothing else
bytes = 2009345536            optional
sha256 = "…"                  optional, 64 hexadecimal digits
unpack = "tar.gz"             or "zip", or "" (also by leaving it out): it stays as it is
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from model.errors import BadData

NIH = Path(__file__).with_name("nih.toml")
KINDS = ("", "tar.gz", "zip")
KEYS = frozenset({"name", "url", "bytes", "sha256", "unpack"})


@dataclass(frozen=True)
class Item:
    """One file of a source."""

    name: str
    url: str
    bytes: int | None
    sha256: str
    """Lower-case hexadecimal digits; empty where the source does not know it."""
    unpack: str


def read(file: Path, only: Sequence[str] = ()) -> list[Item]:
    """The files of the source `file`, in its order; those named in `only`, or all.

    Raises BadData naming the entry and its key.
    """
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadData(f"{file}: can't be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadData(f"{file}: is no TOML file: {error}") from error
    entries = tree.get("file")
    if not isinstance(entries, list) or not entries or set(tree) != {"file"}:
        raise BadData(f"{file}: a source is a list of [[file]] entries and nothing else")
    items = [_item(file, number, entry) for number, entry in enumerate(entries, 1)]
    names = [item.name for item in items]
    for name in names:
        if names.count(name) > 1:
            raise BadData(f"{file}: {name} stands there twice")
    for name in only:
        if name not in names:
            raise BadData(f"{file} has no file {name!r}; it has {', '.join(names)}")
    return [item for item in items if not only or item.name in only]


def _item(file: Path, number: int, entry: Any) -> Item:
    where = f"{file}: [[file]] number {number}"
    if not isinstance(entry, dict):
        raise BadData(f"{where}: is no table")
    if unknown := sorted(set(entry) - KEYS):
        raise BadData(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(KEYS))}")
    name, url, size = entry.get("name"), entry.get("url"), entry.get("bytes")
    sha256, kind = entry.get("sha256", ""), entry.get("unpack", "")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}", name):
        raise BadData(f"{where}: name must be a plain file name of letters, digits, dots and dashes")
    if name == "manifest.json" or name.endswith(".part"):
        raise BadData(f"{where}: the name {name} is taken by the loader itself")
    if not isinstance(url, str) or not _is_web(url):
        raise BadData(f"{where} ({name}): url must be an http:// or https:// address")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size <= 0):
        raise BadData(f"{where} ({name}): bytes must be a whole number above 0")
    if not isinstance(sha256, str) or not re.fullmatch(r"([0-9a-fA-F]{64})?", sha256):
        raise BadData(f"{where} ({name}): sha256 must be 64 hexadecimal digits")
    if kind not in KINDS:
        raise BadData(f'{where} ({name}): unpack must be "tar.gz", "zip" or ""')
    return Item(name, url, size, sha256.lower(), kind)


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False
