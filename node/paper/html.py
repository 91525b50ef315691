"""A paper as one HTML file: it loads nothing, runs nothing, and prints on A4. Every value is escaped."""

from collections.abc import Iterator
from html import escape

from node.paper import MARKS, Block, Facts, Paper, Section, Steps, Table, Words, by_day, clock, numbers

_STYLE = """
@page { size: A4; margin: 16mm 14mm 18mm;
  @top-left { content: RUNNING; font: 8pt sans-serif; color: #444; }
  @bottom-right { content: "page " counter(page) " of " counter(pages); font: 8pt sans-serif; color: #444; } }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; color: #111; background: #fff;
  max-width: 60rem; margin: 2rem auto; padding: 0 1.2rem; overflow-wrap: anywhere; }
h1 { font-size: 1.55rem; line-height: 1.2; margin: 0 0 .2rem; }
.running { color: #555; font-size: .85rem; margin: 0 0 1.4rem; }
h2 { font-size: 1.08rem; margin: 1.7rem 0 .5rem; padding-bottom: .2rem; border-bottom: 1.5px solid #111; }
h2.part { font-size: 1.3rem; margin-top: 2.6rem; border-bottom-width: 2.5px; }
p { margin: .5rem 0; }
.loud { font-weight: 600; border: 1.5px solid #111; border-radius: 3px; padding: .45rem .7rem; }
table { border-collapse: collapse; margin: .5rem 0 .9rem; }
.facts, .steps { width: 100%; }
th { text-align: left; font-weight: 600; color: #444; font-size: .85rem; border-bottom: 1px solid #888; }
th, td { padding: .22rem 1.3rem .22rem 0; vertical-align: top; }
td { border-bottom: 1px solid #e4e4e4; }
tr:last-child > td { border-bottom: 0; }
.right { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.facts td { border: 0; padding-top: .12rem; padding-bottom: .12rem; }
.facts td:first-child { color: #555; width: 14rem; }
.steps .at, .steps .passed { font-variant-numeric: tabular-nums; white-space: nowrap; width: 1%; }
.steps td { padding-right: .7rem; }
.steps .mark { width: 1.1rem; text-align: center; font-weight: 700; padding-right: .3rem; }
.steps .passed { color: #555; text-align: right; font-size: .88rem; }
.steps .records { color: #777; font-size: .78rem; text-align: right; width: 5.5rem; padding-right: 0; }
.steps th { color: #111; }
.steps th.records { font-weight: 400; color: #777; }
.trouble td { background: #f6f0e8; }
.trouble .what, .person .what { font-weight: 600; }
@media print {
  html { font-size: 9pt; }
  body { margin: 0; padding: 0; max-width: none; font-size: 9pt; }
  h2 { break-after: avoid; margin-top: 1.1rem; }
  table { margin: .2rem 0 .5rem; }
  h2.part:not(.first) { break-before: page; margin-top: 0; }
  tr, .loud { break-inside: avoid; }
  thead { display: table-header-group; }
  .trouble td { background: none; }
}
"""


def write(paper: Paper) -> str:
    running = escape(paper.running)
    head = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{escape(paper.title)}</title>\n<style>{_STYLE.replace('RUNNING', _css(paper.running))}</style>",
        f'</head>\n<body>\n<h1>{escape(paper.title)}</h1>\n<p class="running">{running}</p>',
    ]
    body = [
        line
        for number, section in enumerate(paper.sections)
        for line in _section(section, is_first=not number)
    ]
    return "\n".join([*head, *body, "</body>\n</html>\n"])


def _section(section: Section, *, is_first: bool) -> Iterator[str]:
    kind = (' class="part first"' if is_first else ' class="part"') if section.level == 1 else ""
    yield f"<h2{kind}>{escape(section.title)}</h2>"
    for block in section.blocks:
        yield from _block(block)


def _block(block: Block) -> Iterator[str]:
    match block:
        case Facts(rows):
            yield '<table class="facts">'
            yield from (f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
            yield "</table>"
        case Words(text, is_loud):
            yield f'<p class="loud">{escape(text)}</p>' if is_loud else f"<p>{escape(text)}</p>"
        case Steps():
            yield from _steps(block)
        case Table():
            yield from _table(block)


def _steps(steps: Steps) -> Iterator[str]:
    for date, some in by_day(steps.rows):
        # a table a day: on paper its head stands on each page again
        yield f'<table class="steps">\n<thead><tr><th></th><th colspan="3">{date}</th>'
        yield '<th class="records">record</th></tr></thead>\n<tbody>'
        for step in some:
            kind = f' class="{step.kind}"' if step.kind else ""
            passed = step.passed and "+" + step.passed
            yield (
                f'<tr{kind}><td class="mark">{MARKS[step.kind]}</td><td class="at">{clock(step.at)}</td>'
                f'<td class="passed">{passed}</td><td class="what">{escape(step.text)}</td>'
                f'<td class="records">{numbers(step.records)}</td></tr>'
            )
        yield "</tbody>\n</table>"


def _table(table: Table) -> Iterator[str]:
    right = [' class="right"' if column in table.numbers else "" for column in range(len(table.columns))]
    heads = "".join(f"<th{side}>{escape(name)}</th>" for side, name in zip(right, table.columns, strict=True))
    yield f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>"
    for row in table.rows:
        cells = "".join(f"<td{side}>{escape(cell)}</td>" for side, cell in zip(right, row, strict=True))
        yield f"<tr>{cells}</tr>"
    yield "</tbody>\n</table>"


def _css(text: str) -> str:
    """A CSS string in a style element: neither may be left from within it."""
    return '"' + "".join(c if c.isalnum() or c in " .:,-+()" else f"\\{ord(c):x} " for c in text) + '"'
