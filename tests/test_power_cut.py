"""The power fails after every step of a receiver: what was acknowledged is there, and nothing is there by half.

A real receiver is recorded under strace while objects reach it in all the ways there are; then each moment's possible
disks (peers/power_cut.py) are made, a node starts on each, and its books are compared with what had been answered.

`scripts/power-cut` tries every moment and more disks of each.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from peers import raw_sender
from peers.power_cut import Cut, State, cuts, write
from peers.recorded import Call, Recorded, recording, start
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from node.errors import BadEnvironment
from storage.audit import Actor
from storage.errors import StorageError
from storage.store import Store

pytestmark = [pytest.mark.peer, pytest.mark.timeout(1800)]

DX = "1.2.840.10008.5.1.4.1.1.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
SENDER = "MODALITY"
# every so manieth moment amid the writing of one file, disks by chance at each moment, their seed (scripts/power-cut)
EVERY, TORN, SEED = map(int, os.environ.get("HILUM_POWER_CUT", "16 1 1").split())


def data_set(number: int, rows: int = 8, note: str = "") -> bytes:
    """A small image's data set, of `rows` times 64 pixels."""
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = DX, uid(number)
    image.StudyInstanceUID, image.SeriesInstanceUID = "2.25.1", "2.25.2"
    image.Modality, image.BodyPartExamined, image.ViewPosition = "DX", "CHEST", "PA"
    image.PresentationIntentType = "FOR PRESENTATION"
    image.PatientID, image.PatientName, image.PatientAge = "PHANTOM", "Phantom^Chest", "040Y"
    image.AccessionNumber, image.ImageComments = "", note
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns, image.PixelRepresentation = rows, 64, 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.add_new("PixelData", "OW", hashlib.sha256(str(number).encode()).digest() * (4 * rows))
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    write_dataset(out, image)
    return out.getvalue()


def uid(number: int) -> str:
    return f"2.25.1000{number}"


# --- what is sent ----------------------------------------------------------------------------------------------------


class Association:
    """One sender that does not wait for answers."""

    def __init__(self, port: int) -> None:
        self._sender = raw_sender.Sender(port, [(1, DX, [EXPLICIT])], calling=SENDER)
        self.port: int = self._sender.socket.getsockname()[1]
        self.sent: dict[tuple[int, int], str] = {}

    def send(self, number: int, data: bytes, cut: int = 0) -> None:
        """One object, all but its last `cut` bytes."""
        message = len(self.sent) + 1
        self.sent[self.port, message] = uid(number)
        command = raw_sender.store_command(DX.encode(), uid(number).encode(), message)
        step = 16000
        whole = self._sender.fragment(1, 3, command) + b"".join(
            self._sender.fragment(1, 2 if at + step >= len(data) else 0, data[at : at + step])
            for at in range(0, len(data), step)
        )
        self._sender.socket.sendall(whole[: len(whole) - cut])

    def answer(self) -> int:
        return self._sender.answer()[0]

    def release(self) -> None:
        self._sender.release()

    def abort(self) -> None:
        self._sender.socket.sendall(raw_sender.pdu(7, bytes(4)))
        self.close()

    def close(self) -> None:
        self._sender.socket.close()


@dataclass
class Run:
    """A recorded run: what was sent as which message, and the data sets that may be kept.

    The node makes its data folder in `root`.
    """

    folder: Path
    logs: list[Path] = field(default_factory=list)
    sent: dict[tuple[int, int], str] = field(default_factory=dict)
    wanted: dict[str, bytes] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.folder / "site"

    @contextmanager
    def recorded(self, strace: str, *options: str) -> Iterator[Recorded]:
        """One life of the node. Skips where processes may not be traced."""
        self.root.mkdir(exist_ok=True)
        self.logs.append(self.folder / f"calls-{len(self.logs)}")
        try:
            with recording(strace, self.logs[-1], self.root / "data", *options) as node:
                yield node
        except PermissionError as e:
            pytest.skip(str(e))

    def acknowledged(self, cut: Cut) -> set[str]:
        return {self.sent[message] for message in cut.acknowledged}


class Senders:
    """Associations that send together; what they sent and may be kept goes into the run's books."""

    def __init__(self, run: Run, port: int, count: int) -> None:
        self._run = run
        self.all = [Association(port) for _ in range(count)]

    def send(self, who: int, number: int, rows: int = 8, cut: int = 0) -> None:
        """A good object, all but its last `cut` bytes."""
        data = self._run.wanted[uid(number)] = data_set(number, rows)
        self.all[who].send(number, data, cut)
        self._run.sent |= self.all[who].sent

    def end(self, *statuses: int) -> None:
        """All answers, those of the first association first."""
        assert [one.answer() for one in self.all for _ in one.sent] == list(statuses)
        for one in self.all:
            one.release()


def first_life(run: Run, node: Recorded) -> None:
    """In a group and alone, large, again, refused, broken off, and under way when everything is killed."""
    # the first that ever come, all at once, two on each association; one object from two senders
    group = Senders(run, node.port, 3)
    for n, number in enumerate((0, 1, 2, 3, 4, 1)):
        group.send(n % 3, number)
    group.end(*[0] * 6)
    lone = Senders(run, node.port, 1)
    lone.send(0, 10, rows=2400)
    lone.end(0)
    again = Senders(run, node.port, 3)
    again.send(0, 0)
    # other bytes under a UID that is taken; a value that is longer than the object
    again.all[1].send(0, data_set(0, note="other"))
    again.all[2].send(11, data_set(11)[:-100])
    again.end(0, 0xC000, 0xC000)
    broken = Association(node.port)
    broken.send(12, data_set(12, rows=400), cut=20000)
    broken.abort()
    halves = Senders(run, node.port, 2)
    halves.send(0, 13, rows=400, cut=20000)
    halves.send(1, 14)
    assert halves.all[1].answer() == 0
    node.kill()
    for one in halves.all:
        one.close()


def second_life(run: Run, node: Recorded) -> None:
    """What was broken off comes again; the database's log is emptied in between, and begins anew."""
    lone = Senders(run, node.port, 1)
    lone.send(0, 13, rows=400)
    lone.end(0)
    node.checkpoint()
    late = Senders(run, node.port, 2)
    late.send(0, 20)
    late.send(1, 21, rows=600)
    late.end(0, 0)


@pytest.fixture(scope="module")
def run(program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("power"))
    for life in (first_life, second_life):
        with run.recorded(program("strace")) as node:
            life(run, node)
    return run


# --- a start on what is left -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Books:
    """After a start: the objects that are there, complete; and what is wrong."""

    kept: frozenset[str] = frozenset()
    # those of which the audit log says who sent them: what is adopted without its row has no sender any more
    committed: frozenset[str] = frozenset()
    faults: tuple[str, ...] = ()


class Site:
    """Starts nodes on disks, each disk once, and keeps a copy of every file that was there."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, bytes] = {}
        self.tried = 0
        self._folder = folder
        self._known: dict[bytes, Books] = {}

    def books(self, run: Run, state: State) -> Books:
        key = hashlib.blake2b(digest_size=16)
        for name, content in sorted(state.items()):
            key.update(name.encode() + b"\0" + (content.digest if content else b"folder"))
        if key.digest() not in self._known:
            self.tried += 1
            self._known[key.digest()] = self._start(run, state)
        return self._known[key.digest()]

    def _start(self, run: Run, state: State) -> Books:
        root = self._folder / f"{self.tried}"
        write(state, root)
        try:
            with closing(start(root / "data")) as store:
                return self._audit(run, store)
        except (BadEnvironment, StorageError) as e:
            return Books(faults=(f"the node does not start: {e}",))
        finally:
            shutil.rmtree(root)

    def _audit(self, run: Run, store: Store) -> Books:
        """Compares rows with files, and both with what was sent."""
        data_dir = store.spool.root
        with store.database.read() as tx:
            (sound,) = tx.exec_driver_sql("PRAGMA integrity_check").scalars().all()
            rows = tx.exec_driver_sql(
                "SELECT sop_instance, file, size, content_hash, "
                "(SELECT count(*) FROM jobs WHERE object_id = objects.id), "
                "(SELECT group_concat(json_extract(payload, '$.actor')) FROM audit "
                "WHERE json_extract(payload, '$.event') = 'object.received' "
                "AND json_extract(payload, '$.sop') = sop_instance) "
                "FROM objects"
            ).all()
        faults = [] if sound == "ok" else [f"database: {sound}"]
        files = {str(f.relative_to(data_dir)) for f in (data_dir / "objects").rglob("*") if f.is_file()}
        listed = {row[1] for row in rows}
        faults += [f"{name} has no row" for name in files - listed]
        faults += [f"{name} is left" for name in map(str, data_dir.rglob("*.part"))]
        kept, committed = set(), set()
        for sop, file, size, content_hash, jobs, sender in rows:
            wanted = run.wanted.get(sop, b"")
            if sop in kept:
                faults.append(f"{sop} has two rows")
            elif file not in files or not file.endswith(".dcm"):
                faults.append(f"{sop} has a row and no file")
            elif jobs != 1 or sender not in {SENDER, Actor().name}:
                faults.append(f"{sop} has {jobs} jobs and was received from {sender}")
            elif (size, content_hash) != (len(wanted), f"sha256:{hashlib.sha256(wanted).hexdigest()}"):
                faults.append(f"{sop} is another object by its row")
            elif self._data_set_of((data_dir / file).read_bytes(), sop) != wanted:
                faults.append(f"{sop} is another object by its file")
            else:
                kept.add(sop)
                committed |= {sop} if sender == SENDER else set()
        return Books(frozenset(kept), frozenset(committed), tuple(faults))

    def _data_set_of(self, file: bytes, sop: str) -> bytes:
        """Without the meta information, which must be sound (PS3.10 7.1)."""
        digest = hashlib.sha256(file).hexdigest()
        if digest not in self.files:
            self.files[digest] = file
        start = 144 + int.from_bytes(file[140:144], "little")
        is_sound = file[128:140] == b"DICM\x02\0\0\0UL\x04\0" and sop.encode() in file[144:start]
        return file[start:] if is_sound else b""


@pytest.fixture
def site() -> Iterator[Site]:
    """In memory where there is room: nothing needs to last here."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Site(Path(folder))


def wrong(run: Run, cut: Cut, books: Books) -> list[str]:
    acknowledged = run.acknowledged(cut)
    lost = [f"{sop} was acknowledged and is lost" for sop in sorted(acknowledged - books.kept)]
    untold = [
        f"{sop} was acknowledged and its record is lost" for sop in sorted(acknowledged - books.committed)
    ]
    return [*books.faults, *lost, *untold]


# --- tests -----------------------------------------------------------------------------------------------------------


def test_the_trace_tells_everything(run: Run) -> None:
    """Replayed to its end it gives the files that are there, byte for byte; else it would prove nothing."""
    *_, last = cuts(run.logs, run.root)
    there = {str(f.relative_to(run.root)): f.read_bytes() for f in run.root.rglob("*") if f.is_file()}
    replayed = {name: content.data for name, content in last.kept().items() if content is not None}
    assert replayed == {name: data for name, data in there.items() if not name.startswith("data/run/")}
    assert {run.sent[message] for message in last.acknowledged} == set(run.wanted)


def test_after_a_power_cut_at_any_step_an_object_is_there_whole_or_not_at_all(
    run: Run, site: Site, program: Callable[[str], str], tmp_path: Path
) -> None:
    moments = 0
    for cut in cuts(run.logs, run.root):
        # those amid the writing of one file are many and alike
        if cut.is_inner and cut.number % EVERY:
            continue
        moments += 1
        for name, state in cut.states(SEED, TORN):
            faults = wrong(run, cut, site.books(run, state))
            assert not faults, f"cut {cut.number}, at {cut.at}, on the disk: {name}: {faults[:5]}"
    print(f"{moments} moments, {site.tried} disks")
    files = []
    for digest, content in site.files.items():
        files.append(tmp_path / f"{digest}.dcm")
        files[-1].write_bytes(content)
    judged = subprocess.run([program("dcmftest"), *files], capture_output=True, text=True)
    assert judged.returncode == 0, judged.stdout


def test_no_sender_hears_success_before_the_folders_that_another_has_made_are_synced(
    program: Callable[[str], str], site: Site, tmp_path: Path
) -> None:
    run = Run(tmp_path)
    # the second folder that a thread syncs: that of the objects, by the thread that has made the day's and the hour's
    with run.recorded(program("strace"), "-e", "inject=fsync:delay_enter=1000000:when=2") as node:
        senders = Senders(run, node.port, 2)
        senders.send(0, 0)
        while not list(run.root.glob("data/objects/*/*")):
            time.sleep(0.01)
        senders.send(1, 1)
        senders.end(0, 0)
    for cut in cuts(run.logs, run.root):
        assert not cut.acknowledged or wrong(run, cut, site.books(run, cut.dropped())) == []


SYNCED = {
    "files": r"/objects/.*\.(part|dcm)",
    "the hour's folder": r"/objects/[^/]+/\d\d",
    "the day's folder": r"/objects/[^/]+",
    "the objects' folder": r"/objects",
    "the data folder": r"/data",
    "what is above it": r"/site",
    "the database": r"/hilum\.db[^/]*",
}


@pytest.mark.parametrize("what", SYNCED)
def test_a_sync_that_were_left_out_would_be_noticed(run: Run, site: Site, what: str) -> None:
    def counts(call: Call) -> bool:
        return re.search(f"{SYNCED[what]}$", call.opened) is None

    found = (wrong(run, cut, site.books(run, cut.dropped())) for cut in cuts(run.logs, run.root, counts))
    assert any("acknowledged" in fault for faults in found for fault in faults)
