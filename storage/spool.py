"""Files: written under a temporary name, synced, renamed, the folder synced; read; removed.

    objects/<UTC day>/<hour>/<id>.dcm     as received, one file an object
    results/<UTC day>/<hour>/<id>.dcm     what we made; .json, .fhir.json and .hl7 where it is no DICOM object

Names are ours, never from the wire. A file that is there under its final name is whole.
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from storage.clock import Clock
from storage.errors import Unavailable

Kind = Literal["objects", "results"]
KINDS: tuple[Kind, ...] = ("objects", "results")
TEMPORARY = ".part"
# how a whole file's name ends
SUFFIXES: dict[Kind, tuple[str, ...]] = {"objects": (".dcm",), "results": (".dcm", ".json", ".hl7")}


class Disk:
    """The calls that make bytes last. Injected, so that a full or failing disk is a test."""

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        os.fsync(fd)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def sync_folder(self, folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def free_bytes(self, folder: Path) -> int:
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize


@dataclass(frozen=True)
class SpoolFile:
    """A file that lasts: its name under the data folder, and its size in bytes."""

    name: str
    size: int


class Incoming:
    """A file on its way in. Nothing is left of it unless `keep` was called. Any method may raise Unavailable."""

    def __init__(self, spool: "Spool", kind: Kind, suffix: str) -> None:
        self._spool = spool
        self._folder = spool.folder(kind)
        name = secrets.token_hex(16)
        self._final = self._folder / f"{name}{suffix}"
        self._temporary = self._folder / f"{name}{TEMPORARY}"
        self._kept = False
        self.size = 0
        with _told("create a file"):
            self._fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    @property
    def path(self) -> Path:
        return self._final if self._kept else self._temporary

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data).cast("B")
        with _told("write"):
            while len(view):
                done = self._spool.disk.write(self._fd, view)
                self.size += done
                view = view[done:]

    def keep(self) -> SpoolFile:
        """Data synced, renamed, folder synced: after this the file survives a power cut."""
        disk = self._spool.disk
        with _told("sync a file"):
            disk.sync(self._fd)
            disk.rename(self._temporary, self._final)
            # from here on it stands under its final name: whatever fails below, recovery adopts or deletes it
            self._kept = True
            disk.sync_folder(self._folder)
        return SpoolFile(str(self._final.relative_to(self._spool.root)), self.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
        if not self._kept:
            self._temporary.unlink(missing_ok=True)


class Spool:
    """The files under one data folder."""

    def __init__(self, root: Path, clock: Clock | None = None, disk: Disk | None = None) -> None:
        self.root = root
        self.disk = disk or Disk()
        self._clock = clock or Clock()

    def prepare(self) -> None:
        """Makes the folders, readable by the owner alone. Raises Unavailable."""
        with _told(f"prepare {self.root}"):
            for folder in (self.root, *(self.root / k for k in KINDS), self.root / "run"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def folder(self, kind: Kind) -> Path:
        """The folder of this hour; its own entry and its parents' are synced when it is made."""
        folder = self.root / kind / self._clock.now().strftime("%Y-%m-%d/%H")
        if not folder.is_dir():
            with _told("make a folder"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.disk.sync_folder(folder.parent)
                self.disk.sync_folder(folder.parent.parent)
        return folder

    def incoming(self, kind: Kind, suffix: str = ".dcm") -> Incoming:
        """`suffix`: how its name ends once it is whole; `names` sees those in SUFFIXES."""
        return Incoming(self, kind, suffix)

    def path(self, name: str) -> Path:
        return self.root / name

    def remove(self, name: str) -> None:
        """Removes the file, and its hour's and day's folders if they are empty and over."""
        path = self.root / name
        path.unlink(missing_ok=True)
        if str(path.parent).endswith(self._clock.now().strftime("%Y-%m-%d/%H")):
            return
        for folder in (path.parent, path.parent.parent):
            try:
                folder.rmdir()
            except OSError:
                return

    def names(self, kind: Kind) -> Iterator[str]:
        """Every whole file of a kind, oldest folder first."""
        for path in sorted((self.root / kind).glob("*/*/*")):
            if path.name.endswith(SUFFIXES[kind]):
                yield str(path.relative_to(self.root))

    def sweep(self, *kinds: Kind, idle_seconds: float = 0.0) -> int:
        """Removes what never became a whole file and was not written to for so long; how many.

        Without `idle_seconds` only while no process writes that kind.
        """
        removed = 0
        for path in (p for kind in kinds or KINDS for p in (self.root / kind).glob(f"*/*/*{TEMPORARY}")):
            with suppress(FileNotFoundError):
                if self._clock.now().timestamp() - path.stat().st_mtime >= idle_seconds:
                    path.unlink()
                    removed += 1
        return removed

    def free_bytes(self) -> int:
        return self.disk.free_bytes(self.root)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """OSError becomes Unavailable, with the system's word for it and no path in it."""
    try:
        yield
    except OSError as e:
        word = "the disk is full" if e.errno == errno.ENOSPC else e.strerror or "I/O error"
        raise Unavailable(f"can't {what}: {word}") from e
