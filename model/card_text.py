"""A card's tree as TOML that a person reads: texts wrapped, a line a row."""

import json
import textwrap
import tomllib
from typing import Any

Tree = dict[str, Any]


def toml(tree: Tree) -> str:
    """A card's tree as TOML: texts wrapped, `findings` as tables, other lists of tables a line each."""
    plain = [f"{key} = {_value(value)}" for key, value in tree.items() if not isinstance(value, dict | list)]
    blocks = ["\n".join(plain)]
    for key, value in tree.items():
        if isinstance(value, dict):
            blocks.append("\n".join([f"[{key}]", *(f"{k} = {_value(v)}" for k, v in value.items())]))
        elif isinstance(value, list):
            blocks += [
                "\n".join([f"[[{key}]]", *(f"{k} = {_value(v)}" for k, v in each.items())]) for each in value
            ]
    text = "\n\n".join(blocks) + "\n"
    assert tomllib.loads(text).keys() == tree.keys()
    return text


def _value(value: Any) -> str:
    if isinstance(value, str):
        text = " ".join(value.split())
        if len(text) < 80:
            return json.dumps(text, ensure_ascii=False)
        lines = json.dumps(wrapped(text), ensure_ascii=False)[1:-1].replace("\\n", " \\\n  ")
        return f'"""\\\n  {lines}"""'
    if isinstance(value, list) and value and isinstance(value[0], dict):
        rows = ["{ " + ", ".join(f"{k} = {_value(v)}" for k, v in row.items()) + " }" for row in value]
        return "[\n" + "".join(f"  {row},\n" for row in rows) + "]"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)


def wrapped(text: str) -> str:
    """Lines of at most 108 characters."""
    return textwrap.fill(" ".join(text.split()), 108, break_long_words=False, break_on_hyphens=False)
