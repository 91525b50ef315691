"""What has arrived together is committed together, and each is answered for itself."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from model.stored_only import stored_only
from node.receive.commit import Committer, Waiting
from storage.audit import Actor, Entry, Filter, Patient
from storage.errors import Unavailable
from storage.objects import Arrival, Verdict
from storage.store import Store

DX = "1.2.840.10008.5.1.4.1.1.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"


class Teller:
    """A sender whose association has been told of already."""

    def opening(self) -> list[Entry]:
        return []

    def told(self) -> None:
        return


class Together:
    """A committer whose first group is held until the others have arrived."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = Store.create(root)
        self.committer = Committer(self.store, "refuse", "sha256:m", stored_only, lambda: None)
        self.groups: list[list[str]] = []
        self._go = threading.Event()
        settle = self.committer._settle

        def held(published: Any) -> None:
            self._go.wait(10)
            self.groups.append([one.arrival.sop_instance for one in published])
            settle(published)

        monkeypatch.setattr(self.committer, "_settle", held)

    def keep(self, *instances: str) -> list[Verdict | Exception]:
        """What became of each; the first is being committed while the others arrive."""
        answers: list[Verdict | Exception] = [Verdict.FOREIGN] * len(instances)

        def one(number: int, waiting: Waiting) -> None:
            try:
                answers[number] = self.committer.keep(waiting)
            except Exception as e:
                answers[number] = e

        threads = []
        for number, instance in enumerate(instances):
            threads.append(threading.Thread(target=one, args=(number, self._arrived(instance))))
            threads[-1].start()
            self._until(lambda n=number: len(self.committer._waiting) == n and self.committer._busy)
        self._go.set()
        for thread in threads:
            thread.join(20)
        return answers

    def rows(self) -> list[str]:
        with self.store.database.read() as tx:
            return [job.sop_instance for job in self.store.jobs.listing(tx)]

    def records(self) -> list[str]:
        with self.store.database.read() as tx:
            return [record.event for record in self.store.audit.page(tx, Filter())]

    def files(self) -> int:
        return sum(path.is_file() for path in (self.store.spool.root / "objects").rglob("*"))

    def _arrived(self, instance: str) -> Waiting:
        file = self.store.spool.incoming("objects")
        file.write(instance.encode())
        file.sync()
        patient = Patient("1", "Doe^Jane", "")
        arrival = Arrival(
            DX, instance, "1.2.3", "1.2.4", patient, EXPLICIT, 5, f"sha256:{instance}", Actor("CR", "h")
        )
        return Waiting(Teller(), arrival, "", file)

    @staticmethod
    def _until(holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 10
        while not holds() and time.monotonic() < end:
            time.sleep(0.001)
        assert holds()


@pytest.fixture
def together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Together]:
    together = Together(tmp_path / "data", monkeypatch)
    yield together
    together.store.close()


def test_what_arrives_while_a_group_is_committed_is_the_next_group(together: Together) -> None:
    assert together.keep("1.1", "1.2", "1.3", "1.4") == [Verdict.NEW] * 4
    assert together.groups == [["1.1"], ["1.2", "1.3", "1.4"]]
    assert sorted(together.rows()) == ["1.1", "1.2", "1.3", "1.4"]
    assert together.files() == 4
    assert together.records().count("object.received") == together.records().count("job.queued") == 4


def test_the_same_instance_twice_in_a_group_is_kept_once(together: Together) -> None:
    assert together.keep("1.1", "1.2", "1.2") == [Verdict.NEW, Verdict.NEW, Verdict.REPEATED]
    assert sorted(together.rows()) == ["1.1", "1.2"]
    assert together.files() == 2
    assert together.records().count("object.repeated") == 1


def test_a_fault_with_one_of_a_group_costs_the_others_nothing(
    together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_down = together.committer._put_down

    def faulty(tx: Any, group: Any) -> int:
        queued = put_down(tx, group)
        if any(one.arrival.sop_instance == "1.3" for one in group):
            raise ZeroDivisionError
        return queued

    monkeypatch.setattr(together.committer, "_put_down", faulty)
    first, second, third, fourth = together.keep("1.1", "1.2", "1.3", "1.4")
    assert [first, second, fourth] == [Verdict.NEW] * 3
    assert isinstance(third, ZeroDivisionError)
    assert sorted(together.rows()) == ["1.1", "1.2", "1.4"]
    assert together.files() == 3


def test_a_database_that_fails_fails_all_of_a_group_and_leaves_nothing(
    together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise Unavailable("the database does not take the work")

    monkeypatch.setattr(together.committer, "_put_down", full)
    assert all(isinstance(answer, Unavailable) for answer in together.keep("1.1", "1.2", "1.3"))
    assert together.rows() == []
    assert together.files() == 0
