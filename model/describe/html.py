"""A document as one HTML file: it loads nothing, runs nothing, and prints on A4. Every value is escaped."""

from collections.abc import Iterator, Sequence
from html import escape

from model.describe.document import Block, Document, Drawn, Facts, Heading, Points, Table, Words
from model.describe.drawing import Box, Dot, Drawable, Letters, Line, Picture, Point, Shape

_STYLE = """
@page { size: A4; margin: 17mm 15mm 18mm;
  @bottom-right { content: "page " counter(page) " of " counter(pages); font: 8pt sans-serif; color: #555; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; color: #1a1a1a; background: #fff;
  max-width: 60rem; margin: 2rem auto; padding: 0 1.2rem; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
.running { color: #555; font-size: .85rem; margin: 0 0 1.4rem; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 .6rem; padding-bottom: .25rem; border-bottom: 2.5px solid #1a1a1a; }
h3 { font-size: 1.05rem; margin: 1.7rem 0 .4rem; }
p, ul, ol { margin: .55rem 0; }
li { margin: .25rem 0; }
.loud { font-weight: 600; border: 1.5px solid #1a1a1a; border-radius: 3px; padding: .5rem .8rem; }
code { font: .88em ui-monospace, "DejaVu Sans Mono", monospace; background: #f1f5f8; padding: .05em .25em;
  border-radius: 2px; }
nav { background: #f1f5f8; border-radius: 4px; padding: .8rem 1.2rem; margin: 1.2rem 0; font-size: .92rem; columns: 2; }
nav div { break-inside: avoid; }
nav a { display: block; color: inherit; text-decoration: none; padding: .06rem 0; }
nav a:hover { text-decoration: underline; }
nav .one { font-weight: 600; margin-top: .3rem; }
nav .two { padding-left: 1.2rem; }
.scroll { overflow-x: auto; margin: .6rem 0 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; line-height: 1.35; }
caption { text-align: left; font-weight: 600; padding: .2rem 0 .35rem; caption-side: top; }
th { text-align: left; font-weight: 600; color: #444; border-bottom: 1.2px solid #1a1a1a; vertical-align: bottom; }
th, td { padding: .25rem .8rem .25rem 0; overflow-wrap: break-word; }
td { border-bottom: 1px solid #e2e6e9; vertical-align: top; }
td code { white-space: nowrap; }
.right { text-align: right; font-variant-numeric: tabular-nums; }
th:last-child, td:last-child { padding-right: 0; }
.facts td:first-child { color: #555; width: 14rem; }
figure { margin: 1rem 0; }
svg { width: 100%; height: auto; max-width: 42rem; display: block; }
figcaption { color: #444; font-size: .88rem; margin-top: .3rem; }
@media print {
  body { margin: 0; padding: 0; max-width: none; font-size: 9.5pt; }
  h2 { margin-top: 1.6rem; }
  h2, h3, caption { break-after: avoid; }
  tr, figure, .loud { break-inside: avoid; }
  thead { display: table-header-group; }
  .scroll { overflow: visible; }
}
"""


def write(document: Document) -> str:
    head = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{escape(document.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        f'<h1>{escape(document.title)}</h1>\n<p class="running">{escape(document.running)}</p>',
    ]
    contents = [*_contents(document)] if document.has_contents else []
    body = [line for block in document.blocks for line in _block(block)]
    return "\n".join([*head, *contents, *body, "</body>\n</html>\n"])


def _contents(document: Document) -> Iterator[str]:
    yield '<nav aria-label="Contents">'
    is_open = False
    for heading in document.headings:
        if heading.level == 1:
            yield "</div><div>" if is_open else "<div>"
            is_open = True
        kind = "one" if heading.level == 1 else "two"
        yield f'<a class="{kind}" href="#{heading.anchor}">{escape(heading.text)}</a>'
    yield "</div></nav>" if is_open else "</nav>"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Heading(text, level):
            yield f'<h{level + 1} id="{block.anchor}">{escape(text)}</h{level + 1}>'
        case Words(text, is_loud):
            yield f'<p class="loud">{_text(text)}</p>' if is_loud else f"<p>{_text(text)}</p>"
        case Facts(rows):
            yield '<table class="facts">'
            yield from (f"<tr><td>{_text(name)}</td><td>{_text(value)}</td></tr>" for name, value in rows)
            yield "</table>"
        case Points(items, is_numbered):
            kind = "ol" if is_numbered else "ul"
            yield f"<{kind}>" + "".join(f"<li>{_text(item)}</li>" for item in items) + f"</{kind}>"
        case Table():
            yield from _table(block)
        case Drawn(caption, picture, _):
            yield f"<figure>\n{_svg(picture)}\n<figcaption>{_text(caption)}</figcaption></figure>"


def _table(table: Table) -> Iterator[str]:
    right = [' class="right"' if column in table.numbers else "" for column in range(len(table.columns))]
    yield '<div class="scroll"><table>'
    if table.caption:
        yield f"<caption>{_text(table.caption)}</caption>"
    heads = "".join(f"<th{side}>{_text(name)}</th>" for side, name in zip(right, table.columns, strict=True))
    yield f"<thead><tr>{heads}</tr></thead>\n<tbody>"
    for row in table.rows:
        cells = "".join(f"<td{side}>{_text(cell)}</td>" for side, cell in zip(right, row, strict=True))
        yield f"<tr>{cells}</tr>"
    yield "</tbody>\n</table></div>"


def _text(text: str) -> str:
    parts = text.split("`")
    if len(parts) % 2 == 0:
        parts = ["'".join(parts)]
    return "".join(
        f"<code>{escape(part)}</code>" if place % 2 else escape(part) for place, part in enumerate(parts)
    )


def _svg(picture: Picture) -> str:
    shapes = "\n".join(_shape(shape) for shape in picture.shapes)
    return (
        f'<svg viewBox="0 0 {_n(picture.width)} {_n(picture.height)}" role="img" aria-label="{escape(picture.says)}" '
        'font-family="DejaVu Sans, Verdana, Geneva, sans-serif">\n'
        f"{shapes}\n</svg>"
    )


def _shape(shape: Drawable) -> str:
    match shape:
        case Line(points, color, width, is_dashed):
            dashes = ' stroke-dasharray="3 2"' if is_dashed else ""
            pen = f'stroke="{color}" stroke-width="{_n(width)}"{dashes}'
            return f'<polyline points="{_points(points)}" fill="none" {pen}/>'
        case Shape(points, fill):
            return f'<polygon points="{_points(points)}" fill="{fill}"/>'
        case Box(x, y, width, height, fill, color, is_dashed):
            dashes = ' stroke-dasharray="3 2"' if is_dashed else ""
            return (
                f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" rx="2" fill="{fill}" '
                f'stroke="{color}" stroke-width="0.8"{dashes}/>'
            )
        case Dot(x, y, radius, color):
            return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" fill="{color}"/>'
        case Letters(x, y, text, size, anchor, is_bold, color):
            bold = ' font-weight="bold"' if is_bold else ""
            return (
                f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" text-anchor="{anchor}" fill="{color}"{bold}>'
                f"{escape(text)}</text>"
            )


def _points(points: Sequence[Point]) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)


def _n(value: float) -> str:
    """A tenth of a point is finer than print."""
    return f"{value:.1f}".removesuffix(".0")
