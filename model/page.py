"""A report that a person looks at: one self-contained HTML page, and its figures as JSON beside it.

The page loads nothing from anywhere (a Content-Security-Policy says so): pictures are embedded, there is no script.
jinja2 and matplotlib belong to the extra `train` and are imported inside functions.
"""

import base64
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).with_name("page.html.jinja")
HTML, JSON = "report.html", "report.json"


class Page:
    """Headings, texts, tables and pictures in the order in which they are added."""

    def __init__(self, title: str, lead: str) -> None:
        """`lead`: one or two sentences that say what the page is about and what it is made from."""
        self.title = title
        self.lead = lead
        self._parts: list[dict[str, Any]] = []

    def heading(self, text: str) -> None:
        self._parts.append({"kind": "heading", "text": text})

    def text(self, text: str) -> None:
        """A paragraph; plain text."""
        self._parts.append({"kind": "text", "text": text})

    def table(self, caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Values are shown by str(), floats with three digits; what is not known (None, NaN) as a dash."""
        shown = [[_shown(value) for value in row] for row in rows]
        self._parts.append({"kind": "table", "caption": caption, "columns": list(columns), "rows": shown})

    def picture(self, figure: Any, caption: str) -> None:
        """A matplotlib Figure (made without pyplot), embedded as PNG; `caption` is its alternative text too."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        self._parts.append({"kind": "picture", "data": data, "caption": caption})

    def write(self, folder: Path, figures: Mapping[str, Any]) -> Path:
        """Writes report.html and report.json into `folder` (made if absent), each at once or not at all.

        `figures`: what JSON can hold; numpy's numbers too; a number that is not finite becomes null. Returns the page.
        """
        from jinja2 import Environment

        source = TEMPLATE.read_text(encoding="utf-8")
        html = (
            Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
            .from_string(source)
            .render(title=self.title, lead=self.lead, parts=self._parts)
        )
        folder.mkdir(parents=True, exist_ok=True)
        replace(folder / JSON, json.dumps(_plain(figures), indent=1, ensure_ascii=False) + "\n")
        replace(folder / HTML, html)
        return folder / HTML


def replace(file: Path, text: str) -> None:
    """Writes a text file so that it is whole or the old one."""
    half = file.with_name(file.name + ".part")
    half.write_text(text, encoding="utf-8")
    half.replace(file)


def put_between(file: Path, name: str, text: str) -> None:
    """Replaces what stands in a Markdown page between `<!-- name -->` and `<!-- end of name -->`, each on a line."""
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    replace(file, marked.sub(lambda m: m[1] + text + m[2], file.read_text(encoding="utf-8")))


def _shown(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """numpy's scalars and arrays, tuples and paths as JSON knows them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
