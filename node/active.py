"""Which model the node runs: the one that config.toml names; else the one that was activated; else the one that comes
with Hilum.

    data_dir/models/<name>-<version>-<12 digits>/   a model as it was activated, copied whole, never changed again
    data_dir/models/active                          names one of them: who runs, since when, by whom

How the file comes to name another one is `node.activate`'s affair.
"""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from model import card
from model.card import SHIPPED
from model.errors import BadModel
from node import show
from node.settings import Settings

FOLDER, ACTIVE = "models", "active"
SHIPPED_NAME = "shipped"
"""What stands for the model that comes with Hilum, whatever its version."""

Origin = Literal["configured", "activated", "shipped"]


@dataclass(frozen=True)
class Active:
    """The model that runs, or would. `since` (a stamp) and `by` are known of an activated one."""

    folder: Path
    origin: Origin
    since: str = ""
    by: str = ""


@dataclass(frozen=True)
class Pointer:
    """What `active` holds. `name`: of a folder beside it, or `shipped`; `after`: the audit log's last record then."""

    name: str
    since: str
    by: str
    after: int


def active(settings: Settings) -> Active:
    """Raises BadModel where `models/active` can't be read: no other model is run in its place."""
    if settings.analyze.model:
        return Active(settings.analyze.model, "configured")
    models = settings.node.data_dir / FOLDER
    pointer = read(models / ACTIVE)
    if pointer is None:
        return Active(SHIPPED, "shipped")
    return Active(place(models, pointer.name), "activated", pointer.since, pointer.by)


def folder(settings: Settings) -> Path:
    """Of the model that runs, or would. Raises BadModel."""
    return active(settings).folder


def sha256(settings: Settings) -> str:
    """The hash by which its weights are named; empty where it can't be used."""
    try:
        return card.sha256_of(folder(settings))
    except BadModel:
        return ""


def mark(settings: Settings) -> object:
    """Another one after each activation: who has loaded a model looks whether it is still the one. Never raises."""
    if settings.analyze.model:
        return None
    try:
        found = (settings.node.data_dir / FOLDER / ACTIVE).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def told(settings: Settings) -> dict[str, Any]:
    """The model that runs, or would, as `hilum status` and `hilum model active` say it; `problem` where it can't."""
    try:
        found = active(settings)
        of = card.load(found.folder)
    except BadModel as e:
        return {"name": None, "version": None, "sha256": None, "problem": str(e)}
    return {
        "name": of.name,
        "version": of.version,
        "sha256": of.sha256,
        "from": found.origin,
        "since": found.since or None,
        "by": found.by or None,
    }


def sentence(model: dict[str, Any]) -> str:
    """What `told` says, for a person."""
    if "problem" in model:
        return f"can't be used: {model['problem']}"
    since = f" since {show.when(datetime.fromisoformat(model['since']))}" if model["since"] else ""
    by = f" by {model['by']}" if model["by"] else ""
    return f"{model['name']} {model['version']} ({model['sha256'][:19]}), {model['from']}{since}{by}"


def place(models: Path, name: str) -> Path:
    return SHIPPED if name == SHIPPED_NAME else models / name


def read(file: Path) -> Pointer | None:
    """None where there is none. Raises BadModel."""
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        pointer = Pointer(str(tree["name"]), str(tree["since"]), str(tree["by"]), int(tree["after"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise BadModel(f"{file}: can't be read; name a model again with `hilum model activate`") from None
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", pointer.name):
        raise BadModel(f"{file}: names no model; name one again with `hilum model activate`")
    return pointer
