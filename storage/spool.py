"""Files: written under a temporary name, synced, the folder synced, renamed; read; removed.

    objects/<UTC day>/<hour>/<id>.dcm     as received, one file an object
    results/<UTC day>/<hour>/<id>.dcm     what we made; .json, .fhir.json and .hl7 where it is no DICOM object

Names are ours, never from the wire. A file that is there under its final name is whole.

A file lasts once its bytes and its folder's entry are synced, under whichever of its two names: after a power cut
`restore` gives a file that has a row its final name. So one synchronization of the folder serves all files that came
together, and none is waited for after the renaming.
"""

import ctypes
import errno
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
# pieces in one system call (Linux: UIO_MAXIOV)
IOV_MAX = 1024
# how many bytes may wait until the disk is asked to begin with them
WRITEBACK_STEP = 2**18
# how a whole file's name ends
SUFFIXES: dict[Kind, tuple[str, ...]] = {"objects": (".dcm",), "results": (".dcm", ".json", ".hl7")}


class Disk:
    """The calls that make bytes last. Injected, so that a full or failing disk is a test."""

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return os.write(fd, data)

    def write_all(self, fd: int, pieces: Sequence[bytes | memoryview]) -> int:
        """At most IOV_MAX pieces in one call; how many bytes were taken."""
        return os.writev(fd, pieces)

    def begin_sync(self, fd: int) -> None:
        """What was written starts on its way to the disk; a hint that makes `sync` shorter."""
        _start_writeback(fd)

    def sync(self, fd: int) -> None:
        """The file's bytes and its length last."""
        os.fdatasync(fd)

    def rename(self, old: Path | str, new: Path | str) -> None:
        os.rename(old, new)  # noqa: PTH104 - text is meant

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
        # by time: what is filed together lies together in the index over names
        name = f"{time.time_ns():016x}{secrets.token_hex(8)}"
        self._name = f"{name}{suffix}"
        self._kept = False
        self._begun = 0
        self.size = 0
        with _told("create a file"):
            try:
                self._create(kind, name)
            except FileNotFoundError:
                # somebody has removed the hour's folder by hand
                spool.forget_folder(kind)
                self._create(kind, name)

    def _create(self, kind: Kind, name: str) -> None:
        self.folder = self._spool.folder(kind)
        # text, not Path: an image a millisecond comes through here
        self._final = f"{self.folder}/{self._name}"
        self._temporary = f"{self.folder}/{name}{TEMPORARY}"
        self._fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    @property
    def path(self) -> Path:
        return Path(self._final if self._kept else self._temporary)

    @property
    def name(self) -> str:
        """Its final name under the data folder."""
        return f"{self.folder.relative_to(self._spool.root)}/{self._name}"

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data).cast("B")
        with _told("write"):
            while len(view):
                done = self._spool.disk.write(self._fd, view)
                self.size += done
                view = view[done:]

    def write_all(self, pieces: Sequence[bytes | memoryview]) -> None:
        """The pieces one behind the other, with as few calls as the system allows."""
        disk = self._spool.disk
        with _told("write"):
            for at in range(0, len(pieces), IOV_MAX):
                some = pieces[at : at + IOV_MAX]
                wanted = sum(map(len, some))
                done = disk.write_all(self._fd, some)
                self.size += done
                if done < wanted:
                    # a short write is legal; what it left goes out piece by piece
                    self._write_rest(some, done)
            if self.size - self._begun >= WRITEBACK_STEP:
                self._begun = self.size
                disk.begin_sync(self._fd)

    def _write_rest(self, pieces: Sequence[bytes | memoryview], done: int) -> None:
        for piece in pieces:
            if done >= len(piece):
                done -= len(piece)
            else:
                self.write(memoryview(piece)[done:])
                done = 0

    def sync(self) -> None:
        """Its bytes survive a power cut, once its folder is synced too."""
        with _told("sync a file"):
            self._spool.disk.sync(self._fd)

    def sync_folder(self) -> None:
        """The entries of its folder, whichever names they have by now, survive a power cut."""
        with _told("sync a folder"):
            self._spool.disk.sync_folder(self.folder)

    def publish(self) -> None:
        """It has its final name, after `sync` and `sync_folder`. Recovery adopts or removes one without a row."""
        with _told("rename a file"):
            self._spool.disk.rename(self._temporary, self._final)
            self._kept = True

    def keep(self) -> SpoolFile:
        """All of it for one file alone: after this it survives a power cut under its final name."""
        self.sync()
        self.publish()
        self.sync_folder()
        return SpoolFile(self.name, self.size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
        if not self._kept:
            with suppress(FileNotFoundError):
                os.unlink(self._temporary)  # noqa: PTH108 - text is meant


class Spool:
    """The files under one data folder."""

    def __init__(self, root: Path, clock: Clock | None = None, disk: Disk | None = None) -> None:
        self.root = root
        self.disk = disk or Disk()
        self._clock = clock or Clock()
        self._making = threading.Lock()
        self._lasting: dict[Kind, tuple[int, Path]] = {}

    def prepare(self) -> None:
        """Makes the folders, readable by the owner alone. Raises Unavailable."""
        with _told(f"prepare {self.root}"):
            for folder in (self.root, *(self.root / k for k in KINDS), self.root / "run"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # whoever has just made the data folder: its name lasts too, and those above it
            for above in self.root.absolute().parents:
                with suppress(PermissionError):
                    self.disk.sync_folder(above)

    def folder(self, kind: Kind) -> Path:
        """The folder of this hour; nobody is given it before its own entry and its parent's are synced.

        Once a process, whoever made it: that one may have been killed before it came to the sync.
        """
        now = self._clock.now()
        hour = int(now.timestamp()) // 3600
        known, folder = self._lasting.get(kind, (0, self.root))
        if known == hour:
            return folder
        folder = self.root / kind / now.strftime("%Y-%m-%d/%H")
        with self._making, _told("make a folder"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.disk.sync_folder(folder.parent)
            self.disk.sync_folder(folder.parent.parent)
        self._lasting[kind] = hour, folder
        return folder

    def forget_folder(self, kind: Kind) -> None:
        """It is gone: somebody has removed it by hand."""
        self._lasting.pop(kind, None)

    def incoming(self, kind: Kind, suffix: str = ".dcm") -> Incoming:
        """`suffix`: how its name ends once it is whole; `names` sees those in SUFFIXES."""
        return Incoming(self, kind, suffix)

    def path(self, name: str) -> Path:
        return self.root / name

    def size(self, name: str) -> int:
        """Of a file in bytes; 0 where it is not there."""
        try:
            # text, not Path: the preview of retention asks for 100,000
            return os.stat(f"{self.root}/{name}").st_size  # noqa: PTH116
        except FileNotFoundError:
            return 0

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

    def restore(self, names: Iterable[str]) -> list[str]:
        """Gives files of these names that still have their temporary one the final one; which they were.

        After a power cut, and only while no process writes: the renaming may not have reached the disk.
        """
        wanted = {name.partition(".")[0]: name for name in names}
        restored = []
        for unfinished in (name for kind in KINDS for name in self.unfinished(kind)):
            name = wanted.get(unfinished.removesuffix(TEMPORARY))
            if name is not None and not (self.root / name).exists():
                with _told("rename a file"):
                    self.disk.rename(self.root / unfinished, self.root / name)
                    self.disk.sync_folder((self.root / name).parent)
                restored.append(name)
        return restored

    def unfinished(self, kind: Kind) -> list[str]:
        """The files of a kind that have their temporary names."""
        return [str(path.relative_to(self.root)) for path in (self.root / kind).glob(f"*/*/*{TEMPORARY}")]

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


def _writeback() -> Callable[[int], object]:
    """Linux's sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE): it starts and waits for nothing."""
    try:
        call = ctypes.CDLL(None, use_errno=True).sync_file_range
    except (OSError, AttributeError):
        return lambda fd: None
    call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return lambda fd: call(fd, 0, 0, 2)


_start_writeback = _writeback()


@contextmanager
def _told(what: str) -> Iterator[None]:
    """OSError becomes Unavailable, with the system's word for it and no path in it."""
    try:
        yield
    except OSError as e:
        word = "the disk is full" if e.errno == errno.ENOSPC else e.strerror or "I/O error"
        raise Unavailable(f"can't {what}: {word}") from e
