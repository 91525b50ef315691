"""`scripts/bench predict`: pictures through the shipped network: Keras's own `predict`, our TensorFlow graph, OpenVINO.

All three in one process by turns, batches and lone images; loading and memory in processes of their own. Decoding and
reports are not in it (`end-to-end`). Nothing else may run on the machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model import card, network
from model.card import SHIPPED
from model.classifier import Classifier
from model.pixels import Image, prepare
from model.runtime import openvino
from scripts.benchmarks import options, processes
from scripts.benchmarks.report import Column, Report
from scripts.benchmarks.rounds import Figures, Rounds, interleave, ratio
from scripts.benchmarks.senders import ROOT, Failed

KERAS, TENSORFLOW, OPENVINO = "keras predict", "tensorflow", "openvino"
ROWS = (KERAS, TENSORFLOW, OPENVINO)
BATCH = 8
"""Of Keras's predict, and of a worker."""
THROUGHPUT, LATENCY = 1.8, 0.7
"""Goals, OpenVINO's beside Keras's predict: images a second at least, seconds of a lone image at most."""

Predict = Callable[[Any], Any]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=15, metavar="N")
    parser.add_argument("--batches", type=int, default=4, metavar="N", help=f"of {BATCH} in a round")
    parser.add_argument("--lone", type=int, default=8, metavar="N", help="images alone in a round")
    parser.add_argument("--loads", type=int, default=5, metavar="N", help="of each, in fresh processes")
    parser.add_argument("--quick", action="store_true", help="3 rounds, one batch, one load: a look")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the converted network is kept")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures of every round")


def run(chosen: argparse.Namespace, root: Path, report: Report) -> int:
    if chosen.quick:
        chosen.batches, chosen.lone, chosen.loads = 1, 2, 1
    started = {name: start(name, root) for name in ROWS}
    size = card.load(SHIPPED).size
    report.heading(
        f"predict: {size} x {size}, float32, {os.cpu_count()} cores, OpenVINO {openvino.library().get_version()}"
    )
    pictures = drawn(BATCH)
    rows = {name: _row(predict, pictures, chosen) for name, predict in started.items()}
    found = interleave(rows, options.rounds(chosen), root)
    columns = [
        Column("images/s", 9, lambda _, figures: f"{statistics.median(f.rate for f in figures):.1f}"),
        Column("one image, ms", 14, lambda _, figures: f"{1e3 * _lone(figures):.1f}"),
    ]
    report.table(found, columns)
    report.ratios(OPENVINO, found, {KERAS: THROUGHPUT})
    _say_latency(report, found)
    report.keep("predict", {"batch": BATCH, "batches": chosen.batches, "lone": chosen.lone}, found)
    _say_loading(report, root, chosen.loads)
    return 0


def start(name: str, root: Path) -> Predict:
    """What takes (n, size, size, 3) and says scores."""
    if name == KERAS:
        filled = network.load(card.load(SHIPPED))
        return lambda batch: filled.predict(batch, batch_size=BATCH, verbose=0)
    return Classifier.load(SHIPPED, "openvino" if name == OPENVINO else "tensorflow", root).look


def drawn(count: int) -> Any:
    """Pictures of noise as the network sees them; none takes longer than another."""
    side = np.random.default_rng(0)
    size = card.load(SHIPPED).size
    images = [Image(side.random((size, size), np.float32)) for _ in range(count)]
    return np.stack([prepare(image, card.load(SHIPPED)) for image in images])


def _row(predict: Predict, pictures: Any, chosen: argparse.Namespace) -> Callable[[Path], Figures]:
    """One round: some batches, then some pictures alone, each timed by itself; the first of each kind warms up."""

    def measure(_: Path) -> Figures:
        predict(pictures)
        began = time.perf_counter()
        for _ in range(chosen.batches):
            predict(pictures)
        rate = chosen.batches * len(pictures) / (time.perf_counter() - began)
        predict(pictures[:1])
        alone = []
        for number in range(chosen.lone):
            one = pictures[number % len(pictures)][None]
            began = time.perf_counter()
            predict(one)
            alone.append(time.perf_counter() - began)
        return Figures(rate, whole=alone)

    return measure


def _lone(figures: Sequence[Figures]) -> float:
    return statistics.median(seconds for each in figures for seconds in each.whole)


def _say_latency(report: Report, found: Rounds) -> None:
    """Of one image, medians within each round."""
    times = {name: [Figures(statistics.median(f.whole)) for f in figures] for name, figures in found.items()}
    report.line("")
    for other in (KERAS, TENSORFLOW):
        r = ratio(times[OPENVINO], times[other])
        goal = f"  <= {LATENCY:g}  {'reached' if r.low <= LATENCY else 'MISSED'}" if other == KERAS else ""
        report.line(
            f"one image: {OPENVINO} takes {r.median:.2f} [{r.low:.2f}, {r.high:.2f}] of {other}'s time{goal}"
        )


def _say_loading(report: Report, root: Path, loads: int) -> None:
    """To the first scores, TensorFlow's or OpenVINO's import included; the most memory ever resident, batches of 8
    included."""
    report.line(f"\n{'':20}{'load s':>8} {'peak MB':>8}")
    kept_figures: Rounds = {}
    for name in ROWS:
        told = [_load_alone(name, root) for _ in range(loads)]
        kept_figures[name] = [Figures(1 / one["seconds"], peak=int(one["peak"])) for one in told]
        seconds, peak = statistics.median(o["seconds"] for o in told), max(o["peak"] for o in told)
        report.line(f"{name:20}{seconds:8.2f} {peak / 1e6:8.0f}")
    report.keep("loads a second", {"loads": loads}, kept_figures)


def _load_alone(name: str, root: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "scripts.benchmarks.predict", name, str(root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{name} could not be loaded: {done.stderr.strip().splitlines()[-1:]}")
    told: dict[str, float] = json.loads(done.stdout)
    return told


if __name__ == "__main__":
    began = time.perf_counter()
    predict = start(sys.argv[1], Path(sys.argv[2]))
    predict(drawn(1))
    seconds = time.perf_counter() - began
    for _ in range(3):
        predict(drawn(BATCH))
    print(json.dumps({"seconds": seconds, "peak": processes.peak_bytes([os.getpid()])}))
