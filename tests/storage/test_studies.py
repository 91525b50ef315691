"""What waits for a study's report: until it is quiet, never longer than the limit, and never lost."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from storage.audit import Actor, Filter, Patient
from storage.clock import Clock
from storage.errors import WrongState
from storage.jobs import Found
from storage.objects import Arrival
from storage.results import Made
from storage.store import Store
from storage.studies import PendingStudy

MODEL = "sha256:" + "0" * 64
QUIET, LIMIT = 120, 900
ADA = Patient("P-1", "Unmistakable^Ada", "ACC1")


class Queue:
    """A store on a clock that the test moves, and images of one study."""

    def __init__(self, folder: Path) -> None:
        self.at = datetime(2026, 11, 21, 12, tzinfo=UTC)
        self.seconds = 1000.0
        self.store = Store.create(folder, clock=Clock(lambda: self.at, lambda: self.seconds))
        self.number = 0

    def wait(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self.seconds += seconds

    def arrive(self, patient: Patient = ADA, study: str = "1.2.3") -> int:
        """A queued job."""
        self.number += 1
        arrival = Arrival(
            sop_class="1.2.840.10008.5.1.4.1.1.1.1",
            sop_instance=f"1.2.3.{self.number}",
            series="1.2.3.4",
            study=study,
            patient=patient,
            transfer_syntax="1.2.840.10008.1.2.1",
            size=10,
            content_hash="sha256:" + f"{self.number:064x}",
            sender=Actor("MODALITY", "10.0.0.1"),
        )
        with self.store.database.write() as tx:
            object_id = self.store.objects.keep(tx, arrival, f"objects/{self.number}.dcm")
            return self.store.jobs.queue(tx, object_id, MODEL)

    def read(self, score: float = 0.7) -> None:
        """All that is queued is read, and waits for its study's report."""
        found = [Found("Mass", score, score, 0.5, score >= 0.5)]
        with self.store.database.write() as tx:
            for job in self.store.jobs.claim(tx, "w", 8, 60):
                self.store.jobs.finish(tx, job.id, "w", "done", found=found)
                self.store.studies.wait(tx, job, QUIET, LIMIT)

    def claim(self, owner: str = "w") -> PendingStudy | None:
        with self.store.database.write() as tx:
            return self.store.studies.claim(tx, owner, 360, 30)

    def due(self, owner: str = "w") -> PendingStudy:
        claimed = self.claim(owner)
        assert claimed is not None
        return claimed

    def report(self, study: PendingStudy) -> None:
        with self.store.database.write() as tx:
            revision = self.store.results.next_revision(tx, study.subject)
            made = Made("sr", "", "1.2.3.4", f"2.25.{study.id}{revision}", "sha256:r", f"r{revision}", ())
            self.store.results.add_of_study(tx, study.subject, study.images, revision, [made])
            self.store.studies.reported(tx, study, "w", {}, {"revision": revision})

    def states(self) -> dict[str, int]:
        with self.store.database.read() as tx:
            return self.store.studies.counts(tx)

    def jobs(self) -> list[str]:
        with self.store.database.read() as tx:
            return [job.state for job in self.store.jobs.listing(tx)]


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    queue = Queue(tmp_path)
    yield queue
    queue.store.close()


def test_a_study_is_due_after_its_quiet_period_and_each_image_begins_it_anew(queue: Queue) -> None:
    for _ in range(3):
        queue.arrive()
        queue.read()
        queue.wait(QUIET - 1)
        assert queue.claim() is None
    queue.wait(1)
    assert len(queue.due().images) == 3


def test_a_study_that_never_becomes_quiet_is_due_at_the_limit(queue: Queue) -> None:
    for _ in range(LIMIT // 100):
        assert queue.claim() is None
        queue.arrive()
        queue.read()
        queue.wait(100)
    assert len(queue.due().images) == 9


def test_what_is_queued_holds_its_study_back_but_not_beyond_the_limit_and_no_other_study(
    queue: Queue,
) -> None:
    for study in ("1.2.3", "1.2.4"):
        queue.arrive(study=study)
    queue.read()
    queue.arrive()
    queue.wait(QUIET)
    assert queue.due().about.study == "1.2.4"
    assert queue.claim() is None
    queue.wait(LIMIT - QUIET)
    assert len(queue.due().images) == 1


def test_a_late_image_makes_the_study_wait_again_and_the_limit_count_anew(queue: Queue) -> None:
    queue.arrive()
    queue.read()
    queue.wait(QUIET)
    queue.report(queue.due())
    assert queue.states() == {"done": 1}
    queue.wait(10 * LIMIT)
    queue.arrive()
    queue.read()
    assert queue.claim() is None
    queue.wait(QUIET)
    assert len(queue.due().images) == 2


def test_an_image_that_is_read_while_its_study_is_being_reported_is_not_forgotten(queue: Queue) -> None:
    queue.arrive()
    queue.read()
    queue.wait(QUIET)
    claimed = queue.due()
    queue.arrive()
    queue.read()
    queue.report(claimed)
    assert queue.states() == {"waiting": 1}
    queue.wait(QUIET)
    assert len(queue.due().images) == 2


@pytest.mark.parametrize("other", [Patient("P-2", ADA.name), Patient(ADA.id, "Other^Eve"), Patient()])
def test_images_of_two_patients_under_one_study_uid_never_meet(queue: Queue, other: Patient) -> None:
    queue.arrive(ADA)
    queue.arrive(other)
    queue.read()
    queue.wait(QUIET)
    one, two = queue.due(), queue.due()
    assert len(one.images) == len(two.images) == 1
    assert one.subject != two.subject
    assert one.images[0].about.patient != two.images[0].about.patient


def test_a_study_is_claimed_once_and_who_lost_it_cannot_report_it(queue: Queue) -> None:
    queue.arrive()
    queue.read()
    queue.wait(QUIET)
    slow = queue.due("slow")
    assert queue.claim("w") is None
    with queue.store.database.write() as tx:
        queue.store.studies.died(tx, "slow")
    queue.due("next")
    with pytest.raises(WrongState), queue.store.database.write() as tx:
        queue.store.studies.reported(tx, slow, "slow", {}, {})


def test_a_study_on_which_the_worker_dies_three_times_is_parked_with_its_jobs_and_a_retry_brings_it_back(
    queue: Queue,
) -> None:
    queue.arrive()
    queue.read()
    queue.wait(QUIET)
    for number in range(3):
        assert queue.due(f"w{number}").last_life == (number == 2)
        with queue.store.database.write() as tx:
            queue.store.studies.died(tx, f"w{number}")
    assert (queue.states(), queue.jobs()) == ({"parked": 1}, ["parked"])
    assert queue.claim() is None
    with queue.store.database.write() as tx:
        queue.store.jobs.retry(tx, 1, Actor("operator"))
    queue.read()
    queue.wait(QUIET)
    queue.report(queue.due())
    assert (queue.states(), queue.jobs()) == ({"done": 1}, ["done"])


def test_what_an_earlier_report_holds_stays_done_when_the_next_one_fails(queue: Queue) -> None:
    queue.arrive()
    queue.read()
    queue.wait(QUIET)
    queue.report(queue.due())
    queue.arrive()
    queue.read()
    queue.wait(QUIET)
    with queue.store.database.write() as tx:
        claimed = queue.store.studies.claim(tx, "w", 360, 30)
        assert claimed is not None
        queue.store.studies.park(tx, claimed, "w", "no")
    assert queue.jobs() == ["done", "parked"]


def test_a_restart_of_the_node_counts_nothing_and_the_study_is_due_at_once(queue: Queue) -> None:
    queue.arrive()
    queue.read()
    queue.wait(QUIET)
    for _ in range(5):
        queue.due()
        with queue.store.database.write() as tx:
            assert queue.store.studies.recover(tx) == 1
    assert not queue.due().last_life


def test_a_worker_that_hangs_on_a_study_is_found_by_its_lease(queue: Queue) -> None:
    queue.arrive()
    queue.read()
    queue.wait(QUIET)
    queue.due("hangs")
    for seconds, late in ((389, []), (2, ["hangs"])):
        queue.wait(seconds)
        with queue.store.database.read() as tx:
            assert queue.store.studies.expired(tx) == late


def test_an_image_does_not_expire_before_its_study_is_reported(queue: Queue) -> None:
    queue.arrive()
    queue.read()
    queue.wait(QUIET)
    later = queue.at + timedelta(days=400)
    with queue.store.database.read() as tx:
        assert queue.store.objects.expirable(tx, later) == []
    queue.report(queue.due())
    with queue.store.database.read() as tx:
        assert queue.store.objects.expirable(tx, later) == [(1, "objects/1.dcm")]


def test_each_step_of_a_study_stands_in_the_audit_log(queue: Queue) -> None:
    queue.arrive()
    queue.read()
    queue.wait(QUIET)
    queue.report(queue.due())
    with queue.store.database.read() as tx:
        told = [record.event for record in queue.store.audit.page(tx, Filter(study="1.2.3"))]
    assert told[-4:] == ["study.waiting", "study.claimed", "result.made", "study.reported"]


def test_earlier_results_are_of_the_same_number_and_name_and_the_same_each_time(queue: Queue) -> None:
    for score, patient in ((0.1, ADA), (0.2, Patient(ADA.id, "Other^Eve")), (0.3, Patient()), (0.4, ADA)):
        queue.arrive(patient, study=f"1.2.{queue.number}")
        queue.read(score)
        queue.wait(10)
    job_id, nobody = queue.arrive(study="1.9"), queue.arrive(Patient(), study="1.9")
    queue.wait(10)
    queue.read(0.9)
    queue.arrive(study="1.10")
    queue.read(0.5)
    with queue.store.database.read() as tx:
        earlier = queue.store.jobs.earlier(tx, queue.store.jobs.get(tx, [job_id]))
        assert [one.found[0].score for one in earlier] == [0.4, 0.1]
        assert [one.study for one in earlier] == ["1.2.3", "1.2.0"]
        assert queue.store.jobs.earlier(tx, queue.store.jobs.get(tx, [nobody])) == []


def test_at_most_five_earlier_results_are_told(queue: Queue) -> None:
    for number in range(7):
        queue.arrive()
        queue.read(number / 10)
        queue.wait(10)
    job_id = queue.arrive()
    with queue.store.database.read() as tx:
        earlier = queue.store.jobs.earlier(tx, queue.store.jobs.get(tx, [job_id]))
    assert [one.found[0].score for one in earlier] == [0.6, 0.5, 0.4, 0.3, 0.2]
