"""What the supervisor does about a worker that hangs or dies, with processes that only pretend to work."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.child import NEW_MODEL_EXIT
from node.settings import Analyze, Node, Settings
from node.supervise import Process, Supervisor
from storage.audit import Actor, Patient
from storage.clock import Clock
from storage.objects import Arrival
from storage.store import Store


class Post:
    """A supervisor whose one worker is a process that never does anything, and a clock that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.seconds = 1000.0
        self.store = Store.create(folder, clock=Clock(monotonic=lambda: self.seconds))
        settings = Settings(node=Node(data_dir=folder), analyze=Analyze(workers=1))
        self.supervisor = Supervisor(self.store, settings)
        (self.worker,) = self.supervisor._workers
        # nothing else is started
        self.supervisor._receiver.again_at = float("inf")
        for process in self.supervisor._others:
            process.again_at = float("inf")

    def start_worker(self) -> Process:
        self.worker.popen = subprocess.Popen(["sleep", "60"])
        return self.worker

    def queue(self, count: int) -> None:
        with self.store.database.write() as tx:
            for number in range(count):
                arrival = Arrival(
                    sop_class="1.2.840.10008.5.1.4.1.1.1.1",
                    sop_instance=f"1.2.3.{number}",
                    series="1.2.3",
                    study="1.2",
                    patient=Patient("P1"),
                    transfer_syntax="1.2.840.10008.1.2.1",
                    size=1,
                    content_hash="sha256:" + f"{number:064x}",
                    sender=Actor("MODALITY"),
                )
                object_id = self.store.objects.keep(tx, arrival, f"objects/{number}.dcm")
                self.store.jobs.queue(tx, object_id, "sha256:model")

    def claim(self, lease: float) -> int:
        with self.store.database.write() as tx:
            return len(self.store.jobs.claim(tx, self.worker.owner, 8, lease))

    def jobs(self) -> list[tuple[str, int]]:
        """State and lone failures of each job."""
        with self.store.database.read() as tx:
            return [(job.state, job.failures) for job in self.store.jobs.listing(tx)]

    def look(self) -> None:
        self.supervisor._leases_at = 0.0
        self.supervisor._free_stuck()


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    post = Post(tmp_path / "data")
    yield post
    if post.worker.popen is not None:
        post.worker.popen.kill()
        post.worker.popen.wait()
    post.store.close()


def test_a_worker_that_hangs_is_killed_when_its_lease_is_over_and_its_jobs_are_tried_alone(
    post: Post,
) -> None:
    worker = post.start_worker()
    assert worker.popen is not None
    post.queue(2)
    assert post.claim(lease=600) == 2
    post.seconds += 599
    post.look()
    assert worker.popen.poll() is None
    post.seconds += 2
    post.look()
    assert worker.popen.wait(5) == -9
    worker.again_at = float("inf")
    assert post.supervisor._mourn() == 0
    assert post.jobs() == [("queued", 0), ("queued", 0)]
    post.start_worker()
    assert post.claim(lease=600) == 1


def test_an_image_on_which_the_worker_dies_three_times_alone_is_parked_and_the_other_read(post: Post) -> None:
    post.queue(2)
    for claimed in (2, 1, 1, 1):
        worker = post.start_worker()
        assert worker.popen is not None
        assert post.claim(lease=600) == claimed
        worker.popen.kill()
        worker.popen.wait()
        assert post.supervisor._mourn() == 0
    assert post.jobs() == [("parked", 3), ("queued", 0)]
    # each death lengthens the pause before the next start
    assert post.worker.deaths == 4


def test_a_worker_that_leaves_for_another_model_is_started_again_at_once_and_has_not_died(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Process] = []
    monkeypatch.setattr(post.supervisor, "_start", started.append)
    for _ in range(3):
        post.worker.popen = subprocess.Popen(["sh", "-c", f"exit {NEW_MODEL_EXIT}"])
        post.worker.popen.wait()
        assert post.supervisor._mourn() == 0
    assert started == [post.worker] * 3
    assert (post.worker.deaths, post.worker.again_at, post.worker.model_failures) == (0, 0.0, 0)


def test_an_activation_that_was_cut_off_is_brought_to_its_end_while_the_node_runs(post: Post) -> None:
    models = post.store.spool.root / "models"
    models.mkdir()
    (models / "activating").write_text(
        json.dumps({"name": "shipped", "since": "2026-11-22T03:00:00.000000Z", "by": "anna", "after": 0})
    )
    with post.store.database.write() as tx:
        post.store.audit.record(tx, "model.activated", detail={"old": {}, "new": {}})
    post.look()
    assert [path.name for path in models.iterdir() if path.name != "lock"] == ["active"]


def test_the_supervisor_sleeps_until_a_process_ends_or_a_signal_comes(post: Post) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)}
    worker = post.start_worker()
    assert worker.popen is not None
    try:
        post.supervisor._listen()
        worker.popen.kill()
        post.supervisor._hear(3600)
        assert worker.popen.poll() == -9
        os.kill(os.getpid(), signal.SIGTERM)
        post.supervisor._hear(3600)
        assert post.supervisor._stop
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_stop_of_the_node_counts_no_death(post: Post) -> None:
    post.queue(1)
    for _ in range(4):
        post.start_worker()
        assert post.claim(lease=600) == 1
        post.supervisor._shut_down()
        assert post.jobs() == [("queued", 0)]
