"""A result as a page for a browser: whom it is about, then its content, item by item. It loads and runs nothing.

For Structured Reports of any kind (PS3.3 C.17.3), key object selections among them, and presentation states. Every
value is escaped: a header may hold what it likes.
"""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID

from node.report.reading import MANUFACTURER

_STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; color: #111; background: #fff; max-width: 52rem; margin: 2rem auto;
  padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .6rem; }
table { border-collapse: collapse; margin: 0 0 1.2rem; }
td { padding: .1rem 1.2rem .1rem 0; vertical-align: top; }
td:first-child, .name { color: #555; }
.flags { color: #555; margin: 0 0 1.2rem; }
.item { margin: .35rem 0; }
.flags + .item > .value { font-weight: 600; font-size: 1.15rem; }
.item .item { margin-left: 1.4rem; }
.name { margin-right: .5rem; }
.value { white-space: pre-wrap; }
.lines { display: block; white-space: pre; overflow-x: auto; font: 14px/1.5 ui-monospace, monospace;
  background: #f4f4f4; padding: .5rem .8rem; }
.part > .name { display: block; font-weight: 600; color: #111; margin: 1rem 0 .2rem; }
.context { font-size: .85rem; }
svg { width: 100%; max-height: 40rem; background: #111; }
@media print { body { margin: 0; } }
"""
_ABOUT = [
    ("Patient", "PatientName"),
    ("Patient ID", "PatientID"),
    ("Born", "PatientBirthDate"),
    ("Sex", "PatientSex"),
    ("Study", "StudyDescription"),
    ("Study date", "StudyDate"),
    ("Accession number", "AccessionNumber"),
    ("Series", "SeriesDescription"),
    ("Made", "InstanceCreationDate"),
    ("By", "Manufacturer"),
]
_FLAGS = ("PreliminaryFlag", "CompletionFlag", "VerificationFlag")


def of_document(document: Dataset) -> str:
    """The page of an SR or a key object selection."""
    flags = ", ".join(str(document[flag].value).lower() for flag in _FLAGS if document.get(flag))
    body = [f'<p class="flags">{escape(flags)}</p>'] if flags else []
    body += [line for item in document.get("ContentSequence", []) for line in _item(item)]
    return _page(document, _meaning(document, "ConceptNameCodeSequence") or "Structured Report", body)


def of_state(state: Dataset) -> str:
    """The page of a presentation state: on which image it draws what, and a sketch of that."""
    body = ["<p>This presentation state draws on an image that it does not hold.</p>"]
    for series in state.get("ReferencedSeriesSequence", []):
        images = series.get("ReferencedImageSequence", [])
        body += [_line("Image", _reference(image)) for image in images]
    for annotation in state.get("GraphicAnnotationSequence", []):
        body.append(f'<div class="item part">{_named("Layer " + str(annotation.get("GraphicLayer", "")))}')
        texts = annotation.get("TextObjectSequence", [])
        body += [_line("Text", str(text.get("UnformattedTextValue", ""))) for text in texts]
        for graphic in annotation.get("GraphicObjectSequence", []):
            points = len(graphic.get("GraphicData", [])) // 2
            body.append(_line(str(graphic.get("GraphicType", "")).capitalize(), f"{points} points"))
        body.append("</div>")
    return _page(state, "Presentation state", [*body, *_sketch(state)])


def _page(dataset: Dataset, title: str, body: Sequence[str]) -> str:
    about = "".join(
        f"<tr><td>{what}</td><td>{escape(_shown(dataset, keyword))}</td></tr>"
        for what, keyword in _ABOUT
        if _shown(dataset, keyword)
    )
    foreign = (
        "" if dataset.get("Manufacturer") == MANUFACTURER else "<p>This object was not made by Hilum.</p>"
    )
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
            "style-src 'unsafe-inline'\">",
            f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
            f"<h1>{escape(title)}</h1>\n<table>{about}</table>{foreign}",
            *body,
            "</body>\n</html>\n",
        ]
    )


def _shown(dataset: Dataset, keyword: str) -> str:
    value = str(dataset.get(keyword, "") or "")
    if keyword.endswith("Date") and len(value) == 8:
        return f"{value[:4]}-{value[4:6]}-{value[6:]}"
    if keyword == "PatientName":
        return ", ".join(" ".join(group.replace("^", " ").split()) for group in value.split("=") if group)
    return value


def _item(item: Dataset) -> Iterator[str]:
    """An item and what is beneath it."""
    name, value = _meaning(item, "ConceptNameCodeSequence"), _value(item)
    kinds = ["item"]
    if item.get("ValueType") == "CONTAINER":
        kinds.append("part")
    if str(item.get("RelationshipType", "")) in ("HAS OBS CONTEXT", "HAS CONCEPT MOD"):
        kinds.append("context")
    yield f'<div class="{" ".join(kinds)}">{_named(name)}{_valued(value)}'
    for child in item.get("ContentSequence", []):
        yield from _item(child)
    yield "</div>"


def _value(item: Dataset) -> str:
    match str(item.get("ValueType", "")):
        case "TEXT":
            return str(item.get("TextValue", "")).replace("\r\n", "\n")
        case "CODE":
            return _meaning(item, "ConceptCodeSequence")
        case "NUM":
            measured = item.get("MeasuredValueSequence")
            if not measured:
                return "no value"
            unit = _code(measured[0], "MeasurementUnitsCodeSequence")
            return f"{measured[0].get('NumericValue', '')} {'' if unit == '1' else unit}".strip()
        case "PNAME":
            return str(item.get("PersonName", ""))
        case "IMAGE" | "COMPOSITE" | "WAVEFORM":
            referenced = item.get("ReferencedSOPSequence")
            return _reference(referenced[0]) if referenced else ""
        case "SCOORD" | "SCOORD3D":
            points = len(item.get("GraphicData", [])) // (2 if item.ValueType == "SCOORD" else 3)
            return f"{str(item.get('GraphicType', '')).lower()} of {points} points"
        case "UIDREF":
            return str(item.get("UID", ""))
        case "DATETIME" | "DATE" | "TIME" as kind:
            keyword = {"DATETIME": "DateTime", "DATE": "Date", "TIME": "Time"}[kind]
            return str(item.get(keyword, ""))
    return ""


def _reference(item: Dataset) -> str:
    sop_class = UID(str(item.get("ReferencedSOPClassUID", "")))
    return f"{sop_class.name} {item.get('ReferencedSOPInstanceUID', '')}"


def _meaning(item: Dataset, keyword: str) -> str:
    return _of_code(item, keyword, "CodeMeaning")


def _code(item: Dataset, keyword: str) -> str:
    return _of_code(item, keyword, "CodeValue")


def _of_code(item: Dataset, keyword: str, part: str) -> str:
    codes = item.get(keyword)
    return str(codes[0].get(part, "")) if codes else ""


def _line(name: str, value: str) -> str:
    return f'<div class="item">{_named(name)}{_valued(value)}</div>'


def _named(name: str) -> str:
    return f'<span class="name">{escape(name)}</span>' if name else ""


def _valued(value: str) -> str:
    """Several lines are a table that was aligned with spaces."""
    kind = "lines" if "\n" in value else "value"
    return f'<span class="{kind}">{escape(value)}</span>' if value else ""


def _sketch(state: Dataset) -> list[str]:
    """The outlines and labels that lie on the image, as an SVG in the image's pixels, as it is stored."""
    areas = state.get("DisplayedAreaSelectionSequence")
    if not areas:
        return []
    corners = [*areas[0].DisplayedAreaTopLeftHandCorner, *areas[0].DisplayedAreaBottomRightHandCorner]
    width, height = (max(int(corners[axis]), int(corners[axis + 2])) for axis in (0, 1))
    size = max(width, height) / 40
    drawn: list[str] = []
    for annotation in state.get("GraphicAnnotationSequence", []):
        for graphic in annotation.get("GraphicObjectSequence", []):
            if graphic.get("GraphicAnnotationUnits") == "PIXEL":
                points = " ".join(f"{float(n):g}" for n in graphic.get("GraphicData", []))
                drawn.append(f'<polyline points="{points}" stroke-width="{size / 8:g}"/>')
        texts = annotation.get("TextObjectSequence", [])
        drawn += [_text(text, size) for text in texts if text.get("BoundingBoxAnnotationUnits") == "PIXEL"]
    return [
        "<p>Sketch, in the image as it is stored:</p>",
        f'<svg viewBox="0 0 {width} {height}" fill="none" stroke="#fd4">',
        *drawn,
        "</svg>",
    ]


def _text(text: Any, size: float) -> str:
    first, last = text.BoundingBoxTopLeftHandCorner, text.BoundingBoxBottomRightHandCorner
    x, y = (min(float(first[axis]), float(last[axis])) for axis in (0, 1))
    return (
        f'<text x="{x:g}" y="{y + size:g}" font-size="{size:g}" fill="#fff" stroke="none">'
        f"{escape(str(text.get('UnformattedTextValue', '')))}</text>"
    )
