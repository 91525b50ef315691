"""What becomes of a picture that looks unlike what the model was made for, and of one whose header leaves that open."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from model.guard import Scoped
from model.scope import Policy
from node.analyze.decoders import Decoders

STRANGE = Scoped(0.93, True, "rotated", "The picture looks turned by a quarter: stored, not analyzed")
USUAL = Scoped(0.02, False)
SILENT = "The header does not say that this is a frontal view"


@pytest.fixture(scope="module")
def open_decoders(decoders: Decoders) -> Iterator[Decoders]:
    """They leave an unknown view to the guard."""
    with Decoders(1, 2 * 10**9, 30, Policy(unknown_view="model"), decoders._settings[2]) as pool:
        yield pool


def test_a_strange_picture_is_skipped_with_the_reason_that_the_guard_gives(ward: Any) -> None:
    ward.start("sr", "not-analyzed")
    ward.toy.guard = STRANGE
    ward.receive(ward.image(1))
    ward.read()
    (job,) = ward.jobs()
    assert (job.state, job.reason, job.model) == ("skipped", STRANGE.reason, ward.toy.card.sha256)
    (told,) = ward.results("not-analyzed")
    assert "turned by a quarter" in told.ContentSequence[0].TextValue
    (record,) = ward.audit("job.skipped")
    assert (record.detail["strangeness"], record.detail["looks"]) == (0.93, "rotated")
    assert ward.results() == []


def test_a_usual_one_is_analyzed_and_the_log_has_its_strangeness(ward: Any) -> None:
    ward.toy.guard = USUAL
    ward.receive(ward.image(1))
    ward.read()
    (record,) = ward.audit("job.analyzed")
    assert record.detail["strangeness"] == 0.02 and "looks" not in record.detail


def test_a_site_may_have_it_analyzed_and_every_result_says_so(ward: Any) -> None:
    ward.start("sr", "text-sr", "sc", "ko", "json", "fhir", scope={"learned": "flag"})
    ward.toy.guard = STRANGE
    ward.receive(ward.image(1))
    ward.read()
    sentence = "The picture looks turned by a quarter: its scores may mean nothing."
    for writer in ("sr", "text-sr", "ko"):
        (result,) = ward.results(writer)
        assert sentence in " ".join(str(e.value) for e in result.iterall() if e.keyword == "TextValue")
    assert sentence in str(ward.results("sc")[0].ImageComments)
    plain, fhir = (
        ward.store.spool.path(d.file).read_text() for d in ward.deliveries() if d.writer in {"json", "fhir"}
    )
    assert json.loads(plain)["images"][0]["unlike"] == sentence and sentence in fhir
    assert ward.states() == ["done"]


def test_a_flag_is_another_object_than_none(ward: Any) -> None:
    """The same image read anew after the database was lost: what says more must not have the UID of what says less."""
    from dataclasses import replace

    from node.analyze.pipeline import Occasion

    ward.start(scope={"learned": "flag"})
    ward.receive(ward.image(1))
    pipeline = ward.pipeline()
    (file,) = [ward.store.spool.path(job.file) for job in ward.jobs()]
    made = set()
    for guard in (None, USUAL, STRANGE):
        ward.toy.guard = guard
        (outcome,) = pipeline.read([file])
        occasion = Occasion(ward.at)
        (result,) = pipeline.report([("sha256:1", outcome)], [("sr", "comprehensive3d")], occasion)
        made.add(result.sop_instance)
    ward.toy.card = replace(ward.toy.card, thresholds=dict.fromkeys(ward.toy.card.labels, 0.6))
    (result,) = pipeline.report([("sha256:1", outcome)], [("sr", "comprehensive3d")], occasion)
    assert len({*made, result.sop_instance}) == 3


def test_a_site_may_not_want_to_hear_it(ward: Any) -> None:
    ward.start(scope={"learned": "off"})
    ward.toy.guard = STRANGE
    ward.receive(ward.image(1))
    ward.read()
    (record,) = ward.audit("job.analyzed")
    assert "strangeness" not in record.detail


@pytest.mark.parametrize("learned", ["skip", "flag", "off"])
def test_where_the_header_is_silent_the_guard_decides(
    ward: Any, open_decoders: Decoders, learned: str
) -> None:
    ward._decoders = open_decoders
    ward.start(scope={"learned": learned, "unknown_view": "model"})
    # nobody is there to ask; it looks usual; it does not; and where the header says enough
    for number, guard in enumerate((None, USUAL, STRANGE, None), 1):
        ward.toy.guard = guard
        silent = {"ViewPosition": "", "SeriesDescription": "", "ViewCodeSequence": None} if number < 4 else {}
        ward.receive(ward.image(number, **silent))
        ward.read()
    nobody, usual, strange, stated = ward.jobs()
    assert (nobody.state, nobody.reason) == ("skipped", f"{SILENT}: stored, not analyzed (site rule)")
    assert usual.state == stated.state == "done"
    assert (strange.state, strange.reason) == ("skipped", f"{SILENT}. {STRANGE.reason}")
