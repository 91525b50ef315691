"""An archive -> files in a folder: all of them, whole, or none; and none of them anywhere else.

Archives come from outside: a member's name may point out of the folder, a member may be a link or claim terabytes, the
archive may break off, and whether its bytes are right is known at its end only. So all is unpacked into a folder of its
own first, plain files only, and moved to its place in the end. A file that is there already stays as it is: with the
same bytes it is the member (an interrupted run), with others the archive is refused.
"""

import filecmp
import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from model.data.download import check_room
from model.data.progress import Progress
from model.errors import NotFetched

MAX_FILES = 1_000_000
MAX_RATIO = 200
"""Bytes unpacked for one packed. Pictures have about 1, tables 10 to 20; a bomb of zeros has 1,000."""

SLACK = 50_000_000
"""Bytes that any archive may unpack to, however small it is."""

CHUNK = 1 << 20
STAGE = ".unpacking"

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, gzip.BadGzipFile, NotImplementedError)


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    content: IO[bytes]


def unpack(archive: Path, kind: str, folder: Path, progress: Progress) -> int:
    """Unpacks `archive`, a `tar.gz` or a `zip`, into `folder`; returns the number of its files.

    Raises NotFetched naming the archive, and the member where it is one; then none of its files is there.
    """
    most = SLACK + MAX_RATIO * archive.stat().st_size
    size = _unpacked_size(archive, kind)
    check_room(folder, min(size, most), f"what {archive.name} holds")
    progress.start(f"{archive.name}: unpacking", size if kind == "zip" else None)
    stage = folder / STAGE
    shutil.rmtree(stage, ignore_errors=True)  # of a run that was killed
    try:
        files: list[str] = []
        total = 0
        with _members(archive, kind) as members:
            for member in members:
                total += member.size
                if len(files) == MAX_FILES or total > most:
                    raise NotFetched(f"{archive}: unpacks to far more than its own size allows: not unpacked")
                _stage(archive, member, stage)
                files.append(member.name)
                progress.advance(member.size)
        _move(archive, files, stage, folder)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return len(files)


def absent(archive: Path, kind: str, folder: Path) -> int:
    """How many of the archive's files are not in `folder` with their size."""
    with _members(archive, kind) as members:
        return sum(not _is_there(_target(archive, member.name, folder), member.size) for member in members)


def _is_there(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


def _stage(archive: Path, member: _Member, stage: Path) -> None:
    file = _target(archive, member.name, stage)
    if file.exists():
        raise NotFetched(f"{archive}: holds {member.name!r} twice: not unpacked")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as staged:
        shutil.copyfileobj(member.content, staged, CHUNK)


def _move(archive: Path, files: list[str], stage: Path, folder: Path) -> None:
    for name in files:
        target = folder / name
        if target.exists() and not (target.is_file() and filecmp.cmp(stage / name, target, shallow=False)):
            raise NotFetched(
                f"{archive}: its {name} is here already with other content; move that away and run again"
            )
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).replace(folder / name)


def _target(archive: Path, name: str, folder: Path) -> Path:
    """Where the member goes. Raises NotFetched where its name leads out of `folder`."""
    path = PurePosixPath(name)
    odd = "\\" in name or any(ord(letter) < 32 for letter in name) or ":" in name.split("/", 1)[0]
    if odd or path.is_absolute() or not path.parts or ".." in path.parts:
        raise NotFetched(f"{archive}: holds a file {name!r} that would lie outside the folder: not unpacked")
    return folder.joinpath(*path.parts)


def _unpacked_size(archive: Path, kind: str) -> int:
    """As a zip says; of a tar.gz only its own size is known, which for pictures is about the same."""
    if kind == "tar.gz":
        return archive.stat().st_size
    with _told(archive), zipfile.ZipFile(archive) as opened:
        return sum(member.file_size for member in opened.infolist())


@contextmanager
def _members(archive: Path, kind: str) -> Iterator[Iterator[_Member]]:
    """The plain files in the archive, each to be read before the next."""
    with _told(archive):
        yield _of_tar(archive) if kind == "tar.gz" else _of_zip(archive)


@contextmanager
def _told(archive: Path) -> Iterator[None]:
    try:
        yield
    except tarfile.FilterError as error:
        raise NotFetched(
            f"{archive}: holds {error.tarinfo.name!r}, which may not be unpacked: {error}"
        ) from error
    except _DAMAGE as error:
        said = f"is truncated or damaged ({str(error) or type(error).__name__})"
        raise NotFetched(f"{archive}: {said}; delete it and run again to fetch it anew") from error


def _of_tar(archive: Path) -> Iterator[_Member]:
    with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
        for found in tar:
            member = tarfile.data_filter(found, "/nowhere")
            if member.isdir():
                continue
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                raise NotFetched(f"{archive}: holds {found.name!r}, a link or no file at all: not unpacked")
            yield _Member(member.name, member.size, content)
        # tarfile ends in silence at rubbish between members, and leaves gzip's checksum at the end unread
        while rest := stream.read(CHUNK):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("rubbish between its files")


def _of_zip(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            if member.is_dir():
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG) or member.flag_bits & 1:
                raise NotFetched(
                    f"{archive}: holds {member.filename!r}, a link, encrypted or no file at all: not unpacked"
                )
            with opened.open(member) as content:
                yield _Member(member.filename, member.file_size, content)
