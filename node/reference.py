"""docs/reference.md, made from the code: commands and options, exit codes, events, and config.toml's comments.

    python -m node.reference [CONFIG.TOML [REFERENCE.MD [AUDIT.MD]]]

And the catalogue of events in docs/audit.md. A test fails when a file and the code differ.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from model.page import put_between
from node import history
from node.cli import EXIT_CODES, app
from node.status import DELIVERY_STATES, JOB_STATES
from storage.audit import CATALOGUE, EVENTS

ROOT = Path(__file__).parents[1]
_HEAD = """\
# Reference

Made from the code by `scripts/reference`; don't edit it. What stands here are names that scripts may rely on: they
don't change without a deprecation.
"""


@dataclass(frozen=True)
class Key:
    """One key of config.toml: its default as it is written there (empty: none), and the comment above it."""

    section: str
    name: str
    default: str
    comment: str


def write(config: str) -> str:
    """The whole page; `config` is the text of the commented config.toml."""
    parts = [_HEAD, "## Commands\n", *_commands(typer.main.get_command(app), "hilum")]
    parts += ["## Exit codes\n", _table(("code", "means"), EXIT_CODES.items())]
    parts += ["## Configuration\n", *_configuration(config)]
    parts += [
        "## States\n",
        _table(
            ("of a", "states"),
            [("job", _code(JOB_STATES)), ("delivery", _code(DELIVERY_STATES))],
        ),
        "## The audit log\n",
        f"Columns: {_code(history.COLUMNS)}.\n",
        f"Events: {_code(EVENTS)}.\n",
    ]
    return "\n".join(parts)


def catalogue() -> str:
    """Every event of the audit log, and the keys of its detail."""
    return _table(
        ("event", "says", "its detail holds"),
        [(f"`{event.name}`", event.says, _code(event.details)) for event in CATALOGUE],
    )


def _commands(command: Any, name: str) -> Iterator[str]:
    subcommands = getattr(command, "commands", {})
    for word, subcommand in subcommands.items():
        yield from _commands(subcommand, f"{name} {word}")
    if subcommands:
        return
    context = typer.Context(command, info_name=name)
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    needed = [f"{p.opts[0]} {p.metavar}" for p in command.params if p not in arguments and p.required]
    yield f"### `{' '.join([name, *(_argument(p) for p in arguments), *needed])}`\n"
    yield f"{_unwrapped(command.help)}\n"
    rows = [(f"`{p.metavar}`", p.help) for p in arguments]
    for option in command.params:
        if option not in arguments:
            usage, told = option.get_help_record(context)
            rows.append((f"`{usage}`", told.replace("  [", " [")))
    yield _table(("option", "what it does"), rows)


def _argument(parameter: Any) -> str:
    shown = f"{parameter.metavar}…" if parameter.nargs == -1 else parameter.metavar
    return shown if parameter.required else f"[{shown}]"


def _unwrapped(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def keys(config: str) -> list[Key]:
    """Every key of a commented config.toml, switched off ones (`#key = …`) too; the first of a name counts.

    A key without a comment of its own shares the one of the key above it.
    """
    found: dict[tuple[str, str], Key] = {}
    section, comment, fresh = "", "", False
    for line in config.splitlines():
        if header := re.fullmatch(r"#?\[\[?([\w.]+)\]\]?", line):
            section, comment, fresh = header[1], "", False
        elif line.startswith("# "):
            comment = f"{comment} {line[2:]}" if fresh else line[2:]
            fresh = True
        elif key := re.match(r"(#?)(\w+) = (.*)", line):
            default = "" if key[1] else key[3]
            found.setdefault((section, key[2]), Key(section, key[2], default, comment))
            fresh = False
        elif not line:
            comment, fresh = "", False
    return list(found.values())


def _configuration(config: str) -> Iterator[str]:
    yield "TOML; the commented `config.toml` at the top of the repository shows every key with its default.\n"
    listed = keys(config)
    for section in dict.fromkeys(key.section for key in listed):
        yield f"### `[{'[destinations]' if section == 'destinations' else section}]`\n"
        rows = [
            (f"`{k.name}`", f"`{k.default}`" if k.default else "", k.comment)
            for k in listed
            if k.section == section
        ]
        yield _table(("key", "default", "what it does"), rows)


def _table(columns: tuple[str, ...], rows: Any) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return (
        "\n".join("| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |" for line in lines) + "\n"
    )


def _code(words: tuple[str, ...]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def main() -> None:
    config = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "config.toml"
    page = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs" / "reference.md"
    page.write_text(write(config.read_text(encoding="utf-8")), encoding="utf-8")
    audit = Path(sys.argv[3]) if len(sys.argv) > 3 else ROOT / "docs" / "audit.md"
    put_between(audit, "catalogue", catalogue())


if __name__ == "__main__":
    main()
