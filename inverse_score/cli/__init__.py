"""The command line `inverse-score`, one module a command. Modules import torch inside commands."""

from __future__ import annotations

import sys

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


def main() -> None:
    """Run the app; errors become one line on stderr and the exit codes of the documentation."""
    try:
        app(standalone_mode=True)
    except SystemExit:
        raise
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        code = getattr(error, "exit_code", 3 if isinstance(error, ValueError) else 1)
        print(f"inverse-score: {error or type(error).__name__}", file=sys.stderr)
        sys.exit(code)
