"""Stages and epochs: each epoch trains, scores the validation images, is written down, and may be the last.

The whole of a run's progress is a `checkpoint.State`; `train_on` takes one up wherever it stands.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model import network
from model.errors import BadData
from model.network import HEAD, Weights
from model.progress import steps
from model.table import Table
from model.train import checkpoint, tuned
from model.train.augment import AS_IT_IS
from model.train.checkpoint import State
from model.train.exact import lesson, solve
from model.train.inputs import Fresh, Inputs, Kept, fill, keep, lowest_cut
from model.train.loss import losses, targets
from model.train.measure import FIGURES, MEAN, Measured, measure
from model.train.pictures import Floats, Pictures, Rows
from model.train.recipe import Recipe, Stage
from model.train.tuned import cut_of

BATCH = 16
"""Images a step where no stage says how many."""
SAMPLE = 1000
"""Training images by which features are standardized; more move no mean by a twentieth of a spread."""

Row = dict[str, Any]
"""An epoch: `epoch` (from 1, over all stages), `stage`, `loss` (as the recipe weighs it, over the epoch's steps), and
`measure`'s at its end: `training` on a sample of the training images, as they are, and `validation`."""


@dataclass(frozen=True)
class Run:
    """What does not change while a run goes on. Images go by their numbers in the table."""

    recipe: Recipe
    seed: int
    table: Table
    pictures: Pictures
    training: Rows
    validation: Rows
    cache: Path
    checkpoints: Path

    @property
    def sample(self) -> Rows:
        """As many training images as there are for validation: how far what is learnt by heart runs ahead."""
        random = np.random.default_rng([self.seed, 0])
        return np.sort(random.permutation(self.training)[: len(self.validation)])


def train_on(run: Run, state: State, told: Callable[[State], None]) -> State:
    """From `state` to the end of the last stage; `told` is called after each epoch, its checkpoint written."""
    run.pictures.unreadable.update({int(number): reason for number, reason in state.unreadable.items()})
    if state.history:
        told(state)  # the kill may have come between the checkpoint and what is made from it
    if run.recipe.network.standardize and tuned.MIDDLE not in state.weights:
        state.weights |= _standard(run, state.weights)
    if run.recipe.exact.strengths and not state.history:
        _solve(run, state, told)
    while state.stage < len(run.recipe.stages):
        _train_stage(run, state, told)
        state.weights = checkpoint.load_best(run.checkpoints)
        state.memory, state.epoch, state.since = [], 0, 0
        state.stage += 1
        checkpoint.save(run.checkpoints, state)
    return state


def _solve(run: Run, state: State, told: Callable[[State], None]) -> None:
    """The exact head on the frozen layers: of the recipe's strengths the one with the best validation."""
    recipe = run.recipe
    training, validation = (
        _features(run, state.weights, run.training),
        _features(run, state.weights, run.validation),
    )
    read = [int(number) not in run.pictures.unreadable for number in run.training]
    rows = np.zeros(len(run.table), np.bool_)
    rows[run.training[read]] = True
    given = lesson(run.table, rows, recipe.exact.borrowed)
    widths = [network.width_of(pool) for pool in recipe.network.pools]
    sampled = training[np.isin(run.training, run.sample)]
    heads = solve(training[read], widths, given, recipe.exact.strengths)
    for strength, head in zip(recipe.exact.strengths, heads, strict=True):
        measured = _measured(run, run.validation, head.scores(validation).astype(np.float32))
        learnt = _measured(run, run.sample, head.scores(sampled).astype(np.float32))
        if (mean := measured["labels"][MEAN]["auroc"]) > state.best:
            state.best = mean
            state.weights |= tuned.as_trained(head, state.weights)
            row = {"epoch": 0, "stage": f"exact, {strength:g}", "loss": np.nan}
            state.history = [{**row, "training": learnt, "validation": measured}]
    checkpoint.save_best(run.checkpoints, state.weights)
    checkpoint.save(run.checkpoints, state)
    print(f"exact head: validation mean AUROC {state.best:.4f}", file=sys.stderr, flush=True)
    told(state)


def _train_stage(run: Run, state: State, told: Callable[[State], None]) -> None:
    """Epochs until the stage has had its number of them, or `patience` of them without a better one."""
    recipe, stage = run.recipe, run.recipe.stages[state.stage]
    if _over(run, state):
        return
    inputs = _inputs(run, stage.cut, state.weights)
    wanted = targets(run.table, recipe)
    count = -(-len(run.training) // stage.batch)
    functions = losses(recipe, wanted[HEAD][run.training])
    part = tuned.trained_part(recipe, stage, state.weights, functions, count, run.seed)
    if state.memory:
        tuned.remember(part, state.memory)
    while not _over(run, state):
        loss = _epoch(run, stage, part, inputs, wanted, state.total + 1)
        if not np.isfinite(loss):
            raise BadData(f"stage {stage.name}: the loss is no number any more; lower its rate in the recipe")
        state.weights = state.weights | tuned.taken(part)
        state.memory = tuned.memory_of(part)
        averaged = state.weights | tuned.averaged(part, state.weights)
        fill(part, averaged)
        learnt, measured = (_judge(run, stage, part, inputs, rows) for rows in (run.sample, run.validation))
        fill(part, state.weights)
        _note(run, state, stage, loss, learnt, measured, averaged)
        state.unreadable = {str(number): reason for number, reason in run.pictures.unreadable.items()}
        checkpoint.save(run.checkpoints, state)
        told(state)


def _over(run: Run, state: State) -> bool:
    return state.epoch >= run.recipe.stages[state.stage].epochs or state.since >= run.recipe.training.patience


def _epoch(run: Run, stage: Stage, part: Any, inputs: Inputs, wanted: dict[str, Floats], epoch: int) -> float:
    """One pass over the training images in an order of its own; the mean loss of an image."""
    random = np.random.default_rng([run.seed, epoch])
    order = random.permutation(run.training)
    views = run.recipe.training.views
    moments = random.integers(0, views, len(order)) if views else np.full(len(order), epoch)
    tuned.reseed(part, run.seed, epoch)
    total = 0.0
    for numbers, arrays in _fed(run, inputs, order, moments, stage.batch, f"{stage.name}, epoch {epoch}"):
        aims = {name: _padded(values[numbers], stage.batch) for name, values in wanted.items()}
        left_out = [place for place, number in enumerate(numbers) if int(number) in run.pictures.unreadable]
        for aim in aims.values():
            aim[left_out] = np.nan
        part.reset_metrics()
        told = part.train_on_batch(arrays, aims, return_dict=True)
        total += float(told["loss"]) * stage.batch
    return total / len(order)


def _judge(run: Run, stage: Stage, part: Any, inputs: Inputs, rows: Rows) -> Measured:
    """How the network as it is filled does on these images, as they are."""
    moments = np.full(len(rows), AS_IT_IS)
    found = [
        tuned.scores(np.asarray(part.predict_on_batch(arrays)[HEAD]))[: len(numbers)]
        for numbers, arrays in _fed(run, inputs, rows, moments, stage.batch, "figures")
    ]
    return _measured(run, rows, np.concatenate(found))


def _measured(run: Run, rows: Rows, scores: Floats) -> Measured:
    scores[[int(number) in run.pictures.unreadable for number in rows]] = np.nan
    return measure(run.table.labels[rows], scores, run.recipe.labels, run.recipe.thresholds.least)


def _note(
    run: Run,
    state: State,
    stage: Stage,
    loss: float,
    learnt: Measured,
    measured: Measured,
    averaged: Weights,
) -> None:
    """Takes an epoch into the state; the best one's weights to the disk."""
    state.epoch += 1
    state.total += 1
    state.since += 1
    mean = measured["labels"][MEAN]["auroc"]
    if mean > state.best:
        state.best, state.best_epoch, state.since = mean, state.total, 0
        checkpoint.save_best(run.checkpoints, averaged)
    row: Row = {"epoch": state.total, "stage": stage.name, "loss": loss}
    state.history.append({**row, "training": learnt, "validation": measured})
    print(
        f"{stage.name} {state.epoch}/{stage.epochs}: loss {loss:.4f}; validation: loss {measured['loss']:.4f}, "
        f"mean AUROC {mean:.4f} (best {state.best:.4f}, epoch {state.best_epoch})",
        file=sys.stderr,
        flush=True,
    )


def _inputs(run: Run, cut: str, weights: Weights) -> Inputs:
    """What the layers before `cut` say: kept where the recipe asks for fixed views, else computed each time."""
    recipe = run.recipe
    if not recipe.training.views:
        return Fresh(run.pictures, cut_of(recipe, cut), weights)
    lowest = lowest_cut(recipe.network, [stage.cut for stage in recipe.stages] or [HEAD])

    def kept(before: str, lower: Kept | None, start: str) -> Kept:
        where = cut_of(recipe, before)
        return keep(run.pictures, where, weights, run.cache, recipe.training.views, lower, start)

    first = kept(lowest, None, network.LAYERS[0])
    return first if cut == lowest else kept(cut, first, lowest)


def _standard(run: Run, weights: Weights) -> Weights:
    """Middle and spread of the features of some training images, as the untrained layers say them."""
    recipe = run.recipe
    random = np.random.default_rng([run.seed, 0])
    rows = np.sort(random.permutation(run.training)[:SAMPLE])
    found = _features(run, weights, rows)
    together = found[[int(number) not in run.pictures.unreadable for number in rows]]
    if recipe.network.head == "flatten":
        return tuned.spread_of(together, [together.shape[1]])
    pools = recipe.network.pools
    return tuned.spread_of(together, [network.carried_shapes(recipe.size, (p,), HEAD)[0][0] for p in pools])


def _features(run: Run, weights: Weights, rows: Rows) -> Floats:
    """What the head reads of these images as they are, before any standardization: (n, features)."""
    recipe = run.recipe
    cuts = [stage.cut for stage in recipe.stages]
    lowest = lowest_cut(recipe.network, cuts or [HEAD])
    inputs = _inputs(run, lowest, weights)
    above = cut_of(recipe, HEAD).above(lowest, weights)
    batch = recipe.stages[0].batch if cuts else BATCH
    found = []
    for numbers, arrays in _fed(run, inputs, rows, np.full(len(rows), AS_IT_IS), batch, "features"):
        features = arrays if lowest == HEAD else above.predict_on_batch(arrays)
        features = features[0] if isinstance(features, list) else features
        found.append(np.asarray(features, np.float32)[: len(numbers)])
    return np.concatenate(found)


def _fed(
    run: Run, inputs: Inputs, rows: Rows, moments: Rows, size: int, what: str
) -> Iterator[tuple[Rows, list[Floats]]]:
    """The rows in batches: their numbers, and their arrays of `size` rows each, padded."""
    starts = range(0, len(rows), size)
    picked: Sequence[tuple[Rows, Rows]] = [(rows[s : s + size], moments[s : s + size]) for s in starts]
    with closing(inputs.batches(picked, size)) as batches:
        yield from zip(steps(what, [numbers for numbers, _ in picked]), batches, strict=False)


def _padded(values: Floats, size: int) -> Floats:
    """Rows beyond the last are unknown: every batch has one shape, and none of them is lost."""
    padded = np.full((size, *values.shape[1:]), np.nan, np.float32)
    padded[: len(values)] = values
    return padded


def flat(row: Row) -> dict[str, float]:
    """A row's numbers under one name each: `validation/Mass/auroc`."""
    found = {"training/loss": row["loss"], "validation/loss": row["validation"]["loss"]}
    for split in ("training", "validation"):
        for label, figures in row[split]["labels"].items():
            found |= {f"{split}/{label}/{figure}": figures[figure] for figure in FIGURES}
    return found
