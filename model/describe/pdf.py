"""A document as PDF: A4, contents, bookmarks, page numbers, letters embedded, pictures as shapes.

The same document gives the same bytes: no time and no number by chance goes in (reportlab's `invariant`).
"""

import math
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

from model import typeset
from model.describe.document import Block, Document, Drawn, Facts, Heading, Points, Table, Words
from model.describe.drawing import Box, Dot, Drawable, Letters, Line, Picture, Shape, width_of
from model.typeset import BOLD, NUMBERED, TEXT

WIDTH, HEIGHT, MARGIN = 595.28, 841.89, 45.0
"""A4 and its margins, in points of 1/72 inch."""
ROOM = WIDTH - 2 * MARGIN
TALLEST = HEIGHT - 2 * MARGIN - 60
"""A picture and its caption must fit on one page."""
SIZE, CELL, SMALL = 8.5, 7.5, 7.0
_CODE = "#eef2f5"
# a table cell is never broken over pages, and must fit on one
_LONGEST = 3000
_CELL_EDGE = 8.0
# of a column, beyond what it needs
_MOST_SPARE = 110.0
# rows of a table that is not broken over pages
_SHORT = 8


def write(document: Document) -> bytes:
    from reportlab.platypus import CondPageBreak, Frame, PageTemplate, Spacer

    setting = _Setting()
    out = BytesIO()
    made = _template()(
        out,
        pagesize=(WIDTH, HEIGHT),
        title=document.title,
        author="Hilum",
        subject=document.running,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        invariant=1,
    )
    frame = Frame(MARGIN, MARGIN + 4, ROOM, HEIGHT - 2 * MARGIN - 16, 0, 0, 0, 0, id="page")
    made.addPageTemplates(
        PageTemplate("page", [frame], onPage=lambda canvas, _: _foot(canvas, made, setting, document))
    )
    flow: list[Any] = [
        setting.words(document.title, "title"),
        setting.words(document.running, "small"),
        Spacer(0, 10),
    ]
    first = next(
        (n for n, block in enumerate(document.blocks) if isinstance(block, Heading)), len(document.blocks)
    )
    for number, block in enumerate(document.blocks):
        if number == first:
            flow += setting.contents()
        if isinstance(block, Heading):
            # no heading at the foot of a page
            flow.append(CondPageBreak(_room_for(document.blocks[number:])))
        flow += [*setting.block(block), Spacer(0, 4)]
    if setting.has_numbered:
        flow.append(setting.words(NUMBERED, "small"))
    made.multiBuild(flow)
    return out.getvalue()


def _room_for(blocks: Sequence[Block]) -> float:
    """What a heading and what stands under it need at least on a page."""
    heading, following = blocks[0], blocks[1] if len(blocks) > 1 else None
    assert isinstance(heading, Heading)
    own = 40.0 if heading.level == 1 else 20.0
    match following:
        case Heading():
            return own + _room_for(blocks[1:])
        case Drawn(_, picture, _):
            return own + picture.height * _scale(picture) + 50
        case Table():
            return own + 90
    return own + 50


def _template() -> Any:
    from reportlab.platypus import BaseDocTemplate

    class Template(BaseDocTemplate):
        # all is laid out until the contents' page numbers stay: the last time there are as many pages as before
        pages, pages_before = 0, 0

        def beforeDocument(self) -> None:  # noqa: N802 - reportlab's name
            self.pages_before = self.pages

        def afterPage(self) -> None:  # noqa: N802 - reportlab's name
            self.pages = self.page

        def afterFlowable(self, flowable: Any) -> None:  # noqa: N802 - reportlab's name
            """A heading goes into the contents and into the bookmarks."""
            heading = getattr(flowable, "heading", None)
            if heading is None:
                return
            level = heading.level - 1
            self.canv.bookmarkPage(heading.anchor)
            self.canv.addOutlineEntry(heading.text, heading.anchor, level, closed=level == 0)
            self.notify("TOCEntry", (level, flowable.text, self.page, heading.anchor))

    return Template


def _foot(canvas: Any, made: Any, setting: "_Setting", document: Document) -> None:
    canvas.saveState()
    canvas.setStrokeColor("#999999")
    canvas.setLineWidth(0.4)
    canvas.line(MARGIN, MARGIN - 8, WIDTH - MARGIN, MARGIN - 8)
    foot = setting.words(document.title, "small")
    foot.wrap(ROOM - 80, 20)
    foot.drawOn(canvas, MARGIN, MARGIN - 20)
    canvas.setFont(TEXT, SMALL)
    canvas.setFillColor("#555555")
    canvas.drawRightString(WIDTH - MARGIN, MARGIN - 18, f"page {made.page} of {made.pages_before}")
    canvas.restoreState()


class _Setting:
    """Blocks -> what reportlab lays out. Remembers whether a letter had to be written as a number."""

    def __init__(self) -> None:
        from reportlab.lib.styles import ParagraphStyle

        typeset.load()
        self.has_numbered = False
        body = ParagraphStyle("body", fontName=TEXT, fontSize=SIZE, leading=12, splitLongWords=1)
        cell = ParagraphStyle("cell", body, fontSize=CELL, leading=9.8)
        self._styles = {
            "body": body,
            "cell": cell,
            "title": ParagraphStyle("title", body, fontName=BOLD, fontSize=17, leading=22),
            "part": ParagraphStyle("part", body, fontName=BOLD, fontSize=13.5, leading=18, spaceBefore=16),
            "head": ParagraphStyle("head", body, fontName=BOLD, fontSize=10, leading=13, spaceBefore=7),
            "loud": ParagraphStyle(
                "loud", body, fontName=BOLD, borderWidth=0.9, borderColor="#1a1a1a", borderPadding=(5, 7, 6, 7),
                leftIndent=8, rightIndent=8, spaceBefore=8, spaceAfter=10,
            ),
            "caption": ParagraphStyle("caption", body, fontName=BOLD, fontSize=7.5, leading=10, spaceBefore=3),
            "under": ParagraphStyle("under", body, fontSize=SMALL, leading=9.5, textColor="#444444"),
            "right": ParagraphStyle("right", cell, alignment=2),
            "grey": ParagraphStyle("grey", cell, textColor="#555555"),
            "column": ParagraphStyle("column", cell, fontName=BOLD, fontSize=SMALL, leading=9, textColor="#333333"),
            "column right": ParagraphStyle(
                "column right", cell, fontName=BOLD, fontSize=SMALL, leading=9, textColor="#333333", alignment=2
            ),
            "small": ParagraphStyle("small", body, fontSize=SMALL, leading=9.5, textColor="#555555"),
            "point": ParagraphStyle("point", body, leftIndent=14, bulletIndent=2, spaceAfter=2.5),
            "toc 1": ParagraphStyle("toc 1", body, fontName=BOLD, fontSize=8, leading=9.5),
            "toc 2": ParagraphStyle("toc 2", body, leftIndent=14, fontSize=7.5, leading=8.4),
        }  # fmt: skip

    def words(self, text: str, style: str = "body", bullet: str | None = None) -> Any:
        from reportlab.platypus import Paragraph

        chosen = self._styles[style]
        return Paragraph(self._marked(text, chosen.fontName), chosen, bulletText=bullet)

    def _marked(self, text: str, font: str) -> str:
        """reportlab's markup: code on grey, each run of letters in a font that has them."""
        parts = text.split("`")
        if len(parts) % 2 == 0:
            parts = ["'".join(parts)]
        found = []
        for place, part in enumerate(parts):
            markup, has_numbered = typeset.marked(part, font)
            self.has_numbered = self.has_numbered or has_numbered
            found.append(f'<font backColor="{_CODE}">{markup}</font>' if place % 2 and part else markup)
        return "".join(found)

    def contents(self) -> Iterator[Any]:
        from reportlab.platypus import PageBreak, TableStyle
        from reportlab.platypus.tableofcontents import TableOfContents

        yield self.words("Contents", "head")
        yield TableOfContents(
            levelStyles=[self._styles["toc 1"], self._styles["toc 2"]],
            dotsMinLevel=0,
            rightColumnWidth=30,
            tableStyle=TableStyle(
                [
                    ("TOPPADDING", (0, 0), (-1, -1), 1),
                    ("BOTTOMPADDING", (0, 0), (-1, -1), 1),
                    ("LEFTPADDING", (0, 0), (-1, -1), 0),
                    ("RIGHTPADDING", (0, 0), (-1, -1), 0),
                ]
            ),
        )
        # the first section begins a page
        yield PageBreak()

    def block(self, block: Block) -> Iterator[Any]:
        match block:
            case Heading():
                yield from self._heading(block)
            case Words(text, is_loud):
                yield self.words(text, "loud" if is_loud else "body")
            case Facts(rows):
                cells = [[self.words(name, "grey"), self.words(_cut(value), "cell")] for name, value in rows]
                if cells:
                    yield _laid(cells, [118.0, ROOM - 118.0], heads=0)
            case Points(items, is_numbered):
                for number, item in enumerate(items, 1):
                    yield self.words(item, "point", f"{number}." if is_numbered else "\N{BULLET}")
            case Table():
                yield from self._table(block)
            case Drawn(caption, picture, _):
                yield from self._drawn(caption, picture)

    def _heading(self, heading: Heading) -> Iterator[Any]:
        from reportlab.platypus.flowables import HRFlowable

        words = self.words(heading.text, "part" if heading.level == 1 else "head")
        words.heading = heading
        yield words
        if heading.level == 1:
            yield HRFlowable(width="100%", thickness=1.2, color="#1a1a1a", spaceAfter=3)

    def _table(self, table: Table) -> Iterator[Any]:
        from reportlab.platypus import CondPageBreak, KeepTogether

        if not table.rows:
            return
        right = [column in table.numbers for column in range(len(table.columns))]
        heads = [
            self.words(name, "column right" if is_right else "column")
            for name, is_right in zip(table.columns, right, strict=True)
        ]
        cells = [
            heads,
            *(
                [
                    self.words(_cut(cell), "right" if is_right else "cell")
                    for cell, is_right in zip(row, right, strict=True)
                ]
                for row in table.rows
            ),
        ]
        found = [self.words(table.caption, "caption")] if table.caption else []
        found.append(_laid(cells, _widths(table), heads=1))
        if len(table.rows) <= _SHORT:
            yield KeepTogether(found)
        else:
            # a caption stays with its table's first rows
            yield CondPageBreak(90)
            yield from found

    def _drawn(self, caption: str, picture: Picture) -> Iterator[Any]:
        from reportlab.platypus import KeepTogether

        yield KeepTogether([_flowable(picture), self.words(caption, "under")])


def _cut(text: str) -> str:
    return (
        text
        if len(text) <= _LONGEST
        else f"{text[:_LONGEST]}… ({len(text) - _LONGEST:,} more letters: see the card)"
    )


def _laid(cells: list[list[Any]], widths: Sequence[float], heads: int) -> Any:
    from reportlab.platypus import Table as Laid
    from reportlab.platypus import TableStyle

    laid = Laid(cells, colWidths=list(widths), repeatRows=heads, hAlign="LEFT", spaceAfter=4)
    style: list[tuple[Any, ...]] = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (0, 0), (-2, -1), _CELL_EDGE),
        ("RIGHTPADDING", (-1, 0), (-1, -1), 0),
        ("TOPPADDING", (0, 0), (-1, -1), 1.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
        ("LINEBELOW", (0, 0), (-1, -1), 0.25, "#d5dade"),
    ]
    if heads:
        style += [("LINEBELOW", (0, 0), (-1, 0), 0.8, "#1a1a1a"), ("VALIGN", (0, 0), (-1, 0), "BOTTOM")]
    laid.setStyle(TableStyle(style))
    return laid


def _widths(table: Table) -> list[float]:
    """Points for each column: as wide as its longest cell where all fit. Else the narrow ones are, and the others share
    what is left, by the root of what they would like: a cell four times as long is to have twice as many lines."""
    least, liked = [], []
    for column, name in enumerate(table.columns):
        texts = [row[column].replace("`", "") for row in table.rows]
        heads = max((width_of(word, SMALL, is_bold=True) for word in name.split()), default=0.0)
        words = max((width_of(word, CELL) for text in texts for word in text.split(" ")), default=0.0)
        wide = max((width_of(text, CELL) for text in texts), default=0.0)
        least.append(min(max(words, heads), ROOM / 3) + _CELL_EDGE + 1)
        liked.append(max(wide, heads) + _CELL_EDGE + 1)
    if sum(liked) <= ROOM:
        # words take what is left, but numbers stay near what they count
        takers = [n for n in range(len(liked)) if n not in table.numbers]
        spare = min(_MOST_SPARE, (ROOM - sum(liked)) / max(len(takers), 1))
        return [width + (spare if n in takers else 0) for n, width in enumerate(liked)]
    if sum(least) >= ROOM:
        return [width * ROOM / sum(least) for width in least]
    found: dict[int, float] = {}
    while True:
        left = ROOM - sum(found.values())
        others = [n for n in range(len(liked)) if n not in found]
        roots = sum(math.sqrt(liked[n]) for n in others)
        fair = {n: left * math.sqrt(liked[n]) / roots for n in others}
        settled = {n: least[n] for n in others if fair[n] < least[n]} or {
            n: liked[n] for n in others if liked[n] < fair[n]
        }
        if not settled:
            return [(found | fair)[n] for n in range(len(liked))]
        found |= settled


def _scale(picture: Picture) -> float:
    return min(1.0, ROOM / picture.width, TALLEST / picture.height)


def _flowable(picture: Picture) -> Any:
    from reportlab.platypus import Flowable

    scale = _scale(picture)

    class Canvas(Flowable):
        def wrap(self, *_: float) -> tuple[float, float]:
            return picture.width * scale, picture.height * scale + 4

        def draw(self) -> None:
            self.canv.saveState()
            self.canv.translate(0, 4)
            self.canv.scale(scale, scale)
            for shape in picture.shapes:
                _draw(self.canv, shape, picture.height)
            self.canv.restoreState()

    return Canvas()


def _draw(canvas: Any, shape: Drawable, height: float) -> None:
    """reportlab counts from the foot of the page upwards."""
    match shape:
        case Line(points, color, width, is_dashed):
            _pen(canvas, color, width, is_dashed=is_dashed)
            canvas.drawPath(_path(canvas, points, height), stroke=1, fill=0)
        case Shape(points, fill):
            canvas.setFillColor(fill)
            path = _path(canvas, points, height)
            path.close()
            canvas.drawPath(path, stroke=0, fill=1)
        case Box(x, y, width, tall, fill, color, is_dashed):
            _pen(canvas, color, 0.8, is_dashed=is_dashed)
            canvas.setFillColor(fill)
            canvas.roundRect(x, height - y - tall, width, tall, 2, stroke=1, fill=1)
        case Dot(x, y, radius, color):
            canvas.setFillColor(color)
            canvas.circle(x, height - y, radius, stroke=0, fill=1)
        case Letters(x, y, text, size, anchor, is_bold, color):
            canvas.setFont(BOLD if is_bold else TEXT, size)
            canvas.setFillColor(color)
            draw = {
                "start": canvas.drawString,
                "middle": canvas.drawCentredString,
                "end": canvas.drawRightString,
            }
            draw[anchor](x, height - y, text)


def _pen(canvas: Any, color: str, width: float, *, is_dashed: bool) -> None:
    canvas.setStrokeColor(color)
    canvas.setLineWidth(width)
    canvas.setDash([3, 2] if is_dashed else [])
    canvas.setLineJoin(1)


def _path(canvas: Any, points: Sequence[tuple[float, float]], height: float) -> Any:
    path = canvas.beginPath()
    for number, (x, y) in enumerate(points):
        (path.lineTo if number else path.moveTo)(round(x, 2), round(height - y, 2))
    return path
