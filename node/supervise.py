"""`hilum serve`: prepares the data folder, starts the processes, restarts what dies, stops them in order.

    receiver, worker-1 … worker-n, deliverer, housekeeper, forwarder (with [audit.repository])

The supervisor alone creates and migrates the database, and puts right what a crash left. A process that dies is
started again, after a pause that grows while it keeps dying. SIGTERM: receiver first, so that nothing new is
acknowledged, then the others; everything has ended within 10 seconds, and what was under way is found by the next
start.
"""

import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

from node import activate, active, anchoring, log, recover
from node.certificates import refuse_unusable
from node.changes import file_in, since_last_start, to_keep
from node.child import NEW_MODEL_EXIT, NO_MODEL_EXIT
from node.errors import BadEnvironment, Misuse
from node.settings import Settings
from node.shadow import forget_trouble
from node.state import NodeState, locked
from storage.audit import erase
from storage.audit.seal import seal_all
from storage.errors import Elsewhere, StorageError, Unavailable
from storage.store import Store

GRACE_SECONDS = 8.0
RECEIVER_GRACE_SECONDS = 5.0
LEASE_CHECK_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 60.0
# a process that lived this long did its work: its next death starts the pauses anew
SETTLED_SECONDS = 30.0
MODEL_TRIES = 3


@dataclass
class Process:
    """One kind of child and the one that runs now."""

    name: str
    module: str
    popen: subprocess.Popen[bytes] | None = None
    ready_fd: int = -1
    is_ready: bool = False
    said: bytes = b""
    started: float = 0.0
    deaths: int = 0
    again_at: float = 0.0
    model_failures: int = 0

    @property
    def runtime(self) -> str:
        """What a worker computes with; it says so when it is ready."""
        return " ".join(self.said.decode(errors="replace").split()[1:2])

    @property
    def owner(self) -> str:
        return f"{self.name}:{self.popen.pid}" if self.popen else ""


def serve(settings: Settings) -> int:
    """Runs the node until SIGTERM or SIGINT; the exit code. Raises Misuse, BadEnvironment."""
    log.configure("supervisor")
    # whatever the data folder's own mode is, what lies in it is its owner's alone
    os.umask(0o077)
    # a process that dies must not leave its memory, with a patient in it, on the disk
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    refuse_exposure(settings)
    refuse_unusable(settings)
    data_dir = settings.node.data_dir.absolute()
    settings = settings.with_changes("node", data_dir=data_dir)
    with locked(data_dir):
        recover.refuse_lost_database(data_dir)
        try:
            store = Store.create(data_dir, keeps_names=settings.audit.keeps_names)
        except (Elsewhere, Unavailable) as e:
            raise BadEnvironment(str(e)) from e
        try:
            return Supervisor(store, settings).run()
        except StorageError as e:
            raise BadEnvironment(str(e)) from e
        finally:
            store.close()


def refuse_exposure(settings: Settings) -> None:
    """Beyond loopback a node listens only to those it knows. Raises Misuse."""
    receive = settings.receive
    if receive.is_loopback or receive.peers or receive.insecure:
        return
    raise Misuse(
        f"receive.peers is empty, and host {receive.host} is reachable from outside: list who may send as "
        'peers = [{ ae_title = "…", host = "…" }], or set receive.insecure = true'
    )


class Supervisor:
    """The processes of one node."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._stop = False
        self._announced = False
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._port = settings.receive.port
        self._leases_at = 0.0
        self._told: NodeState | None = None
        self._receiver = Process("receiver", "node.receive.server")
        self._workers = [
            Process(f"worker-{n}", "node.analyze.worker") for n in range(1, settings.analyze.workers + 1)
        ]
        self._others = [Process("deliverer", "node.deliver.lanes"), Process("housekeeper", "node.housekeep")]
        if settings.audit.repository:
            self._others.append(Process("forwarder", "node.atna.forward"))
        self._parent_read, self._parent_write = os.pipe()
        # the interpreter writes a byte into it at each signal, a child's death among them
        self._woken, self._wake = os.pipe()

    def run(self) -> int:
        self._listen()
        self._prepare()
        for process in self._processes:
            self._start(process)
        failure = 0
        while not self._stop and not failure:
            self._hear(self._until_due())
            failure = self._mourn()
            self._free_stuck()
            self._tell()
        self._shut_down()
        return failure

    def _listen(self) -> None:
        """From now on a signal ends the wait in `_hear`."""
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        # whose default is to be ignored, and then no byte is written
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    @property
    def _processes(self) -> list[Process]:
        return [self._receiver, *self._others, *self._workers]

    def _prepare(self) -> None:
        settings, receive = self._settings, self._settings.receive
        for stale in (settings.node.data_dir / "run").glob("*.sock"):
            stale.unlink(missing_ok=True)
        for stale in (settings.node.data_dir / "run").glob("reindex-*"):
            shutil.rmtree(stale, ignore_errors=True)
        anchoring.at_start(self._store, settings)
        forget_trouble(settings.node.data_dir)
        activate.settle(self._store, settings)
        model = active.sha256(settings)
        found = recover.after_stop(self._store, settings, model)
        if found.anything:
            log.get().warning("recovered", **{k: v for k, v in found.detail().items() if isinstance(v, int)})
        exposed = not receive.is_loopback and not receive.peers
        if exposed:
            log.get().warning(
                "receive.insecure: anybody who reaches this port may send images", host=receive.host
            )
        with self._store.database.read() as tx:
            kept = 0 if settings.audit.keeps_names else erase.kept(tx)
        if kept:
            log.get().warning(
                'audit.identifiers = "keyed-hash": values of before stay until `hilum audit erase --all`',
                values=kept,
            )
        with self._store.database.write() as tx:
            has_run = self._store.audit.count(tx, "node.started") > 0
            changes = since_last_start(self._configuration_file, settings, is_new=not has_run)
            self._store.audit.record(
                tx,
                "node.started",
                detail={
                    "host": receive.host,
                    "port": receive.port,
                    "ae_title": settings.node.ae_title,
                    "model": model,
                    "version": version("hilum"),
                    "insecure": receive.insecure,
                    "exposed": exposed,
                },
            )
            for change in changes:
                told = {"key": change.key, "old": change.old, "new": change.new}
                self._store.audit.record(tx, change.event, detail=told)
        _write(self._configuration_file, to_keep(settings))

    def _start(self, process: Process) -> None:
        ready_read, ready_write = os.pipe()
        process.popen = subprocess.Popen(
            [sys.executable, "-m", process.module, process.name, str(ready_write), str(self._parent_read)],
            stdin=subprocess.PIPE,
            pass_fds=(ready_write, self._parent_read),
        )
        os.close(ready_write)
        assert process.popen.stdin is not None
        try:
            process.popen.stdin.write(self._settings.model_dump_json().encode())
            process.popen.stdin.close()
        except BrokenPipeError:
            log.get().warning("a process ended before it began", name=process.name)
        process.ready_fd, process.is_ready, process.said = ready_read, False, b""
        process.started = time.monotonic()

    def _until_due(self) -> float:
        """Seconds until the leases are looked at, or a process is started again."""
        starts = [process.again_at for process in self._processes if process.popen is None]
        return max(0.0, min([self._leases_at, *starts]) - time.monotonic())

    def _hear(self, seconds: float) -> None:
        """Waits until a process says that it is ready, one ends, a signal comes, or so long."""
        silent = [p for p in self._processes if p.ready_fd >= 0]
        heard, _, _ = select.select([self._woken, *(p.ready_fd for p in silent)], [], [], seconds)
        if self._woken in heard:
            os.read(self._woken, 4096)
        for process in silent:
            if process.ready_fd not in heard:
                continue
            said = os.read(process.ready_fd, 4096)
            process.said += said
            if not said or b"\n" in process.said:
                os.close(process.ready_fd)
                process.ready_fd = -1
            if b"\n" in process.said:
                process.is_ready = True
                process.model_failures = 0
                log.get().info("process ready", name=process.name, seconds=_since(process.started))
        words = self._receiver.said.split()
        if self._receiver.is_ready and len(words) == 2:
            self._port = int(words[1])
        self._announce()

    def _announce(self) -> None:
        """The contract's one line on stdout: the port is open, and a worker has loaded the model."""
        served = any(p.is_ready for p in self._workers) or not self._workers
        if self._announced or not served or not self._receiver.is_ready:
            return
        self._announced = True
        receive = self._settings.receive
        print(f"ready: {self._settings.node.ae_title} on {receive.host}:{self._port}", flush=True)

    def _mourn(self) -> int:
        """Starts again what has died; the exit code if the node can't go on at all, else 0."""
        now = time.monotonic()
        for process in self._processes:
            if process.popen is None:
                if now >= process.again_at:
                    self._start(process)
                continue
            code = process.popen.poll()
            if code is None:
                continue
            was_ready = process.is_ready
            self._bury(process)
            if code == NEW_MODEL_EXIT:
                log.get().info("another model is active: started again with it", name=process.name)
                self._start(process)
                continue
            if process is self._receiver and not was_ready and not process.deaths and code in {2, 3}:
                return code
            settled = was_ready and now - process.started > SETTLED_SECONDS
            process.deaths = 0 if settled else process.deaths + 1
            pause = min(FIRST_PAUSE_SECONDS * 2**process.deaths, LONGEST_PAUSE_SECONDS)
            if code == NO_MODEL_EXIT:
                process.model_failures += 1
                if process.model_failures >= MODEL_TRIES:
                    pause = LONGEST_PAUSE_SECONDS
            process.again_at = now + pause
            log.get().error(
                "process ended, starts again", name=process.name, code=code, pause=round(pause, 1)
            )
        return 0

    def _bury(self, process: Process) -> None:
        """What a dead process had in hand goes back."""
        if process.ready_fd >= 0:
            os.close(process.ready_fd)
        owner = process.owner
        process.popen, process.ready_fd, process.is_ready = None, -1, False
        if process is self._receiver:
            self._store.spool.sweep("objects")
        try:
            with self._store.database.write() as tx:
                if process in self._workers:
                    self._store.jobs.died(tx, owner)
                    self._store.studies.died(tx, owner)
                elif process.name == "deliverer":
                    self._store.outbox.recover(tx, owner)
        except Unavailable as e:
            log.get().error(
                "what a dead process held is freed at the next start", name=process.name, reason=str(e)
            )

    def _free_stuck(self) -> None:
        """A worker whose lease ran out hangs: it is killed, and `_mourn` does the rest."""
        now = time.monotonic()
        if now < self._leases_at:
            return
        self._leases_at = now + LEASE_CHECK_SECONDS
        try:
            activate.settle(self._store, self._settings)
            with self._store.database.read() as tx:
                late = [*self._store.jobs.expired(tx), *self._store.studies.expired(tx)]
        except (Unavailable, OSError):
            return
        for process in self._workers:
            if process.popen is not None and process.owner in late:
                log.get().error("worker hangs and is killed", name=process.name)
                process.popen.kill()

    def _tell(self) -> None:
        """Writes run/node.json when it has changed."""
        receive = self._settings.receive
        problem = ""
        if any(p.model_failures >= MODEL_TRIES for p in self._workers):
            problem = "no worker can load the model; images are received and wait (see `hilum check`)"
        state = NodeState(
            pid=os.getpid(),
            since=self._since,
            host=receive.host,
            port=self._port,
            ae_title=self._settings.node.ae_title,
            workers={"ready": sum(p.is_ready for p in self._workers), "wanted": len(self._workers)},
            problem=problem,
            runtime=next((p.runtime for p in self._workers if p.is_ready), ""),
        )
        if state != self._told:
            _write(self._settings.node.data_dir / "run" / "node.json", asdict(state))
            self._told = state

    def _shut_down(self) -> None:
        began = time.monotonic()
        self._end([self._receiver], began + RECEIVER_GRACE_SECONDS)
        self._end([*self._others, *self._workers], began + GRACE_SECONDS)
        with self._store.database.write() as tx:
            self._store.jobs.recover(tx)
            self._store.studies.recover(tx)
            self._store.outbox.recover(tx)
            self._store.audit.record(tx, "node.stopped", detail={"seconds": _since(began)})
        seal_all(self._store.database, self._store.clock)
        anchoring.at_stop(self._store, self._settings)
        self._store.database.checkpoint()
        log.get().info("stopped", seconds=_since(began))

    def _end(self, processes: list[Process], deadline: float) -> None:
        alive = [p.popen for p in processes if p.popen is not None and p.popen.poll() is None]
        for popen in alive:
            popen.terminate()
        for popen in alive:
            try:
                popen.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()

    @property
    def _configuration_file(self) -> Path:
        return file_in(self._settings.node.data_dir)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop = True


def _write(path: Path, tree: dict[str, Any]) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(tree))
    temporary.rename(path)


def _since(moment: float) -> float:
    return round(time.monotonic() - moment, 2)
