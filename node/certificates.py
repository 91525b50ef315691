"""Which PEM files `[receive.tls]`, the destinations and the audit repository name, and whether they can be used."""

from collections.abc import Iterator
from contextlib import contextmanager

from node.errors import Misuse
from node.settings import DimseDestination, ReceiveTls, Repository, Settings
from node.wire import tls


def ours(settings: ReceiveTls) -> tls.Files:
    """What peers who call us are shown, and are asked for."""
    return tls.Files(settings.certificate, settings.key, settings.ca_file)


def of(destination: DimseDestination) -> tls.Files | None:
    """What a destination is asked for, and is shown; None: it is called without TLS."""
    if not destination.tls:
        return None
    return tls.Files(destination.certificate, destination.key, destination.ca_file)


def of_repository(repository: Repository) -> tls.Files:
    """What the audit repository is asked for, and is shown."""
    return tls.Files(repository.certificate, repository.key, repository.ca_file)


def refuse_unusable(settings: Settings) -> None:
    """Are all files there, and are they what they are said to be? Raises Misuse: section, key, file, what to do."""
    if settings.receive.tls:
        with _named("receive.tls"):
            tls.accepting(ours(settings.receive.tls))
    for number, destination in enumerate(settings.destinations):
        files = of(destination) if isinstance(destination, DimseDestination) else None
        if files:
            with _named(f"destinations.{number}"):
                tls.calling(files)
    repository = settings.audit.repository
    if repository and repository.transport == "tls":
        with _named("audit.repository"):
            tls.calling(of_repository(repository))


@contextmanager
def _named(section: str) -> Iterator[None]:
    try:
        yield
    except Misuse as e:
        raise Misuse(f"{section}.{e}") from e
