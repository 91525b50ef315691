"""How every group of commands of `hilum` behaves, and what several of them take."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.settings import Settings

if TYPE_CHECKING:
    from storage.store import Store

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="The configuration; without it config.toml in the working folder."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def new_app(help_text: str) -> typer.Typer:
    """Help where nothing is asked, plain text, no tracebacks of typer's own."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


@contextmanager
def opened(settings: Settings) -> Iterator["Store"]:
    """The store of a node that has run here, whether it runs now or not. Raises Elsewhere, Unavailable."""
    from storage.store import Store

    store = Store.open(settings.node.data_dir, keeps_names=settings.audit.keeps_names)
    try:
        yield store
    finally:
        store.close()
