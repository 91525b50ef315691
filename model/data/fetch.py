"""`hilum model data fetch`: the files of a source, downloaded, checked and unpacked into one folder.

    DIR/images_01.tar.gz        an archive, until it is unpacked and --remove-archives was said
    DIR/images_01.tar.gz.part   what arrived of it so far
    DIR/images/….png            what was in it
    DIR/manifest.json           of each file: address, ETag, bytes, SHA-256, and whether it is unpacked

Killed at any moment and run again it goes on: bytes that arrived are not asked for again, an archive that is unpacked
is not unpacked again. What the source does not say of a file (bytes, SHA-256) the manifest records when it arrives;
later runs check against that.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model.alone import alone
from model.data import source as sources
from model.data.download import PAUSES, Download, GivenUp, Version, check_room
from model.data.progress import Progress, amount, progress
from model.data.source import Item
from model.data.unpack import absent, unpack
from model.errors import BadData, NotFetched
from model.page import replace

MANIFEST = "manifest.json"
LOCK = ".lock"


@dataclass
class Arrived:
    """What the manifest says of one file."""

    url: str = ""
    etag: str = ""
    last_modified: str = ""
    total: int | None = None
    """As the server announced it, while the file is on its way."""
    bytes: int | None = None
    """Of the whole file; None until it is there."""
    sha256: str = ""
    unpacked: int | None = None
    """How many files it was unpacked to."""


def fetch(
    to: Path,
    source: Path | None,
    *,
    keep_archives: bool,
    only: Sequence[str],
    pauses: Sequence[float] = PAUSES,
) -> None:
    """Fetches what `source` (without it: NIH's) names, or the files of it that are named in `only`, into `to`.

    `pauses`: seconds between attempts. Prints what is there in the end. Raises BadData for a source or manifest that
    can't be used, NotFetched naming the file; run again, it goes on.
    """
    items = sources.read(source or sources.NIH, only)
    to.mkdir(parents=True, exist_ok=True)
    with alone(to / LOCK, NotFetched(f"{to}: another run is fetching into this folder")), progress() as shown:
        manifest = _read_manifest(to)
        waiting = [item for item in items if not _is_done(to, item, manifest.get(item.name))]
        check_room(to, sum(item.bytes or 0 for item in waiting), "what is to be fetched")
        failed = []
        for item in items:
            try:
                _have(to, item, manifest, keep_archives, shown, pauses)
            except OSError as error:
                why = f"{error.filename or to}: {error.strerror or error}"
                raise NotFetched(f"{item.name}: {why}; what arrived is kept, run again to go on") from error
            except NotFetched as error:
                if isinstance(error, GivenUp) or len(items) == 1:
                    raise
                failed.append(item.name)
                shown.say(str(error))
    if failed:
        raise NotFetched(
            f"{len(failed)} of {len(items)} files did not arrive: {', '.join(failed)}; the lines above say why"
        )
    arrived = [manifest[item.name] for item in items]
    print(f"Fetched into {to}: {len(items)} files, {amount(sum(entry.bytes or 0 for entry in arrived))}.")
    if any(item.unpack for item in items):
        print(f"Unpacked: {sum(entry.unpacked or 0 for entry in arrived):,} files.")
    print(f"Their SHA-256: {to / MANIFEST}")


def _is_done(to: Path, item: Item, entry: Arrived | None) -> bool:
    return bool(entry and entry.bytes and ((to / item.name).exists() or entry.unpacked is not None))


def _have(
    to: Path,
    item: Item,
    manifest: dict[str, Arrived],
    keep_archives: bool,
    shown: Progress,
    pauses: Sequence[float],
) -> None:
    """Sees to it that one file is there, whole, unpacked, and removed where that is wished."""
    file = to / item.name
    entry = manifest.setdefault(item.name, Arrived())
    if file.exists():
        _check(file, item, entry, shown)
    elif entry.unpacked is None:
        _arrive(to, item, entry, manifest, shown, pauses)
    _write_manifest(to, manifest)
    if not item.unpack or not file.exists():
        return
    fresh = entry.unpacked is None
    if fresh:
        try:
            count = unpack(file, item.unpack, to, shown)
        except NotFetched:  # this SHA-256 is not the one that a better file would be held against
            entry.bytes, entry.sha256 = None, ""
            _write_manifest(to, manifest)
            raise
        os.sync()  # before the manifest says so, and before the archive is gone
        entry.unpacked = count
        _write_manifest(to, manifest)
    if keep_archives:
        return
    if not fresh and (missing := absent(file, item.unpack, to)):
        shown.say(f"{item.name} stays: {missing:,} of its files are not in {to} any more")
        return
    file.unlink()


def _arrive(
    to: Path,
    item: Item,
    entry: Arrived,
    manifest: dict[str, Arrived],
    shown: Progress,
    pauses: Sequence[float],
) -> None:
    """Downloads one file, checks it and gives it its name."""
    part = to / (item.name + ".part")

    def remember(version: Version) -> None:
        entry.url, entry.etag = item.url, version.etag
        entry.last_modified, entry.total = version.last_modified, version.total
        _write_manifest(to, manifest)

    known = Version(entry.etag, entry.last_modified, entry.total) if entry.url == item.url else None
    version = Download(item.name, item.url, part, known, item.bytes, remember, shown, pauses).run()
    remember(version)
    try:
        _check(part, item, entry, shown)
    except NotFetched as error:
        wrong = to / (item.name + ".wrong")
        part.replace(wrong)
        raise NotFetched(f"{error}; it lies in {wrong.name}, run again to fetch it anew") from error
    part.replace(to / item.name)


def _check(file: Path, item: Item, entry: Arrived, shown: Progress) -> None:
    """Against the source and against what arrived before; what neither knows is recorded."""
    size = file.stat().st_size
    sha256 = _sha256(file, item.name, shown)
    for what, is_so, should_be in (
        ("bytes", size, item.bytes),
        ("SHA-256", sha256, item.sha256),
    ):
        if should_be and is_so != should_be:
            raise NotFetched(
                f"{item.name}: {what} {is_so}, but the source says {should_be}: damaged or another file"
            )
    if entry.sha256 and entry.sha256 != sha256 and not item.sha256:
        raise NotFetched(
            f"{item.name}: is not what arrived first (SHA-256 in {MANIFEST}); delete it to fetch it anew, "
            f"or its entry in {MANIFEST} if the new one is right"
        )
    if entry.sha256 != sha256:
        entry.unpacked = None
    entry.bytes, entry.sha256 = size, sha256


def _sha256(file: Path, name: str, shown: Progress) -> str:
    digest = hashlib.sha256()
    shown.start(f"{name}: checking", file.stat().st_size)
    with file.open("rb") as opened:
        while chunk := opened.read(1 << 20):
            digest.update(chunk)
            shown.advance(len(chunk))
    return digest.hexdigest()


def _read_manifest(to: Path) -> dict[str, Arrived]:
    file = to / MANIFEST
    if not file.exists():
        return {}
    try:
        tree: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {name: Arrived(**entry) for name, entry in tree["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadData(
            f"{file}: can't be read; move it away and run again: what is here is checked anew"
        ) from error


def _write_manifest(to: Path, manifest: dict[str, Arrived]) -> None:
    files = {name: asdict(entry) for name, entry in manifest.items()}
    replace(to / MANIFEST, json.dumps({"files": files}, indent=1) + "\n")
