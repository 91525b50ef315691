"""A document told once: headings, paragraphs, facts, tables, lists, pictures; three writers each write all of it.

In every text `backticks` mark code. Texts from outside (a card, a report) hold none: see `sources.plain`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from model.describe.drawing import Picture


@dataclass(frozen=True)
class Heading:
    """Level 1: a section; 2: a part of it."""

    text: str
    level: Literal[1, 2] = 2

    @property
    def anchor(self) -> str:
        """As GitHub makes it of a heading's text."""
        return re.sub(r"[^\w\- ]", "", self.text.lower()).replace(" ", "-")


@dataclass(frozen=True)
class Words:
    """A paragraph. `is_loud`: what nobody may overlook."""

    text: str
    is_loud: bool = False


@dataclass(frozen=True)
class Facts:
    """Names and values, a line each."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Points:
    """A list."""

    items: Sequence[str]
    is_numbered: bool = False


@dataclass(frozen=True)
class Table:
    """`numbers`: which columns are set to the right."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Drawn:
    """A picture. `mermaid`: the same for Markdown, where it can be said so; else Markdown has the caption alone."""

    caption: str
    picture: Picture
    mermaid: str = ""


Block: TypeAlias = Heading | Words | Facts | Points | Table | Drawn


@dataclass(frozen=True)
class Document:
    """`running` stands at the head of each page of print; `has_contents`: a list of the headings comes first."""

    title: str
    running: str
    blocks: Sequence[Block]
    has_contents: bool = True

    @property
    def headings(self) -> list[Heading]:
        return [block for block in self.blocks if isinstance(block, Heading)]
