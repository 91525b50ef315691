"""A paper as PDF: A4, page numbers, letters embedded, so that it looks the same everywhere and in ten years.

Letters are those of `model.typeset`; where one had to be written as a number the last page says so.
"""

from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

from model import typeset
from model.typeset import BOLD, NUMBERED, TEXT
from node.paper import MARKS, Block, Facts, Paper, Section, Step, Steps, Table, Words, by_day, clock, numbers

WIDTH, HEIGHT, MARGIN = 595.28, 841.89, 42.0
"""A4 and its margins, in points of 1/72 inch."""
# a table cell is never broken over pages, and must fit on one
_LONGEST = 3000
# mark, time, what passed; record: in points
_STEP_COLUMNS = (12.0, 66.0, 60.0, 58.0)
_LEAST_UNDER_A_HEADING = 70.0


def write(paper: Paper) -> bytes:
    from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate, Spacer

    setting = _Setting()
    out = BytesIO()
    document = BaseDocTemplate(
        out,
        pagesize=(WIDTH, HEIGHT),
        title=paper.title,
        author="Hilum",
        leftMargin=MARGIN,
        rightMargin=MARGIN,
    )
    frame = Frame(MARGIN, MARGIN + 8, WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN - 22, 0, 0, 0, 0, id="page")
    document.addPageTemplates(PageTemplate("page", [frame]))
    flow: list[Any] = [setting.words(paper.title, "title"), Spacer(0, 6)]
    for number, section in enumerate(paper.sections):
        flow += setting.section(section, is_first=not number)
    if setting.has_numbered:
        flow += [Spacer(0, 8), setting.words(NUMBERED, "small")]
    document.build(flow, canvasmaker=_numbered_pages(setting, paper.running))
    return out.getvalue()


class _Setting:
    """Blocks -> what reportlab lays out. Remembers whether a letter had to be written as a number."""

    def __init__(self) -> None:
        from reportlab.lib.styles import ParagraphStyle

        typeset.load()
        self.has_numbered = False
        body = ParagraphStyle("body", fontName=TEXT, fontSize=8, leading=10.8, splitLongWords=1)
        self._styles = {
            "body": body,
            "title": ParagraphStyle("title", body, fontName=BOLD, fontSize=15, leading=19),
            "part": ParagraphStyle("part", body, fontName=BOLD, fontSize=13, leading=17),
            "head": ParagraphStyle(
                "head", body, fontName=BOLD, fontSize=10, leading=13, spaceBefore=8, spaceAfter=2
            ),
            "bold": ParagraphStyle("bold", body, fontName=BOLD),
            "loud": ParagraphStyle(
                "loud", body, fontName=BOLD, borderWidth=0.8, borderColor="#000000", borderPadding=(4, 5, 5, 5),
                leftIndent=6, rightIndent=6, spaceBefore=8, spaceAfter=9,
            ),
            "right": ParagraphStyle("right", body, alignment=2),
            "grey": ParagraphStyle("grey", body, textColor="#555555"),
            "small": ParagraphStyle("small", body, fontSize=6.5, leading=8.6, textColor="#555555"),
            "small right": ParagraphStyle(
                "small right", body, fontSize=6.5, leading=10.8, textColor="#555555", alignment=2
            ),
        }  # fmt: skip

    def words(self, text: str, style: str = "body") -> Any:
        from reportlab.platypus import Paragraph

        if len(text) > _LONGEST:
            text = f"{text[:_LONGEST]}... ({len(text) - _LONGEST:,} more characters: see the records)"
        return Paragraph(self.marked(text, self._styles[style].fontName), self._styles[style])

    def marked(self, text: str, font: str) -> str:
        """reportlab's markup: each run of letters in a font that has them."""
        markup, has_numbered = typeset.marked(text, font)
        self.has_numbered = self.has_numbered or has_numbered
        return markup

    def section(self, section: Section, *, is_first: bool) -> Iterator[Any]:
        from reportlab.platypus import CondPageBreak, PageBreak, Spacer
        from reportlab.platypus.flowables import HRFlowable

        if section.level == 1 and not is_first:
            yield PageBreak()
        # no heading at the foot of a page
        yield CondPageBreak(_LEAST_UNDER_A_HEADING)
        yield self.words(section.title, "part" if section.level == 1 else "head")
        rule = HRFlowable(
            width="100%", thickness=1.2 if section.level == 1 else 0.7, color="#000000", spaceAfter=3
        )
        yield rule
        for block in section.blocks:
            yield from self._block(block)
            yield Spacer(0, 2)

    def _block(self, block: Block) -> Iterator[Any]:
        match block:
            case Facts(rows):
                cells = [[self.words(name, "grey"), self.words(value)] for name, value in rows]
                yield self._table(cells, [112.0, WIDTH - 2 * MARGIN - 112.0], [])
            case Words(text, is_loud):
                yield self.words(text, "loud" if is_loud else "body")
            case Steps():
                yield from self._steps(block)
            case Table():
                yield self._rows(block)

    def _steps(self, steps: Steps) -> Iterator[Any]:
        room = WIDTH - 2 * MARGIN - sum(_STEP_COLUMNS)
        style: list[tuple[Any, ...]] = [
            ("LINEBELOW", (0, 0), (-1, -1), 0.25, "#dddddd"),
            ("LINEBELOW", (0, 0), (-1, 0), 0.5, "#888888"),
            ("SPAN", (1, 0), (-2, 0)),
        ]
        for date, some in by_day(steps.rows):
            cells = [["", self.words(date, "bold"), "", "", self.words("record", "small right")]]
            cells += [self._step(step) for step in some]
            # a table a day: its head stands on each page again
            yield self._table(cells, [*_STEP_COLUMNS[:3], room, _STEP_COLUMNS[3]], style, heads=1)

    def _step(self, step: Step) -> list[Any]:
        return [
            self.words(MARKS[step.kind], "bold"),
            self.words(clock(step.at)),
            self.words(step.passed and "+" + step.passed, "small right"),
            self.words(step.text, "bold" if step.kind else "body"),
            self.words(numbers(step.records), "small right"),
        ]

    def _rows(self, table: Table) -> Any:
        sides = ["right" if column in table.numbers else "body" for column in range(len(table.columns))]
        heads = [self.words(name, "small right" if side == "right" else "small") for name, side in
                 zip(table.columns, sides, strict=True)]  # fmt: skip
        cells = [
            heads,
            *([self.words(cell, side) for cell, side in zip(row, sides, strict=True)] for row in table.rows),
        ]
        style: list[tuple[Any, ...]] = [
            ("LINEBELOW", (0, 0), (-1, -1), 0.25, "#dddddd"),
            ("LINEBELOW", (0, 0), (-1, 0), 0.6, "#000000"),
        ]
        return self._table(cells, _widths(table, sides), style, heads=1)

    def _table(
        self, cells: list[list[Any]], widths: Sequence[float], style: list[tuple[Any, ...]], heads: int = 0
    ) -> Any:
        from reportlab.platypus import Table as Laid
        from reportlab.platypus import TableStyle

        laid = Laid(cells, colWidths=list(widths), repeatRows=heads, hAlign="LEFT")
        plain: list[tuple[Any, ...]] = [
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ("RIGHTPADDING", (0, 0), (-1, -1), 7),
            ("TOPPADDING", (0, 0), (-1, -1), 1),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
        ]
        laid.setStyle(TableStyle(plain + style))
        return laid


def _widths(table: Table, sides: Sequence[str]) -> list[float]:
    """Points for each column: what its cells need where all fit; else the widest give way."""
    from reportlab.pdfbase.pdfmetrics import stringWidth

    room = WIDTH - 2 * MARGIN
    needed = []
    for column, name in enumerate(table.columns):
        widest = max((stringWidth(row[column], TEXT, 8) for row in table.rows), default=0.0)
        needed.append(max(widest, stringWidth(name, TEXT, 6.5)) + 14)
    while sum(needed) > room:
        widest = max(needed)
        second = max((each for each in needed if each < widest), default=widest / 2)
        many = needed.count(widest)
        lower = max(second, (room - sum(needed) + widest * many) / many, 24.0)
        needed = [lower if each == widest else each for each in needed]
        if lower in (24.0, widest):
            break
    spare = room - sum(needed)
    if spare > 0 and sides[-1] != "right":
        # numbers stay beside what they count
        needed[-1] += spare
    return needed


def _numbered_pages(setting: _Setting, running: str) -> Any:
    """A canvas that knows how many pages there are before it writes the first."""
    from reportlab.pdfgen.canvas import Canvas
    from reportlab.platypus import Paragraph

    class Numbered(Canvas):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            self._pages: list[dict[str, Any]] = []

        def showPage(self) -> None:  # noqa: N802 - reportlab's name
            self._pages.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            for number, page in enumerate(self._pages, 1):
                self.__dict__.update(page)
                self._head_and_foot(number)
                super().showPage()
            super().save()

        def _head_and_foot(self, number: int) -> None:
            head: Any = setting.words(running, "small")
            assert isinstance(head, Paragraph)
            _, height = head.wrap(WIDTH - 2 * MARGIN, 40)
            head.drawOn(self, MARGIN, HEIGHT - MARGIN + 12 - height)
            self.setLineWidth(0.4)
            self.line(MARGIN, HEIGHT - MARGIN - 8, WIDTH - MARGIN, HEIGHT - MARGIN - 8)
            self.setFont(TEXT, 6.5)
            self.setFillGray(0.33)
            self.drawString(MARGIN, MARGIN - 14, "Hilum, audit log")
            self.drawRightString(WIDTH - MARGIN, MARGIN - 14, f"page {number} of {len(self._pages)}")

    return Numbered
