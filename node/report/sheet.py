"""The sheet that the Secondary Capture shows: the picture, one more for each finding that is marked, words beneath.

No patient's name is drawn: the header has it, and a burned-in name outlives every correction of it.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from model.card import Card
from model.classifier import Finding
from node.report import findings as words
from node.report import overlay, regions, sentences
from node.report.reading import InvalidResult, Report

NARROWEST = 768
"""Pixels; a smaller picture is enlarged, so that the panel's letters are not smaller than 18 pixels at 1:1."""
LONGEST = 2048
"""Pixels; a larger picture is reduced: this is a notice beside the original, not a copy of it."""
LONGEST_MARKED = 1536
"""Pixels of all pictures together, where there are several: colour takes three times the bytes."""
NARROWEST_MARKED = 1024
MOST_MARKED = 5
"""Findings with a picture of their own: with the plain one they fill two rows of three."""
GUTTER = 8
"""Pixels between pictures."""
TALLEST = 16_384
"""Pixels; some 390 findings on the widest sheet."""
LETTERS_PER_WIDTH = 42
"""The width in font sizes: shrunk to 512 pixels a letter still has 12."""

WHITE, LIGHT, DIM, BLACK = 255, 225, 165, 0

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw(report: Report, image: int = 0) -> npt.NDArray[np.uint8]:
    """Pictures and panel; H×W (grey), or H×W×3 where marks are drawn. Raises InvalidResult."""
    above = pictures(report, image)
    width = max(above.width, NARROWEST)
    beneath = [_panel(report, image, width)]
    if above.mode == "RGB":
        beneath.insert(0, _legend(report, image, width))
    height = above.height + sum(part.height for part in beneath)
    if height > TALLEST:
        raise InvalidResult("there are more findings than a picture can hold")
    sheet = Image.new(above.mode, (width, height))
    sheet.paste(above, ((width - above.width) // 2, 0))
    y = above.height
    for part in beneath:
        sheet.paste(part, (0, y))
        y += part.height
    return np.asarray(sheet)


def pictures(report: Report, image: int) -> Image.Image:
    """The picture at its aspect, mode L; where findings are marked: the plain one and one for each, mode RGB."""
    picture = Image.fromarray(report.readings[image].picture)
    shown = marked(report, image)[:MOST_MARKED]
    if not shown:
        return _resized(picture, min(max(NARROWEST / picture.width, 1.0), LONGEST / max(picture.size)))
    columns, scale = _grid(picture.size, 1 + len(shown))
    picture = _resized(picture, scale)
    tiles = [("X-ray", "", picture)]
    marks = report.readings[image].marks
    for finding in shown:
        name, score = words.name(finding, report.card), words.numbers(finding)[0]
        tiles.append((name, f" {score}", overlay.marked(picture, marks[finding.label])))
    return _tiled(tiles, columns)


def marked(report: Report, image: int) -> list[Finding]:
    """The findings whose place may be shown, largest score first; none unless the intended use is `marks`."""
    marks = regions.marks(report, image)
    return [f for f in words.ordered(report.readings[image].findings) if f.present and f.label in marks]


def _resized(picture: Image.Image, scale: float) -> Image.Image:
    if scale == 1.0:
        return picture
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _grid(size: tuple[int, int], count: int) -> tuple[int, float]:
    """In how many columns `count` pictures of this size are largest, and their scale there."""
    width, height = size

    def scale(columns: int) -> float:
        return min(LONGEST_MARKED / (columns * width), LONGEST_MARKED / (math.ceil(count / columns) * height))

    columns = max(range(count, 0, -1), key=scale)
    return columns, min(scale(columns), max(1.0, NARROWEST_MARKED / (columns * width)))


def _tiled(tiles: Sequence[tuple[str, str, Image.Image]], columns: int) -> Image.Image:
    """Pictures of one size in rows, each under its caption: a name, which may be cut, and a score."""
    width, height = tiles[0][2].size
    cell = max(width, math.ceil((NARROWEST_MARKED - GUTTER * (columns - 1)) / columns))
    whole = cell * columns + GUTTER * (columns - 1)
    size = whole / LETTERS_PER_WIDTH
    font, line = ImageFont.load_default(size), round(size * 1.6)
    sheet = Image.new("RGB", (whole, (height + line + GUTTER) * math.ceil(len(tiles) / columns)))
    pen = ImageDraw.Draw(sheet)
    for number, (name, score, picture) in enumerate(tiles):
        x = (cell + GUTTER) * (number % columns)
        y = (height + line + GUTTER) * (number // columns)
        caption = _fitted(name, font, cell - math.ceil(font.getlength(score))) + score
        pen.text((x + cell // 2, y + line // 2), caption, fill=(WHITE,) * 3, font=font, anchor="mm")
        sheet.paste(picture, (x + (cell - width) // 2, y + line))
    return sheet


def legend(report: Report, image: int) -> str:
    """What marks mean, and how many findings have none."""
    above = sum(finding.present for finding in report.readings[image].findings)
    more = above - len(marked(report, image)[:MOST_MARKED])
    told = f"Colour and line: {sentences.WHERE_FROM}."
    return told + (f" {more} more above threshold: see the table." if more else "")


def _legend(report: Report, image: int, width: int) -> Image.Image:
    """The colour bar between its words, and what marks mean."""
    size = width / LETTERS_PER_WIDTH
    line, margin = round(size * 1.45), round(size)
    font = ImageFont.load_default(size)
    told = _wrapped(legend(report, image), font, width - 2 * margin)
    strip = Image.new("RGB", (width, margin * 2 + line * (1 + len(told))))
    pen = ImageDraw.Draw(strip)
    light = (LIGHT,) * 3
    x = margin
    pen.text((x, margin), "low", fill=light, font=font)
    x += round(font.getlength("low ")) + margin // 2
    colours = overlay.bar(round(width * 0.34), round(size))
    strip.paste(colours, (x, margin + line // 8))
    pen.rectangle(
        (x - 1, margin + line // 8 - 1, x + colours.width, margin + line // 8 + colours.height),
        outline=(DIM,) * 3,
    )
    x += colours.width + margin // 2
    pen.text((x, margin), _fitted("high influence on the score", font, width - x), fill=light, font=font)
    for number, sentence in enumerate(told, 1):
        pen.text((margin, margin + line * number), sentence, fill=light, font=font)
    return strip


def _panel(report: Report, image: int, width: int) -> Image.Image:
    """Headline, table of scores in two columns, what it must not be used for, model; black, letters in grey."""
    size = width / LETTERS_PER_WIDTH
    line, margin = round(size * 1.45), round(size)
    text, large = ImageFont.load_default(size), ImageFont.load_default(size * 1.25)
    large_line = round(line * 1.25)
    card = report.card
    table = words.ordered(report.readings[image].findings)
    half = (len(table) + 1) // 2

    small = [f"Model {sentences.model(report)}, weights {card.sha256[:19]}", sentences.amended(report)]
    if len(report.readings) > 1:
        small.insert(0, f"{sentences.image_name(report, image)} of {len(report.readings)} in this report")
    headline = _wrapped(words.headline(table, card), large, width - 2 * margin)
    warnings = [sentences.NOT_FOR, words.ascii_text(report.readings[image].unlike)]
    not_for = [line for told in warnings if told for line in _wrapped(told, large, width - 2 * margin)]
    small = [part for told in small if told for part in _wrapped(told, text, width - 2 * margin)]

    height = margin * 4 + large_line * (len(headline) + len(not_for)) + line * (half + 1 + len(small))
    panel = Image.new("L", (width, height), BLACK)
    pen = ImageDraw.Draw(panel)
    pen.line((0, 1, width, 1), fill=DIM, width=2)

    y = margin
    for sentence in headline:
        pen.text((margin, y), sentence, fill=WHITE, font=large)
        y += large_line
    y += margin // 2
    column = (width - 2 * margin) // 2
    for start in (0, 1):
        x, rows = margin + start * column, table[start * half : (start + 1) * half]
        if rows:
            _row(pen, (x, y), column, text, ("finding", "score", "threshold"), DIM)
        for number, finding in enumerate(rows, 1):
            _finding(pen, (x, y + number * line), column, line, text, finding, card)
    y += (half + 1) * line + margin // 2
    for sentence in not_for:
        pen.text((margin, y), sentence, fill=WHITE, font=large)
        y += large_line
    for sentence in small:
        pen.text((margin, y), sentence, fill=DIM, font=text)
        y += line
    return panel


def _finding(
    pen: ImageDraw.ImageDraw,
    at: tuple[int, int],
    column: int,
    line: int,
    font: Font,
    finding: Finding,
    card: Card,
) -> None:
    """One row; black on white where the finding is above its threshold, so that a grey monitor shows it."""
    x, y = at
    if finding.present:
        pen.rectangle(
            (x - line // 4, y - line // 8, x + column - line // 2, y + line - line // 8 - 1), fill=WHITE
        )
    cells = (words.name(finding, card), *words.numbers(finding))
    _row(pen, at, column, font, cells, BLACK if finding.present else LIGHT)


def _row(
    pen: ImageDraw.ImageDraw,
    at: tuple[int, int],
    column: int,
    font: Font,
    cells: tuple[str, str, str],
    grey: int,
) -> None:
    x, y = at
    label, score, threshold = cells
    label = _fitted(label, font, round(column * 0.50))
    pen.text((x, y), label, fill=grey, font=font)
    pen.text((x + round(column * 0.66), y), score, fill=grey, font=font, anchor="ra")
    pen.text((x + round(column * 0.93), y), threshold, fill=grey, font=font, anchor="ra")


def _fitted(text: str, font: Font, width: int) -> str:
    """`text`, cut with dots where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [_fitted(one, font, width) for one in lines]
