"""Real receiving peers in a test: Orthanc and DCMTK's storescp, on free loopback ports, answering when handed over.

Each may be killed and started again on the same port: what a PACS does on a bad day.
"""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

P = TypeVar("P", bound="Peer")

PATIENCE = 30.0
# Nagle's algorithm in DCMTK waits 44 ms for each acknowledgement; a test that wants just that passes {}
AT_ONCE = {"TCP_NODELAY": "1"}


class Peer:
    """A server process; what it says goes to `log`."""

    ae_title: str
    port: int

    def __init__(self, command: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        self._command = list(command)
        self._environment = {k: v for k, v in os.environ.items() if k != "TCP_NODELAY"} | environment
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / f"{Path(command[0]).name.lower()}.log"

    def start(self) -> None:
        """Returns when it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            ended = self._process.poll()
            if ended is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(
                    f"{self._command[0]} does not answer ({ended}): {self.log.read_text()[-2000:]}"
                )
            time.sleep(0.02)

    def stop(self) -> None:
        """As a person stops it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """As a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Storescp(Peer):
    """DCMTK's storescp: `folder` holds what it was sent, byte for byte."""

    ae_title = "STORESCP"

    def __init__(
        self, program: str, port: int, folder: Path, *options: str, environment: dict[str, str] = AT_ONCE
    ) -> None:
        self.port = port
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = [program, "-v", "-aet", self.ae_title, "-od", str(folder), "-pdu", "131072", "+B", *options]
        super().__init__([*command, str(port)], folder.parent, environment)

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())


class Orthanc(Peer):
    """Orthanc with an empty database under `folder`; asked by REST what it holds."""

    ae_title = "ORTHANC"

    def __init__(
        self,
        program: str,
        port: int,
        http_port: int,
        folder: Path,
        *,
        environment: dict[str, str] = AT_ONCE,
        **settings: Any,
    ) -> None:
        self.port = port
        self.http_port = http_port
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "Name": "TEST", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
            "Plugins": [], "HttpPort": http_port, "DicomPort": port, "DicomAet": self.ae_title,
            "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True, "DicomAlwaysAllowEcho": True, "DicomCheckCalledAet": False,
            "UnknownSopClassAccepted": False, "OverwriteInstances": True,
            **settings,
        }  # fmt: skip
        file = folder / "orthanc.json"
        file.write_text(json.dumps(config))
        super().__init__([program, str(file)], folder, environment)

    def get(self, path: str) -> bytes:
        """The body of a GET: `/studies`, `/instances/{id}/tags?simplify`, …"""
        with urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=PATIENCE) as answer:
            body: bytes = answer.read()
            return body

    def post(self, path: str, body: bytes) -> bytes:
        request = Request(f"http://127.0.0.1:{self.http_port}{path}", data=body, method="POST")
        with urlopen(request, timeout=PATIENCE) as answer:
            read: bytes = answer.read()
            return read

    def find(self, study: str = "") -> list[str]:
        """Orthanc's own ids of the instances of a study (its UID), or of all."""
        wanted = {"Level": "Instance", "Query": {"StudyInstanceUID": study} if study else {}}
        found: list[str] = json.loads(self.post("/tools/find", json.dumps(wanted).encode()))
        return found

    def file(self, instance: str) -> bytes:
        """The whole DICOM file, by Orthanc's id."""
        return self.get(f"/instances/{instance}/file")

    def _answers(self) -> bool:
        try:
            return bool(self.get("/system")) and super()._answers()
        except (URLError, ConnectionError, TimeoutError):
            return False


@contextmanager
def running(peer: P) -> Iterator[P]:
    """Started, and stopped at the end."""
    peer.start()
    try:
        yield peer
    finally:
        peer.stop()


@pytest.fixture(scope="module")
def orthanc(
    program: Callable[[str], str], free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Orthanc]:
    """An Orthanc of the module's own, empty at its first test."""
    folder = tmp_path_factory.mktemp("orthanc")
    with running(Orthanc(program("Orthanc"), free_port(), free_port(), folder)) as peer:
        yield peer


@pytest.fixture(scope="module")
def storescp(
    program: Callable[[str], str], free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Storescp]:
    """A storescp of the module's own; several associations at once."""
    folder = tmp_path_factory.mktemp("storescp") / "received"
    with running(Storescp(program("storescp"), free_port(), folder, "--fork")) as peer:
        yield peer
