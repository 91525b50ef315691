"""A model folder with another card: a copy, whole or not at all."""

import shutil
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from model import card
from model.card import CARD
from model.card_text import Tree, toml
from model.errors import BadData, BadModel


def check_place(folder: Path) -> None:
    """Raises BadData where no new folder can be made, before hours of work are lost for that."""
    if folder.exists():
        raise BadData(f"{folder}: is there already; name a folder that is not, with --out")
    if not folder.absolute().parent.is_dir():
        raise BadData(f"{folder}: the folder {folder.parent} does not exist; make it, or name another --out")


def tree_of(folder: Path) -> Tree:
    """Its card as it stands, what the node does not read too. `card.load` has read it before."""
    found: Tree = tomllib.loads((folder / CARD).read_text(encoding="utf-8"))
    return found


def copy_with(old: Path, new: Path, tree: Tree) -> None:
    """Makes the folder `new`: the plain files of `old`, and a card that says `tree`.

    The new folder's card and hashes are checked before it gets its name. Raises BadModel, with nothing left behind.
    """
    text = _written(old, tree)
    with tempfile.TemporaryDirectory(prefix=f".{new.name}-", dir=new.absolute().parent) as beside:
        half = Path(beside) / new.name
        half.mkdir()
        for file in sorted(old.iterdir()):
            if file.is_file() and file.name != CARD:
                shutil.copy2(file, half / file.name)
        (half / CARD).write_text(text, encoding="utf-8")
        card.verify(card.load(half))
        half.rename(new)


def _written(old: Path, tree: Tree) -> str:
    try:
        text = toml(tree)
        same = _plain(tomllib.loads(text)) == _plain(tree)
    except (AssertionError, TypeError, tomllib.TOMLDecodeError):
        same = False
    if not same:
        raise BadModel(
            f"{old / CARD}: holds tables in tables, dates or names with spaces, which a new card can't take over; "
            "write them as plain keys"
        )
    return text


def _plain(value: Any) -> Any:
    """Without the line breaks of texts, which a card does not keep."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return " ".join(value.split()) if isinstance(value, str) else value
