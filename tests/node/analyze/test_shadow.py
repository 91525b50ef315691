"""A second model reads what the first has read: it is logged, sends nothing, and harms nobody."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from model.errors import BadModel
from model.reader import Reader
from node import shadow
from node.analyze.shadow import Shadow

Ward = Any


@pytest.fixture
def second(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is loaded as the shadow: it finds a mass and no effusion."""
    toy = type(ward.toy)(
        replace(ward.toy.card, name="next", version="2", sha256="sha256:" + "cd" * 32), (0.3, 0.9)
    )
    monkeypatch.setattr(Reader, "load", classmethod(lambda *_, **__: Reader(toy)))
    monkeypatch.setattr("node.analyze.shadow.card.load", lambda _: toy.card)
    return toy


def begin(ward: Ward, folder: Path) -> Shadow | None:
    """The node starts with that shadow."""
    shadow.forget_trouble(ward.folder)
    ward.start(analyze={"shadow": folder})
    beside = Shadow.beside(ward.store, ward.settings, "worker-1:1", ward.pipeline())
    ward.worker = ward.another_worker("worker-1:1", beside)
    return beside


def look(beside: Shadow | None) -> None:
    while beside is not None and beside.waits:
        beside.look()


def test_it_reads_what_the_first_has_read_and_only_the_log_knows(
    ward: Ward, second: Any, tmp_path: Path
) -> None:
    beside = begin(ward, tmp_path)
    ward.receive(ward.image(1), ward.image(2, PatientAge="007Y"))
    ward.read()
    sent = [delivery.sop_instance for delivery in ward.deliveries()]
    assert ward.states() == ["done", "skipped"] and ward.audit("job.shadowed") == []
    look(beside)
    (record,) = ward.audit("job.shadowed")
    assert record.detail == {
        "job": 1,
        "model": "next",
        "version": "2",
        "sha256": second.card.sha256,
        "scores": {"Effusion": [0.3, 0.5], "Mass": [0.9, 0.5]},
        "first": ward.toy.card.sha256,
        "first_scores": {"Effusion": [0.8, 0.5], "Mass": [0.1, 0.5]},
        "differs": {"Effusion": False, "Mass": True},
    }
    assert [delivery.sop_instance for delivery in ward.deliveries()] == sent
    assert [found.raw for found in found_by(ward)] == pytest.approx([0.8, 0.1])


def found_by(ward: Ward) -> list[Any]:
    with ward.store.database.read() as tx:
        found: list[Any] = ward.store.jobs.found(tx, 1)
    return found


def test_it_sees_pictures_as_its_own_card_says(ward: Ward, second: Any, tmp_path: Path) -> None:
    seen: list[NDArray[Any]] = []
    say = second._run
    second._run = lambda batch: (seen.append(batch), say(batch))[1]
    beside = begin(ward, tmp_path)
    ward.receive(ward.image(1))
    ward.read()
    look(beside)
    # the pool prepares for a scale of 255 and, for the second, of 1
    (batch,) = seen
    assert batch.shape == (1, 224, 224, 3) and 0.5 < batch.max() <= 1


@pytest.mark.parametrize("fault", ["is gone", "does not load", "raises", "says rubbish", "killed the worker"])
def test_a_bad_one_is_told_once_a_start_and_the_first_goes_on(
    ward: Ward, second: Any, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Reader:
        raise BadModel("model/weights.npz: its hash is wrong")

    match fault:
        case "is gone":
            monkeypatch.undo()
        case "does not load":
            monkeypatch.setattr(Reader, "load", broken)
        case "raises":
            second._run = lambda batch: 1 / 0
        case "says rubbish":
            second.scores = (7.0, -1.0)
        case "killed the worker":
            monkeypatch.setattr(shadow, "forget_trouble", lambda _: None)
            shadow.trying_in(ward.folder, "worker-1").touch()
    first = begin(ward, tmp_path / "none")
    ward.receive(ward.image(1), ward.image(2))
    ward.read()
    look(first)
    # another worker, and the same after it was started again
    assert Shadow.beside(ward.store, ward.settings, "worker-2:7", ward.pipeline()) is None
    ward.receive(ward.image(3))
    ward.read()
    assert ward.states() == ["done"] * 3 and len(ward.results()) == 3
    (record,) = ward.audit("shadow.failed")
    assert record.outcome == "failure" and record.detail["reason"] == shadow.trouble(ward.folder)
    assert ward.audit("job.shadowed") == []


def test_what_does_not_fit_into_memory_is_left_out(
    ward: Ward, second: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.analyze.shadow.MOST_BYTES", 224 * 224 * 3 * 4)
    beside = begin(ward, tmp_path)
    ward.receive(ward.image(1), ward.image(2))
    ward.read()
    look(beside)
    assert [record.detail["job"] for record in ward.audit("job.shadowed")] == [1]


def test_the_model_that_runs_is_no_shadow_of_itself(ward: Ward, second: Any, tmp_path: Path) -> None:
    second.card = ward.toy.card
    assert begin(ward, tmp_path) is None
    assert ward.audit("shadow.failed") == []


def test_the_log_says_how_often_and_which_way_the_two_differ(ward: Ward, second: Any, tmp_path: Path) -> None:
    beside = begin(ward, tmp_path)
    for number, second.scores in enumerate([(0.3, 0.9), (0.9, 0.1), (0.9, 0.6)], 1):
        ward.receive(ward.image(number))
        ward.read()
        look(beside)
    with ward.store.database.read() as tx:
        assert len(ward.store.jobs.listing(tx)) == 3
    (found,) = shadow.compared(ward.audit("job.shadowed"))
    assert (found.model, found.version, found.images, found.same) == ("next", "2", 3, 1)
    told = found.as_json()["labels"]
    assert told["Effusion"] == {
        "images": 3, "agree": 2, "only_first": 1, "only_shadow": 0, "mean_difference": pytest.approx(-0.1),
    }  # fmt: skip
    assert told["Mass"] == {
        "images": 3, "agree": 1, "only_first": 0, "only_shadow": 2, "mean_difference": pytest.approx(0.4333),
    }  # fmt: skip


def test_other_thresholds_are_another_comparison(ward: Ward, second: Any, tmp_path: Path) -> None:
    for number, threshold in enumerate((0.5, 0.2), 1):
        second.card = replace(second.card, thresholds=dict.fromkeys(second.card.labels, threshold))
        beside = begin(ward, tmp_path)
        ward.receive(ward.image(number))
        ward.read()
        look(beside)
    assert [(each.images, each.same) for each in shadow.compared(ward.audit("job.shadowed"))] == [
        (1, 0),
        (1, 0),
    ]
