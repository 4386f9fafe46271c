"""`inverse-score train CONFIG.yaml`: a prior from a folder of images."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .application import app

if TYPE_CHECKING:
    from ..training.config import DataConfig


@app.command()
def train(
    config: Path = typer.Argument(
        None, metavar="[CONFIG.yaml]", help="What to train, on what; without it --set data.path=..."
    ),
    set_: list[str] = typer.Option(
        [], "--set", metavar="KEY=VALUE", help="Override, as in train.steps=500; may repeat."
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on from the last checkpoint."),
    auto_resume: bool = typer.Option(
        False, "--auto-resume", help="Go on if there is a checkpoint, start if there is none."
    ),
    init_from: str = typer.Option(
        None, "--init-from", metavar="PRIOR", help="Start from this prior's weights."
    ),
    out: str = typer.Option(None, "--out", help="Folder of the run (the config's `out`)."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object at the end."),
) -> None:
    """Train a prior; its file is OUT/prior.safetensors.

    `inverse-score train --set data.path=FOLDER --out OUT` needs nothing else: pictures, DICOM,
    NIfTI, fastMRI HDF5 or npz are told apart, and part of the files is held out.
    SIGINT and SIGTERM finish the step and save; --resume goes on exactly from there. Under
    `torchrun --nproc-per-node N -m inverse_score train ...` N processes share each batch.
    """
    from dataclasses import replace

    from recipes.training_images import MRITrainingImages

    from ..io.config import override
    from ..training.config import as_config, load_config
    from ..training.loop import CLASSIFIER, PRIOR
    from ..training.loop import train as run

    settings = as_config(override({}, set_)) if config is None else load_config(config, set_)
    settings = replace(
        settings,
        out=settings.out if out is None else out,
        init_from=settings.init_from if init_from is None else init_from,
    )
    dataset, held_out = _prepared(settings.data, settings.loss.name == "classifier")
    prior = run(
        settings,
        dataset=dataset,
        held_out=held_out,
        resume="auto" if auto_resume else resume,
        kspace_images=MRITrainingImages,
    )
    if os.environ.get("RANK", "0") != "0":
        return
    path = Path(settings.out) / (CLASSIFIER if settings.loss.name == "classifier" else PRIOR)
    if json_:
        training = prior.card.get("training", {})
        print(json.dumps({"prior": str(path), **training}))
    else:
        print(path)


def _prepared(data: DataConfig, labels: bool) -> tuple[Any, Any]:
    """The datasets of a folder that `prepare` filled; (None, None) leaves it to the library."""
    if data.format != "prepared":
        return None, None
    from recipes.priors import datasets

    from ..errors import BadInput

    if data.path is None:
        raise BadInput("data.path is missing: the folder that `inverse-score prepare` filled")
    return datasets(data.path, None if data.crop is None else data.crop[0], labels=labels)
