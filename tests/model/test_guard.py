"""The guard's file, and what it says of pictures."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model import card as cards
from model.card import SHIPPED, Card
from model.classifier import Classifier
from model.errors import BadModel
from model.guard import FILE, REASONS, SHOWN, UNLIKE, Fitted, Guard, read
from model.npz import write_arrays
from model.pixels import prepare
from model.train import wrong_pictures as wrong
from model.train.guard import write
from model.train.scope_pictures import look

FEATURES, DIRECTIONS = 6, 2


def fitted() -> Fitted:
    """Feature n speaks for the n-th kind; the last two are the directions of the distance."""
    eye = np.eye(FEATURES, dtype=np.float32)
    k = len(SHOWN)
    return Fitted(
        center=np.ones(FEATURES, np.float32),
        scale=np.full(FEATURES, 2, np.float32),
        basis=eye[:, k : k + DIRECTIONS],
        kernel=eye[:, :k],
        bias=np.zeros(k, np.float32),
        limits=np.full(k + 1, 3, np.float32),
        steps=np.ones(k + 1, np.float32),
    )


@pytest.fixture
def told(tmp_path: Path) -> Card:
    """A card whose scope file holds `fitted`."""
    write(fitted(), tmp_path / FILE)
    return replace(cards.load(SHIPPED), folder=tmp_path, scope=FILE)


def seen(**at: float) -> np.ndarray:
    """Features of an average picture, but for those kinds."""
    row = np.ones((1, FEATURES), np.float32)
    for kind, value in at.items():
        row[0, len(SHOWN) if kind == UNLIKE else SHOWN.index(kind)] += value
    return row


def test_an_average_picture_passes(told: Card) -> None:
    (said,) = Guard.load(told).judge(seen())
    assert not said.is_strange
    assert said.strangeness < 0.1
    assert (said.kind, said.reason) == ("", "")


@pytest.mark.parametrize("kind", SHOWN)
def test_a_picture_over_a_kinds_limit_is_named_by_it_with_a_sentence(told: Card, kind: str) -> None:
    (said,) = Guard.load(told).judge(seen(**{kind: 2.0}))
    assert said.is_strange
    assert said.strangeness > 0.5
    assert (said.kind, said.reason) == (kind, REASONS[kind])
    assert said.reason.endswith(": stored, not analyzed")


def test_a_picture_that_looks_like_a_child_is_strange_only_until_somebody_knows_the_age(told: Card) -> None:
    guard = Guard.load(told)
    (child,), (rotated,) = guard.judge(seen(child=9.0)), guard.judge(seen(child=9.0, rotated=2.0))
    assert child.kind == "child" and child.grown and not child.grown.is_strange
    assert child.grown.strangeness < 0.5
    assert rotated.kind == "rotated" and rotated.grown is None


def test_one_that_is_far_from_every_chest_is_unlike_and_nearer_ones_are_named_by_what_they_are(
    told: Card,
) -> None:
    guard = Guard.load(told)
    assert guard.judge(seen(unlike=100.0, inverted=9.0))[0].kind == UNLIKE
    assert guard.judge(seen(unlike=2.9))[0].kind == UNLIKE
    assert guard.judge(seen(unlike=2.9, inverted=2.0))[0].kind == "inverted"
    assert guard.judge(seen(child=9.0, inverted=2.0))[0].kind == "inverted"


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_features_that_are_no_numbers_are_strange(told: Card, value: float) -> None:
    with np.errstate(all="ignore"):
        (said,) = Guard.load(told).judge(seen(rotated=value))
    assert said.is_strange
    assert 0.5 <= said.strangeness <= 1


def test_features_of_another_network_are_refused(told: Card) -> None:
    with pytest.raises(BadModel, match="is for 6 features, the network has 7"):
        Guard.load(told).judge(np.ones((1, 7), np.float32))


def test_a_file_written_and_read_says_the_same_and_the_same_guard_is_the_same_bytes(tmp_path: Path) -> None:
    write(fitted(), tmp_path / "a.npz")
    write(fitted(), tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    features = np.random.default_rng(1).normal(1, 1, (5, FEATURES)).astype(np.float32)
    np.testing.assert_allclose(
        read(tmp_path / "a.npz").excess(features), fitted().excess(features), atol=1e-5
    )


def _changed(**arrays: np.ndarray | None) -> dict[str, np.ndarray]:
    whole = {name: getattr(fitted(), name) for name in Fitted.__dataclass_fields__} | arrays
    return {name: array for name, array in whole.items() if array is not None}


@pytest.mark.parametrize(
    ("arrays", "told_so"),
    [
        (_changed(steps=None), "must hold"),
        (_changed(more=np.ones(1, np.float32)), "must hold"),
        (_changed(kernel=np.ones((FEATURES, 1), np.float32)), "kernel has shape"),
        (_changed(basis=np.ones(FEATURES, np.float32)), "basis has shape"),
        (_changed(basis=np.ones((FEATURES, 0), np.float32)), "basis has shape"),
        (_changed(limits=np.ones(2, np.float32)), "limits has shape"),
        (_changed(steps=np.zeros(len(SHOWN) + 1, np.float32)), "steps"),
        (_changed(bias=np.full(len(SHOWN), np.nan, np.float32)), "finite"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_by_name(
    told: Card, arrays: dict[str, np.ndarray], told_so: str
) -> None:
    write_arrays(told.folder / FILE, arrays)
    with pytest.raises(BadModel, match=told_so) as refused:
        Guard.load(told)
    assert FILE in str(refused.value)


@pytest.mark.parametrize("rubbish", [b"", b"no archive", b"\x80\x04K\x01."])
def test_rubbish_is_refused(told: Card, rubbish: bytes) -> None:
    (told.folder / FILE).write_bytes(rubbish)
    with pytest.raises(BadModel, match=r"no readable"):
        Guard.load(told)


@pytest.fixture(scope="module")
def says(shared_data: Path) -> Callable[[str, wrong.Made], str]:
    """What the shipped guard takes an X-ray for, once it is changed."""
    if not cards.load(SHIPPED).scope:
        pytest.skip("the shipped model has no guard yet")
    shipped = Classifier.load(SHIPPED)

    def say(name: str, make: wrong.Made) -> str:
        image = make(look(shared_data / "xray/images" / name), np.random.default_rng(0))
        (found,) = shipped.look(prepare(image, shipped.card)[None])
        assert found.scoped is not None
        return found.scoped.kind

    return say


@pytest.mark.parametrize("name", ["nih_00000001_000.jpg", "nih_00000002_000.jpg"])
def test_the_shipped_guard_lets_a_chest_pass_and_names_what_is_done_to_it(
    says: Callable[[str, wrong.Made], str], name: str
) -> None:
    assert says(name, lambda image, _: image) == ""
    assert says(name, wrong.inverted) == "inverted"
    assert says(name, wrong.turned_left) == "rotated"
    assert says(name, wrong.on_its_head) == "rotated"
    assert says(name, lambda _, random: wrong.noise(random)) != ""
