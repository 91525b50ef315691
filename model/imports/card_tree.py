"""The card of an imported model: what is known of it, and that the rest is not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model import card
from model.card_text import Tree
from model.imports.preprocess import Preprocess

INTENDED_USE = """
Imported for research: scoring frontal chest radiographs, to learn what this network is worth here. Not judged on
any image of this site yet. Not a medical device, not for diagnosis or any clinical decision.
"""
LIMITS = """
Imported from a file. On which patients, pictures and labels it was trained, and on which it was ever judged, is not
known here: ages, views, detectors, prevalence, and what it calls a finding. Scores are not calibrated: a score is not
a probability. The pictures are scaled to the network's input by a bilinear filter, which may not be the one of its
training. A low score rules nothing out.
"""
UNCHOSEN = """
0.5 for each finding: nobody chose it. `hilum model evaluate` with --rule and --write-card chooses by images of yours.
"""
GIVEN = "Given when the model was imported; by which images they were chosen is not known here."


@dataclass(frozen=True)
class Network:
    """What was written beside the card."""

    weights: str
    sha256: str
    size: int
    """Bytes."""
    architecture: str
    side: int
    channels: int
    hidden: tuple[int, ...] = ()
    """Of a VGG16 with a head of ours."""


def tree(
    *,
    name: str,
    version: str,
    network: Network,
    preprocess: Preprocess,
    labels: Sequence[str],
    columns: Sequence[int],
    display: Mapping[str, str],
    thresholds: Mapping[str, float],
    rule: str,
    how: str,
    files: Mapping[Path, str],
) -> Tree:
    """`files`: what it was imported from, and their SHA-256; `columns`: empty where all outputs are the labels."""
    built: dict[str, Any] = {"architecture": network.architecture}
    if network.architecture == card.VGG16:
        built |= {"head": "flatten", "pools": ["block5_pool"], "hidden": list(network.hidden)}
    elif columns:
        built["columns"] = list(columns)
    shape: dict[str, Any] = {"size": network.side, "fit": "stretch"}
    if network.architecture != card.VGG16:
        shape["channels"] = network.channels
    return {
        "schema": card.SCHEMA,
        "name": name,
        "version": version,
        "intended_use": INTENDED_USE,
        "limits": LIMITS,
        "weights": {"file": network.weights, "sha256": network.sha256, "bytes": network.size},
        "network": built,
        "input": {
            **shape,
            "scale": preprocess.scale,
            "mean": list(preprocess.mean),
            "spread": list(preprocess.spread),
            "each_picture": preprocess.each_picture,
        },
        "thresholds": {"rule": rule},
        "data": {"source": "not known: the model was imported"},
        "imported": {
            "from": how,
            "files": [path.name for path in files],
            "sha256": [f"sha256:{found}" for found in files.values()],
        },
        "findings": [
            {"label": label, "display": display[label], "threshold": thresholds[label]} for label in labels
        ],
    }
