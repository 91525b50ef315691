"""A mark shows where a score comes from: held to pictures whose answer is known, and to networks that know nothing."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import card as cards
from model import network, phantom, pixels
from model.card import Card
from model.classifier import Classifier
from model.explain import CORNERS, Explainer, Mark, connected, mark, outline, spread
from model.table import OPACITY

SIDE = 64
LABELS = ("Effusion", "Mass", "Edema")
HEADS: dict[str, dict[str, Any]] = {
    "averages": {"head": "averages", "pools": ("block3_pool", "block5_pool"), "hidden": (12, 8)},
    "roots": {"head": "roots", "pools": ("block4_pool/3", "block3_pool", "block4_pool"), "hidden": (12,)},
    "flatten": {"head": "flatten", "pools": ("block4_pool",), "hidden": (16, 8)},
    "linear": {"head": "averages", "pools": ("block3_pool/3", "block4_pool"), "hidden": ()},
}


@pytest.fixture(scope="module")
def shipped() -> Classifier:
    return Classifier.load(cards.SHIPPED)


def tiny(kind: str) -> tuple[Explainer, Any]:
    """An Explainer of a small network with random weights, and the network."""
    card = replace(
        cards.load(cards.SHIPPED), size=SIDE, labels=LABELS, thresholds=dict.fromkeys(LABELS, 0.5), **HEADS[kind]
    )  # fmt: skip
    filled = network.build(SIDE, card.pools, len(LABELS), card.head, card.hidden)
    randomize(filled, [layer.name for layer in filled.layers], seed=1)
    return Explainer(filled, card), filled


def randomize(filled: Any, names: list[str], seed: int = 0) -> None:
    """He's normal weights and no biases into the layers of these names."""
    rng = np.random.default_rng(seed)
    for layer in filled.layers:
        if layer.name in names and layer.weights:
            kernel, bias = layer.get_weights()
            spread_of = np.sqrt(2 / np.prod(kernel.shape[:-1]))
            layer.set_weights([rng.normal(0, spread_of, kernel.shape), np.zeros_like(bias)])


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-100, 100, (count, SIDE, SIDE, 3)).astype(np.float32)


def chest(card: Card, seed: int, *, patch: bool) -> np.ndarray:
    return pixels.prepare(pixels.read(phantom.draw(seed, patch=patch)), card)


def ranks(plane: np.ndarray) -> np.ndarray:
    return plane.ravel().argsort(kind="stable").argsort()


def alike(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation of two planes."""
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


@pytest.mark.parametrize("kind", HEADS)
def test_every_head_gives_marks_that_do_not_depend_on_the_batch(kind: str) -> None:
    explainer, _ = tiny(kind)
    pictures = noise(3)
    wanted = [LABELS, LABELS[:1], LABELS[1:]]

    together = explainer.explain(pictures, wanted)

    assert [tuple(marks) for marks in together] == [tuple(labels) for labels in wanted]
    for picture, labels, marks in zip(pictures, wanted, together, strict=True):
        alone = explainer.explain(picture[None], [labels])[0]
        for label in labels:
            one, other = marks[label], alone[label]
            assert one.heat.shape == (SIDE, SIDE)
            assert (one.heat.min(), one.heat.max()) == (0, 1)
            assert np.abs(one.heat - other.heat).max() < 1e-3
            assert np.abs(np.subtract(one.outline, other.outline)).max() < 1e-3


def test_the_same_picture_twice_gives_equal_bytes() -> None:
    explainer, _ = tiny("roots")
    one, other = (explainer.explain(noise(1), [LABELS])[0] for _ in range(2))
    assert all(one[label].heat.tobytes() == other[label].heat.tobytes() for label in LABELS)
    assert all(one[label].outline == other[label].outline for label in LABELS)


@pytest.mark.parametrize("kind", HEADS)
def test_slopes_are_those_of_the_logit(kind: str) -> None:
    """Held to the network itself: its answer to a step along the slopes."""
    explainer, filled = tiny(kind)
    features = explainer.look(noise(1)[0] / 50).features  # so that no sigmoid is at its end
    first = network.keras().Model(
        filled.get_layer("hidden1" if explainer.card.hidden else network.HEAD).input, filled.outputs[0]
    )

    def logit(values: np.ndarray, column: int) -> float:
        score = float(np.asarray(first.predict_on_batch(values[None].astype(np.float32)))[0, column])
        return float(np.log(score / (1 - score)))

    for column in range(len(LABELS)):
        slopes = explainer.slopes(features, column)
        step = slopes * (0.02 / (slopes**2).sum())
        rise = logit(features + step, column) - logit(features - step, column)
        assert rise == pytest.approx(0.04, rel=0.1)


@pytest.mark.parametrize("pool", ["block4_pool", "block4_pool/2", "block4_pool/3", "block4_pool/7"])
def test_what_the_places_say_adds_up_to_what_the_head_reads(pool: str) -> None:
    """A linear head's answer to a pool's averages is the mean over the picture of what each place says."""
    rng = np.random.default_rng(2)
    card = replace(cards.load(cards.SHIPPED), size=224, pools=(pool,), head="averages")
    pooled = network.segment(224, card.pools, "block4_pool", network.HEAD)
    above = rng.random((1, 28, 28, 512), np.float32)
    said = pooled.predict_on_batch([above])
    features = np.asarray(said[0] if isinstance(said, list) else said).ravel()
    at = above[0].reshape(14, 2, 14, 2, 512).max(axis=(1, 3))
    slopes = rng.normal(size=len(features))

    places = (at * spread(slopes, pool, at.shape)).sum(axis=-1)

    assert places.mean() == pytest.approx(float(features @ slopes), rel=1e-4, abs=1e-3)


def test_a_bright_patch_is_found_by_a_network_that_tells_bright_from_dark() -> None:
    """Convolutions that pass the grey level on, and a head that adds it up: only the patch can be the reason."""
    card = replace(
        cards.load(cards.SHIPPED), size=SIDE, labels=("Bright", "Dark"), pools=("block3_pool",), head="averages"
    )  # fmt: skip
    filled = network.build(SIDE, card.pools, 2)
    for layer in filled.layers:
        if layer.weights:
            kernel, bias = (np.zeros_like(array) for array in layer.get_weights())
            if layer.name == network.HEAD:
                kernel[0] = 1, -1
            else:
                kernel[1, 1, 0, 0] = 1
            layer.set_weights([kernel, bias])
    explainer = Explainer(filled, card)

    for row, column in ((0, 0), (16, 40), (40, 8), (48, 48)):
        picture = np.full((SIDE, SIDE, 3), 10, np.float32)
        picture[row : row + 16, column : column + 16] = 100
        marks = explainer.explain(picture[None], [("Bright", "Dark")])[0]
        y, x = np.unravel_index(marks["Bright"].heat.argmax(), (SIDE, SIDE))
        assert row <= y < row + 16 and column <= x < column + 16
        assert marks["Dark"].heat[row + 4 : row + 12, column + 4 : column + 12].max() == 0
        middle = np.mean(marks["Bright"].outline, axis=0) * SIDE
        assert np.abs(middle - (column + 8, row + 8)).max() < 3


def test_a_patch_in_a_drawn_chest_is_found_by_a_head_that_has_learnt_only_the_patch(
    shipped: Classifier,
) -> None:
    """The head is the difference of what the network reads with and without the patch, on other drawings."""
    filled = network.load(shipped.card)
    looker = Explainer(filled, shipped.card)
    read = [
        [looker.look(chest(shipped.card, seed, patch=p)).features for p in (True, False)] for seed in range(2)
    ]
    change = np.array([on - off for on, off in read])
    head = filled.get_layer(network.HEAD)
    kernel = np.zeros((change.shape[1], len(shipped.card.labels)), np.float32)
    kernel[:, 0] = change.mean(axis=0) / (change.std(axis=0) + 0.01)
    head.set_weights([kernel, np.zeros(len(shipped.card.labels))])
    label = shipped.card.labels[0]
    explainer = Explainer(filled, shipped.card)

    for seed in (7, 8):
        with_patch, without = (phantom.picture(seed, patch=patch) for patch in (True, False))
        blocks = (with_patch - without).reshape(64, 16, 64, 16).mean(axis=(1, 3))
        made = explainer.explain(chest(shipped.card, seed, patch=True)[None], [[label]])[0][label]
        y, x = np.unravel_index(made.heat.argmax(), made.heat.shape)
        assert blocks[y * 64 // 224, x * 64 // 224] > 0.02


def test_random_weights_destroy_the_map(shipped: Classifier) -> None:
    """Adebayo et al., 2018: a map that outlives the network's knowledge shows the picture, not the reason."""
    pictures = [chest(shipped.card, seed, patch=True) for seed in (1, 2)]
    labels = (OPACITY, "Cardiomegaly", "Effusion")
    columns = [shipped.card.labels.index(label) for label in labels]
    filled = network.load(shipped.card)

    def maps() -> list[np.ndarray]:
        explainer = Explainer(filled, shipped.card)
        looks = [explainer.look(picture) for picture in pictures]
        return [explainer.map(look, column) for look in looks for column in columns]

    before = maps()
    found = []
    for part in ("head", "block5", "block4", "block3", "block2", "block1"):
        randomize(filled, [layer.name for layer in filled.layers if layer.name.startswith(part)])
        found.append(float(np.mean([alike(one, other) for one, other in zip(before, maps(), strict=True)])))

    # measured: 0.05, 0.01, 0.04, 0.03, 0.01, 0.09
    assert max(map(abs, found)) < 0.35


def test_another_finding_has_another_map(shipped: Classifier) -> None:
    picture = chest(shipped.card, 1, patch=True)
    one, other = (
        shipped.explain(picture[None], [[label]])[0][label].heat for label in (OPACITY, "Cardiomegaly")
    )
    assert alike(one, other) < 0.7  # measured: 0.30


def test_a_label_that_was_not_learnt_and_a_label_that_nobody_asked_for_have_no_mark(
    shipped: Classifier,
) -> None:
    """Too rare a label is a constant: its head's weights are 0, and no place is a reason for it."""
    filled = network.load(shipped.card)
    head = filled.get_layer(network.HEAD)
    kernel, bias = head.get_weights()
    kernel[:, 0] = 0
    head.set_weights([kernel, bias])
    mass, rare = "Mass", shipped.card.labels[0]
    picture = chest(shipped.card, 1, patch=False)

    made = Explainer(filled, shipped.card).explain(np.stack([picture, picture]), [(mass, rare), ()])

    assert [tuple(marks) for marks in made] == [(mass,), ()]


def test_what_can_not_be_explained_is_refused(shipped: Classifier) -> None:
    side = shipped.card.size
    assert shipped.explain(np.zeros((0, side, side, 3), np.float32), []) == []
    with pytest.raises(ValueError, match="shape"):
        shipped.explain(np.zeros((1, 8, 8, 3), np.float32), [[OPACITY]])
    with pytest.raises(ValueError, match="finite"):
        shipped.explain(np.full((1, side, side, 3), np.nan, np.float32), [[OPACITY]])
    with pytest.raises(KeyError, match="Dextrocardia"):
        shipped.explain(np.zeros((1, side, side, 3), np.float32), [["Dextrocardia"]])


def crosses(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> bool:
    """Whether the segments ab and cd share a point."""

    def turn(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> int:
        return int(np.sign((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])))

    def on(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> bool:
        return turn(p, q, r) == 0 and bool((np.minimum(p, q) <= r).all() and (r <= np.maximum(p, q)).all())

    if turn(a, b, c) != turn(a, b, d) and turn(c, d, a) != turn(c, d, b):
        return True
    return on(a, b, c) or on(a, b, d) or on(c, d, a) or on(c, d, b)


@settings(max_examples=60, deadline=None)
@given(
    side=st.sampled_from([4, 32, 97, 224]),
    seed=st.integers(0, 10_000),
    coarse=st.integers(1, 14),
    narrow=st.sampled_from([0.2, 1.0, 20.0]),
)
def test_an_outline_is_a_simple_polygon_inside_the_picture(
    side: int, seed: int, coarse: int, narrow: float
) -> None:
    rng = np.random.default_rng(seed)
    cells = rng.random((coarse, coarse)) ** narrow
    plane = np.kron(cells, np.ones((-(-side // coarse),) * 2))[:side, :side]
    made = mark(plane)
    assert isinstance(made, Mark)

    points = np.rint(np.array(made.outline) * 1000).astype(int)
    count = len(points)
    assert 3 <= count <= CORNERS
    assert ((points >= 0) & (points <= 1000)).all()
    edges = [(points[i], points[(i + 1) % count]) for i in range(count)]
    for i in range(count):
        for j in range(i + 2, count):
            if (j + 1) % count != i:
                assert not crosses(*edges[i], *edges[j])
    area = 0.5 * sum(int(a[0]) * int(b[1]) - int(b[0]) * int(a[1]) for a, b in edges)
    assert area > 400  # of 1,000,000: to be seen


def test_an_outline_holds_one_region_and_no_other() -> None:
    heat = np.zeros((100, 100), np.float32)
    heat[10:20, 30:50] = 1
    heat[20, 50] = 1  # touches by a corner only
    heat[60:90, 60:90] = 0.9
    heat[40:50, 30:50] = 0.4

    points = np.array(outline(heat))

    assert np.abs(points.min(axis=0) - (0.28, 0.08)).max() <= 0.02
    assert np.abs(points.max(axis=0) - (0.50, 0.20)).max() <= 0.02
    assert connected(heat >= 0.5, (10, 30)).sum() == 200


def test_an_outline_of_one_pixel_can_be_seen() -> None:
    heat = np.zeros((224, 224), np.float32)
    heat[0, 223] = 1
    points = np.array(outline(heat))
    assert (np.ptp(points, axis=0) > 0.02).all()


def test_no_evidence_is_no_mark() -> None:
    assert mark(np.zeros((8, 8))) is None
    assert mark(-np.ones((8, 8))) is None
