"""A database that is lost comes back from the spool, reports on studies too; nothing is read or sent twice."""

from typing import Any

import pytest

from node import recover
from storage.store import DATABASE, Store

QUIET = 120


def lose_and_repair(ward: Any, **how: bool) -> recover.Recovered:
    ward.store.close()
    for file in ward.folder.glob(f"{DATABASE}*"):
        file.unlink()
    found = recover.repair(ward.settings, "sha256:model", **how)
    ward.store = Store.open(ward.folder)
    return found


@pytest.fixture
def reported(ward: Any) -> Any:
    """Two images of a study, reported once."""
    ward.start("sr", "sc", "ko", "text-sr", per="study")
    ward.receive(ward.image(1), ward.image(2))
    ward.read()
    ward.wait(QUIET)
    ward.read()
    assert [d.variant for d in ward.deliveries() if d.writer == "sc"] == ["", "#2"]
    return ward


@pytest.mark.parametrize("requeue", [True, False])
def test_a_study_s_report_comes_back_whole_and_parked_and_its_images_are_not_read_again(
    reported: Any, requeue: bool
) -> None:
    before = {(d.writer, d.variant, d.sop_instance, d.destination) for d in reported.deliveries()}
    found = lose_and_repair(reported, requeue=requeue)
    assert {(d.writer, d.variant, d.sop_instance, d.destination) for d in reported.deliveries()} == before
    assert {d.state for d in reported.deliveries()} == {"parked"}
    assert reported.states() == ["done", "done"]
    assert (found.unreadable, len(found.results_parked)) == ([], len(before))


def test_a_late_image_after_the_repair_amends_the_report_that_came_back(reported: Any, evidence: Any) -> None:
    (before,) = reported.results()
    lose_and_repair(reported)
    reported.start("sr", per="study")
    reported.receive(reported.image(3))
    reported.read()
    reported.wait(QUIET)
    reported.read()
    amended = reported.results()[-1]
    assert evidence(amended) == ["1", "2", "3"]
    assert amended.private_block(0x4849, "HILUM")[0x03].value == 2
    assert before.SOPInstanceUID in str(amended.PredecessorDocumentsSequence)


def test_a_study_that_waited_has_its_images_parked_or_read_again(ward: Any, evidence: Any) -> None:
    ward.start("sr", per="study")
    ward.receive(ward.image(1), ward.image(2))
    ward.read()
    lose_and_repair(ward)
    assert ward.states() == ["parked", "parked"]
    lose_and_repair(ward, requeue=True)
    ward.start("sr", per="study")
    ward.read()
    ward.wait(QUIET)
    ward.read()
    assert [evidence(sr) for sr in ward.results()] == [["1", "2"]]


def test_a_word_of_not_analyzed_comes_back_and_its_image_stays_skipped(ward: Any) -> None:
    ward.start("not-analyzed")
    ward.receive(ward.image(1, PatientAge="007Y"))
    ward.read()
    lose_and_repair(ward, requeue=True)
    assert ward.states() == ["skipped"]
    assert [(d.writer, d.state) for d in ward.deliveries()] == [("not-analyzed", "parked")]


def test_a_result_that_is_there_twice_and_a_file_that_is_none_of_ours_are_named(ward: Any) -> None:
    ward.receive(ward.image(1))
    ward.read()
    (sr,) = [d.file for d in ward.deliveries() if d.writer == "sr"]
    twin = ward.store.spool.path(sr).with_name("0000.dcm")
    twin.write_bytes(ward.store.spool.path(sr).read_bytes())
    twin.with_name("0001.dcm").write_bytes(b"none of ours" * 20)
    found = lose_and_repair(ward)
    assert len(found.unreadable) == 2
    assert len(found.results_parked) == 2
