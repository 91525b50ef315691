"""One report an image: what it holds, who gets it, and what those get who want to know why there is none."""

import dataclasses
import select
import shutil
from typing import Any

import pytest

from model.card import Temperature
from node.analyze.pipeline import wanted_results
from node.report import InvalidResult
from node.settings import Settings
from node.wakeup import Wakeup


def test_each_destination_gets_the_kinds_that_it_wants_and_a_kind_is_made_once() -> None:
    settings = Settings.model_validate(
        {
            "destinations": [
                {"name": "pacs", "ae_title": "PACS", "host": "h", "port": 104, "sr_class": "enhanced"},
                {"name": "old", "ae_title": "OLD", "host": "h", "port": 104, "results": ["text-sr", "sc"]},
                {"name": "web", "kind": "web", "url": "https://h/dicom-web", "results": ["sr"]},
                {"name": "ris", "kind": "hl7", "host": "h", "port": 2575},
                {"name": "api", "kind": "http", "url": "https://h/in", "results": ["json", "fhir"]},
            ]
        }
    )
    assert wanted_results(settings) == {
        ("sr", "enhanced"): ("pacs",),
        ("sc", ""): ("pacs", "old"),
        ("text-sr", ""): ("old",),
        ("sr", "comprehensive3d"): ("web",),
        ("oru", ""): ("ris",),
        ("json", ""): ("api",),
        ("fhir", ""): ("api",),
    }
    assert wanted_results(Settings()) == {("sr", "comprehensive3d"): (), ("sc", ""): ()}


def test_two_images_of_a_study_get_a_report_each(ward: Any, evidence: Any) -> None:
    ward.receive(ward.image(1), ward.image(2))
    ward.read()
    assert [evidence(sr) for sr in ward.results()] == [["1"], ["2"]]
    assert len(ward.results("sc")) == 2
    assert ward.states() == ["done", "done"]


def test_the_audit_log_says_how_long_each_step_took(ward: Any) -> None:
    ward.receive(ward.image(1))
    ward.read()
    (analyzed,) = ward.audit("job.analyzed")
    took = analyzed.detail["ms"]
    assert list(took) == ["decode", "keep", "predict", "render"]
    assert all(isinstance(step, int) and step >= 0 for step in took.values()) and took["render"] > 0


def test_whoever_delivers_is_told_after_each_image_of_a_batch(ward: Any) -> None:
    wakeup, told = Wakeup(ward.folder, "deliverer"), []
    ward.receive(ward.image(1), ward.image(2, PatientAge="007Y"), ward.image(3))
    make = ward.worker._pipeline.report

    def report(*asked: Any) -> Any:
        told.append(bool(select.select([wakeup], [], [], 0)[0]))
        wakeup.wait(0)
        return make(*asked)

    ward.worker._pipeline.report = report
    ward.read()
    told.append(bool(select.select([wakeup], [], [], 0)[0]))
    wakeup.close()
    assert told == [False, True, True]


def test_the_same_image_again_makes_no_second_report_and_another_picture_under_its_uid_an_amended_one(
    ward: Any,
) -> None:
    ward.receive(ward.image(1))
    ward.receive(ward.image(1))
    ward.receive(ward.image(1, StationName="OTHER"))
    ward.read()
    assert ward.states() == ["done", "skipped"]
    ward.receive(ward.image(9, SOPInstanceUID="1.2.826.0.1.1"))
    ward.read()
    first, second = ward.results()
    assert second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[
        0
    ].ReferencedSOPInstanceUID == (first.SOPInstanceUID)


def test_in_triage_nobody_asks_where_and_nothing_in_a_result_localizes(ward: Any) -> None:
    ward.start("sr", "text-sr", "sc")
    ward.receive(ward.image(1))
    ward.read()
    assert ward.toy.explained == 0
    assert len(ward.deliveries()) == 3
    for writer in ("sr", "text-sr", "sc"):
        (result,) = ward.results(writer)
        kinds = [
            element.value for element in result.iterall() if element.keyword in {"ValueType", "GraphicType"}
        ]
        assert not {"SCOORD", "SCOORD3D", "POLYLINE"} & set(kinds)
        assert not [
            e for e in result.iterall() if e.tag.group in range(0x6000, 0x6100) or e.tag.group == 0x0070
        ]


def test_with_marks_the_findings_above_their_thresholds_are_explained_and_the_picture_shows_it(
    ward: Any,
) -> None:
    ward.receive(ward.image(1))
    ward.read()
    ward.start("sc", intended_use="marks")
    ward.receive(ward.image(2))
    ward.read()
    assert ward.toy.explained == 1
    plain, marked = ward.results("sc")
    assert marked.PixelData != plain.PixelData


def test_who_wants_to_know_is_told_why_an_image_was_not_analyzed(ward: Any) -> None:
    ward.start("sr", "not-analyzed")
    ward.receive(ward.image(1), ward.image(2, PatientAge="007Y"))
    ward.read()
    assert ward.states() == ["done", "skipped"]
    (told,) = ward.results("not-analyzed")
    assert "younger" in told.ContentSequence[0].TextValue
    assert told.PatientID == ward.image(2).PatientID
    assert len(ward.results("sr")) == 1


def test_nobody_is_told_of_results_that_came_back_of_other_kinds_of_images_or_of_the_same_picture(
    ward: Any,
) -> None:
    ward.start("not-analyzed")
    ward.receive(
        ward.image(1, Manufacturer="Hilum"),
        ward.image(2, SOPClassUID="1.2.840.10008.5.1.4.1.1.2"),
        ward.image(3),
    )
    ward.receive(ward.image(3, StationName="OTHER"))
    ward.read()
    assert ward.states() == ["skipped", "skipped", "done", "skipped"]
    assert ward.deliveries() == []


def test_who_does_not_want_to_know_is_not_told(ward: Any) -> None:
    ward.receive(ward.image(1, PatientAge="007Y"))
    ward.read()
    assert (ward.states(), ward.deliveries()) == (["skipped"], [])


def test_a_word_of_not_analyzed_that_fails_its_check_is_quarantined_and_the_job_ends_as_skipped(
    ward: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise InvalidResult("made to fail")

    ward.start("not-analyzed")
    monkeypatch.setattr("node.analyze.pipeline.make", refuse)
    ward.receive(ward.image(1, PatientAge="007Y"))
    ward.read()
    (job,) = ward.jobs()
    assert job.state == "skipped" and "younger" in job.reason
    (record,) = ward.audit("result.quarantined")
    assert record.detail["reason"] == "made to fail"
    assert not [p for p in (ward.folder / "results").rglob("*") if p.is_file()]


def test_earlier_results_stand_in_the_text_of_the_same_patient_only(ward: Any) -> None:
    ward.start("text-sr")
    ward.receive(ward.image(1), ward.image(2, PatientName="Other^Eve"))
    ward.read()
    ward.wait(86_400)
    ward.receive(ward.image(3, StudyInstanceUID="1.2.826.0.2"))
    ward.read()
    said = [" ".join(i.get("TextValue", "") for i in sr.ContentSequence) for sr in ward.results("text-sr")]
    assert ["2026-11-21" in text for text in said] == [False, False, True]


def test_a_disk_that_takes_no_results_parks_the_job_at_the_third_try(ward: Any) -> None:
    ward.receive(ward.image(1))
    shutil.rmtree(ward.folder / "results")
    (ward.folder / "results").write_bytes(b"")
    ward.read()
    (job,) = ward.jobs()
    assert (job.state, job.failures) == ("parked", 3)
    assert ward.deliveries() == []


def test_scores_that_were_calibrated_otherwise_are_not_compared_though_the_weights_are_the_same(
    ward: Any,
) -> None:
    said = []
    for number, curve in enumerate((None, None, Temperature(2.0, -1.0)), 1):
        if curve:
            ward.toy.card = dataclasses.replace(
                ward.toy.card,
                calibrations=dict.fromkeys(ward.toy.card.labels, curve),
                prevalence=dict.fromkeys(ward.toy.card.labels, 0.1),
            )
        ward.start("text-sr")
        ward.receive(ward.image(number, StudyInstanceUID=f"1.2.826.0.{number + 1}"))
        ward.read()
        ward.wait(86_400)
        told = ward.results("text-sr")[-1].ContentSequence
        said.append(" ".join(item.get("TextValue", "") for item in told))
    assert ["By another model" in text for text in said] == [False, False, True]
    assert "(now 0.80)" in said[1] and "(now" not in said[2]
