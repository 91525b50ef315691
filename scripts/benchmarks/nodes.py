"""The nodes that are measured, and how each is started: at its best, on a fresh folder, on loopback."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmarks import processes
from scripts.benchmarks.senders import ROOT, Failed

AE_TITLE = "PEER"
# DCMTK and Orthanc write header and body of a PDU in two calls: with Nagle's algorithm each image waits 44 ms
AT_ONCE = {"TCP_NODELAY": "1", "TCP_BUFFER_LENGTH": "262144"}
START_SECONDS = 30.0
STOP_SECONDS = 30.0

_ORTHANC: dict[str, object] = {
    "Name": "BENCH", "DicomAet": AE_TITLE, "HttpServerEnabled": False, "Plugins": [], "StorageCompression": False,
    "MaximumStorageSize": 0, "DicomAlwaysAllowStore": True, "DicomCheckCalledAet": False, "RemoteAccessAllowed": False,
}  # fmt: skip
_TUNED: dict[str, object] = {
    "MaximumPduLength": 131_072, "StoreMD5ForAttachments": False, "SaveJobs": False, "DicomThreadsCount": 8,
    "UnknownSopClassAccepted": True,
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A node. `command(folder, port)` writes what configuration it needs into the folder.

    `at_once`: how many associations it serves at a time; further senders associate when their turn comes.
    `files`: where, under the folder, it stores what it receives.
    """

    name: str
    durable: str
    command: Callable[[Path, int], Sequence[str]]
    at_once: int = 1000
    files: str = "received"
    is_hilum: bool = False


@dataclass
class Running:
    kind: Kind
    folder: Path
    port: int
    pid: int
    # the process that receives: Hilum's receiver, else the node itself
    receiver: int
    # the most memory that the receiving process and those of its children had that lived together
    peak_bytes: int = 0

    def watch(self) -> None:
        self.peak_bytes = max(self.peak_bytes, processes.peak_bytes(processes.tree(self.receiver)))


def hilum(engine: str = "", more: str = "", workers: int = 0) -> Kind:
    """`engine` "": the default; `more`: further lines of config.toml."""

    def command(folder: Path, port: int) -> Sequence[str]:
        config = folder / "config.toml"
        chosen = f'engine = "{engine}"\n' if engine else ""
        config.write_text(
            f'[node]\nae_title = "{AE_TITLE}"\ndata_dir = "data"\n'
            f"[receive]\nport = {port}\nmin_free_bytes = 0\n{chosen}"
            f"[analyze]\nworkers = {workers}\n{more}"
        )
        return [sys.executable, "-m", "node.cli", "serve", "--config", str(config)]

    return Kind(
        f"hilum ({engine})" if engine else "hilum",
        "file, row and audit",
        command,
        files="data/objects",
        is_hilum=True,
    )


def storescp(name: str, *options: str, at_once: int = 1) -> Kind:
    def command(folder: Path, port: int) -> Sequence[str]:
        return [
            dcmtk("storescp"), *options, "-aet", AE_TITLE, "-od", str(folder / "received"), "-pdu", "131072", str(port),
        ]  # fmt: skip

    return Kind(name, "no", command, at_once)


def orthanc(name: str, threads: int, more: Mapping[str, object]) -> Kind:
    def command(folder: Path, port: int) -> Sequence[str]:
        config, at = folder / "orthanc.json", str(folder / "received")
        places = {"DicomPort": port, "StorageDirectory": at, "IndexDirectory": at}
        config.write_text(json.dumps({**_ORTHANC, **more, **places}))
        return [program("Orthanc"), str(config)]

    return Kind(name, "file, not index", command, threads)


def floor(folder: Path) -> Kind | None:
    """floor.c, compiled into the folder; None where there is no compiler. Raises Failed where it does not compile."""
    compiler, compiled = shutil.which("cc"), folder / "floor"
    if compiler is None:
        return None
    source = Path(__file__).with_name("floor.c")
    done = subprocess.run(
        [compiler, "-O2", "-pthread", "-o", str(compiled), str(source)], capture_output=True, text=True
    )
    if done.returncode:
        raise Failed(f"floor.c does not compile: {done.stderr[:1000]}")

    def command(folder: Path, port: int) -> Sequence[str]:
        return [str(compiled), str(port), str(folder / "received")]

    return Kind("floor", "file alone", command)


def _python(name: str, durable: str, *words: str, at_once: int = 1000) -> Kind:
    def command(folder: Path, port: int) -> Sequence[str]:
        filled = {"PORT": str(port), "FOLDER": str(folder / "received")}
        return [sys.executable, *(filled.get(word, word) for word in words)]

    return Kind(name, durable, command, at_once)


PEERS = {
    kind.name: kind
    for kind in (
        storescp("storescp"),
        storescp("storescp-bit", "+B"),
        storescp("storescp-fork", "--fork", "+B", at_once=1000),
        orthanc("orthanc", 4, {}),
        orthanc("orthanc-tuned", 8, _TUNED),
        _python("pynetdicom-app", "no", "-m", "pynetdicom", "storescp", "-q", "-aet", AE_TITLE, "-od", "FOLDER", "PORT",
                at_once=10),
        _python("pynetdicom-fsync", "file", "-m", "scripts.benchmarks.fsync_node", "PORT", "FOLDER"),
        _python("discard", "nothing kept", "-m", "scripts.benchmarks.discard", "PORT"),
    )
}  # fmt: skip


def chosen(names: Sequence[str], engines: Sequence[str], root: Path) -> list[Kind]:
    """`hilum` stands for one node an engine; `floor` is compiled into `root`, the run's folder.

    Raises Failed for a name that is none.
    """
    kinds: list[Kind] = []
    for name in names:
        if name == "hilum":
            kinds += [hilum(engine) for engine in engines]
        elif name == "floor":
            if (kind := floor(root)) is None:
                print("bench: no floor row: there is no C compiler (cc)", file=sys.stderr)
            else:
                kinds.append(kind)
        elif name in PEERS:
            kinds.append(PEERS[name])
        else:
            raise Failed(f"there is no node {name!r}; there are hilum, disk, floor, {', '.join(PEERS)}")
    return kinds


@contextmanager
def running(kind: Kind, folder: Path, *, nagle: bool = False) -> Iterator[Running]:
    """`nagle`: as Debian starts it, without TCP_NODELAY. Raises Failed where it does not start."""
    (folder / "received").mkdir(parents=True, exist_ok=True)
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if k not in AT_ONCE} | ({} if nagle else AT_ONCE)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            kind.command(folder, port), cwd=ROOT, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if kind.is_hilum else log, stderr=log,
        )  # fmt: skip
    try:
        _until_ready(kind, process, port, folder / "log")
        receiver = processes.find(process.pid, "node.receive.server") if kind.is_hilum else process.pid
        yield Running(kind, folder, port, process.pid, receiver or process.pid)
    finally:
        _stop(process)


def _until_ready(kind: Kind, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    if process.stdout is not None:
        if process.stdout.readline().startswith(b"ready"):
            return
    else:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)
    raise Failed(f"{kind.name} does not start: {log.read_text(errors='replace')[-1000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with suppress(ProcessLookupError):
        # what a fork left
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdout is not None:
        process.stdout.close()


def dcmtk(name: str) -> str:
    """DCMTK's program, not pynetdicom's of the same name beside this Python."""
    return program(name, "/usr/bin:/usr/local/bin:/opt/homebrew/bin")


def program(name: str, path: str = "") -> str:
    """Raises Failed where it is not installed."""
    found = shutil.which(name, path=path or f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not found:
        raise Failed(f"{name} is not installed")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
