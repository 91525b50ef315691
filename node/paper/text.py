"""A paper as plain text: for a terminal, a mail, a typewriter's page."""

import textwrap
from collections.abc import Iterator, Sequence

from node.paper import MARKS, Block, Facts, Paper, Steps, Table, Words, by_day, clock, numbers

WIDTH = 108
# nobody reads a word that is one column wide
_LEAST = 24


def write(paper: Paper) -> str:
    lines = [*_wrapped(paper.title), "=" * min(WIDTH, len(paper.title)), ""]
    for section in paper.sections:
        lines += ["", section.title, ("=" if section.level == 1 else "-") * min(WIDTH, len(section.title))]
        for block in section.blocks:
            lines += ["", *_block(block)]
        lines.append("")
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Facts(rows):
            margin = max((len(name) for name, _ in rows), default=0) + 2
            for name, value in rows:
                yield from _hanging(f"{name:<{margin}}", value)
        case Words(text):
            yield from _wrapped(text)
        case Steps():
            yield from _steps(block)
        case Table():
            yield from _table(block)


def _steps(steps: Steps) -> Iterator[str]:
    for date, some in by_day(steps.rows):
        yield date
        for step in some:
            head = f"{MARKS[step.kind]:<2}{clock(step.at)}  {step.passed and '+' + step.passed:>12}  "
            told = f"{step.text}  [{numbers(step.records)}]" if step.records else step.text
            yield from _hanging(head, told)


def _table(table: Table) -> Iterator[str]:
    rows = [[str(cell) for cell in row] for row in table.rows]
    widths = _widths([list(table.columns), *rows])
    yield _row(table.columns, widths, table.numbers)
    yield "  ".join("-" * width for width in widths)
    for row in rows:
        broken = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
        for number in range(max(len(lines) for lines in broken)):
            yield _row([cell[number] if number < len(cell) else "" for cell in broken], widths, table.numbers)


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """What each column needs; the widest gives way until all fit."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH and max(widths) > _LEAST:
        widths[widths.index(max(widths))] -= 1
    return widths


def _row(cells: Sequence[str], widths: Sequence[int], right: frozenset[int]) -> str:
    return "  ".join(
        f"{cell:>{width}}" if column in right else f"{cell:<{width}}"
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )


def _hanging(head: str, text: str) -> Iterator[str]:
    lines = _wrapped(text, max(_LEAST, WIDTH - len(head)))
    yield head + lines[0]
    for line in lines[1:]:
        yield " " * len(head) + line


def _wrapped(text: str, width: int = WIDTH) -> list[str]:
    """Lines of this width; control characters, which a header may hold, become spaces."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return textwrap.wrap(plain, width, break_on_hyphens=False) or [""]
