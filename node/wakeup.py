"""A nudge between processes: "there is work". A hint only: a slow poll finds what a lost nudge missed.

Each listener binds a Unix datagram socket `run/<room>-<pid>.sock`; `notify` writes one byte to each of a room's.
"""

import contextlib
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Room = Literal["worker", "deliverer"]


def notify(data_dir: Path, room: Room) -> None:
    """Wakes every listener of the room; never blocks, never fails."""
    with contextlib.suppress(OSError), contextlib.closing(Bell(data_dir, room)) as bell:
        bell.ring()


class Bell:
    """Wakes every listener of a room, again and again: for whoever does so for each image. Raises OSError."""

    def __init__(self, data_dir: Path, room: Room) -> None:
        self._pattern = f"{room}-*.sock"
        self._folder = data_dir / "run"
        self._fd = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        # listeners come and go with the folder's time of change
        self._seen = -1
        self._addresses: list[str] = []

    def ring(self) -> None:
        """Never blocks, never fails."""
        with contextlib.suppress(OSError):
            changed = os.fstat(self._fd).st_mtime_ns
            if changed != self._seen:
                self._addresses = [
                    f"/proc/self/fd/{self._fd}/{path.name}" for path in self._folder.glob(self._pattern)
                ]
                self._seen = changed
        for address in self._addresses:
            with contextlib.suppress(OSError):
                self._socket.sendto(b"!", address)

    def close(self) -> None:
        self._socket.close()
        os.close(self._fd)


class Wakeup:
    """A listener in a room."""

    def __init__(self, data_dir: Path, room: Room) -> None:
        self._path = data_dir / "run" / f"{room}-{os.getpid()}.sock"
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with _short(self._path) as address:
            self._socket.bind(address)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def wait(self, seconds: float, stop_fd: int | None = None) -> None:
        """Returns at the first nudge, when `stop_fd` is readable, or after `seconds`. Many nudges count as one."""
        heard = [self._socket.fileno()] + ([] if stop_fd is None else [stop_fd])
        select.select(heard, [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(64)

    def close(self) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """An address of the socket that fits the 108 bytes of sun_path, however deep the data folder lies."""
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)
