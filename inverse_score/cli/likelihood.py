"""`inverse-score likelihood`: bits per dimension of images under a prior."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import typer

from .application import app


@app.command()
def likelihood(
    files: list[Path] = typer.Argument(..., metavar="FILES...", help="Images, or folders of them."),
    prior: str = typer.Option(..., "--prior", help="A prior file, or the name of a shipped one."),
    count: int = typer.Option(None, "--count", min=1, help="At most so many images."),
    levels: int = typer.Option(256, "--levels", min=2, help="Grey levels of a picture, 0 to 1."),
    probes: int = typer.Option(None, "--probes", min=1, help="Of the Hutchinson trace estimate."),
    crop: tuple[int, int] = typer.Option(None, "--crop", help="Central height and width."),
    seed: int = typer.Option(0, "--seed"),
    batch_size: int = typer.Option(8, "--batch-size", min=1),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda, cuda:N or mps."),
    json_: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Log-likelihood (nats) and bits per dimension of each image, by the probability-flow ODE.

    Images are read as in training: pictures in [0, 1], CT in HU, magnitudes over their volume's
    scale. Pictures are dequantized uniformly (Theis et al. 2016), so that their bits/dim are an
    upper bound for a lossless code of --levels grey levels; for all others it is the density's, in
    those units, and may be negative.
    """
    from ..data import ImageFolder
    from ..device import choose_device
    from ..io.priors import load_prior
    from ..sources import list_images

    loaded = load_prior(prior, choose_device(device))
    images = []
    for file in files:
        images += list_images(file, channels=loaded.channels).images
    folder = ImageFolder(tuple(images[:count]))
    rows = measure(folder, loaded, crop, levels, probes, seed, batch_size)
    mean, error = _mean([row["bits_per_dim"] for row in rows])
    if json_:
        print(json.dumps({"images": rows, "bits_per_dim": mean, "standard_error": error}))
        return
    for row in rows:
        print(f"{row['bits_per_dim']:9.4f} bits/dim {row['nats']:14.2f} nats  {row['name']}")
    print(f"{mean:9.4f} bits/dim, mean of {len(rows)} images, standard error {error:.4f}")


def measure(
    folder: Any, prior: Any, crop: Any, levels: int, probes: int | None, seed: int, batch_size: int
) -> list[dict[str, Any]]:
    """One row an image: name, nats, bits_per_dim."""
    from ..io.names import printable
    from ..likelihood import bits_per_dim, log_likelihood
    from ..training.items import Items, collate

    items = Items(folder, seed, crop=crop, shuffle=False)
    options: dict[str, Any] = {} if probes is None else {"trace": "hutchinson", "probes": probes}
    rows = []
    for first in range(0, len(folder), batch_size):
        numbers = range(first, min(first + batch_size, len(folder)))
        images, _, _ = collate([items[number] for number in numbers])
        images, options = images.to(prior.device), {**options, "seed": seed, "items": numbers}
        unit = images[0].numel() * math.log(2)
        if folder.unit == "picture":
            bits = bits_per_dim(images, prior, levels, **options)
        else:
            bits = -log_likelihood(images, prior, **options) / unit
        for number, value in zip(numbers, bits.tolist(), strict=True):
            name = printable(folder.images[number].name)
            rows.append({"name": name, "bits_per_dim": value, "nats": -value * unit})
    return rows


def _mean(values: list[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    return mean, math.sqrt(variance / len(values))
