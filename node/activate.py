"""`hilum model activate`: from the next batch on the node reads with another model, with its thresholds.

An activation is one audit record and one renamed file, and a crash may come between any two steps:

    1. the copy lies whole under its final name     killed before: `.new-…` is swept by the next one; the old model runs
    2. `models/activating` is written               killed after: there is no record, it is dropped; the old model runs
    3. `model.activated` is committed               killed after: there is a record, so 4 is made up for
    4. `activating` is renamed `active`             killed after: the next start tells the change a second time

`settle` does what is left of 2 and 3: at each start before any process runs, in a running node within seconds, and
before the next activation. So no model runs that the log does not name, and none is named for longer than that without
running. What is activated is what was checked: the copy is hashed, loaded and run before anything is decided.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from model import card
from model.card import CARD, Card
from model.errors import BadModel
from node import changes
from node.active import ACTIVE, FOLDER, SHIPPED_NAME, Active, Pointer, active, folder, place, read
from node.errors import BadEnvironment, Misuse
from node.settings import Settings
from node.wakeup import notify
from storage.audit import Actor, Filter
from storage.store import Store

ACTIVATING, LOCK, NEW = "activating", "lock", ".new-"
SHOWN_DIGITS = 12

SelfCheck = Callable[[Path], None]
"""Loads a model folder and runs it once. Raises BadModel."""


def activate(
    store: Store, settings: Settings, wanted: str, actor: Actor, self_check: SelfCheck | None = None
) -> Active | None:
    """From the next batch on the node reads with another model; None where it does so already.

    `wanted`: a model folder, or `shipped`. Nothing changes unless all of it holds: raises Misuse where the folder or
    the configuration can't be used, BadEnvironment where the data folder can't be written.
    """
    _refuse_configured(settings)
    models = store.spool.root / FOLDER
    try:
        models.mkdir(mode=0o700, exist_ok=True)
        with _locked(models):
            _settle(store, settings, models)
            check = self_check or (lambda folder: run_once(folder, settings))
            name = wanted if wanted == SHIPPED_NAME else _kept(models, Path(wanted), check)
            before = _before(models)
            if before and before.name == name:
                return None
            return _switch(store, settings, models, name, actor)
    except BadModel as e:
        raise Misuse(f"{e}; the active model stays") from e
    except OSError as e:
        raise BadEnvironment(
            f"{e.filename or models}: {e.strerror or type(e).__name__}; the active model stays"
        ) from e


def settle(store: Store, settings: Settings) -> None:
    """Brings an activation that was cut off to its end, or drops it; nothing where one is under way. Raises OSError,
    Unavailable."""
    models = store.spool.root / FOLDER
    if (models / ACTIVATING).exists():
        with contextlib.suppress(BadEnvironment), _locked(models):
            _settle(store, settings, models)


def run_once(folder: Path, settings: Settings) -> None:
    """Loads a model as the worker does, which runs it once. Takes some seconds. Raises BadModel."""
    from model.reader import Reader

    Reader.load(folder, settings.analyze.runtime, settings.cache_folder)


def told(of: Card) -> dict[str, Any]:
    """A model as `model.activated` names it."""
    return {"name": of.name, "version": of.version, "sha256": of.sha256, "thresholds": of.thresholds}


def _refuse_configured(settings: Settings) -> None:
    if settings.analyze.model:
        raise Misuse(
            f"[analyze] model names {settings.analyze.model}, which goes before whatever is activated: remove "
            "that line from the configuration first"
        )


def _kept(models: Path, source: Path, self_check: SelfCheck) -> str:
    """The name of the folder's copy, which is whole, verified, has run once, and is on the disk."""
    card.verify(card.load(source))
    if models.resolve().is_relative_to(source.resolve()):
        raise Misuse(f"{source}: the data folder lies in it; copy the model to a folder of its own")
    for left in models.glob(f"{NEW}*"):
        shutil.rmtree(left, ignore_errors=True)
    copy = Path(tempfile.mkdtemp(prefix=NEW, dir=models))
    try:
        shutil.copytree(source, copy, dirs_exist_ok=True, copy_function=shutil.copyfile)
        loaded = card.load(copy)
        card.verify(loaded)
        final = models / _name(loaded)
        if not _is_sound(final):
            self_check(copy)
            _sync(copy)
            shutil.rmtree(final, ignore_errors=True)
            copy.rename(final)
            _sync_folder(models)
    except BadModel as e:
        raise BadModel(str(e).replace(str(copy), str(source))) from e
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return final.name


def _name(of: Card) -> str:
    """Two models share it only where their cards, and so their weights' hashes, are the same to the byte."""
    digest = hashlib.sha256((of.folder / CARD).read_bytes() + of.sha256.encode()).hexdigest()
    named = (re.sub(r"[^A-Za-z0-9_.]+", "_", part)[:40].strip("._") or "_" for part in (of.name, of.version))
    return "-".join([*named, digest[:SHOWN_DIGITS]])


def _is_sound(folder: Path) -> bool:
    """Was it kept before, and has nobody changed it?"""
    try:
        found = card.load(folder)
        card.verify(found)
        return _name(found) == folder.name
    except (BadModel, OSError):
        return False


def _switch(store: Store, settings: Settings, models: Path, name: str, actor: Actor) -> Active:
    """Steps 2 to 4."""
    old, new = _told_of(settings), told(card.load(place(models, name)))
    with store.database.read() as tx:
        after = store.audit.newest(tx)
    by = f"{actor.name}@{actor.host}" if actor.host else actor.name
    pointer = Pointer(name, store.clock.stamp(), by, after)
    _write(models / ACTIVATING, asdict(pointer))
    with store.database.write() as tx:
        store.audit.record(tx, "model.activated", actor=actor, detail={"old": old, "new": new})
    _settle(store, settings, models)
    notify(store.spool.root, "worker")
    return active(settings)


def _before(models: Path) -> Pointer | None:
    try:
        return read(models / ACTIVE) or Pointer(SHIPPED_NAME, "", "", 0)
    except BadModel:
        return None


def _told_of(settings: Settings) -> dict[str, Any]:
    try:
        return told(card.load(folder(settings)))
    except BadModel as e:
        return {"reason": str(e)}


def _settle(store: Store, settings: Settings, models: Path) -> None:
    activating = models / ACTIVATING
    try:
        pointer = read(activating)
    except BadModel:
        pointer = None
    if pointer is None:
        activating.unlink(missing_ok=True)
        return
    with store.database.read() as tx:
        recorded = store.audit.page(tx, Filter(event="model.activated"), after=pointer.after, limit=1)
    if not recorded:
        activating.unlink(missing_ok=True)
        return
    activating.replace(models / ACTIVE)
    _sync_folder(models)
    # it has been told: the next start need not tell the same change again
    changes.know_model(changes.file_in(store.spool.root), place(models, pointer.name))


def _write(file: Path, tree: dict[str, Any]) -> None:
    """Whole and on the disk, or not there."""
    temporary = file.with_name(f"{NEW}{file.name}")
    with temporary.open("w", encoding="utf-8") as out:
        json.dump(tree, out)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)
    _sync_folder(file.parent)


def _sync(folder: Path) -> None:
    """Every file and folder below, and the folder."""
    for path in [*folder.rglob("*"), folder]:
        _sync_folder(path)


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _locked(models: Path) -> Iterator[None]:
    """One activation at a time. Raises BadEnvironment."""
    with (models / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise BadEnvironment(f"{models}: another activation is under way") from e
        yield
