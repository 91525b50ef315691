"""`hilum check`: does everything hold that a node needs? And `--repair`, which puts the spool and the database right.

Nothing is sent but C-ECHO, a query that finds nothing, or OPTIONS; nothing is changed but by --repair; a probe file is
written and removed.
"""

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from model import card
from model.errors import BadModel
from node import active, anchoring, log, show
from node.certificates import refuse_unusable
from node.errors import BadEnvironment, HilumError
from node.settings import (
    UNGUARDED,
    Destination,
    DimseDestination,
    FolderDestination,
    Hl7Destination,
    HttpDestination,
    Repository,
    Settings,
    WebDestination,
)
from node.shadow import trouble
from node.state import locked, read_state, there
from storage.errors import StorageError
from storage.spool import Disk
from storage.store import DATABASE, Store

# SQLite's locks and a file's durability are not to be relied on there
NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs")

# the UID of no study: who is asked for it has nothing to tell
NO_STUDY = "2.25.0"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    what: str
    holds: bool
    detail: str


def run(settings: Settings, *, as_json: bool, repair: bool, requeue: bool) -> bool:
    """Prints what was found; whether all holds. Raises BadEnvironment if a repair meets a running node, Misuse where
    a certificate or key can't be used."""
    log.configure()
    refuse_unusable(settings)
    repaired = _repair(settings, requeue) if repair else None
    found = list(checks(settings))
    holds = all(check.holds for check in found)
    if as_json:
        print(show.line({"holds": holds, "checks": [vars(check) for check in found], "repair": repaired}))
        return holds
    if repaired is not None:
        print("repair:" if repaired else "repair: nothing was to be done")
        for key, value in repaired.items():
            print(f"  {key.replace('_', ' ')}: {_told(value)}")
    show.table(
        ("", "what", "found"),
        (("ok" if check.holds else "FAILS", check.what, check.detail) for check in found),
    )
    return holds


def checks(settings: Settings) -> Iterator[Check]:
    """Everything, in the order in which an image meets it. The configuration holds: it was parsed."""
    yield _tried("configuration", lambda: _exposure(settings))
    yield _tried("port", lambda: _port(settings))
    yield _tried("data folder", lambda: _folder(settings.node.data_dir))
    yield _tried("disk", lambda: _disk(settings))
    yield _tried("database", lambda: _database(settings))
    yield _tried("audit anchors", lambda: _anchors(settings))
    if repository := settings.audit.repository:
        yield _tried("audit repository", lambda: _repository(repository))
    yield _tried("model", lambda: _model(settings))
    if settings.analyze.shadow:
        yield _tried("shadow", lambda: _shadow(settings))
    if settings.scope.asks_guard:
        yield _tried("scope", lambda: _guarded(settings))
    yield from _decoders()
    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(lambda d: _destination(d, settings.node.ae_title), settings.destinations)
        committing = [d for d in settings.destinations if isinstance(d, DimseDestination) and d.commitment]
        yield from pool.map(
            lambda d: _tried(f"commitment {d.name}", lambda: _commitment(d, settings)), committing
        )


class _Fails(Exception):
    pass


def _tried(what: str, look: Callable[[], str]) -> Check:
    try:
        return Check(what, True, look())
    except (_Fails, HilumError, StorageError, BadModel) as e:
        return Check(what, False, str(e))
    except OSError as e:
        return Check(what, False, f"{e.filename or what}: {e.strerror}")


def _exposure(settings: Settings) -> str:
    from node.supervise import refuse_exposure

    refuse_exposure(settings)
    return f"{settings.node.ae_title}, {len(settings.receive.peers)} peers, {_names(settings)}"


def _names(settings: Settings) -> str:
    return "destinations: " + (", ".join(d.name for d in settings.destinations) or "none")


def _port(settings: Settings) -> str:
    receive = settings.receive
    where = f"{receive.host}:{receive.port}"
    if read_state(settings.node.data_dir):
        return f"{where}, where the node runs"
    with socket.socket(socket.AF_INET6 if ":" in receive.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((receive.host, receive.port))
        except OSError as e:
            raise _Fails(f"{where}: {e.strerror}") from e
    return f"{where} is free"


def _folder(folder: Path) -> str:
    """Writable, or (not made yet) in a writable folder; on a local file system, all of it on one."""
    exists = there(folder)
    _probe(exists)
    kind = _file_system(exists)
    if kind.startswith(NETWORK_FILE_SYSTEMS):
        raise _Fails(
            f"{exists} is on a network file system ({kind}); the data folder must be on a local disk"
        )
    if not folder.exists():
        return f"{folder} is made at the first start"
    devices = {p.stat().st_dev for p in (folder, folder / "objects", folder / "results") if p.exists()}
    if len(devices) > 1:
        raise _Fails(f"{folder}: objects and results must be on the data folder's own file system")
    return f"{folder}, writable, {kind or 'file system unknown'}"


def _probe(folder: Path) -> None:
    """Writes, syncs and removes a file. Raises OSError."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"probe")
        probe.flush()
        os.fsync(probe.fileno())


def _file_system(folder: Path) -> str:
    """The kind of the file system on which the folder lies (proc_mounts(5)); empty where nobody says."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return ""
    parents = {str(p) for p in (folder.resolve(), *folder.resolve().parents)}
    held = [(len(m[1]), m[2]) for m in mounts if m[1].replace("\\040", " ") in parents]
    # of two mounts on one place the later hides the earlier
    return max(reversed(held), key=lambda m: m[0])[1] if held else ""


def _disk(settings: Settings) -> str:
    free, floor = Disk().free_bytes(there(settings.node.data_dir)), settings.receive.min_free_bytes
    if free < floor:
        raise _Fails(f"{show.size(free)} free, below receive.min_free_bytes ({show.size(floor)})")
    return f"{show.size(free)} free; the floor is {show.size(floor)}"


def _database(settings: Settings) -> str:
    file = settings.node.data_dir / DATABASE
    if not file.exists():
        from node.recover import refuse_lost_database

        refuse_lost_database(settings.node.data_dir)
        return f"{file} is made at the first start"
    store = Store.open(settings.node.data_dir, keeps_names=settings.audit.keeps_names)
    try:
        if faults := store.database.faults():
            raise _Fails(f"{file} is damaged: {faults[0]}")
    finally:
        store.close()
    return f"{file}, sound"


def _anchors(settings: Settings) -> str:
    """The folder takes them, and what stands there fits the database."""
    configured = settings.audit.anchor_folder
    folder = anchoring.anchors_of(settings).folder
    if configured and not configured.is_dir():
        raise _Fails(f"[audit] anchor_folder {configured} is no folder: make it, or mount it")
    _probe(there(folder))
    if (settings.node.data_dir / DATABASE).exists():
        store = Store.open(settings.node.data_dir, keeps_names=settings.audit.keeps_names)
        try:
            if found := anchoring.problems(store, settings):
                raise _Fails("; ".join(found))
        finally:
            store.close()
    where = "" if configured else ", in the data folder: it protects the log only where it lies elsewhere"
    return f"{folder}{where}"


def _repository(repository: Repository) -> str:
    """Connected to, and nothing sent."""
    from node.atna import syslog

    where = f"{repository.host}:{repository.port}"
    if repository.transport == "udp":
        return f"{where} by UDP, which nobody answers: look whether records arrive there"
    began = time.monotonic()
    try:
        line = syslog.connect(repository)
        seconds = time.monotonic() - began
        try:
            # by TLS 1.3 a refusal of our certificate comes after our side has shaken hands
            line.look(syslog.REFUSAL_SECONDS)
        finally:
            line.close()
    except syslog.Down as e:
        raise _Fails(str(e)) from e
    return f"{where} took a TLS connection in {seconds * 1000:.0f} ms; nothing was sent"


def _model(settings: Settings) -> str:
    """Which, how it is computed, whether its scores are calibrated, and who says what is in its scope."""
    found = active.active(settings)
    loaded = card.load(found.folder)
    card.verify(loaded)
    running = read_state(settings.node.data_dir)
    runtime = running.runtime if running and running.runtime else settings.analyze.runtime
    parts = [
        f"{loaded.name} {loaded.version} ({found.origin}), {loaded.sha256}",
        f"runtime {runtime}",
        "calibrated" if loaded.is_calibrated else "not calibrated",
        f"scope guard: {_guard(settings, loaded)}",
    ]
    if settings.report.intended_use == "marks" and loaded.architecture != card.VGG16:
        parts.append(
            '[report] intended_use is "marks", but an imported model has no marks: results show none'
        )
    return "; ".join(parts)


def _guard(settings: Settings, loaded: card.Card) -> str:
    if settings.scope.learned == "off" and not settings.scope.asks_guard:
        return "off"
    if loaded.scope:
        return "its own"
    lent = card.load(card.SHIPPED)
    if lent.scope:
        card.verify(lent)
        return "that of the model that comes with Hilum"
    return "none"


def _guarded(settings: Settings) -> str:
    """Whether somebody answers where the site leaves a question to the guard."""
    if _guard(settings, card.load(active.folder(settings))) == "none":
        raise _Fails(UNGUARDED)
    return '"model" is answered by the guard'


def _shadow(settings: Settings) -> str:
    assert settings.analyze.shadow is not None
    loaded = card.load(settings.analyze.shadow)
    card.verify(loaded)
    if why := trouble(settings.node.data_dir):
        raise _Fails(f"{why}; it is tried again at the next start")
    if loaded.identity == card.load(active.folder(settings)).identity:
        raise _Fails(f"{loaded.name} {loaded.version} is the model that runs: there is nothing to compare")
    return f"{loaded.name} {loaded.version}, {loaded.sha256}; sends nothing"


def _decoders() -> Iterator[Check]:
    from node.codecs import faults

    for family, fault in faults().items():
        yield Check(f"decoder {family}", not fault, fault or "works")


def _destination(destination: Destination, ae_title: str) -> Check:
    what = f"destination {destination.name}"
    match destination:
        case DimseDestination():
            return _tried(what, lambda: _peer(destination, ae_title))
        case FolderDestination():
            return _tried(what, lambda: _folder_destination(destination))
        case WebDestination():
            return _tried(what, lambda: _web(destination))
        case HttpDestination():
            return _tried(what, lambda: _http(destination))
        case Hl7Destination():
            return _tried(what, lambda: _hl7(destination))


def _folder_destination(destination: FolderDestination) -> str:
    _probe(there(destination.path))
    return f"{destination.path}, writable"


def _peer(destination: DimseDestination, ae_title: str) -> str:
    from node.deliver.dimse import echo

    answer = echo(destination, ae_title)
    where = f"{destination.ae_title} at {destination.host}:{destination.port}"
    accepts = ", ".join(
        f"{kind} {'accepted' if taken else 'REFUSED'}" for kind, taken in answer.accepts.items()
    )
    if not answer.answered:
        raise _Fails(f"{where}: {answer.reason}" + (f"; {accepts}" if accepts else ""))
    told = f"{where} answered C-ECHO in {answer.seconds * 1000:.0f} ms; {accepts}"
    if not all(answer.accepts.values()):
        raise _Fails(f"{told} (try another sr_class, or leave the kind out of its `results`)")
    return told


def _commitment(destination: DimseDestination, settings: Settings) -> str:
    """Does it take such requests, and may its reports come in?"""
    from node.deliver.commitment import refusal

    why = refusal(destination, settings.node.ae_title)
    if why:
        raise _Fails(why)
    receive = settings.receive
    admitted = {peer.ae_title for peer in receive.peers}
    if admitted and not receive.insecure and destination.ae_title not in admitted:
        raise _Fails(f"{destination.ae_title} is not in receive.peers: its reports could not come in")
    return "storage commitment accepted"


def _web(destination: WebDestination) -> str:
    """Asks for a study that there is not (QIDO-RS, PS3.18 10.6); what may be stored shows at the first result."""
    query = f"{destination.url}/studies?StudyInstanceUID={NO_STUDY}"
    return _asked(destination, "GET", query, fails=(401, 403, 404, 407))


def _http(destination: HttpDestination) -> str:
    """A 404 or 405 holds: many services know no OPTIONS."""
    return _asked(destination, "OPTIONS", destination.url, fails=(401, 403, 407))


def _asked(
    destination: WebDestination | HttpDestination, method: str, url: str, fails: tuple[int, ...]
) -> str:
    from node.deliver.exchange import Exchange
    from node.deliver.outcome import Parked, Postponed, of_http

    exchange = Exchange(destination)
    began = time.monotonic()
    answer = exchange.request(method, url, headers={"Accept": "application/dicom+json, */*;q=0.1"})
    seconds = time.monotonic() - began
    exchange.rest()
    if isinstance(answer, Postponed):
        raise _Fails(f"{destination.url}: {answer.reason}")
    outcome = of_http(answer.status)
    wrong = answer.status in fails or 300 <= answer.status <= 399
    if isinstance(outcome, Postponed) or (wrong and isinstance(outcome, Parked)):
        raise _Fails(f"{destination.url}: {outcome.reason}")
    return f"{destination.url} answered {method} with {answer.status} in {seconds * 1000:.0f} ms"


def _hl7(destination: Hl7Destination) -> str:
    from node.deliver.mllp import Timeouts, connect
    from node.deliver.outcome import Postponed

    began = time.monotonic()
    opened = connect(destination, Timeouts().connect)
    if isinstance(opened, Postponed):
        raise _Fails(opened.reason)
    opened.close()
    how = "TLS" if destination.tls else "TCP"
    where = f"{destination.host}:{destination.port}"
    return f"{where} took a {how} connection in {(time.monotonic() - began) * 1000:.0f} ms; nothing was sent"


def _repair(settings: Settings, requeue: bool) -> dict[str, object]:
    from node.recover import repair

    data_dir = settings.node.data_dir
    if not data_dir.is_dir():
        raise BadEnvironment(f"{data_dir} does not exist: there is nothing to repair")
    with locked(data_dir):
        found = repair(settings, active.sha256(settings), requeue=requeue)
    return {key: value for key, value in vars(found).items() if value}


def _told(value: object) -> str:
    """A list by its number and its first ten."""
    if not isinstance(value, list):
        return str(value)
    more = f", and {len(value) - 10} more (--json names all)" if len(value) > 10 else ""
    return f"{len(value)}: {', '.join(map(str, value[:10]))}{more}"
