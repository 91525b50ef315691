"""A network by OpenVINO on the CPU: TensorFlow's graph, converted at the first load and kept (`model.runtime.kept`).

What was converted is asked about a few drawn chests beside TensorFlow before it is ever used, on the CPU that will use
it. Later loads need neither TensorFlow nor Keras.

All is computed in float32. Left to itself OpenVINO takes bfloat16 where the CPU has it, which moves the shipped
model's scores by more than a hundredth (0.0116 of 304 images, emulated; docs/performance.md).

Where it is faster, convolutions are computed with fewer multiplications (`model.runtime.winograd`); a network that then
says something else than TensorFlow is kept as it was converted.

One compiled network with a free batch dimension: batches of 1 and of 8 cost no more an image than with shapes of their
own, and one copy of the weights is held (docs/performance.md).

Threads: TF_NUM_INTRAOP_THREADS, as TensorFlow; all cores without it. They are not pinned to cores: two processes
that count cores from the first would share it.
"""

import functools
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from model.card import Card
from model.errors import BadModel
from model.runtime import Floats, Run, Running, Said, kept, winograd
from model.runtime.kept import Converted

FORMAT = 2
"""Of what is kept. Raised where a change here makes what was kept before wrong."""

CURVES = (0.5, 0.75, 1.0, 2.0)
"""Exponents by which each of two drawn chests is made brighter or darker: eight pictures for both runtimes."""
SCORES, FEATURES = 1e-3, 1e-2
"""How far scores may be from TensorFlow's at most, and features (Euclidean, as a share of their own length). In float32
the shipped model's are off by 1.1e-5: what is farther was converted wrongly."""


def start(card: Card, cache: Path | None = None) -> Running:
    """The first time some ten seconds, then less than one. Raises BadModel where OpenVINO can't compute the network."""
    folder = (cache or kept.of_user()) / "openvino" / key(card)
    converted = kept.read(folder)
    if converted:
        try:
            return Running("openvino", compiled(converted))
        except RuntimeError:  # whole, and no network all the same
            kept.remove(folder)
    converted, note = convert(card), ""
    try:
        kept.write(folder, converted)
    except OSError as error:
        why = error.strerror or type(error).__name__
        note = f"{folder.parent}: can't be written ({why}); the model is converted at each start"
    return Running("openvino", compiled(converted), note)


def library() -> Any:
    """OpenVINO, kept from sending: its import alone reports to an analytics service on the Internet.

    It does so by the package `openvino_telemetry` and does without it where that can't be imported (openvino 2026.4,
    openvino/tools/ovc/telemetry_utils.py). Nothing else may import OpenVINO.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@functools.cache
def core() -> Any:
    """OpenVINO's way to its CPU plugin, one for the whole process and never dropped.

    The plugin gives its thread a stack for signals, and frees it when its core is dropped. When of two cores the first
    is dropped first, the second one brings back that freed stack, and the next signal that is handled ends the process
    (openvino 2026.4; its pull request 11894 brought the stacks).
    """
    return library().Core()


def key(card: Card) -> str:
    """All that a converted network depends on, as 64 hexadecimal digits: the model, OpenVINO, and the CPU on which
    it was compared with TensorFlow."""
    network = (
        card.architecture,
        card.pools,
        card.head,
        card.hidden,
        card.size,
        card.channels,
        len(card.labels),
    )
    outputs = (bool(card.scope), bool(card.doubt))
    cpu = core().get_property("CPU", "FULL_DEVICE_NAME")
    parts = (FORMAT, card.sha256, network, outputs, library().get_version(), cpu, winograd.is_worth_it())
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def convert(card: Card) -> Converted:
    """The card's network, which says what TensorFlow's says. Raises BadModel."""
    from model.runtime import tensorflow

    filled = tensorflow.loaded(card)
    if not tensorflow.is_backend():
        raise BadModel(
            f"{card.weights_path}: OpenVINO converts from TensorFlow, Keras runs on another backend here"
        )
    pictures = _drawn(card)
    right = tensorflow.compiled(filled, card)(pictures)
    for fewer in dict.fromkeys((winograd.is_worth_it(), False)):
        converted = _converted(filled, card, fewer)
        try:
            said = compiled(converted)(pictures)
        except RuntimeError as error:
            raise BadModel(f"{card.weights_path}: OpenVINO can't run this network") from error
        if holds(right, said):
            return converted
    raise BadModel(f"{card.weights_path}: says something else by OpenVINO than by TensorFlow")


def _converted(filled: Any, card: Card, fewer: bool) -> Converted:
    """The network in OpenVINO's own format; `fewer` multiplications, or all as they are. Raises BadModel."""
    from model.runtime import tensorflow

    openvino = library()
    try:
        graph = tensorflow.graph_of(filled, card).get_concrete_function()
        converted = openvino.convert_model(graph)
        for given in converted.get_parameters():
            if not given.output(
                0
            ).get_target_inputs():  # an imported graph has such where weights were taken out
                converted.remove_parameter(given)
        if fewer:
            winograd.rewrite(converted, openvino)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / kept.XML
            openvino.save_model(converted, file, compress_to_fp16=False)
            return Converted(file.read_bytes(), file.with_name(kept.BIN).read_bytes())
    except Exception as error:  # each of its many front ends has its own
        raise BadModel(
            f"{card.weights_path}: OpenVINO can't convert this network ({type(error).__name__})"
        ) from error


def _drawn(card: Card) -> Floats:
    """(8, size, size, channels): drawn chests as the network sees them, one of each two with a patch in a lung."""
    from model import phantom
    from model.pixels import Image, prepare

    chests = [phantom.picture(0, patch=False), phantom.picture(1, patch=True)]
    images = [Image(np.asarray(chest**curve, np.float32)) for chest in chests for curve in CURVES]
    return np.stack([prepare(image, card) for image in images])


def holds(right: Said, said: Said) -> bool:
    """Whether what a network `said` is what is `right`, within SCORES and FEATURES."""
    if said.scores.shape != right.scores.shape or not np.abs(said.scores - right.scores).max() <= SCORES:
        return False
    if said.features is None or right.features is None:
        return said.features is right.features
    if said.features.shape != right.features.shape:
        return False
    apart = np.linalg.norm(said.features - right.features, axis=1)
    return bool((apart <= FEATURES * np.linalg.norm(right.features, axis=1)).all())


def compiled(converted: Converted) -> Run:
    """Ready to run. Raises RuntimeError."""
    network = core().read_model(converted.xml, converted.weights)
    wanted = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }
    threads = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    if threads.isdecimal() and int(threads):
        wanted["INFERENCE_NUM_THREADS"] = int(threads)
    request = core().compile_model(network, "CPU", wanted).create_infer_request()

    def run(batch: Floats) -> Said:
        request.infer([batch], share_inputs=True)
        # copied: the next batch is written over them
        arrays = [np.array(tensor.data, np.float32) for tensor in request.output_tensors]
        return Said(arrays[0], arrays[1] if len(arrays) > 1 else None)

    return run
