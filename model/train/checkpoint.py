"""Where a run stands, after each epoch, on the disk: whole or the one before, whenever it is killed.

Chance needs no place in it: shuffles, augmentation and dropout follow from the seed and the number of the epoch. An
epoch that was not finished is run again, and comes to the same.
"""

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import BadData
from model.network import Weights

LAST, BEST = "last.npz", "best.npz"


@dataclass
class State:
    """What the next epoch needs."""

    weights: Weights
    """All of the network's, as the last step left them (not their average)."""
    memory: list[NDArray[Any]] = field(default_factory=list)
    """The optimizer's variables, with the average of the weights; empty at the start of a stage."""
    stage: int = 0
    """The recipe's stage, from 0; as many as there are stages: the run is done."""
    epoch: int = 0
    """Epochs of this stage that are done."""
    total: int = 0
    """Epochs of all stages that are done."""
    best: float = float("-inf")
    """The best mean AUROC on validation images so far; its weights lie in BEST."""
    best_epoch: int = 0
    since: int = 0
    """Epochs of this stage since its start, or since the best."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """A row an epoch: see loop.Row."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """The number of each image that was left out so far -> why."""


def save(folder: Path, state: State) -> None:
    """Writes LAST."""
    told = {key: value for key, value in vars(state).items() if key not in ("weights", "memory")}
    _write(
        folder / LAST,
        {f"weights/{name}": array for name, array in state.weights.items()}
        | {f"memory/{place:05d}": array for place, array in enumerate(state.memory)}
        | {"state": np.frombuffer(json.dumps(told).encode(), np.uint8)},
    )


def save_best(folder: Path, weights: Weights) -> None:
    """Writes BEST; before LAST, which then says whose it is."""
    _write(folder / BEST, weights)


def load(folder: Path) -> State | None:
    """The state that LAST holds; None where there is none. Raises BadData when it can't be read."""
    if not (folder / LAST).exists():
        return None
    arrays = _read(folder / LAST)
    told = json.loads(arrays.pop("state").tobytes())
    weights = {name[8:]: array for name, array in arrays.items() if name.startswith("weights/")}
    memory = [arrays[name] for name in sorted(arrays) if name.startswith("memory/")]
    return State(weights=weights, memory=memory, **told)


def load_best(folder: Path) -> Weights:
    """Raises BadData when they can't be read."""
    return _read(folder / BEST)


def _write(file: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Beside, to the disk, renamed, the folder to the disk: a power cut leaves the old one or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(file.name + ".part")
    with half.open("wb") as out:
        np.savez(out, allow_pickle=False, **dict(arrays))
        out.flush()
        os.fsync(out.fileno())
    half.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(file: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BadData(
            f"{file}: is no whole checkpoint ({type(error).__name__}); choose another --out"
        ) from error
