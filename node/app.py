"""How every group of commands of `hilum` behaves."""

import typer


def new_app(help_text: str) -> typer.Typer:
    """Help where nothing is asked, plain text, no tracebacks of typer's own."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
