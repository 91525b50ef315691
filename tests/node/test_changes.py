"""What changed between two starts stands in the log with its old and its new value, and no secret in either."""

import json
import shutil
from pathlib import Path

from model.card import SHIPPED
from node import changes
from node.changes import Change, since_last_start, to_keep
from node.settings import Settings


def settings(model: Path, **tree: object) -> Settings:
    return Settings.model_validate({"analyze": {"model": str(model)}, **tree})


def kept(folder: Path, now: Settings) -> Path:
    file = folder / "configuration.json"
    file.write_text(json.dumps(to_keep(now)))
    return file


def test_a_threshold_a_version_and_an_intended_use_are_told_by_name(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    card = (SHIPPED / "card.toml").read_text(encoding="utf-8")
    (model / "card.toml").write_text(card, encoding="utf-8")
    before = settings(model)
    file = kept(tmp_path, before)
    assert since_last_start(file, before, is_new=False) == []

    lines = card.splitlines()
    where = next(n for n, line in enumerate(lines) if line.startswith("threshold = "))
    label = next(line for line in reversed(lines[:where]) if line.startswith("label = ")).split('"')[1]
    old = float(lines[where].split()[2])
    lines[where] = "threshold = 0.123"
    (model / "card.toml").write_text("\n".join(lines), encoding="utf-8")
    assert since_last_start(file, before, is_new=False) == [
        Change("model.changed", f"threshold.{label}", old, 0.123)
    ]


def test_a_destination_is_told_by_its_name_and_key(tmp_path: Path) -> None:
    def with_port(port: int) -> Settings:
        pacs = {"name": "pacs", "ae_title": "PACS", "host": "pacs.example", "port": port}
        return settings(SHIPPED, destinations=[pacs])

    file = kept(tmp_path, with_port(104))
    assert since_last_start(file, with_port(11112), is_new=False) == [
        Change("config.changed", "destinations.pacs.port", 104, 11112)
    ]
    gone = {
        each.key: (each.old, each.new) for each in since_last_start(file, settings(SHIPPED), is_new=False)
    }
    assert gone["destinations.pacs.ae_title"] == ("PACS", None)


def test_who_removes_the_memory_of_the_last_start_does_not_pass_unseen(tmp_path: Path) -> None:
    (change,) = since_last_start(tmp_path / "gone.json", settings(SHIPPED), is_new=False)
    assert (change.event, change.key) == ("config.changed", "*")
    assert since_last_start(tmp_path / "gone.json", settings(SHIPPED), is_new=True) == []


def test_no_secret_is_told() -> None:
    tree = {
        "a": {"password": "hunter2", "token": "t0ken", "password_file": "/etc/hilum/pacs.password"},
        "storage": {"url": "postgresql://hilum:hunter2@db.example/hilum"},
    }
    told = dict(changes._flat(tree))
    assert told["a.password_file"] == "/etc/hilum/pacs.password"
    assert told["storage.url"] == "postgresql://***@db.example/hilum"
    assert "hunter2" not in json.dumps(told) and "t0ken" not in json.dumps(told)


def test_a_model_that_cannot_be_read_is_no_reason_not_to_start(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(SHIPPED, model, ignore=shutil.ignore_patterns("*.keras", "*.h5", "*.npz"))
    file = kept(tmp_path, settings(model))
    (model / "card.toml").write_text("is no card")
    found = {each.key: each.new for each in since_last_start(file, settings(model), is_new=False)}
    assert found["version"] is None and set(found.values()) == {None}
