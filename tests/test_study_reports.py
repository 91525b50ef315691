"""One report a study, with a real node and real peers: three images go in, one Structured Report comes out; kill -9
at each step of it loses and doubles nothing."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from peers.node import RunningNode, running_node, send, until, within
from peers.servers import Storescp
from peers.strace import killed_at

from model import phantom
from node.settings import load
from node.status import collect

pytestmark = [pytest.mark.peer, pytest.mark.timeout(900)]

# a worker that was killed loads its model anew
PATIENCE = 300.0


class Site:
    """A node that reports per study, the PACS that gets its reports, and studies to send."""

    def __init__(self, node: RunningNode, pacs: Storescp, storescu: str, folder: Path) -> None:
        self.node, self.pacs, self.storescu, self.folder = node, pacs, storescu, folder
        self._drawn = phantom.draw(1, patch=True)

    def image(self, study: int, number: int) -> Path:
        dataset = self._drawn
        dataset.StudyInstanceUID = f"1.2.826.0.1.{study}"
        dataset.SOPInstanceUID = f"1.2.826.0.1.{study}.{number}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.InstanceNumber = number
        file = self.folder / f"{study}.{number}.dcm"
        dataset.save_as(file, enforce_file_format=True)
        return file

    def send(self, study: int, *numbers: int) -> None:
        done = send(self.storescu, self.node.port, [self.image(study, number) for number in numbers])
        assert done.returncode == 0 and done.stdout.count("(Success)") + done.stderr.count(
            "(Success)"
        ) == len(numbers)

    def waiting(self) -> int:
        """How many studies wait for their reports, all their images having been read."""
        status = collect(load(self.node.config), None)
        return 0 if status.jobs["queued"] or status.jobs["running"] else status.studies["waiting"]

    def settled(self) -> bool:
        status = collect(load(self.node.config), None)
        return self.node.settled() and not status.studies["waiting"] and not status.studies["running"]

    def reports(self, study: int) -> list[pydicom.Dataset]:
        """What the PACS has of a study, by revision."""
        found = [pydicom.dcmread(file) for file in self.pacs.files]
        mine = [sr for sr in found if sr.StudyInstanceUID == f"1.2.826.0.1.{study}"]
        return sorted(mine, key=lambda sr: int(sr.private_block(0x4849, "HILUM")[0x03].value))


def images_of(sr: pydicom.Dataset) -> list[str]:
    (study,) = sr.CurrentRequestedProcedureEvidenceSequence
    named = [sop for series in study.ReferencedSeriesSequence for sop in series.ReferencedSOPSequence]
    return sorted(str(sop.ReferencedSOPInstanceUID).rpartition(".")[2] for sop in named)


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    storescp: Storescp,
    free_port: Callable[[], int],
    program: Callable[[str], str],
) -> Iterator[Site]:
    config = f"""
    min_free_bytes = 0
    [report]
    per = "study"
    quiet_seconds = 6
    limit_seconds = 60
    [[destinations]]
    name = "pacs"
    ae_title = "{storescp.ae_title}"
    host = "127.0.0.1"
    port = {storescp.port}
    results = ["sr"]
    """
    with running_node(tmp_path_factory.mktemp("node"), config, free_port()) as node:
        yield Site(node, storescp, program("storescu"), tmp_path_factory.mktemp("images"))


def test_three_images_of_a_study_come_back_as_one_report_and_a_late_one_amends_it(site: Site) -> None:
    site.send(1, 1, 2, 3)
    until(lambda: site.reports(1))
    until(site.settled)
    (sr,) = site.reports(1)
    assert images_of(sr) == ["1", "2", "3"]
    site.send(1, 4)
    until(lambda: len(site.reports(1)) == 2)
    first, second = site.reports(1)
    assert images_of(second) == ["1", "2", "3", "4"]
    assert first.SOPInstanceUID in str(second.PredecessorDocumentsSequence)


# while the report is written; in the commit that ends it
@pytest.mark.parametrize(("study", "call", "nth"), [(2, "rename", 1), (3, "fdatasync", 2)])
def test_a_worker_killed_inside_a_step_makes_one_report(
    site: Site, program: Callable[[str], str], study: int, call: str, nth: int
) -> None:
    until(site.settled)
    until(lambda: "worker-1" in site.node.children())
    pid = site.node.children()["worker-1"]
    site.send(study, 1, 2)
    until(lambda: site.waiting() == 1)
    try:
        with killed_at(program("strace"), pid, call, nth):
            assert within(lambda: pid not in site.node.children().values(), 60)
    except PermissionError as e:
        pytest.skip(str(e))
    until(lambda: site.reports(study), PATIENCE)
    until(site.settled)
    (sr,) = site.reports(study)
    assert images_of(sr) == ["1", "2"]
    assert len([r for r in site.node.audit("study.reported") if r["study"].endswith(f".{study}")]) == 1


def test_a_study_that_waits_survives_a_kill_of_the_whole_node(site: Site) -> None:
    until(site.settled)
    site.send(5, 1, 2)
    until(lambda: site.waiting() == 1)
    site.node.kill_everything()
    assert not site.reports(5)
    site.node.start()
    until(lambda: site.reports(5), PATIENCE)
    until(site.settled)
    (sr,) = site.reports(5)
    assert images_of(sr) == ["1", "2"]


def test_a_change_of_the_intended_use_stands_in_the_audit_log(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    with running_node(tmp_path, "min_free_bytes = 0\n[analyze]\nworkers = 0\n", free_port()) as node:
        node.stop()
        before = node.config.read_text()
        node.config.write_text(before + '[report]\nintended_use = "marks"\n')
        node.start()
        node.stop()
        node.config.write_text(before)
        node.start()
        details = [record["detail"] for record in node.audit("config.changed")]
        told = [json.loads(detail) if isinstance(detail, str) else detail for detail in details]
        assert told == [
            {"key": "report.intended_use", "old": "triage", "new": "marks"},
            {"key": "report.intended_use", "old": "marks", "new": "triage"},
        ]
