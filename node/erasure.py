"""`hilum audit erase`: what it would reach, what it does not, and the erasing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from node import show
from node.errors import NotHeld
from node.settings import Settings
from storage.audit import Actor, Patient
from storage.audit import erase as storage_erase
from storage.audit.erase import Erasable, Whose
from storage.clock import moment
from storage.objects import Stored
from storage.store import Store

_WORDS = {"patient": "patient number", "name": "name", "accession": "accession number"}


@dataclass(frozen=True)
class Spooled:
    """What else is kept of those whose names are erased: files in the spool."""

    images: Stored
    results: Stored


def whose(store: Store, patient: str, study: str) -> Whose:
    """Whom a person meant. Raises NotHeld where nobody is like that."""
    named = Whose(store.audit.keys_of(Patient(id=patient)).id, study)
    with store.database.read() as tx:
        found = storage_erase.erasable(tx, named)
    if not found.records:
        raise NotHeld(
            "no record is about a patient or study like that: nothing is erased; the number must be "
            "written as the images have it"
        )
    return named


def look(store: Store, named: Whose) -> tuple[Erasable, Spooled]:
    """What an erasure would reach, and what not."""
    with store.database.read() as tx:
        found = storage_erase.erasable(tx, named)
        images = store.objects.stored(tx, named.patient, named.study)
        results = store.results.stored(tx, named.patient, named.study)
    return found, Spooled(images, results)


def erase(store: Store, named: Whose, actor: Actor) -> Erasable:
    return storage_erase.erase(store.database, store.audit, named, actor)


def erase_all(store: Store, actor: Actor) -> int:
    """Every value; how many there were."""
    return storage_erase.erase_all(store.database, store.audit, actor)


def describe(found: Erasable, spooled: Spooled, settings: Settings, *, done: bool) -> None:
    """Prints it for a person; values are never shown."""
    verb = "erased" if done else "would be erased"
    print(f"{found.records} records of {found.studies} studies")
    print(f"{verb}: {_counted(found.values) or 'nothing: no value is kept'}")
    if found.shared:
        print(f"stay, since records of others carry them too: {_counted(found.shared)}")
    retention, zone = settings.retention, settings.report.zone
    for noun, stored, days in (
        ("image", spooled.images, retention.images_days),
        ("result", spooled.results, retention.results_days),
    ):
        if stored.count:
            last = moment(stored.newest) + timedelta(days=days)
            until = f"gone after {show.when(last, zone)}" if days else "kept for ever"
            noun += "s" if stored.count > 1 else ""
            print(f"not reached: {stored.count} {noun} in the spool, naming the patient; {until}")
    print("not reached: what was sent to destinations, exported or printed, and backups")
    if (repository := settings.audit.repository) is not None:
        print(f"not reached: what the audit repository {repository.host} has")
    if not done and found.keys:
        print("Nothing is erased yet. This can't be undone: say --yes.")


def _counted(values: Mapping[str, int]) -> str:
    return ", ".join(
        f"{values[kind]} {word}{'s' if values[kind] > 1 else ''}"
        for kind, word in _WORDS.items()
        if kind in values
    )
