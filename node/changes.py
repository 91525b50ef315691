"""What differs from the last start: settings, and the model with its thresholds and intended use; secrets masked.

The last start's values lie in `run/configuration.json`. Somebody who removes that file does not pass unseen: the next
start records that it does not know what was before.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.card import Card, load
from model.errors import BadModel
from node import active
from node.settings import Settings

MASKED = "***"
# settings name files that hold secrets, never secrets; whoever adds one finds it masked
_SECRET = re.compile(r"password|secret|token|passphrase")
_FILE = re.compile(r"(_file|file|folder)$")
_USER_INFORMATION = re.compile(r"(?<=://)[^/@]*(?=@)")


@dataclass(frozen=True)
class Change:
    """One value, before and now; None where there is or was none. `event` is the record that tells it."""

    event: str
    key: str
    old: Any
    new: Any


def file_in(data_dir: Path) -> Path:
    """Where the last start's values lie."""
    return data_dir / "run" / "configuration.json"


def since_last_start(file: Path, settings: Settings, *, is_new: bool) -> list[Change]:
    """The changes in the order of their keys. `is_new`: nothing has run here before, so nothing has changed."""
    now = _values(settings)
    try:
        before = json.loads(file.read_text())
        before = {kind: dict(before[kind]) for kind in now}
    except (OSError, ValueError, KeyError, TypeError):
        return [] if is_new else [Change("config.changed", "*", "not known: its file is gone", None)]
    return [
        Change(f"{kind}.changed", key, before[kind].get(key), values.get(key))
        for kind, values in now.items()
        for key in sorted({*before[kind], *values})
        if before[kind].get(key) != values.get(key)
    ]


def to_keep(settings: Settings) -> dict[str, Any]:
    """What the file holds until the next start."""
    return _values(settings)


def know_model(file: Path, folder: Path) -> None:
    """From now on the model in `folder` is what the last start ran: an activation has told the change, with its time
    and who made it, and the next start would tell it as its own. Without that file nothing is known, nor put down."""
    try:
        before = json.loads(file.read_text())
        temporary = file.with_suffix(".new")
        temporary.write_text(json.dumps({**before, "model": _model(folder)}))
        temporary.replace(file)
    except (OSError, ValueError, TypeError):
        return


def _values(settings: Settings) -> dict[str, dict[str, Any]]:
    configuration = dict(_flat(json.loads(settings.model_dump_json())))
    try:
        model = _model(active.folder(settings))
    except BadModel:
        model = {}
    return {"config": configuration, "model": model}


def _model(folder: Path) -> dict[str, Any]:
    try:
        card = load(folder)
    except BadModel:
        return {}
    return dict(_flat(_told(card)))


def _told(card: Card) -> dict[str, Any]:
    return {
        "name": card.name,
        "version": card.version,
        "sha256": card.sha256,
        "intended_use": card.intended_use,
        "limits": card.limits,
        "threshold": card.thresholds,
        "threshold_rule": card.rule,
    }


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """{"receive": {"port": 1}} -> receive.port: 1; a list of named tables by their names, other lists are values."""
    if isinstance(tree, list) and tree and all(isinstance(each, dict) and "name" in each for each in tree):
        tree = {each["name"]: {k: v for k, v in each.items() if k != "name"} for each in tree}
    if not isinstance(tree, dict):
        yield prefix, _masked(prefix, tree)
        return
    for key, value in tree.items():
        yield from _flat(value, f"{prefix}.{key}" if prefix else key)


def _masked(key: str, value: Any) -> Any:
    last = key.rpartition(".")[2]
    if value and _SECRET.search(last) and not _FILE.search(last):
        return MASKED
    return _USER_INFORMATION.sub(MASKED, value) if isinstance(value, str) else value
