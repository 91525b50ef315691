"""A node that runs takes another model up by itself, between two batches; a shadow reads along until then."""

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from peers.node import running_node, send, until
from pydicom.uid import UID

from model import card, network, phantom
from model.card import SHIPPED

CONFIG = """min_free_bytes = 0
[analyze]
shadow = "next"
runtime = "tensorflow"
[[destinations]]
name = "pacs"
kind = "folder"
path = "pacs"
results = ["sr"]
"""


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Two exposures of one phantom."""
    files = []
    for number in (1, 2):
        drawn = phantom.draw(number, patch=False)
        drawn.SOPInstanceUID = UID(f"1.2.826.0.1.{number}")
        drawn.file_meta.MediaStorageSOPInstanceUID = drawn.SOPInstanceUID
        files.append(tmp_path / f"{number}.dcm")
        drawn.save_as(files[-1], enforce_file_format=True)
    return files


def next_model(folder: Path) -> card.Card:
    """The shipped model with another head and other thresholds."""
    shutil.copytree(SHIPPED, folder)
    shipped = card.load(SHIPPED)
    weights = network.read_weights(shipped.weights_path)
    weights["head/bias"] = weights["head/bias"] + np.float32(0.5)
    network.write_weights(folder / shipped.weights, weights)
    digest = "sha256:" + hashlib.sha256((folder / shipped.weights).read_bytes()).hexdigest()
    text = (folder / card.CARD).read_text(encoding="utf-8").replace(shipped.sha256, digest)
    text = text.replace(f'version = "{shipped.version}"', 'version = "next"')
    text = re.sub(r"^threshold = .*$", "threshold = 0.5", text, flags=re.MULTILINE)
    (folder / card.CARD).write_text(text, encoding="utf-8")
    return card.load(folder)


def test_a_shadow_reads_along_and_once_activated_it_is_the_model_without_a_restart(
    tmp_path: Path, free_port: Callable[[], int], images: list[Path], program: Callable[[str], str]
) -> None:
    storescu, first, second = program("storescu"), card.load(SHIPPED), next_model(tmp_path / "next")
    assert dataclasses.replace(first, folder=Path()).identity == first.identity != second.identity
    with running_node(tmp_path, CONFIG, free_port()) as node:
        assert send(storescu, node.port, images[:1]).returncode == 0
        until(node.settled)
        until(lambda: node.audit("job.shadowed"))
        (compared,) = json.loads(node.hilum("model", "shadow", "--json"))
        assert (compared["version"], compared["first"], compared["images"]) == ("next", first.sha256, 1)
        status = node.status()
        assert status["model"]["from"] == "shipped" and status["model"]["runtime"] == "tensorflow"
        worker = node.children()["worker-1"]

        node.hilum("model", "activate", str(tmp_path / "next"))
        until(lambda: node.children().get("worker-1", worker) != worker)
        assert send(storescu, node.port, images[1:]).returncode == 0
        until(lambda: len(node.audit("job.analyzed")) == 2)
        until(node.settled)

        before, after = node.audit("job.analyzed")
        assert [r["detail"]["sha256"] for r in (before, after)] == [first.sha256, second.sha256]
        assert {threshold for _, threshold in after["detail"]["scores"].values()} == {0.5}
        jobs = json.loads(node.hilum("jobs", "list", "--json"))
        assert [(job["state"], job["attempts"], job["model"]) for job in jobs] == [
            ("done", 1, first.sha256), ("done", 1, second.sha256),
        ]  # fmt: skip
        assert len(node.audit("delivery.delivered")) == len(node.audit("result.made")) == 2
        # the shadow is the model now: nothing more is compared
        assert len(node.audit("job.shadowed")) == 1
        (activated,) = node.audit("model.activated")
        assert activated["detail"]["new"]["thresholds"] == second.thresholds
        log = node.log.read_text()
        assert "another model is active" in log and "[error" not in log and "starts again" not in log

        node.stop()
        node.start()
        assert node.audit("model.changed") == [] and node.status()["model"]["version"] == "next"
        assert node.audit("node.started")[-1]["detail"]["model"] == second.sha256
