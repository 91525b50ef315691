"""Bad days of a whole node with real peers: PACS that are down, slow or picky; what comes twice; a lost database.

What kills processes is in test_crashes.py; the disk's floor, a lost model and a second start are in node/test_serve.py.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pydicom
import pytest
from peers.node import running_node, send, until
from peers.servers import Storescp, running

from model import phantom

pytestmark = [pytest.mark.peer, pytest.mark.timeout(400)]

SR = "1.2.840.10008.5.1.4.1.1.88.34"
SC = "1.2.840.10008.5.1.4.1.1.7"

# DCMTK's way to accept these classes and no others
PICKY = r"""
[[TransferSyntaxes]]
[Plain]
TransferSyntax1 = LocalEndianExplicit
TransferSyntax2 = LittleEndianImplicit
[[PresentationContexts]]
[Pictures]
PresentationContext1 = VerificationSOPClass\Plain
PresentationContext2 = SecondaryCaptureImageStorage\Plain
[[Profiles]]
[Default]
PresentationContexts = Pictures
"""


class Site:
    """A node with four destinations: a folder, a PACS that is off, one that is slow, one that takes no SR."""

    def __init__(
        self, folder: Path, storescp: str, storescu: str, port: Callable[[], int], closing: ExitStack
    ) -> None:
        self.storescu = storescu
        (folder / "picky.cfg").write_text(PICKY)
        self._peers = {
            name: (storescp, port(), folder / name / "received") for name in ("late", "slow", "picky")
        }
        self.late = Storescp(*self._peers["late"])
        self.slow = Storescp(*self._peers["slow"], "--sleep-during", "1")
        self.picky = Storescp(*self._peers["picky"], "-xf", str(folder / "picky.cfg"), "Default")
        self._closing = closing
        self._folder = folder
        destinations = "".join(
            f'[[destinations]]\nname = "{name}"\nae_title = "STORESCP"\nhost = "127.0.0.1"\n'
            f"port = {peer.port}\nresults = {results}\n"
            for name, peer, results in (
                ("late", self.late, '["sr", "sc"]'),
                ("slow", self.slow, '["sr"]'),
                ("picky", self.picky, '["sr", "sc"]'),
            )
        )
        shelf = '[[destinations]]\nname = "shelf"\nkind = "folder"\npath = "shelf"\n'
        config = f'min_free_bytes = 0\non_conflict = "analyze"\n{shelf}{destinations}'
        self.start(self.slow)
        self.start(self.picky)
        self.node = closing.enter_context(running_node(folder, config, port()))

    def start(self, peer: Storescp) -> None:
        self._closing.enter_context(running(peer))

    def mend(self, peer: Storescp) -> Storescp:
        """The slow or the picky PACS as any other."""
        peer.stop()
        mended = Storescp(*self._peers[peer.folder.parent.name])
        self.start(mended)
        return mended

    def send(self, dataset: pydicom.Dataset) -> bool:
        file = self._folder / "sent.dcm"
        dataset.save_as(file, enforce_file_format=True)
        done = send(self.storescu, self.node.port, [file])
        return "Received Store Response (Success)" in done.stdout + done.stderr

    def shelf(self, source: pydicom.Dataset) -> list[pydicom.Dataset]:
        """The results of an image in the folder, in the order in which they came."""
        files = sorted((self.node.folder / "shelf").glob("*.dcm"), key=lambda f: f.stat().st_mtime_ns)
        datasets = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
        return [dataset for dataset in datasets if source.SOPInstanceUID in evidence(dataset)]

    def deliveries(self, **wanted: str) -> list[dict[str, Any]]:
        rows = json.loads(self.node.hilum("deliveries", "list", "--json"))
        return [row for row in rows if all(row[key] == value for key, value in wanted.items())]

    def jobs(self, source: pydicom.Dataset) -> list[tuple[str, str]]:
        rows = json.loads(self.node.hilum("jobs", "list", "--json"))
        return [
            (row["state"], row["reason"]) for row in rows if row["sop_instance_uid"] == source.SOPInstanceUID
        ]

    def status_exit_code(self) -> int:
        done = subprocess.run(
            [sys.executable, "-m", "node.cli", "status", "--config", self.node.config], capture_output=True
        )
        return done.returncode

    def lose_database(self) -> None:
        self.node.stop()
        for file in self.node.data.glob("hilum.db*"):
            file.unlink()


def evidence(result: pydicom.Dataset) -> list[str]:
    """The SOP instances from which it says it was made."""
    if "SourceImageSequence" in result:
        return [item.ReferencedSOPInstanceUID for item in result.SourceImageSequence]
    studies = result.CurrentRequestedProcedureEvidenceSequence
    return [
        item.ReferencedSOPInstanceUID
        for study in studies
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int], program: Callable[[str], str]
) -> Iterator[Site]:
    with ExitStack() as closing:
        folder = tmp_path_factory.mktemp("site")
        yield Site(folder, program("storescp"), program("storescu"), free_port, closing)


@pytest.fixture(scope="module")
def first() -> pydicom.Dataset:
    return phantom.draw(11, patch=False)


def test_a_pacs_that_is_down_or_slow_holds_up_no_other(site: Site, first: pydicom.Dataset) -> None:
    assert site.send(first)
    until(lambda: len(site.shelf(first)) == 2, 60)
    assert site.deliveries(destination="slow")[0]["state"] in {"waiting", "sending"}
    until(lambda: site.node.status()["destinations"]["late"]["state"] == "down", 20)
    late = site.node.status()["destinations"]["late"]
    assert (late["waiting"], late["last_success"]) == (2, None)
    assert "refused or unreachable" in late["last_error"]
    assert site.status_exit_code() == 1
    until(lambda: site.deliveries(destination="slow", state="delivered"), 30)
    site.slow = site.mend(site.slow)


def test_what_waited_is_delivered_when_the_pacs_comes_up(site: Site, first: pydicom.Dataset) -> None:
    assert len(site.shelf(first)) == 2 and not site.late.files
    site.start(site.late)
    until(lambda: len(site.deliveries(destination="late", state="delivered")) == 2, 60)
    assert len(site.late.files) == 2
    assert {d["state"] for d in site.node.status()["destinations"].values()} == {"up"}
    assert site.status_exit_code() == 0


def test_a_class_that_a_pacs_refuses_is_parked_until_a_person_sends_it_again(
    site: Site, first: pydicom.Dataset
) -> None:
    until(site.node.settled, 30)
    (refused,) = site.deliveries(state="parked")
    assert (refused["destination"], refused["sop_class_uid"]) == ("picky", SR)
    assert "presentation context refused" in refused["reason"]
    assert [pydicom.dcmread(f).SOPClassUID for f in site.picky.files] == [SC]
    site.picky = site.mend(site.picky)
    site.node.hilum("deliveries", "retry", str(refused["id"]))
    until(lambda: not site.deliveries(state="parked") and site.node.settled(), 30)
    assert sorted(pydicom.dcmread(f).SOPClassUID for f in site.picky.files) == [SC, SR]
    story = [r["event"] for r in site.node.audit() if r["detail"].get("delivery") == refused["id"]]
    assert story == [
        "delivery.attempted", "delivery.parked", "delivery.retried", "delivery.attempted", "delivery.delivered",
    ]  # fmt: skip


def test_the_same_picture_under_an_edited_header_makes_no_second_report(
    site: Site, first: pydicom.Dataset
) -> None:
    edited = phantom.draw(11, patch=False)
    edited.StudyDescription = "Described anew"
    assert site.send(edited)
    until(site.node.settled, 60)
    assert site.jobs(first) == [("done", ""), ("skipped", "same picture")]
    assert len(site.shelf(first)) == 2


def test_another_picture_under_the_uid_makes_a_report_that_names_its_predecessor(
    site: Site, first: pydicom.Dataset
) -> None:
    other = phantom.draw(11, patch=False)
    other.PixelData = phantom.draw(12, patch=True).PixelData
    assert site.send(other)
    until(site.node.settled, 60)
    assert site.jobs(first)[2:] == [("done", "")]
    results = site.shelf(first)
    assert len(results) == 4
    old, new = (r for r in results if r.SOPClassUID == SR)
    (study,) = new.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert [i.ReferencedSOPInstanceUID for i in series.ReferencedSOPSequence] == [old.SOPInstanceUID]
    assert series.SeriesInstanceUID == old.SeriesInstanceUID != new.SeriesInstanceUID
    assert "PredecessorDocumentsSequence" not in old


def test_under_another_patient_study_or_series_the_uid_is_refused_whatever_the_setting(
    site: Site, first: pydicom.Dataset
) -> None:
    before = site.jobs(first)
    for keyword, value in (
        ("PatientID", "ELSE"),
        ("StudyInstanceUID", "1.2.3"),
        ("SeriesInstanceUID", "1.2.4"),
    ):
        foreign = phantom.draw(11, patch=False)
        setattr(foreign, keyword, value)
        assert not site.send(foreign)
    assert site.jobs(first) == before
    conflicts = site.node.audit("object.conflict")
    assert [(c["sop"], c["outcome"]) for c in conflicts] == [(first.SOPInstanceUID, "failure")] * 3


def test_results_that_come_to_a_node_that_never_made_them_are_kept_and_left_alone(
    site: Site, first: pydicom.Dataset, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    out = '[[destinations]]\nname = "out"\nkind = "folder"\npath = "out"\n'
    config = f"min_free_bytes = 0\n[analyze]\nworkers = 0\n{out}"
    results = sorted((site.node.folder / "shelf").glob("*.dcm"))
    with running_node(tmp_path, config, free_port()) as empty:
        assert send(site.storescu, empty.port, results).returncode == 0
        status = empty.status()
        assert status["received"] == len(results) == 4
        # the pictures are images that are not analyzed, the reports are no images
        assert (status["jobs"]["skipped"], status["jobs"]["queued"]) == (2, 0)
        assert sum(status["jobs"].values()) == 2 and sum(status["deliveries"].values()) == 0
        received = empty.audit("object.received")
        assert all(record["detail"]["own_result"] for record in received) and len(received) == 4


def test_a_lost_database_is_rebuilt_and_nothing_goes_out_a_second_time_by_itself(
    site: Site, first: pydicom.Dataset
) -> None:
    until(site.node.settled, 60)
    second = phantom.draw(13, patch=False)
    assert site.send(second)
    until(site.node.settled, 60)
    there = Counter(f.name for peer in (site.late, site.picky) for f in peer.files)
    site.lose_database()
    site.node.hilum("check", "--repair")
    site.node.start()
    assert site.jobs(second) == [("done", "rebuilt from the spool")]
    assert sorted(state for state, _ in site.jobs(first)) == ["done", "done", "parked"]
    rows = site.deliveries()
    assert {row["state"] for row in rows} == {"parked"} and "delivery unknown" in rows[0]["reason"]
    time.sleep(1)
    assert not site.node.audit("delivery.attempted")
    # a person who knows that the PACS lacks them sends them again: the same instances
    site.node.hilum("deliveries", "retry", "--all-parked")
    until(site.node.settled, 120)
    assert {row["state"] for row in site.deliveries()} == {"delivered"}
    assert Counter(f.name for peer in (site.late, site.picky) for f in peer.files) == there
    assert len(site.shelf(first)) == 4 and len(site.shelf(second)) == 2


def test_a_repair_that_queues_reads_only_what_has_no_result(site: Site) -> None:
    third = phantom.draw(14, patch=False)
    assert site.send(third)
    until(site.node.settled, 60)
    made = {r.SOPInstanceUID for r in site.shelf(third)}
    site.lose_database()
    for file in (site.node.data / "results").rglob("*.dcm"):
        if pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID in made:
            file.unlink()
    site.node.hilum("check", "--repair", "--requeue")
    site.node.start()
    until(lambda: site.jobs(third) == [("done", "")], 60)
    assert [r["sop"] for r in site.node.audit("job.analyzed")] == [third.SOPInstanceUID]
    # the same image, model and revision: the same instances as before
    assert {r.SOPInstanceUID for r in site.shelf(third)} == made
