"""A model and what guards it: prepared pictures in, findings out, and whether each picture was for the model at all.

A model folder that Hilum trained may know by its own features what it was made for (`card.scope`). One that does not,
as every imported one, is guarded by the model that comes with Hilum, which then looks at each picture as well: each
picture is prepared for each of `cards`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from model import card
from model.card import SHIPPED, Card
from model.classifier import Classifier, Seen
from model.runtime import Floats, Wanted


def cards_of(folder: Path, guards: Path | None = SHIPPED) -> tuple[Card, ...]:
    """`Reader.cards` of what `Reader.load` would load, which takes a millisecond. Raises BadModel."""
    own = card.load(folder)
    lent = card.load(guards) if guards is not None and not own.scope else None
    return (own, lent) if lent and lent.scope else (own,)


class Reader:
    """One model, guarded. One process, one thread, as its classifiers."""

    def __init__(self, classifier: Classifier, guard: Classifier | None = None) -> None:
        """`guard`: whose word counts on what is in scope; None: the classifier's own."""
        self.classifier = classifier
        self._guard = guard

    @classmethod
    def load(
        cls,
        folder: Path,
        wanted: Wanted = "tensorflow",
        cache: Path | None = None,
        guards: Path | None = SHIPPED,
    ) -> Self:
        """`guards`: the folder of the model that guards those without a scope of their own. Raises BadModel."""
        _, *lent = cards_of(folder, guards)
        classifier = Classifier.load(folder, wanted, cache)
        return cls(classifier, Classifier.load(lent[0].folder, wanted, cache) if lent else None)

    @property
    def cards(self) -> tuple[Card, ...]:
        """For what each picture is to be prepared, in the order of `look`'s batches."""
        return (self.classifier.card, *([self._guard.card] if self._guard else []))

    def look(self, batches: Sequence[Floats]) -> list[Seen]:
        """`batches`: one for each of `cards`, (n, size, size, channels) each, of the same n pictures."""
        seen = self.classifier.look(batches[0])
        if self._guard is None:
            return seen
        guarded = self._guard.look(batches[1])
        return [replace(one, scoped=other.scoped) for one, other in zip(seen, guarded, strict=True)]
