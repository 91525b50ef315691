"""A node's folder and configuration as an operator's commands find them, without a node."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from node.cli import main
from storage.audit import Actor, Patient
from storage.objects import Arrival
from storage.outbox import Delivery
from storage.results import Made
from storage.store import Store

PATIENT = "DOE^JANE"


@dataclass
class Station:
    """A data folder with a database, and a configuration that names it."""

    config: Path
    data_dir: Path
    store: Store
    capsys: pytest.CaptureFixture[str]

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """A command: its exit code, stdout and stderr. `--config` is added."""
        self.capsys.readouterr()
        code = main([*arguments, "--config", str(self.config)])
        out, err = self.capsys.readouterr()
        return code, out, err

    def json(self, *arguments: str) -> Any:
        _, out, err = self.run(*arguments)
        assert not err, err
        return json.loads(out)

    def receive(self, number: int, sender: str = "CR_ROOM") -> int:
        """An object and its queued job, whose id is returned."""
        arrival = Arrival(
            sop_class="1.2.840.10008.5.1.4.1.1.1",
            sop_instance=f"1.2.3.{number}",
            series="1.2.3",
            study="1.2",
            patient=Patient(f"ID-{number}", PATIENT, "A-1"),
            transfer_syntax="1.2.840.10008.1.2.1",
            size=10,
            content_hash="sha256:" + f"{number:064x}",
            sender=Actor(sender, "10.0.0.9"),
        )
        with self.store.database.write() as tx:
            object_id = self.store.objects.keep(tx, arrival, f"objects/x/{number}.dcm")
            return self.store.jobs.queue(tx, object_id, "sha256:model")

    def park(self, number: int, reason: str = "The compressed image breaks off") -> int:
        """A job that was tried and parked."""
        job_id = self.receive(number)
        with self.store.database.write() as tx:
            self.store.jobs.claim(tx, "worker-1:1", 8, 60)
            self.store.jobs.finish(tx, job_id, "worker-1:1", "parked", reason=reason)
        return job_id

    def make(self, number: int) -> Delivery:
        """A read image's result, being sent to the destination `pacs`."""
        job_id = self.receive(number)
        made = Made("sr", "", "1.2.840.10008.5.1.4.1.1.88.34", f"2.25.{number}", "sha256:r", "f", ("pacs",))
        with self.store.database.write() as tx:
            self.store.jobs.claim(tx, "worker-1:1", 8, 60)
            self.store.jobs.finish(tx, job_id, "worker-1:1", "done")
            (job,) = self.store.jobs.get(tx, [job_id])
            self.store.results.add(tx, job, 1, [made])
            claimed = self.store.outbox.claim(tx, "pacs", "deliverer:1", 60)
        assert claimed is not None
        return claimed


@pytest.fixture
def station(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], free_port: Callable[[], int]
) -> Iterator[Station]:
    config = tmp_path / "site.toml"
    config.write_text(
        f'[node]\ndata_dir = "data"\n[receive]\nport = {free_port()}\nmin_free_bytes = 0\n'
        f'[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {free_port()}\n'
    )
    store = Store.create(tmp_path / "data")
    yield Station(config, tmp_path / "data", store, capsys)
    store.close()
