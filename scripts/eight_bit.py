"""Weights and activations of 8 bits: what they cost in AUROC, how far scores move, and how fast they are.

The convolutions are quantized by NNCF after training, calibrated on images of one fold of the patients, and judged on
the images of all others. Heads stay float32, fitted on float32 features without the fold that they judge: no AUROC is
of an image that trained its head or calibrated its network. Both sides are judged by the same heads.

NNCF is no part of Hilum. PYTHON is one of another environment that has it:

    python3 -m venv DIR && DIR/bin/pip install nncf==3.4.0 openvino==2026.4.1
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

FOLD = 0
"""Of whose patients the images are that calibrate."""
IMAGES = 300
BATCH = 8
PROBE = "from importlib.util import find_spec; raise SystemExit(not (find_spec('nncf') and find_spec('openvino')))"
FLOAT, EIGHT, PICTURES = "float.xml", "eight.xml", "pictures.npy"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/eight-bit", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--nncf", required=True, metavar="PYTHON", help="a Python that has NNCF and OpenVINO")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "hilum-features")
    parser.add_argument("--images", type=int, default=IMAGES, metavar="N", help="that calibrate")
    parser.add_argument("--quantize", type=Path, metavar="DIR", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.quantize:
        return quantize(chosen.quantize)
    if subprocess.run([chosen.nncf, "-c", PROBE], capture_output=True).returncode:
        print(f"eight-bit: {chosen.nncf} has no NNCF: python3 -m venv DIR && DIR/bin/pip install nncf==3.4.0 "
              "openvino==2026.4.1, then --nncf DIR/bin/python", file=sys.stderr)  # fmt: skip
        return 3
    with tempfile.TemporaryDirectory() as folder:
        judge(chosen, Path(folder))
    return 0


def judge(chosen: argparse.Namespace, folder: Path) -> None:
    from model import card, network
    from model import table as tables
    from model.train import linear
    from model.train.finish import blank_card
    from model.train.recipe import read_recipe

    recipe, shipped = read_recipe("hilum"), card.load(card.SHIPPED)
    table = tables.open_table(chosen.data / "xray/labels.csv", chosen.data / "xray/images", recipe.labels)
    table = table.only(table.ages >= recipe.min_age)
    weights = network.read_weights(shipped.weights_path)
    base = {name: array for name, array in weights.items() if not name.startswith(network.HEAD)}

    print("float32 features …", flush=True)
    exact = linear.extract(table, blank_card(recipe), base, chosen.cache)
    calibrating = np.flatnonzero(table.folds == FOLD)
    calibrating = np.random.default_rng(0).permutation(calibrating)[: chosen.images]
    np.save(
        folder / PICTURES, np.stack([linear.prepare(table.images[n], shipped) for n in sorted(calibrating)])
    )
    export(base, shipped, folder / FLOAT)
    print(f"quantizing with {len(calibrating)} images …", flush=True)
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder)}
    command = [chosen.nncf, __file__, "--data", ".", "--nncf", ".", "--quantize", str(folder)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, cwd=folder)

    judged = np.flatnonzero(table.folds != FOLD)
    print(f"8-bit features of {len(judged)} images …", flush=True)
    rough, rates = compute(folder, [table.images[n] for n in judged], shipped)
    report(table, recipe, exact, judged, rough, weights)
    sizes = [(folder / name).with_suffix(".bin").stat().st_size / 1e6 for name in (FLOAT, EIGHT)]
    print(f"weights: {sizes[0]:.1f} MB as float32, {sizes[1]:.1f} MB as 8 bits")
    print(f"images/s of the convolutions, batches of {BATCH}, by turns: ratio 8 bits / float32 {rates}")


def export(base: Any, shipped: Any, file: Path) -> None:
    """The convolutions and averages, up to what the head reads, as OpenVINO has them."""
    from model import network
    from model.runtime import openvino, tensorflow

    below = network.averages(shipped.size, shipped.pools, shipped.head)
    network.fill(below, base)
    library = openvino.library()
    converted = library.convert_model(tensorflow.graph_of(below, shipped).get_concrete_function())
    library.save_model(converted, file, compress_to_fp16=False)


def quantize(folder: Path) -> int:
    """Runs in the other environment: numpy, OpenVINO and NNCF are all that it needs."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import nncf
    import openvino

    pictures = np.load(folder / PICTURES)
    data = nncf.Dataset([picture[None] for picture in pictures])
    careful = nncf.AdvancedQuantizationParameters(
        # all weights in half their range: CPUs without VNNI add two products in 16 bits and would cut them off
        overflow_fix=nncf.OverflowFix.ENABLE
    )
    network = openvino.Core().read_model(folder / FLOAT)
    found = nncf.quantize(network, data, subset_size=len(pictures), advanced_parameters=careful)
    openvino.save_model(found, folder / EIGHT, compress_to_fp16=False)
    return 0


def compute(folder: Path, images: list[Path], shipped: Any) -> tuple[Any, str]:
    """8-bit features of the images (n, features); and the rate beside float32's, batches by turns on some of them."""
    from model.train import linear
    from scripts.benchmarks.rounds import Figures, ratio

    exact, eight = ready(folder / FLOAT), ready(folder / EIGHT)
    found: list[Any] = []
    floats: list[Figures] = []
    eights: list[Figures] = []
    for at in range(0, len(images), BATCH):
        batch = np.stack([linear.prepare(image, shipped) for image in images[at : at + BATCH]])
        began = time.perf_counter()
        found.append(eight(batch))
        took = time.perf_counter() - began
        if at and at % (8 * BATCH) == 0 and len(batch) == BATCH:
            began = time.perf_counter()
            exact(batch)
            floats.append(Figures(BATCH / (time.perf_counter() - began)))
            eights.append(Figures(BATCH / took))
    said = ratio(eights, floats)
    return np.concatenate(found), f"{said.median:.2f} [{said.low:.2f}, {said.high:.2f}] ({len(floats)} pairs)"


def ready(file: Path) -> Callable[[Any], Any]:
    from model.runtime import openvino

    core = openvino.core()
    compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()

    def run(batch: Any) -> Any:
        request.infer([batch], share_inputs=True)
        return np.array(request.get_output_tensor(0).data)

    return run


def report(table: Any, recipe: Any, exact: Any, judged: Any, rough: Any, weights: Any) -> None:
    """AUROC of both by the same heads, fitted without the fold that they judge; scores by the shipped head."""
    from dataclasses import replace

    from model.evaluate.auroc import auroc, paired_difference
    from model.table import FOLDS, OPACITY
    from model.train import linear
    from model.train.exact import Head

    middle = sorted(recipe.exact.strengths)[len(recipe.exact.strengths) // 2]
    alone = replace(recipe, exact=replace(recipe.exact, strengths=(middle,)))
    whole = np.array(exact)
    whole[judged] = rough
    by_float, by_eight = (np.full(table.labels.shape, np.nan) for _ in range(2))
    for fold in range(FOLDS):
        here = table.folds == fold
        if fold == FOLD:
            continue
        head = linear.heads(exact, table, ~here, alone)[0]
        by_float[here], by_eight[here] = head.scores(exact[here]), head.scores(whole[here])

    rows = table.folds != FOLD
    seen, a, b = table.only(rows), by_eight[rows], by_float[rows]
    fair = seen.collections == linear.FAIREST
    inside = seen.only(fair)
    meant = [n for n in seen.names if n != OPACITY and (inside[n] == 1).sum() >= linear.MEANT]
    mean = f"mean of {len(meant)} findings inside {linear.FAIREST}"
    asked = ((OPACITY, seen, a, b, [OPACITY]), (mean, inside, a[fair], b[fair], meant))
    for name, some, eight, exactly, names in asked:
        figures = [auroc(some, scores, names) for scores in (exactly, eight)]
        apart = paired_difference(some, eight, exactly, names)
        assert all(figures) and apart
        told = ", ".join(f"{f.auroc:.3f} [{f.low:.3f}, {f.high:.3f}]" for f in figures if f)
        print(f"AUROC of {name}, {apart.images} images, {apart.positive} positives: float32, 8 bits {told}; "
              f"difference {apart.difference:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}]")  # fmt: skip

    shipped = Head(weights["head/kernel"], weights["head/bias"])
    far = np.abs(shipped.scores(rough) - shipped.scores(exact[judged]))
    said = {"largest": far.max(), "99 % below": np.quantile(far, 0.99), "mean": far.mean()}
    print(
        "shipped head's scores, 8 bits beside float32:",
        json.dumps({k: round(float(v), 4) for k, v in said.items()}),
    )
    apart = np.linalg.norm(rough - exact[judged], axis=1) / np.linalg.norm(exact[judged], axis=1)
    print(f"features, as a share of their length: median {np.median(apart):.4f}, largest {apart.max():.4f}")


if __name__ == "__main__":
    sys.exit(main())
