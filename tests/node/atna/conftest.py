"""A log to forward, and servers to forward it to."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from peers.receiver import Certificates
from peers.syslog_server import Repository, own, rsyslog

from node.atna.condition import taker
from node.atna.forward import Forwarder
from node.settings import Settings
from storage.audit import About, Actor, Patient, forwarded
from storage.store import Store

REPOSITORY = Path(__file__).parents[3]
PATIENCE = 60.0


class Log:
    """A data folder whose audit log is forwarded to a server at `port`."""

    def __init__(self, data_dir: Path, port: int, site: Certificates, transport: str) -> None:
        files = {"ca_file": site.ca, "certificate": site.server} if transport == "tls" else {}
        repository = {"host": "127.0.0.1", "port": port, "transport": transport, **files}
        self.settings = Settings.model_validate(
            {"node": {"data_dir": data_dir}, "audit": {"repository": repository}}
        )
        self.store = Store.create(data_dir)
        (data_dir / "run").mkdir(exist_ok=True)
        self.data_dir = data_dir

    def write(self, count: int, **detail: Any) -> None:
        """So many records, each in a transaction of its own."""
        for number in range(count):
            with self.store.database.write() as tx:
                keys = self.store.audit.identify(
                    tx, Patient(f"Ünique-{number % 7}", "Unmistakable^Name", "ACC")
                )
                self.store.audit.record(
                    tx,
                    "object.received",
                    about=About(keys, "1.2.3", f"1.2.3.{number}"),
                    actor=Actor("CR_ROOM", "10.0.0.9"),
                    detail={"size": number, **detail},
                )

    def forwarder(self, **options: Any) -> Forwarder:
        return Forwarder(self.store, self.settings, **{"settle": 0.3, "pause": 0.05, **options})

    @property
    def position(self) -> int:
        assert self.settings.audit.repository
        with self.store.database.read() as tx:
            return forwarded.position(tx, taker(self.settings.audit.repository))


@dataclass
class Process:
    """The forwarder as the supervisor starts it."""

    popen: subprocess.Popen[bytes]
    parent: int

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def stop(self) -> int:
        self.popen.terminate()
        return self.popen.wait(20)


def until(holds: Callable[[], bool], forwarder: Forwarder | None = None) -> None:
    """Lets the forwarder go round until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        if forwarder is not None:
            forwarder.round()
        time.sleep(0.02)


@pytest.fixture(params=["own", "rsyslog"])
def serving(
    request: pytest.FixtureRequest,
    program: Callable[[str], str],
    free_port: Callable[[], int],
    tmp_path: Path,
    site: Certificates,
) -> Iterator[Callable[..., Repository]]:
    """`serving()` is a server that is not started yet; over TLS, or `serving("udp")`."""
    made: list[Repository] = []

    def make(transport: str = "tls", certificates: Certificates = site) -> Repository:
        folder = tmp_path / f"server{len(made)}"
        folder.mkdir()
        given = (free_port(), folder, transport, certificates.server, certificates.ca)
        server = own(*given) if request.param == "own" else rsyslog(program("rsyslogd"), *given)
        if server is None:
            pytest.skip("rsyslog's module for TLS (rsyslog-gnutls) is not installed")
        made.append(server)
        return server

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def log_for(tmp_path: Path, site: Certificates) -> Iterator[Callable[..., Log]]:
    made: list[Log] = []

    def make(server: Repository, transport: str = "tls") -> Log:
        made.append(Log(tmp_path / f"data{len(made)}", server.port, site, transport))
        return made[-1]

    yield make
    for each in made:
        each.store.close()


@pytest.fixture
def started() -> Iterator[Callable[[Log], Process]]:
    running: list[Process] = []

    def start(log: Log) -> Process:
        ready, ready_end = os.pipe()
        parent_end, parent = os.pipe()
        popen = subprocess.Popen(
            [sys.executable, "-m", "node.atna.forward", "forwarder", str(ready_end), str(parent_end)],
            stdin=subprocess.PIPE,
            pass_fds=(ready_end, parent_end),
            cwd=REPOSITORY,
        )
        os.close(ready_end)
        os.close(parent_end)
        assert popen.stdin
        popen.stdin.write(log.settings.model_dump_json().encode())
        popen.stdin.close()
        with os.fdopen(ready) as line:
            assert line.readline() == "ready\n"
        running.append(Process(popen, parent))
        return running[-1]

    yield start
    for process in running:
        if process.popen.poll() is None:
            process.kill()
        os.close(process.parent)
