"""A receiver to send to: the engine in this process, or the process that the supervisor would start."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from model.stored_only import stored_only
from node.receive.accept import Receiver
from node.receive.server import Engine, open_engine
from node.settings import Settings
from storage.audit import Filter, Record
from storage.store import Store

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def raw() -> ModuleType:
    """tests/peers/raw_sender.py"""
    spec = importlib.util.spec_from_file_location("raw_sender", Path(__file__).with_name("raw_sender.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["raw_sender"] = module
    spec.loader.exec_module(module)
    return module


class Receiving:
    """A receiver that runs, and what it has kept."""

    def __init__(self, data_dir: Path, port: int, store: Store) -> None:
        self.data_dir = data_dir
        self.port = port
        self.store = store

    def files(self) -> list[Path]:
        return sorted((self.data_dir / "objects").rglob("*.*"))

    def wait_for_files(self, count: int, seconds: float = 5) -> list[Path]:
        end = time.monotonic() + seconds
        while len(self.files()) != count and time.monotonic() < end:
            time.sleep(0.02)
        return self.files()

    def audit(self, event: str = "") -> list[Record]:
        with self.store.database.read() as tx:
            return self.store.audit.page(tx, Filter(event=event))

    def wait_for_audit(self, event: str, seconds: float = 5) -> list[Record]:
        end = time.monotonic() + seconds
        while not (found := self.audit(event)) and time.monotonic() < end:
            time.sleep(0.02)
        return found

    def jobs(self) -> dict[str, int]:
        with self.store.database.read() as tx:
            return self.store.jobs.counts(tx)


def _settings(data_dir: Path, **receive: Any) -> Settings:
    return Settings.model_validate(
        {"node": {"data_dir": data_dir}, "receive": {"port": 0, "min_free_bytes": 0, **receive}}
    )


@pytest.fixture(params=["hilum", "pynetdicom"])
def engine(request: pytest.FixtureRequest) -> str:
    """`[receive] engine`: what one promises the other keeps."""
    return str(request.param)


@pytest.fixture
def receiving(tmp_path: Path, engine: str) -> Iterator[Callable[..., Receiving]]:
    """`receiving(max_associations=2)` listens on a free port, with these values of [receive]."""
    running: list[tuple[Engine, Store]] = []

    def start(**receive: Any) -> Receiving:
        receive = {"engine": engine, **receive}
        data_dir = tmp_path / f"node{len(running)}"
        settings = _settings(data_dir, **receive)
        store = Store.create(data_dir)
        listening = open_engine(settings, Receiver(store, settings.receive, "sha256:test", stored_only))
        listening.start()
        running.append((listening, store))
        return Receiving(data_dir, listening.port, store)

    yield start
    for listening, store in running:
        listening.stop(2)
        store.close()


class ReceiverProcess(Receiving):
    """The receiver as the supervisor starts it."""

    def __init__(self, data_dir: Path, **receive: Any) -> None:
        store = Store.create(data_dir)
        ready, ready_end = os.pipe()
        parent_end, self._parent = os.pipe()
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "node.receive.server", "receiver", str(ready_end), str(parent_end)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(ready_end, parent_end),
            cwd=REPOSITORY,
        )
        os.close(ready_end)
        os.close(parent_end)
        assert self.process.stdin
        self.process.stdin.write(_settings(data_dir, **receive).model_dump_json().encode())
        self.process.stdin.close()
        with os.fdopen(ready) as line:
            said = line.readline().split()
        assert said and said[0] == "ready", self.process.communicate()
        self.seconds_to_ready = time.monotonic() - self.started
        super().__init__(data_dir, int(said[1]), store)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stderr
        self.process.stderr.close()
        os.close(self._parent)
        self.store.close()


@pytest.fixture
def receiver_process(tmp_path: Path, engine: str) -> Iterator[Callable[..., ReceiverProcess]]:
    running: list[ReceiverProcess] = []

    def start(**receive: Any) -> ReceiverProcess:
        receive = {"engine": engine, **receive}
        running.append(ReceiverProcess(tmp_path / f"process{len(running)}", **receive))
        return running[-1]

    yield start
    for one in running:
        one.end()
