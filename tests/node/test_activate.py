"""`hilum model activate`: all of it or nothing, one record, and whoever kills it leaves a node that is of one mind."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model import card
from model.card import SHIPPED
from model.errors import BadModel
from node import activate, active
from node.changes import file_in, since_last_start, to_keep
from node.errors import BadEnvironment, Misuse
from node.settings import Settings, load
from storage.audit import Actor, Filter, Record
from storage.store import Store

ANNA = Actor("anna", "ws-3")


def fine(_: Path) -> None:
    """A self-check that takes no TensorFlow."""


def model_folder(place: Path, *changes: tuple[str, str]) -> Path:
    """The shipped card with these changes; weights that only look like some."""
    place.mkdir()
    text = (SHIPPED / "card.toml").read_text(encoding="utf-8")
    for old, new in (*changes, (card.load(SHIPPED).sha256, "sha256:" + hashlib.sha256(b"abc").hexdigest())):
        assert old in text
        text = text.replace(old, new)
    (place / "card.toml").write_text(text, encoding="utf-8")
    (place / "weights.npz").write_bytes(b"abc")
    (place / "WEIGHTS-LICENSE.md").write_text("free")
    for beside in {card.load(SHIPPED).scope, card.load(SHIPPED).doubt} - {""}:
        shutil.copy(SHIPPED / beside, place)
    return place


class Site:
    """A data folder in which a node has run, and which runs the shipped model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings.model_validate({"node": {"data_dir": folder / "data"}})
        self.store = Store.create(folder / "data")
        self.kept = file_in(folder / "data")
        self.kept.write_text(json.dumps(to_keep(self.settings)))

    def activate(self, folder: Path | str, check: activate.SelfCheck = fine) -> active.Active | None:
        return activate.activate(self.store, self.settings, str(folder), ANNA, check)

    def records(self) -> list[Record]:
        with self.store.database.read() as tx:
            return self.store.audit.page(tx, Filter(event="model.activated"))

    def folder_names(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "data" / "models").glob("*") if path.is_dir())

    @property
    def version(self) -> str:
        return card.load(active.folder(self.settings)).version


@pytest.fixture
def site(tmp_path: Path) -> Any:
    site = Site(tmp_path)
    yield site
    site.store.close()


def test_a_model_is_copied_whole_recorded_once_with_both_thresholds_and_runs_from_then_on(
    site: Site, tmp_path: Path
) -> None:
    source = model_folder(tmp_path / "mine", ('version = "3', 'version = "9.2'))
    checked: list[Path] = []
    before = active.mark(site.settings)
    site.activate(source, checked.append)

    assert site.version.startswith("9.2")
    now = active.active(site.settings)
    assert (now.origin, now.by, now.folder.name[:9]) == ("activated", "anna@ws-3", "hilum-9.2")
    assert sorted(p.name for p in now.folder.iterdir()) == sorted(p.name for p in source.iterdir())
    # what ran once is the copy
    assert [path.parent for path in checked] == [now.folder.parent] and checked[0] != now.folder
    assert active.mark(site.settings) != before
    (record,) = site.records()
    assert (record.actor, record.host) == ("anna", "ws-3")
    shipped = card.load(SHIPPED)
    assert record.detail["old"] == {
        "name": shipped.name, "version": shipped.version, "sha256": shipped.sha256, "thresholds": shipped.thresholds,
    }  # fmt: skip
    assert record.detail["new"]["sha256"] == card.load(source).sha256
    shutil.rmtree(source)
    card.verify(card.load(active.folder(site.settings)))


def test_the_same_model_again_is_nothing_to_do_and_the_shipped_one_comes_back(
    site: Site, tmp_path: Path
) -> None:
    source = model_folder(tmp_path / "mine", ('version = "3', 'version = "9.2'))
    assert site.activate("shipped") is None
    assert site.activate(source) and site.activate(source) is None
    assert site.activate("shipped")
    assert active.active(site.settings).folder == SHIPPED
    assert site.activate(source), "a copy that is sound is used again"
    assert len(site.records()) == 3 and len(site.folder_names()) == 1


def test_a_copy_that_somebody_changed_is_not_used_again(site: Site, tmp_path: Path) -> None:
    source = model_folder(tmp_path / "mine")
    site.activate(source)
    (active.folder(site.settings) / "weights.npz").write_bytes(b"xyz")
    site.activate("shipped")
    site.activate(source)
    card.verify(card.load(active.folder(site.settings)))


def test_two_cards_over_the_same_weights_are_two_models(site: Site, tmp_path: Path) -> None:
    one = model_folder(tmp_path / "one")
    two = model_folder(tmp_path / "two", ("threshold = 0.", "threshold = 0.0"))
    site.activate(one)
    first = card.load(active.folder(site.settings))
    assert site.activate(two)
    second = card.load(active.folder(site.settings))
    assert first.sha256 == second.sha256 and first.identity != second.identity
    assert len(site.folder_names()) == 2
    assert card.load(one).identity == first.identity, "where a folder lies says nothing"


def test_an_activation_is_not_told_again_by_the_next_start(site: Site, tmp_path: Path) -> None:
    site.activate(model_folder(tmp_path / "mine", ('version = "3', 'version = "9.2')))
    assert since_last_start(site.kept, site.settings, is_new=False) == []


def test_the_configurations_model_goes_before_it(site: Site, tmp_path: Path) -> None:
    mine, other = model_folder(tmp_path / "mine"), model_folder(tmp_path / "other")
    site.activate(mine)
    site.settings = site.settings.with_changes("analyze", model=other)
    assert active.active(site.settings) == active.Active(other, "configured")
    with pytest.raises(Misuse, match=r"^\[analyze\] model names .*other, .*remove"):
        site.activate(mine)


def test_a_model_that_does_not_run_leaves_the_active_one_and_nothing_behind(
    site: Site, tmp_path: Path
) -> None:
    def refuses(folder: Path) -> None:
        raise BadModel(f"{folder / 'weights.npz'}: has 3 outputs a picture, the card 15 labels")

    source = model_folder(tmp_path / "mine")
    with pytest.raises(Misuse) as error:
        site.activate(source, refuses)
    assert str(error.value).startswith(f"{source / 'weights.npz'}: has 3 outputs")
    assert active.active(site.settings).origin == "shipped"
    assert site.records() == [] and site.folder_names() == []


def test_a_damaged_pointer_is_told_and_no_other_model_runs_in_its_place(site: Site, tmp_path: Path) -> None:
    source = model_folder(tmp_path / "mine")
    site.activate(source)
    pointer = tmp_path / "data" / "models" / "active"
    for text in ("", "{", '{"name": "../../x", "since": "", "by": "", "after": 0}'):
        pointer.write_text(text)
        with pytest.raises(BadModel, match="activate"):
            active.active(site.settings)
        assert "problem" in active.told(site.settings) and active.sha256(site.settings) == ""
    assert site.activate(source) and active.folder(site.settings).parent == pointer.parent


def test_two_at_once_don_t_meet(site: Site, tmp_path: Path) -> None:
    source = model_folder(tmp_path / "mine")
    site.activate(source)
    with activate._locked(tmp_path / "data" / "models"), pytest.raises(BadEnvironment, match="under way"):
        site.activate("shipped")


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from node import activate
    from node.settings import Settings
    from storage.audit import Actor
    from storage.audit.log import Audit
    from storage.store import Store

    folder, source, where = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    check = die if where == "while it is copied" else lambda _: None
    settle, seen = activate._settle, []

    def settled(*arguments):
        seen.append(1)
        if len(seen) == 1:
            return settle(*arguments)
        if where == "after the record":
            die()
        settle(*arguments)
        die()

    activate._settle = settled
    if where == "before the record":
        Audit.record = die
    settings = Settings.model_validate({"node": {"data_dir": folder}})
    activate.activate(Store.open(folder), settings, source, Actor("anna"), check)
"""


@pytest.mark.parametrize(
    ("where", "changed"),
    [
        ("while it is copied", False),
        ("before the record", False),
        ("after the record", True),
        ("after all of it", True),
    ],
)
def test_killed_in_between_the_log_and_the_node_agree_at_the_next_look(
    site: Site, tmp_path: Path, where: str, changed: bool
) -> None:
    old = model_folder(tmp_path / "old", ('version = "3', 'version = "9.1'))
    new = model_folder(tmp_path / "new", ('version = "3', 'version = "9.2'))
    site.activate(old)
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), tmp_path / "data", new, where], timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    assert site.version.startswith("9.2" if where == "after all of it" else "9.1")
    activate.settle(site.store, site.settings)
    assert site.version.startswith("9.2" if changed else "9.1")
    versions = [record.detail["new"]["version"][:3] for record in site.records()]
    assert versions == (["9.1", "9.2"] if changed else ["9.1"])
    assert since_last_start(site.kept, site.settings, is_new=False) == [] or where == "after all of it"
    # and whoever tries again gets what he wanted, with one record and no rubbish
    site.activate(new)
    assert site.version.startswith("9.2") and len(site.records()) == 2
    assert [name for name in site.folder_names() if name.startswith(".")] == []


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("no folder", "card.toml: can't be read"),
        ("wrong hash", "its hash is"),
        ("no thresholds", "threshold: is missing"),
        ("pickle", "weights.npz"),
        ("labels", "weights.npz"),
    ],
)
def test_a_bad_folder_is_one_line_and_exit_code_2_and_the_active_model_stays(
    station: Any, tmp_path: Path, bad: str, says: str
) -> None:
    folder = tmp_path / "bad"
    if bad == "labels":
        shutil.copytree(SHIPPED, folder)
        text = (folder / "card.toml").read_text(encoding="utf-8")
        last = text.rindex("[[findings]]")
        (folder / "card.toml").write_text(text[:last].rpartition("\n\n")[0] + "\n", encoding="utf-8")
    elif bad != "no folder":
        model_folder(folder)
    if bad == "wrong hash":
        (folder / "weights.npz").write_bytes(b"abcd")
    elif bad == "no thresholds":
        text = (folder / "card.toml").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if not line.startswith("threshold = ")]
        (folder / "card.toml").write_text("\n".join(lines), encoding="utf-8")
    elif bad == "pickle":
        with (folder / "weights.npz").open("wb") as out:
            np.save(out, np.array([{"a": 1}], dtype=object))
        old, new = (
            hashlib.sha256(data).hexdigest() for data in (b"abc", (folder / "weights.npz").read_bytes())
        )
        text = (folder / "card.toml").read_text(encoding="utf-8")
        (folder / "card.toml").write_text(text.replace(old, new), encoding="utf-8")
    code, out, err = station.run("model", "activate", str(folder))
    assert (code, out) == (2, "") and says in err and err.count("\n") == 1
    assert str(folder) in err and err.endswith("; the active model stays\n")
    assert station.json("model", "active", "--json")["from"] == "shipped"
    models = load(station.config).node.data_dir / "models"
    assert [path.name for path in models.iterdir() if path.is_dir()] == []


def test_the_active_model_is_told_with_its_thresholds(station: Any, tmp_path: Path) -> None:
    told = station.json("model", "active", "--json")
    assert (told["name"], told["from"], told["since"]) == (card.load(SHIPPED).name, "shipped", None)
    assert told["thresholds"] == card.load(SHIPPED).thresholds
    code, out, _ = station.run("model", "shadow")
    assert code == 0 and "no image has been read by a shadow" in out
    assert station.json("model", "shadow", "--json") == []
