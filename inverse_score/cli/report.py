"""`inverse-score report`: the HTML page of a result, made anew from its HDF5 file."""

from __future__ import annotations

from pathlib import Path

import typer

from .application import app


@app.command()
def report(
    reconstruction: Path = typer.Argument(help="Result file (.h5) of `reconstruct`."),
    out: Path | None = typer.Option(None, "--out", "-o", help="Default: beside it, .html."),
    overwrite: bool = typer.Option(False, help="Replace an existing page."),
) -> None:
    """Write one self-contained HTML page of a reconstruction: slices, maps, scores, provenance."""
    from ..errors import BadInput
    from ..io.runs.report import write_report

    target = reconstruction.with_suffix(".html") if out is None else out
    if target.exists() and not overwrite:
        raise BadInput(f"{target.name} exists; --overwrite replaces it")
    if target.exists() and reconstruction.exists() and target.samefile(reconstruction):
        raise BadInput("the page would overwrite the reconstruction it shows")
    write_report(reconstruction, target)
    print(target)
