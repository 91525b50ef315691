"""The small receiving PACS of `hilum demo`: takes what the node sends, keeps it in a folder, notes when it came."""

import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt

from node.wire.contexts import VERIFICATION, storage_classes

AE_TITLE = "DEMO_PACS"
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Arrived:
    """One object that came: where it lies and when it was there, on the monotonic clock."""

    file: Path
    at: float


class Pacs:
    """Listens on a free loopback port while it is entered. `arrived`: by SOP Instance UID."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.arrived: dict[str, Arrived] = {}
        self.port = 0

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        ae = AE(ae_title=AE_TITLE)
        for sop_class in (VERIFICATION, *sorted(storage_classes())):
            ae.add_supported_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        self._server = ae.start_server((HOST, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._keep)])
        self.port = self._server.server_address[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()

    def _keep(self, event: Any) -> int:
        file = self._folder / f"{len(self.arrived)}.dcm"
        try:
            file.write_bytes(event.encoded_dataset())
        except OSError:
            return 0xA700
        self.arrived[str(event.request.AffectedSOPInstanceUID)] = Arrived(file, time.monotonic())
        return 0x0000
