"""A document as Markdown, as GitHub shows it. Whatever stands in a text is shown as it is, but for `code`."""

import re
from collections.abc import Iterator, Sequence

from model.describe.document import Block, Document, Drawn, Facts, Heading, Points, Table, Words

MADE = "<!-- Made by `hilum model describe`; don't edit it. -->"


def write(document: Document) -> str:
    parts = [MADE, f"# {_text(document.title)}", _text(document.running)]
    if document.has_contents:
        parts.append("\n".join(_contents(document)))
    parts += [_block(block) for block in document.blocks]
    return "\n\n".join(parts) + "\n"


def _contents(document: Document) -> Iterator[str]:
    for heading in document.headings:
        yield f"{'  ' * (heading.level - 1)}- [{_text(heading.text)}](#{heading.anchor})"


def _block(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * (level + 1)} {_text(text)}"
        case Words(text, is_loud):
            return f"**{_text(text)}**" if is_loud else _first(_text(text))
        case Facts(rows):
            return _table(["", ""], [[name, value] for name, value in rows], frozenset())
        case Points(items, is_numbered):
            marks = [f"{n}." if is_numbered else "-" for n in range(1, len(items) + 1)]
            return "\n".join(f"{mark} {_first(_text(item))}" for mark, item in zip(marks, items, strict=True))
        case Table(caption, columns, rows, numbers):
            table = _table(columns, rows, numbers)
            return f"{_first(_text(caption))}:\n\n{table}" if caption else table
        case Drawn(caption, _, mermaid):
            if mermaid:
                return f"```mermaid\n{mermaid}```\n\n{_first(_text(caption))}"
            return f"*{_text(caption)} (Drawn in the HTML and the PDF.)*"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: frozenset[int]) -> str:
    sides = ["---:" if column in numbers else "---" for column in range(len(columns))]
    lines = [_row(columns), "|" + "|".join(sides) + "|", *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_text(cell).replace("|", r"\|") for cell in cells) + " |"


def _text(text: str) -> str:
    """Text on one line; only backticks mean something."""
    parts = " ".join(text.split()).split("`")
    if len(parts) % 2 == 0:
        parts = ["'".join(parts)]
    return "".join(f"`{part}`" if place % 2 else _escaped(part) for place, part in enumerate(parts))


def _escaped(text: str) -> str:
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text.replace("\\", "\\\\")).replace("<", "&lt;")
    text = re.sub(r"([*~$])", r"\\\1", text)
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    # a link or a picture; brackets alone are brackets
    return re.sub(r"\](?=[(\[])", r"\\]", text)


def _first(text: str) -> str:
    """What at the start of a line would begin a heading, a list, a quotation or a link's address."""
    text = re.sub(r"^([#>+\-\[])", r"\\\1", text)
    return re.sub(r"^(\d+)([.)])(?=\s)", r"\1\\\2", text)
