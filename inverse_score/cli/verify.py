"""`inverse-score verify`: is the uncertainty of this prior, operator and method calibrated?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from .application import app


@app.command()
def verify(
    prior: str = typer.Option(..., "--prior", metavar="P", help="A prior's file or shipped name."),
    operator: str = typer.Option(..., help="mri, ct, inpaint, colorize, deblur or denoise."),
    data: Path = typer.Option(
        None, "--data", metavar="DIR", help="Held-out images, npz of (N, H, W): one file a person."
    ),
    self_drawn: int = typer.Option(
        None, "--self-drawn", metavar="N", help="Images drawn from the prior: a weaker check."
    ),
    acc: float = typer.Option(4.0, help="Acceleration (mri)."),
    views: int = typer.Option(30, help="Views (ct)."),
    noise_std: float = typer.Option(0.02, help="Noise, relative to the prior's scale."),
    samples: int = typer.Option(16, help="Posterior samples a measurement."),
    count: int = typer.Option(None, help="Measurements; default: every image once."),
    size: int = typer.Option(96, help="Side of the square cut from each image."),
    method: str = typer.Option("auto", help="Method of `solve`."),
    budget: str = typer.Option("fast", help="fast or accurate."),
    level: float = typer.Option(1e-3, help="Level of the tests."),
    seed: int = typer.Option(0),
    out: Path = typer.Option(None, "--out", metavar="DIR", help="verdict.json and plots here."),
    store: bool = typer.Option(
        False, "--store", help="Write the conformal factor into the prior's file."
    ),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Simulate measurements of images with known truth and test the samples' spread.

    Held-out images test prior and sampler together; images drawn from the prior test the sampler
    alone. Prints the verdict; exit code 0 whatever it is.
    """
    from recipes.spread_study import Study, run

    study = Study(
        operator=operator,
        acc=acc,
        views=views,
        noise_std=noise_std,
        num_samples=samples,
        size=size,
        method=method,
        budget=budget,
        level=level,
        seed=seed,
    )
    found = run(study, prior, data=data, self_drawn=self_drawn, count=count)
    if out is not None:
        found.write(out)
    if store:
        found.store(prior)
    print(json.dumps(found.to_json()) if json_ else _text(found.to_json()))


def _text(found: dict[str, Any]) -> str:
    lines = ["coverage   nominal  observed  95 % band over images"]
    for row in found["coverage"]:
        band = f"{row['low']:.3f} to {row['high']:.3f}"
        lines.append(f"{'':9}{row['nominal']:8.2f}{row['observed']:10.3f}  {band}")
    lines.append(
        f"p-values   spread {found['p_spread']:.2g}, centre {found['p_centre']:.2g}, "
        f"TARP {found['p_tarp']:.2g}"
    )
    factor = found.get("conformal")
    if factor is not None:
        lines.append(
            f"conformal  mean +- {factor['factor']:.2f} std covers {factor['level']:.0%} of every "
            f"image of {factor['people']} people (a new one with chance {factor['confidence']:.2f})"
        )
    return "\n".join([*lines, found["verdict"]])
