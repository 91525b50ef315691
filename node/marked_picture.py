"""What a result marks, drawn on the image that it is about: as a viewer would, for people without one."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset

from model import pixels
from node.errors import Misuse
from node.report import overlay, sentences

LEAST = 768
"""Pixels of the shorter side: a smaller picture is enlarged, so that words can be read."""

Point = tuple[float, float]


class Drawn(NamedTuple):
    """A line in the stored image's pixels (column, row); or a label in the box around these points, or above it."""

    points: list[Point]
    label: str = ""
    above: bool = False


def draw(result: Dataset, source: Dataset) -> Image.Image:
    """The source's picture, upright, with the outlines and labels of a presentation state or an SR, and words beneath.

    Raises Misuse where the result is about another image or marks nothing on it, and model.errors.Undecodable.
    """
    image = str(source.get("SOPInstanceUID", ""))
    if image not in _images(result):
        raise Misuse("the result is about another image than the one that --image names")
    marks = list(_of_state(result) if result.Modality == "PR" else _of_document(result, image))
    if not marks:
        raise Misuse("the result marks nothing on this image")
    picture = Image.fromarray(pixels.to_uint8(pixels.read(source)))
    if min(picture.size) < LEAST:
        scale = LEAST / min(picture.size)
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    return _with_words(_marked(picture, source, marks))


def _images(dataset: Dataset) -> set[str]:
    """Every instance that a result refers to."""
    return {str(e.value) for e in dataset.iterall() if e.keyword == "ReferencedSOPInstanceUID"}


def _of_state(state: Dataset) -> Iterator[Drawn]:
    for annotation in state.get("GraphicAnnotationSequence", []):
        for graphic in annotation.get("GraphicObjectSequence", []):
            if graphic.get("GraphicAnnotationUnits") == "PIXEL" and graphic.get("GraphicType") == "POLYLINE":
                yield Drawn(_pairs(graphic.GraphicData))
        for text in annotation.get("TextObjectSequence", []):
            if text.get("BoundingBoxAnnotationUnits") == "PIXEL":
                corners = [*text.BoundingBoxTopLeftHandCorner, *text.BoundingBoxBottomRightHandCorner]
                yield Drawn(_pairs(corners), str(text.UnformattedTextValue))


def _of_document(document: Dataset, image: str) -> Iterator[Drawn]:
    """Each measurement group's region on this image, labelled with the finding and its number."""
    for group in _under(document):
        if group.get("ValueType") != "CONTAINER":
            continue
        children = group.get("ContentSequence", [])
        regions = [
            _pairs(item.GraphicData)
            for item in _under(group)
            if item.get("ValueType") == "SCOORD" and image in _images(item)
        ]
        if not regions or any(item.get("ValueType") == "CONTAINER" for item in children):
            continue
        label = " ".join(part for item in children if (part := _said(item)))
        for points in regions:
            yield Drawn(points)
            yield Drawn(points, label, above=True)


def _said(item: Dataset) -> str:
    """The finding, and how sure."""
    if item.get("ValueType") == "CODE" and item.ConceptNameCodeSequence[0].CodeValue == "121071":
        return str(item.ConceptCodeSequence[0].CodeMeaning)
    if item.get("ValueType") == "NUM" and item.get("MeasuredValueSequence"):
        measured = item.MeasuredValueSequence[0]
        return f"{measured.NumericValue} {measured.MeasurementUnitsCodeSequence[0].CodeValue}"
    return ""


def _under(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", []):
        yield child
        yield from _under(child)


def _pairs(numbers: Sequence[float]) -> list[Point]:
    return [(float(x), float(y)) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]


def _marked(picture: Image.Image, source: Dataset, marks: Sequence[Drawn]) -> Image.Image:
    """The lines first, then the words over them."""
    # the upright picture's corners in the stored one say how to come back
    corner, right, below = (np.array(p) for p in pixels.stored_points(source, [(0, 0), (1, 0), (0, 1)]))
    back = np.linalg.inv(np.column_stack([right - corner, below - corner]))

    def upright(point: Point) -> Point:
        x, y = back @ (np.array(point) - corner)
        return float(x) * picture.width, float(y) * picture.height

    size = max(picture.size) / 45
    for mark in marks:
        if not mark.label:
            overlay.outline(picture, [upright(p) for p in mark.points], max(2, min(picture.size) // 250))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    for mark in marks:
        if mark.label:
            placed = [upright(p) for p in mark.points]
            x, y = min(p[0] for p in placed), min(p[1] for p in placed) - mark.above * size * 1.3
            x = min(x, picture.width - font.getlength(mark.label))
            pen.text((max(0, x), max(0, y)), mark.label, fill=255, font=font, stroke_width=2, stroke_fill=0)
    return picture


def _with_words(picture: Image.Image) -> Image.Image:
    told = [sentences.NOT_FOR, f"Outlines: {sentences.WHERE_FROM}."]
    size = picture.width / 48
    font = ImageFont.load_default(size)
    sheet = Image.new("L", (picture.width, picture.height + round(size * 4)))
    sheet.paste(picture, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(told):
        pen.text((size / 2, picture.height + size * (0.6 + 1.5 * number)), line, fill=255, font=font)
    return sheet
