"""`inverse-score convert`: a released checkpoint into a prior file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from .application import app


@app.command()
def convert(
    checkpoint: Path = typer.Argument(None, help="A .pth, .pt or .safetensors, or a folder."),
    out: Path = typer.Option(None, "-o", "--out", help="The prior file to write (.safetensors)."),
    trust: bool = typer.Option(
        False, "--trust", help="Open a pickle (.pth, .pt), by torch's restricted unpickler."
    ),
    preset: str = typer.Option(None, "--preset", help="Which published checkpoint it is."),
    set_: list[str] = typer.Option(
        [],
        "--set",
        metavar="KEY=VALUE",
        help="An argument of the network: nf=64, sde.sigma_max=90; repeatable.",
    ),
    list_presets: bool = typer.Option(False, "--list", help="List the presets and exit."),
    half: bool = typer.Option(False, "--half", help="Store the weights in 16 bits."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace what is at --out."),
    json_: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Convert a checkpoint of score_sde_pytorch, guided-diffusion, EDM, diffusers or NCSNv2.

    The averaged (EMA) weights are taken. Exits 4 for a checkpoint that is damaged or not of the
    chosen network.
    """
    if list_presets:
        _list(json_)
        return
    if checkpoint is None or out is None:
        raise typer.BadParameter("give a CHECKPOINT and -o PRIOR.safetensors")
    from ..errors import BadInput
    from ..io.checkpoints import import_checkpoint
    from ..io.config import override
    from ..io.priors import save_prior

    if out.suffix != ".safetensors":
        raise BadInput(f"a prior is a .safetensors file; got -o {out.name}")
    if out.exists() and not overwrite:
        raise BadInput(f"{out.name} exists; --overwrite replaces it")
    prior = import_checkpoint(checkpoint, trust=trust, preset=preset, overrides=override({}, set_))
    save_prior(prior, out, storage="float16" if half else "float32")
    told = _told(prior, out)
    print(json.dumps(told) if json_ else "\n".join(f"{k}: {v}" for k, v in told.items()))


def _told(prior: Any, out: Path) -> dict[str, Any]:
    from ..io.priors import describe_sde
    from ..networks.score_network import parameter_count

    return {
        "out": out.name,
        **prior.card["checkpoint"],
        "parameters": parameter_count(prior.network),
        "sde": describe_sde(prior.sde),
        "output": prior.output,
        "range": list(prior.range),
        "image_shape": prior.card["training"]["image_shape"],
        "t_min": prior.t_min,
    }


def _list(json_: bool) -> None:
    from ..io.checkpoints.presets import PRESETS

    if json_:
        print(json.dumps({k: {"layout": p.layout, "domain": p.domain} for k, p in PRESETS.items()}))
        return
    for name, preset in PRESETS.items():
        print(f"{name:40s} {preset.layout:18s} {preset.domain}")
