"""One report a study: of all its images, of one patient, amended when a late one comes, and never lost."""

from typing import Any

import pytest
from pydicom import Dataset

from storage.audit import Actor

QUIET, LIMIT = 120, 900


@pytest.fixture
def studies(ward: Any) -> Any:
    """The ward, reporting per study."""
    ward.start(per="study")
    return ward


def predecessors(sr: Dataset) -> list[str]:
    return [
        str(sop.ReferencedSOPInstanceUID)
        for study in sr.get("PredecessorDocumentsSequence", [])
        for series in study.ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    ]


def test_three_images_make_one_report_when_the_study_is_quiet(studies: Any, evidence: Any) -> None:
    for number in (2, 1, 3):
        studies.receive(studies.image(number))
        studies.read()
        studies.wait(QUIET - 1)
        studies.read()
    assert (studies.states(), studies.deliveries()) == (["done"] * 3, [])
    studies.wait(1)
    studies.read()
    (sr,) = studies.results()
    assert evidence(sr) == ["1", "2", "3"]
    pictures = studies.results("sc")
    # ordered by instance number, not by arrival
    assert [p.SourceImageSequence[0].ReferencedSOPInstanceUID[-1] for p in pictures] == ["1", "2", "3"]
    assert [d.variant for d in studies.deliveries() if d.writer == "sc"] == ["", "#2", "#3"]
    (told,) = studies.audit("study.reported")
    assert [uid[-1] for uid in told.detail["images"]] == ["1", "2", "3"]
    assert studies.states() == ["done"] * 3


def test_the_scores_of_each_image_are_kept_as_soon_as_it_is_read(studies: Any) -> None:
    studies.receive(studies.image(1))
    studies.read()
    with studies.store.database.read() as tx:
        assert [found.label for found in studies.store.jobs.found(tx, 1)] == ["Effusion", "Mass"]


def test_images_that_keep_coming_are_reported_at_the_limit(studies: Any, evidence: Any) -> None:
    for number in range(1, 11):
        studies.receive(studies.image(number))
        studies.read()
        assert not studies.deliveries()
        studies.wait(LIMIT / 10)
    studies.read()
    (sr,) = studies.results()
    assert len(evidence(sr)) == 10


def test_a_late_image_makes_an_amended_report_that_names_the_first(studies: Any, evidence: Any) -> None:
    studies.receive(studies.image(1))
    studies.read()
    studies.wait(QUIET)
    studies.read()
    studies.wait(3600)
    studies.receive(studies.image(2))
    studies.read()
    studies.wait(QUIET)
    studies.read()
    first, second = studies.results()
    assert (evidence(first), evidence(second)) == (["1"], ["1", "2"])
    assert predecessors(second) == [first.SOPInstanceUID]
    assert predecessors(first) == []
    block = second.private_block(0x4849, "HILUM")
    assert block[0x03].value == 2 and len(str(block[0x01].value).split()) == 2


@pytest.mark.parametrize("other", [{"PatientID": "OTHER"}, {"PatientName": "Other^Eve"}])
def test_two_patients_in_one_study_get_two_reports_each_with_its_own_images(
    studies: Any, evidence: Any, other: dict[str, str]
) -> None:
    theirs = [studies.image(number, **other) for number in (3, 4)]
    studies.receive(studies.image(1), theirs[0], studies.image(2), theirs[1])
    studies.read()
    studies.wait(QUIET)
    studies.read()
    reports = {(str(sr.PatientID), str(sr.PatientName)): evidence(sr) for sr in studies.results()}
    mine = studies.image(1)
    assert reports == {
        (mine.PatientID, str(mine.PatientName)): ["1", "2"],
        (theirs[0].PatientID, str(theirs[0].PatientName)): ["3", "4"],
    }
    studies.receive(studies.image(5))
    studies.read()
    studies.wait(QUIET)
    studies.read()
    amended = studies.results()[-1]
    assert (amended.PatientID, evidence(amended)) == (mine.PatientID, ["1", "2", "5"])
    (before,) = predecessors(amended)
    (replaced,) = [sr for sr in studies.results() if sr.SOPInstanceUID == before]
    assert replaced.PatientID == mine.PatientID and evidence(replaced) == ["1", "2"]


def test_the_same_image_or_the_same_picture_again_makes_no_second_report(studies: Any) -> None:
    for again in ({}, {}, {"StationName": "OTHER"}):
        studies.receive(studies.image(1, **again))
        studies.read()
        studies.wait(QUIET)
        studies.read()
    assert studies.states() == ["done", "skipped"]
    assert len(studies.results()) == 1


def test_another_picture_under_the_same_uid_stands_in_the_amended_report_in_place_of_the_first(
    studies: Any, evidence: Any
) -> None:
    for image in (studies.image(1), studies.image(9, SOPInstanceUID="1.2.826.0.1.1")):
        studies.receive(image)
        studies.read()
        studies.wait(QUIET)
        studies.read()
    first, second = studies.results()
    assert evidence(first) == evidence(second) == ["1"]
    assert (
        first.private_block(0x4849, "HILUM")[0x01].value != second.private_block(0x4849, "HILUM")[0x01].value
    )


def test_a_study_that_waits_is_reported_after_a_restart(studies: Any, evidence: Any) -> None:
    studies.receive(studies.image(1), studies.image(2))
    studies.read()
    studies.start(per="study")
    studies.read()
    assert not studies.deliveries()
    studies.wait(QUIET)
    studies.read()
    assert [evidence(sr) for sr in studies.results()] == [["1", "2"]]


def test_a_node_that_stops_while_it_reports_makes_the_same_report_at_the_next_start(studies: Any) -> None:
    studies.receive(studies.image(1), studies.image(2))
    studies.read()
    studies.wait(QUIET)
    with studies.store.database.write() as tx:
        assert studies.store.studies.claim(tx, "worker-1:1", 360, 30)
    studies.read()
    assert not studies.deliveries()
    studies.wait(1)
    studies.start(per="study")
    studies.read()
    (sr,) = studies.results()
    assert sr.private_block(0x4849, "HILUM")[0x03].value == 1
    # dated by the images, not by the clock
    assert sr.ContentTime == "120000.000000"


def test_a_study_that_waits_is_reported_though_the_node_now_reports_per_image(
    studies: Any, evidence: Any
) -> None:
    studies.receive(studies.image(1))
    studies.read()
    studies.start(per="image")
    studies.receive(studies.image(2, StudyInstanceUID="1.2.826.0.7"))
    studies.read()
    assert [evidence(sr) for sr in studies.results()] == [["2"]]
    studies.wait(QUIET)
    studies.read()
    assert [evidence(sr) for sr in studies.results()] == [["2"], ["1"]]


def test_images_that_have_reports_of_their_own_stand_in_their_studys_report_too(
    ward: Any, evidence: Any
) -> None:
    ward.receive(ward.image(1))
    ward.read()
    ward.start(per="study")
    ward.receive(ward.image(2))
    ward.read()
    ward.wait(QUIET)
    ward.read()
    assert [evidence(sr) for sr in ward.results()] == [["1"], ["1", "2"]]


def test_an_image_that_cannot_be_read_again_is_left_out_and_parked(studies: Any, evidence: Any) -> None:
    studies.receive(studies.image(1), studies.image(2))
    studies.read()
    studies.wait(QUIET)
    (gone,) = [job.file for job in studies.jobs() if job.sop_instance.endswith(".2")]
    studies.store.spool.path(gone).write_bytes(b"no image any more" * 20)
    studies.read()
    (sr,) = studies.results()
    assert evidence(sr) == ["1"]
    assert studies.states() == ["done", "parked"]
    (told,) = studies.audit("study.reported")
    assert [left["sop"][-1] for left in told.detail["left_out"]] == ["2"]


def test_an_image_that_has_expired_is_left_out_of_the_amended_report(studies: Any, evidence: Any) -> None:
    studies.receive(studies.image(1))
    studies.read()
    studies.wait(QUIET)
    studies.read()
    with studies.store.database.write() as tx:
        studies.store.objects.forget_file(tx, 1)
    studies.receive(studies.image(2))
    studies.read()
    studies.wait(QUIET)
    studies.read()
    assert [evidence(sr) for sr in studies.results()] == [["1"], ["2"]]
    assert studies.states() == ["done", "done"]
    told = studies.audit("study.reported")[-1]
    assert [left["reason"] for left in told.detail["left_out"]] == ["the image has expired from the spool"]


def test_a_study_that_cannot_be_reported_parks_its_jobs_and_a_retry_reports_it(
    studies: Any, evidence: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Unmistakable^Name")

    studies.receive(studies.image(1), studies.image(2))
    studies.read()
    studies.wait(QUIET)
    with monkeypatch.context() as patched:
        patched.setattr("node.analyze.pipeline.make", fail)
        studies.read()
    assert studies.states() == ["parked", "parked"]
    assert "Unmistakable" not in " ".join(job.reason for job in studies.jobs())
    (told,) = studies.audit("study.parked")
    assert told.outcome == "failure" and "RuntimeError" in told.detail["reason"]
    with studies.store.database.write() as tx:
        for job in studies.store.jobs.listing(tx, "parked"):
            studies.store.jobs.retry(tx, job.id, Actor("operator"))
    studies.read()
    studies.wait(QUIET)
    studies.read()
    assert [evidence(sr) for sr in studies.results()] == [["1", "2"]]


def test_two_workers_make_one_report(studies: Any) -> None:
    studies.receive(studies.image(1), studies.image(2))
    other = studies.another_worker("worker-2:2")
    studies.worker._settings = studies.settings.with_changes("analyze", batch_size=1)
    assert studies.worker.take() == other.take() == 1
    studies.wait(QUIET)
    assert studies.worker.take() + other.take() == 1
    assert len(studies.results()) == 1


def test_why_an_image_was_not_analyzed_is_told_per_image_and_at_once(studies: Any) -> None:
    studies.start("sr", "not-analyzed", per="study")
    studies.receive(studies.image(1), studies.image(2, PatientAge="007Y"))
    studies.read()
    assert [d.writer for d in studies.deliveries()] == ["not-analyzed"]
    studies.wait(QUIET)
    studies.read()
    assert [d.writer for d in studies.deliveries()] == ["not-analyzed", "sr"]


def test_earlier_results_are_of_other_studies_of_the_patient(studies: Any) -> None:
    studies.start("text-sr", per="study")
    studies.receive(studies.image(1))
    studies.read()
    studies.wait(86_400)
    studies.read()
    studies.receive(
        studies.image(2, StudyInstanceUID="1.2.826.0.7"), studies.image(3, StudyInstanceUID="1.2.826.0.7")
    )
    studies.read()
    studies.wait(QUIET)
    studies.read()
    said = [" ".join(i.get("TextValue", "") for i in sr.ContentSequence) for sr in studies.results("text-sr")]
    assert ["2026-11-21" in text for text in said] == [False, True]


def test_a_study_of_more_images_than_one_report_can_hold_is_parked_and_says_so(
    studies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.analyze.study.MOST_IMAGES", 1)
    studies.receive(studies.image(1), studies.image(2))
    studies.read()
    studies.wait(QUIET)
    studies.read()
    assert studies.states() == ["parked", "parked"]
    assert "2 images" in studies.jobs()[0].reason
