"""A store, a peer whose every answer the test decides, and the deliverer as a process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, evt

from node.settings import DimseDestination, Settings
from storage.store import Store

SC = "1.2.840.10008.5.1.4.1.1.7"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.create(tmp_path / "data")
    yield store
    store.close()


class Pacs:
    """A pynetdicom server: `answer` decides each C-STORE's status; `received` is what it was sent."""

    def __init__(self, answer: Callable[[evt.Event], Any], syntaxes: list[str], classes: list[str]) -> None:
        self._answer = answer
        self.received: list[tuple[str, str, bytes]] = []
        self.associations = 0
        self.released = 0
        self.ae = AE(ae_title="PACS")
        self.ae.add_supported_context("1.2.840.10008.1.1")
        for sop_class in classes:
            self.ae.add_supported_context(sop_class, syntaxes)
        self._server: Any = None
        self.port = 0

    def start(self) -> None:
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_RELEASED, self._released),
        ]
        address = ("127.0.0.1", self.port)
        self._server = self.ae.start_server(address, block=False, evt_handlers=handlers)
        self.port = self._server.socket.getsockname()[1]

    def stop(self) -> None:
        self._server.shutdown()

    @property
    def destination(self) -> DimseDestination:
        return DimseDestination(
            name="pacs", ae_title="PACS", host="127.0.0.1", port=self.port, results=("sc",)
        )

    @property
    def instances(self) -> list[str]:
        return [uid for uid, _, _ in self.received]

    def _store(self, event: evt.Event) -> Any:
        data = event.request.DataSet.getvalue()
        self.received.append(
            (str(event.request.AffectedSOPInstanceUID), str(event.context.transfer_syntax), data)
        )
        return self._answer(event)

    def _accepted(self, event: evt.Event) -> None:
        self.associations += 1

    def _released(self, event: evt.Event) -> None:
        self.released += 1


@pytest.fixture
def pacs() -> Iterator[Callable[..., Pacs]]:
    started: list[Pacs] = []

    def start(
        answer: Callable[[evt.Event], Any] = lambda event: 0x0000,
        *,
        syntaxes: tuple[str, ...] = (EXPLICIT, IMPLICIT),
        classes: tuple[str, ...] = (SC,),
        require_called: str = "",
    ) -> Pacs:
        peer = Pacs(answer, list(syntaxes), list(classes))
        if require_called:
            peer.ae.ae_title = require_called
            peer.ae.require_called_aet = True
        peer.start()
        started.append(peer)
        return peer

    yield start
    for peer in started:
        peer.stop()


class Deliverer:
    """`python -m node.deliver.lanes` as the supervisor starts it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self._parent_end = -1

    def start(self) -> None:
        ready, tell_ready = os.pipe()
        child_end, self._parent_end = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "node.deliver.lanes", "deliverer", str(tell_ready), str(child_end)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(tell_ready, child_end),
        )
        os.close(tell_ready)
        os.close(child_end)
        assert self.process.stdin is not None
        self.process.stdin.write(self._settings.model_dump_json().encode())
        self.process.stdin.close()
        assert os.read(ready, 64) == b"ready\n"
        os.close(ready)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self._bury()

    def stop(self) -> tuple[int, str]:
        """SIGTERM; the exit code and the log."""
        assert self.process is not None
        self.process.terminate()
        return self._bury()

    def _bury(self) -> tuple[int, str]:
        assert self.process is not None and self.process.stderr is not None
        log = self.process.stderr.read().decode()
        code = self.process.wait(15)
        self.process.stderr.close()
        os.close(self._parent_end)
        self.process = None
        return code, log


@pytest.fixture
def deliverer() -> Iterator[Callable[[Settings], Deliverer]]:
    made: list[Deliverer] = []

    def make(settings: Settings) -> Deliverer:
        made.append(Deliverer(settings))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None:
            one.kill()
