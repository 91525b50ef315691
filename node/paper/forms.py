"""A paper in the form that was asked for."""

import json
from collections.abc import Mapping
from typing import Any

from node.paper import Paper


def formed(paper: Paper, told: Mapping[str, Any], form: str) -> bytes:
    """`told`: the same for programs. What a form needs is imported with it."""
    match form:
        case "html":
            from node.paper import html

            return html.write(paper).encode()
        case "pdf":
            from node.paper import pdf

            return pdf.write(paper)
        case "json":
            return (json.dumps(told, ensure_ascii=False, indent=1) + "\n").encode()
    from node.paper import text

    return text.write(paper).encode()
