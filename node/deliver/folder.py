"""Delivery into a folder: `<path>/<UID>.dcm` (`.json`, `.fhir.json`, `.hl7`), whole or not at all.

Written under a temporary name, synced, renamed, the folder synced. A second delivery of the same instance replaces
the file by the same bytes.
"""

import os
from pathlib import Path

from node.deliver.outcome import Delivered, Outcome, Postponed
from node.settings import FolderDestination
from node.wire.kinds import kind_of
from storage.outbox import Delivery
from storage.spool import Disk

_CHUNK_BYTES = 1 << 20


class FolderSender:
    """One destination that is a folder. A missing folder is made."""

    def __init__(self, destination: FolderDestination, disk: Disk | None = None) -> None:
        self._destination = destination
        self._disk = disk or Disk()

    def send(self, delivery: Delivery, file: Path) -> Outcome:
        """Copies the file; a folder that does not take it is trouble that passes, like a network's."""
        folder = self._destination.path
        final = folder / f"{delivery.sop_instance}{kind_of(delivery.writer).suffix}"
        temporary = folder / f".{delivery.sop_instance}.{self._destination.name}.part"
        with file.open("rb") as source:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._write(source.fileno(), temporary)
                self._disk.rename(temporary, final)
                self._disk.sync_folder(folder)
            except OSError as e:
                return Postponed(f"the folder can't be written: {e.strerror or 'I/O error'}")
        return Delivered()

    def rest(self) -> None:
        """Nothing is held between deliveries."""

    def _write(self, source: int, temporary: Path) -> None:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            while chunk := os.read(source, _CHUNK_BYTES):
                view = memoryview(chunk)
                while len(view):
                    view = view[self._disk.write(fd, view) :]
            self._disk.sync(fd)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
