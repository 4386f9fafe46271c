"""`inverse-score export`: a finished reconstruction as DICOM, NIfTI or BART."""

from __future__ import annotations

from pathlib import Path

import typer

from .application import app


@app.command()
def export(
    result: Path = typer.Argument(help="A volume written by reconstruct (.h5)."),
    to: list[str] = typer.Option(..., "--to", help="dicom, nifti or bart; may be repeated."),
    source: Path | None = typer.Option(None, help="The scan that was reconstructed: geometry, and "
                                       "with --keep-phi the patient's study."),
    key: str | None = typer.Option(None, help="Array or series within the source."),
    axes: str | None = typer.Option(None, help="Axes of a plain array, as slice,coil,y,x."),
    out: Path | None = typer.Option(None, "--out", "-o", help="Folder; default: the result's."),
    keep_phi: bool = typer.Option(False, help="DICOM: copy patient and study of a DICOM source."),
    allow_no_geometry: bool = typer.Option(False, help="DICOM even where no position is known."),
    overwrite: bool = typer.Option(False, help="Replace earlier files."),
) -> None:  # fmt: skip
    """Write the mean and the std of a reconstruction in other formats, for research use only.

    DICOM is a derived series, marked RESEARCH and without patient data unless --keep-phi; the std
    is a parametric map of its own (needs highdicom).
    """
    from ..io.formats.exports import export_all
    from ..io.reading import read_scan
    from ..io.runs.volume import open_volume

    scan = None if source is None else read_scan(source, key=key, axes=axes)
    stem = (out or result.parent) / result.stem
    for path in export_all(
        open_volume(result),
        to,
        stem,
        scan=scan,
        keep_phi=keep_phi,
        allow_no_geometry=allow_no_geometry,
        overwrite=overwrite,
    ):
        typer.echo(path)
