"""What the pages say holds: commands run, settings load, links lead somewhere, names are the code's."""

import json
import re
import shlex
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import typer

from model.train.recipe import (
    Augmentation,
    Auxiliary,
    Exact,
    Loss,
    Network,
    Recipe,
    Stage,
    Thresholds,
    Training,
)
from node import reference
from node.cli import app, main
from node.settings import DESTINATIONS, Settings, load
from storage.store import Store

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
# what a page writes where a person puts something of their own
PLACEHOLDERS = {
    "FILE": "x.dcm",
    "FILE…": "x.dcm",
    "[FILE…]": "x.dcm",
    "[ID…]": "1",
    "DIR": "out",
    "TABLE": "labels.csv",
    "MODEL": "model",
    "PATH…": "images",
    "OUT": "scores.csv",
    "ID": "1",
    "STUDY": "1.2.3",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, without its indentation."""

    page: Path
    language: str
    text: str


def blocks(language: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for indent, named, body in re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
            if named == language:
                found.append(Block(page, named, textwrap.dedent(body) if indent else body))
    return found


def inline(page: Path) -> list[str]:
    """Text in single backticks."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [found.replace("\n", " ") for found in re.findall(r"`([^`]+)`", text)]


def commands() -> Iterator[tuple[Path, str]]:
    """Every `hilum …` of the pages, as it would be typed; `./scripts/run …` is the same."""
    for page in PAGES:
        text = re.sub(r" \\\n +", " ", page.read_text(encoding="utf-8"))
        code = inline(page) + [
            line.strip()
            for block in re.findall(r"(?:^ *```\w*\n.*?^ *```$)|(?:(?:^    .*\n)+)", text, re.MULTILINE | re.DOTALL)
            for line in block.splitlines()
        ]  # fmt: skip
        for line in code:
            if match := re.fullmatch(r"(?:hilum|(?:\./)?scripts/run) ([a-z-].*)", line):
                yield page, re.sub(r" (\(|<|>|#|  ).*", "", match[1])


def test_every_command_of_the_pages_exists_with_its_options() -> None:
    found = set(commands())
    assert len(found) > 15
    for page, line in found:
        words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line)]
        command: Any = typer.main.get_command(app)
        named = ["hilum"]
        while words and words[0] in getattr(command, "commands", {}):
            named.append(words.pop(0))
            command = command.commands[named[-1]]
        where = f"{page.name}: hilum {line}"
        if hasattr(command, "commands"):
            assert not words or words == ["--version"], f"{where}: no such command"
            continue
        if not words and any(p.param_type_name == "argument" for p in command.params):
            continue
        try:
            command.make_context(" ".join(named), words)
        except typer.TyperException as e:
            pytest.fail(f"{where}: {e.format_message()}")


def test_the_commands_in_fenced_blocks_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[node]\ndata_dir = "data"\n')
    Store.create(tmp_path / "data").close()
    lines = [line for block in blocks("") for line in block.text.splitlines() if line.startswith("hilum ")]
    assert lines
    for line in lines:
        assert main([*shlex.split(line)[1:], "--config", str(config)]) == 0, line
    assert not capsys.readouterr().err


@pytest.mark.parametrize("block", blocks("toml"), ids=lambda block: block.page.name)
def test_configurations_in_the_pages_load(block: Block, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(block.text, encoding="utf-8")
    assert load(tmp_path / "config.toml") != Settings()


@pytest.mark.parametrize("block", blocks("json"), ids=lambda block: block.page.name)
def test_json_in_the_pages_parses(block: Block) -> None:
    assert json.loads(block.text)


def test_lua_in_the_pages_compiles(tmp_path: Path) -> None:
    compiler = next((found for name in ("luac", "luac5.4", "luac5.3") if (found := shutil.which(name))), None)
    if compiler is None:
        pytest.skip("luac is not installed")
    for block in blocks("lua"):
        (tmp_path / "page.lua").write_text(block.text, encoding="utf-8")
        subprocess.run([compiler, "-p", str(tmp_path / "page.lua")], check=True)


def test_every_relative_link_leads_to_a_file() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if not re.match(r"https?:|#", target):
                assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def test_every_path_that_is_named_is_there() -> None:
    for page in PAGES:
        for code in inline(page):
            for path in re.findall(
                r"(?<![\w/.])(?:\./)?((?:node|model|storage|tests|scripts|docs)/[\w./-]*\w)", code
            ):
                assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_every_module_stands_in_the_architecture() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    house = page[page.index("    node/  ") : page.index("    tests/  ")]
    named = set(re.findall(r"[\w/]+\.py", house))
    there = {
        file.name
        for part in ("node", "model", "storage")
        for file in (ROOT / part).rglob("*.py")
        if "migrations" not in file.parts
    }
    assert there - {"__init__.py"} <= named
    assert named <= there


def keys(section: str) -> set[str]:
    """The keys of a section of config.toml; of `scope.words` too."""
    if section == "destinations":
        return {key for kind in DESTINATIONS for key in kind.model_fields}
    model: Any = Settings
    for name in section.split("."):
        if name not in model.model_fields:
            return set()
        model = model.model_fields[name].annotation
    return set(model.model_fields)


def recipe_keys() -> set[str]:
    """What a training recipe may say."""
    tables = (Recipe, Network, Exact, Augmentation, Loss, Auxiliary, Training, Thresholds, Stage)
    return {each.name for table in tables for each in fields(table)}


def test_every_setting_that_is_named_exists() -> None:
    everywhere = set().union(*(keys(section) for section in Settings.model_fields), recipe_keys())
    for page in PAGES:
        for code in inline(page):
            if named := re.match(r"\[\[?([\w.]+)\]?\] (\w+)", code):
                assert named[2] in keys(named[1]), f"{page.name}: {code}"
            elif named := re.fullmatch(r"(\w+) = .+", code):
                assert named[1] in everywhere, f"{page.name}: {code}"


def test_the_catalogue_of_events_is_that_of_the_code() -> None:
    page = (ROOT / "docs/audit.md").read_text(encoding="utf-8")
    _, _, rest = page.partition("<!-- catalogue -->\n")
    assert rest.partition("<!-- end of catalogue -->")[0] == reference.catalogue()


def test_the_tree_names_no_machine() -> None:
    """No path of the machine it was written on, and nothing about how it was written."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    machine = re.compile(
        r"/(?:work|home|root)/\w|\bsub-?agents?\b|\b(?:this|helper) sessions?\b", re.IGNORECASE
    )
    for name in listed.stdout.splitlines():
        file = ROOT / name
        if file == Path(__file__) or file.suffix in {".npz", ".lock", ".png", ".pdf"} or not file.is_file():
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            assert not machine.search(line), f"{name}:{number}"
