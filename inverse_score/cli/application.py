"""The application that every command registers itself with."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="inverse-score",
    help="Inverse problems with score-based diffusion priors: MRI, CT and images.",
    no_args_is_help=True,
    # Locals in a traceback could hold patient data.
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """Keeps `inverse-score COMMAND` a group whatever the number of commands."""
