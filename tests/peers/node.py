"""A real node in a test: `hilum serve` as a process of its own, seen only from outside."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from node.settings import load
from node.status import collect

PATIENCE = 120.0
NETWORKS = Path.home() / ".cache/hilum-tests/networks"
"""What one node has converted, the next need not: each would take ten seconds for it."""


class RunningNode:
    """One data folder and the node that serves it; may be killed and started again."""

    def __init__(self, folder: Path, config: str, port: int) -> None:
        self.folder = folder
        self.port = port
        self.config = folder / "config.toml"
        self.config.write_text(f'[node]\ndata_dir = "data"\n[receive]\nport = {port}\n{config}')
        NETWORKS.mkdir(parents=True, exist_ok=True)
        self.data.mkdir(mode=0o700, exist_ok=True)
        if not (self.data / "cache").is_symlink():
            (self.data / "cache").symlink_to(NETWORKS)
        self.log = folder / "node.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self, *, wait: bool = True) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "node.cli", "serve", "--config", str(self.config)],
                stdout=subprocess.PIPE,
                stderr=log,
            )
        if wait:
            assert self.process.stdout is not None
            line = self.process.stdout.readline().decode()
            assert line.startswith("ready: "), f"{line!r}\n{self.log.read_text()[-3000:]}"

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(15)
        self.close()
        return code

    def close(self) -> None:
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()

    def kill_everything(self) -> None:
        """SIGKILL to the supervisor and all its children at once."""
        assert self.process is not None
        pids = [self.process.pid, *self.children().values()]
        for pid in pids:
            _kill(pid)
        self.process.wait()
        self.close()
        until(lambda: not any(_alive(pid) for pid in pids))

    def kill(self, name: str) -> None:
        """SIGKILL to one child: receiver, worker-1, deliverer, housekeeper."""
        _kill(self.children()[name])

    def children(self) -> dict[str, int]:
        """Names and pids of the supervisor's children."""
        assert self.process is not None
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                command = stat.with_name("cmdline").read_bytes().split(b"\0")
            except (OSError, IndexError, ValueError):
                continue
            if parent == self.process.pid and b"-m" in command:
                found[command[command.index(b"-m") + 2].decode()] = int(stat.parent.name)
        return found

    def hilum(self, *arguments: str, check: bool = True) -> str:
        """The output of another `hilum` command on this node's configuration."""
        done = subprocess.run(
            [sys.executable, "-m", "node.cli", *arguments, "--config", str(self.config)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert not check or done.returncode in {0, 1}, done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.hilum("status", "--json"))
        return status

    def audit(self, event: str = "") -> list[dict[str, Any]]:
        wanted = ["--event", event] if event else []
        records: list[dict[str, Any]] = json.loads(self.hilum("audit", "query", "--format", "json", *wanted))
        return records

    def settled(self) -> bool:
        """Nothing is queued, running, waiting or being sent. Asked often: a process each time would be half a core."""
        status = collect(load(self.config), None)
        return not any(
            [status.jobs[s] for s in ("queued", "running")]
            + [status.deliveries[s] for s in ("waiting", "sending")]
        )


@contextmanager
def running_node(folder: Path, config: str, port: int) -> Iterator[RunningNode]:
    folder.mkdir(parents=True, exist_ok=True)
    node = RunningNode(folder, config, port)
    try:
        node.start()
        yield node
    finally:
        if node.process is not None and node.process.poll() is None:
            node.process.terminate()
            try:
                node.process.wait(15)
            except subprocess.TimeoutExpired:
                node.kill_everything()
        node.close()


def send(storescu: str, port: int, files: Iterable[Path], *options: str) -> subprocess.CompletedProcess[str]:
    """DCMTK's storescu, proposing just what the files need; `-xy` proposes JPEG Baseline too."""
    return subprocess.run(
        [storescu, "-R", "-v", "-nh", "-aec", "HILUM", *options, "127.0.0.1", str(port), *map(str, files)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "TCP_NODELAY": "1"},
    )


def until(holds: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Waits for something to hold; fails with its last answer."""
    deadline = time.monotonic() + seconds
    while not (answer := holds()):
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds} s"
        time.sleep(0.1)


def within(holds: Callable[[], object], seconds: float) -> bool:
    """Whether something came to hold in so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def port_open(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
