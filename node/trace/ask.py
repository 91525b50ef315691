"""A trace, asked for: it is looked up, told, recorded, and only then shown."""

from pathlib import Path

from node.errors import Misuse, NotHeld
from node.operate import operator
from node.paper.forms import formed
from node.paper.out import reserved
from node.paper.printing import Printing
from node.settings import Settings
from node.trace import find, now
from node.trace.pages import as_json, paper
from node.trace.story import Story, tell
from storage.audit import About, Actor
from storage.store import Store


def kind_of(**options: bool) -> str:
    """Which of the options was given; empty: none, so that it is looked up. Raises Misuse for several."""
    given = [kind for kind, is_given in options.items() if is_given]
    if len(given) > 1:
        raise Misuse(f"--{given[0]} and --{given[1]}: it is one of them; give one")
    return given[0] if given else ""


def trace(store: Store, settings: Settings, given: str, kind: str, form: str, out: Path | None) -> None:
    """Raises NotHeld where the log knows nothing of it, Misuse, BadEnvironment, Unavailable."""
    actor = operator()
    with reserved(out, form) as write:
        try:
            found = find.find(store, given, kind)
        except NotHeld as e:
            # asking for what is not there is asking, too; what was typed may be a patient's number
            _record(store, [About()], actor, form, out, reason=str(e))
            raise
        stories = read(store, found)
        printing = Printing.of(actor, settings, store.clock.now())
        asked_for = given if found.kind == "sop" else ""
        content = formed(paper(stories, printing, asked_for), as_json(stories, printing, asked_for), form)
        _record(store, [story.dossier.about for story in stories], actor, form, out)
        write(content)


def read(store: Store, found: find.Found) -> list[Story]:
    """The stories of what was found, as the log has them at this moment."""
    with store.database.read() as tx:
        last = store.audit.newest(tx)
    stories = []
    for dossier in find.read(store, found, last):
        with store.database.read() as tx:
            stories.append(tell(dossier, now.look(tx, dossier.study)))
    return stories


def _record(
    store: Store, about: list[About], actor: Actor, form: str, out: Path | None, reason: str = ""
) -> None:
    """audit.exported where it leaves as a document, else audit.queried; for each study. No patient is in the detail."""
    leaves = out is not None or form in {"html", "pdf"}
    detail = {"what": "trace", "format": form, **({"reason": reason} if reason else {})}
    with store.database.write() as tx:
        for each in about:
            store.audit.record(
                tx,
                "audit.exported" if leaves and not reason else "audit.queried",
                about=each,
                actor=actor,
                outcome="failure" if reason else "success",
                detail=detail,
            )
