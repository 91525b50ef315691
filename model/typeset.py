"""What every PDF of ours is set in: Bitstream Vera, which comes with reportlab, embedded, the same everywhere.

What Vera lacks is set in a font of the system, where one has it; else, and for scripts that run from right to left,
which reportlab does not set, the letter's Unicode number is written: a name is never shown as something that it is not.
"""

import unicodedata
from functools import cache
from html import escape
from itertools import groupby
from pathlib import Path

TEXT, BOLD = "Vera", "VeraBd"
MORE = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "FreeSans.ttf", "DroidSansFallbackFull.ttf", "unifont.ttf")
"""Fonts that may hold what Vera lacks, the first that has it."""
FONTS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))
NUMBERED = "Letters that no type at hand has are written by their Unicode numbers, like [U+5C71]."
_RIGHT_TO_LEFT = {"R", "AL"}


def load() -> None:
    """Registers the fonts anew, for each paper: a font remembers which letters it was asked for."""
    import reportlab
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    folder = Path(reportlab.__file__).parent / "fonts"
    for name in (TEXT, BOLD):
        pdfmetrics.registerFont(TTFont(name, folder / f"{name}.ttf"))
    _font_of.cache_clear()
    _more.cache_clear()


def marked(text: str, font: str) -> tuple[str, bool]:
    """reportlab's markup, each run of letters in a font that has them; whether one had to be written as a number."""
    parts, has_numbered = [], False
    for chosen, run in groupby(text, lambda letter: _font_of(letter, font)):
        letters = "".join(run)
        if not chosen:
            has_numbered = True
            parts.append("[" + " ".join(f"U+{ord(each):04X}" for each in letters) + "]")
        elif chosen == font:
            parts.append(escape(letters))
        else:
            parts.append(f'<font name="{chosen}">{escape(letters)}</font>')
    return "".join(parts), has_numbered


@cache
def _font_of(letter: str, first: str) -> str:
    """The font that has this letter, `first` if it can; empty where none has it or none could set it."""
    if letter.isspace():
        return first
    if not letter.isprintable() or unicodedata.bidirectional(letter) in _RIGHT_TO_LEFT:
        return ""
    return next((name for name in (first, *_more()) if _has(name, letter)), "")


@cache
def _more() -> tuple[str, ...]:
    """Those of MORE that this system has, loaded."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFError, TTFont

    loaded = []
    for file in MORE:
        found = next((path for folder in FONTS for path in folder.rglob(file)), None)
        if found is not None:
            try:
                pdfmetrics.registerFont(TTFont(found.stem, found))
            except (TTFError, OSError):
                continue
            loaded.append(found.stem)
    return tuple(loaded)


def _has(font: str, letter: str) -> bool:
    from reportlab.pdfbase import pdfmetrics

    return ord(letter) in pdfmetrics.getFont(font).face.charToGlyph
