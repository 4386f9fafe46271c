"""`inverse-score sample`: unconditional samples of a prior as pictures or arrays."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .application import app

if TYPE_CHECKING:
    from torch import Tensor

    from ..prior import Prior


@app.command()
def sample(
    prior: str = typer.Option(..., "--prior", help="A prior file, or the name of a shipped one."),
    count: int = typer.Option(16, "--count", min=1, help="How many."),
    out: Path = typer.Option(
        Path("samples.png"), "--out", help=".png: one grid; .npz: float32 arrays; else a folder."
    ),
    size: str = typer.Option(None, "--size", metavar="HxW", help="Default: as trained."),
    method: str = typer.Option("auto", "--method", help="A sampler's name."),
    steps: int = typer.Option(None, "--steps", min=2, help="Times in the grid."),
    seed: int = typer.Option(0, "--seed"),
    batch_size: int = typer.Option(16, "--batch-size", min=1),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda, cuda:N or mps."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace what is at --out."),
    json_: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Draw samples in data units. Sample i depends on the seed and i, not on --batch-size.

    Complex priors (two channels) are drawn as magnitudes in pictures and stay complex in .npz.
    """
    from ..device import choose_device
    from ..errors import BadInput
    from ..io.priors import load_prior

    if out.exists() and not overwrite:
        raise BadInput(f"{out} exists; --overwrite replaces it")
    loaded = load_prior(prior, choose_device(device))
    event = event_of(loaded, size)
    images, info = draw(loaded, count, event, batch_size, method=method, steps=steps, seed=seed)
    write(images, out, loaded)
    told = {"out": str(out), "count": count, "shape": list(event), "seed": seed, **info}
    print(json.dumps(told) if json_ else out)


def event_of(prior: Prior, size: str | None) -> tuple[int, ...]:
    """(C, H, W) to draw: of --size, or of the images that the prior was trained on."""
    from ..errors import BadInput

    event = prior.event_shape
    if size is not None:
        height, cross, width = size.lower().partition("x")
        if not (cross and height.isdecimal() and width.isdecimal() and int(height) * int(width)):
            raise BadInput(f"--size reads HxW, as in 96x128; got {size!r}")
        if event is None or len(event) != 3:
            raise BadInput(f"--size is for priors of images; this one's event is {event}")
        return (event[0], int(height), int(width))  # type: ignore[return-value]
    if prior.fixed_shape is not None:
        return prior.fixed_shape
    trained = prior.card.get("training", {}).get("image_shape")
    if not trained:
        raise BadInput("--size HxW is needed: this prior takes any size and does not name its own")
    return tuple(int(n) for n in trained)


def draw(
    prior: Prior, count: int, event: tuple[int, ...], batch_size: int, **options: Any
) -> tuple[Tensor, dict[str, Any]]:
    """(count, *event) in data units, on the CPU, and what the sampler says of the work."""
    import torch

    from ..sampling import sample as sampled

    parts, info = [], {}
    for first in range(0, count, batch_size):
        items = range(first, min(first + batch_size, count))
        with torch.no_grad():
            images, info = sampled(
                prior, (len(items), *event), items=items, return_info=True, **options
            )
        parts.append(images.cpu())
        if sys.stderr.isatty():
            print(f"\r{items.stop}/{count}", end="\n" if items.stop == count else "",
                  file=sys.stderr, flush=True)  # fmt: skip
    return torch.cat(parts), {"method": info["method"], "nfe": info["nfe"]}


def write(images: Tensor, out: Path, prior: Prior) -> None:
    """A grid, an array file, or a folder of numbered pictures."""
    import numpy as np
    import torch

    from ..errors import BadInput
    from ..io.runs.atomic import atomic_path
    from ..training.plots import image_grid, write_png

    if out.suffix == ".npz":
        values = torch.complex(*images.unbind(1)) if images.shape[1:2] == (2,) else images
        with atomic_path(out) as temporary:
            np.savez(temporary, images=(values if images.ndim == 4 else images).numpy())
        return
    if images.ndim != 4 or images.shape[1] > 3:
        raise BadInput(f"samples of shape {tuple(images.shape[1:])} are no pictures; --out x.npz")
    low, high = window(images, prior)
    if out.suffix == ".png":
        write_png(out, image_grid(images, low, high))
        return
    for number, image in enumerate(images):
        write_png(out / f"{number:05d}.png", image_grid(image[None], low, high, gap=0))


def window(images: Tensor, prior: Prior) -> tuple[float, float]:
    """Values shown black and white: [0, 1] for a picture prior, else a range of all samples."""
    import torch

    from ..sources import RANGES

    if prior.range == RANGES["pictures"]:
        return 0.0, 1.0
    shown = images.square().sum(1).sqrt() if images.shape[1] == 2 else images
    flat = shown.flatten().double()[:: max(1, shown.numel() // 1_000_000)]
    low, high = (torch.quantile(flat, q).item() for q in (0.002, 0.998))
    return low, high
