"""kill -9 at each step of accept, analyze and deliver: nothing acknowledged is lost, nothing comes twice.

Each case kills a process inside a real system call (the sync of a file, the commit of the database, the answer on the
socket …) while images are on their way. `scripts/faults` runs the same over many more moments.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from peers.node import RunningNode, running_node, send, until, within
from peers.servers import Storescp
from peers.strace import killed_at

from model import phantom

pytestmark = [pytest.mark.peer, pytest.mark.timeout(900)]

CASES = [
    # accept: before the file is synced, before its folder is, before the rename, in the commit, before the answer
    ("receiver", "fdatasync", 1), ("receiver", "fsync", 1), ("receiver", "rename", 1), ("receiver", "fdatasync", 2),
    ("receiver", "sendto", 2),
    # analyze: in the claim's commit, while results are written, in the finishing commit
    ("worker-1", "fdatasync", 1), ("worker-1", "fsync", 1), ("worker-1", "rename", 2), ("worker-1", "fdatasync", 2),
    # deliver: in the attempt's commit, on the wire, in the commit after the peer's Success
    ("deliverer", "fdatasync", 1), ("deliverer", "sendto", 3), ("deliverer", "fdatasync", 2),
]  # fmt: skip


class Campaign:
    """One node and one PACS; images go in, processes die, and the books are compared."""

    def __init__(self, node: RunningNode, pacs: Storescp, storescu: str, strace: str, folder: Path) -> None:
        self.node, self.pacs, self.storescu, self.strace, self.folder = node, pacs, storescu, strace, folder
        self.acknowledged: set[str] = set()

    def image(self) -> Path:
        seed = 1000 + len(list(self.folder.iterdir()))
        file = self.folder / f"{seed}.dcm"
        phantom.draw(seed, patch=False).save_as(file, enforce_file_format=True)
        return file

    def send(self, file: Path) -> bool:
        done = send(self.storescu, self.node.port, [file], "-ta", "5", "-td", "20")
        # storescu goes on after a refusal (-nh), so its exit code says nothing
        kept = "(Success)" in done.stdout + done.stderr
        if kept:
            self.acknowledged.add(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)
        return kept

    def send_until_acknowledged(self, file: Path) -> None:
        until(lambda: self.send(file), 60)

    def crash(self, process: str, call: str, nth: int, seconds: float = 60) -> bool:
        """Kills the process at that moment; whether it came within so many seconds. Raises AssertionError."""
        until(lambda: process in self.node.children())
        pid = self.node.children()[process]
        first, second = self.image(), self.image()
        with killed_at(self.strace, pid, call, nth):
            self.send(first)
            came = within(lambda: pid not in self.node.children().values(), seconds)
        self.send_until_acknowledged(first)
        self.send_until_acknowledged(second)
        self.compare()
        return came

    def compare(self) -> None:
        """Everything acknowledged is stored and read once; each result is at the PACS, once."""
        until(self.node.settled)
        received = {r["sop"] for r in self.node.audit("object.received")}
        assert self.acknowledged <= received
        done = [r["sop"] for r in self.node.audit("job.analyzed")]
        assert sorted(done) == sorted(received)
        made = [r["sop"] for r in self.node.audit("result.made")]
        assert sorted(made) == sorted([*received, *received])
        at_pacs = [pydicom.dcmread(f, stop_before_pixels=True) for f in self.pacs.folder.iterdir()]
        assert len(at_pacs) == len(made)
        assert not list((self.node.data / "objects").rglob("*.part")), "half a file is left"


@pytest.fixture(scope="module")
def campaign(
    tmp_path_factory: pytest.TempPathFactory,
    storescp: Storescp,
    free_port: Callable[[], int],
    program: Callable[[str], str],
) -> Iterator[Campaign]:
    config = f"""
    min_free_bytes = 0
    [[destinations]]
    name = "pacs"
    ae_title = "{storescp.ae_title}"
    host = "127.0.0.1"
    port = {storescp.port}
    """
    storescu, strace = program("storescu"), program("strace")
    with running_node(tmp_path_factory.mktemp("node"), config, free_port()) as node:
        yield Campaign(node, storescp, storescu, strace, tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize(("process", "call", "nth"), CASES)
def test_a_process_killed_inside_a_step_loses_and_doubles_nothing(
    campaign: Campaign, process: str, call: str, nth: int
) -> None:
    try:
        assert campaign.crash(process, call, nth)
    except PermissionError as e:
        pytest.skip(str(e))


def test_all_processes_killed_at_once_lose_and_double_nothing(campaign: Campaign) -> None:
    files = [campaign.image() for _ in range(4)]
    for file in files[:3]:
        campaign.send_until_acknowledged(file)
    campaign.node.kill_everything()
    campaign.node.start()
    campaign.send_until_acknowledged(files[3])
    campaign.compare()
