"""Metal artefact reduction on a simulated scan: python tests/studies/metal.py

A chest that no prior has seen, with two steel screws, scanned with four photon energies on a
twofold finer grid, Poisson counts and a scanner's water correction. Metal is found on the filtered
back-projection; errors are of the body outside the true metal. Rows are kept in
results/metal.jsonl as they finish; the table goes to results/metal.md.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.ct import WATER, Radon, from_hounsfield, to_hounsfield
from recipes.ct import ct
from recipes.metal import interpolated, kept_rays, normalized

HERE = Path(__file__).parent
SIZE, VIEWS, I0, THRESHOLD = 128, 120, 1e5, 2200.0
# Photons at 40, 60, 80, 100 keV; 1/mm of water and of steel (iron) there (NIST XCOM).
SHARE = (0.15, 0.35, 0.30, 0.20)
MU_WATER = (0.02683, 0.02059, 0.01837, 0.01707)
MU_STEEL = (2.856, 0.9483, 0.4684, 0.2925)
SCREWS = ((92.0, 54.0), (92.0, 71.0))  # (row, column) on the 128 grid
RADIUS = 2.0  # pixels: 5 mm


@dataclass
class Case:
    """A scan and its truth: p line integrals after water correction, HU images (1, 1, H, W)."""

    radon: Radon
    p: Tensor
    counts: Tensor
    truth: Tensor
    metal: Tensor
    body: Tensor
    found: Tensor
    keep: Tensor


def simulate(seed: int = 0) -> Case:
    """Counts of both materials at four energies, halved detector elements averaged."""
    with np.load(HERE.parents[1] / "examples" / "data" / "chest-ct.npz") as file:
        image, pixel = torch.from_numpy(file["image"].astype(np.float32)), float(file["pixel_mm"])
    fine = torch.nn.functional.avg_pool2d(image[None, None], 2)
    truth = torch.nn.functional.avg_pool2d(fine, 2)
    pixel = 4 * pixel
    angles = torch.arange(VIEWS) * math.pi / VIEWS
    radon = Radon(SIZE, angles, pixel_size=pixel)
    twice = Radon(2 * SIZE, angles, 2 * radon.out_shape[2], pixel_size=pixel / 2)
    screws = _discs(2 * SIZE)
    water = twice(from_hounsfield(fine.clamp_min(-1000.0)) / WATER * ~screws)
    steel = twice(screws.float())
    halves = sum(
        share * torch.exp(-w * water - m * steel)
        for share, w, m in zip(SHARE, MU_WATER, MU_STEEL, strict=True)
    )
    mean = I0 * halves.unflatten(-1, (-1, 2)).mean(-1)  # type: ignore[union-attr]
    counts = _poisson(mean, seed).clamp_min(0.5)
    p = _water_corrected(-(counts / I0).log())
    metal = torch.nn.functional.max_pool2d(screws.float(), 2) > 0
    keep, found = kept_rays(radon, p, THRESHOLD)
    return Case(radon, p, counts, truth, metal, _body(truth), found, keep)


def _discs(size: int) -> Tensor:
    i = torch.arange(size) + 0.5
    scale = size / SIZE
    masks = [
        (i[:, None] - scale * (r + 0.5)) ** 2 + (i - scale * (c + 0.5)) ** 2 < (scale * RADIUS) ** 2
        for r, c in SCREWS
    ]
    return torch.stack(masks).any(0)[None, None]


def _poisson(mean: Tensor, seed: int) -> Tensor:
    draws = np.random.default_rng(seed).poisson(mean.double().numpy())
    return torch.from_numpy(draws).float()


def _water_corrected(p: Tensor) -> Tensor:
    """The length of water that gives p, times WATER: what a scanner's calibration does."""
    length = np.linspace(0, 1500, 3001)
    each = [s * np.exp(-w * length) for s, w in zip(SHARE, MU_WATER, strict=True)]
    table = -np.log(np.sum(each, 0))
    found = np.interp(p.double().numpy(), table, length)
    # A reading brighter than air has negative length, at the slope of the first millimetres.
    below = p.double().numpy() / (table[1] / length[1])
    return WATER * torch.from_numpy(np.where(p.numpy() < 0, below, found)).float()


def _body(truth: Tensor) -> Tensor:
    """Pixels above -900 HU grown and shrunk again: the patient with the lungs."""
    inside = (truth > -900).float()
    return torch.nn.functional.avg_pool2d(inside, 9, 1, 4) > 0.4


def reconstructions(case: Case, samples: int, prior: str) -> dict[str, Any]:
    """name -> function that returns (image, std or None, calls)."""
    noise = case.counts.rsqrt()

    def fbp(p: Tensor):
        return to_hounsfield(case.radon.fbp(p)), None, 0

    def run(metal: bool = True, noise: Any = noise, **options: Any):
        recipe = ct(prior, case.radon, noise_std=noise, metal=THRESHOLD if metal else None)
        count = 1 if options["method"] == "tv" else samples
        rec = recipe(case.p, num_samples=count, **options)
        return rec.mean, rec.std if count > 1 else None, rec.nfe

    spectrum: dict[str, Any] = {
        "method": "moment-matching", "covariance": "spectrum", "sampler_options": {"eta": 3.0},
        "steps": 40, "tol": 0.02,
    }  # fmt: skip
    return {
        "FBP of all rays": lambda: fbp(case.p),
        "linear interpolation, FBP": lambda: fbp(interpolated(case.p, ~case.keep)),
        "NMAR-like, FBP": lambda: fbp(normalized(case.radon, case.p, ~case.keep)),
        "rays left out, TV": lambda: run(method="tv", iterations=100),
        # Their method knows one noise level; its transform is the full scan and its FBP.
        "rays left out, Song et al. 2022": lambda: run(
            noise=float(noise.median()), method="song22", steps=25
        ),
        "rays left out, moment matching": lambda: run(**spectrum),
        "all rays, moment matching": lambda: run(metal=False, **spectrum),
    }


def score(case: Case, image: Tensor, std: Tensor | None) -> dict[str, float]:
    """RMSE in HU of the body outside the metal, within 2 cm of it and further; PSNR of 2000 HU."""
    pool = torch.nn.functional.max_pool2d
    metal = pool(case.metal.float(), 3, 1, 1) > 0
    near = pool(case.metal.float(), 17, 1, 8) > 0
    error = (image - case.truth).square()
    parts = {"body": case.body & ~metal, "near": case.body & near & ~metal}
    parts["far"] = parts["body"] & ~near
    found = {name: float(error[mask].mean().sqrt()) for name, mask in parts.items()}
    found["psnr"] = 20 * math.log10(2000 / found["body"])
    if std is not None:
        found["spread"] = float(std[parts["near"]].square().mean().sqrt())
    return found


def table(rows: dict[str, dict[str, float]], case: Case) -> str:
    left = 100 * (1 - float(case.keep.float().mean()))
    lines = [
        "# Metal artefact reduction (python tests/studies/metal.py)\n",
        f"Chest of a person no prior has seen, {SIZE} x {SIZE} pixels of "
        f"{case.radon.pixel_size:.2f} mm, {VIEWS} views, {I0:.0f} photons a ray at 40 to 100 keV; "
        f"two steel screws of {2 * RADIUS * case.radon.pixel_size:.0f} mm, found above "
        f"{THRESHOLD:.0f} HU, leave out {left:.1f} % of the rays. RMSE in HU against the slice "
        "outside the metal: all of the body, within 2 cm of the metal, further; PSNR of a range "
        "of 2000 HU. The image is the mean of the samples: of one alone the squared error is about "
        "twice that of the mean of many. spread: RMS standard deviation of the samples near it.\n",
        "| method | samples | RMSE | near | far | PSNR | spread | calls | s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        spread = f"{row['spread']:.0f}" if "spread" in row else "-"
        errors = " | ".join(f"{row[part]:.1f}" for part in ("body", "near", "far"))
        lines.append(
            f"| {name} | {row['samples']} | {errors} | "
            f"{row['psnr']:.2f} | {spread} | {row['calls']:.0f} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--prior", default="body-ct")
    parser.add_argument("--picture", type=Path, help="write the images, -300 to 400 HU, there")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="parts of names of rows")
    options = parser.parse_args()
    case, images = simulate(), {}
    runs = reconstructions(case, options.samples, options.prior)
    for name, run in runs.items():
        if options.only and not any(part in name for part in options.only):
            continue
        began = time.perf_counter()
        image, std, calls = run()
        seconds = time.perf_counter() - began
        row = {"name": name, **score(case, image, std), "calls": calls, "seconds": seconds}
        row["samples"] = options.samples if calls else 1
        images[name] = image
        print(row, flush=True)
        # Appended, so that pieces may run side by side; of two rows the later one counts.
        with (HERE / "results" / "metal.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        (HERE / "results" / "metal.md").write_text(table(_measured(list(runs)), case))
    if options.picture is not None:
        _draw(options.picture, {"truth": case.truth, **images})


def _measured(names: list[str]) -> dict[str, dict[str, float]]:
    """The last row of each name, in the order of names."""
    lines = (HERE / "results" / "metal.jsonl").read_text().splitlines()
    found = {row["name"]: row for row in map(json.loads, lines)}
    return {name: found[name] for name in names if name in found}


def _draw(path: Path, images: dict[str, Tensor]) -> None:
    from PIL import Image

    tiles = [((x[0, 0] + 300) / 700).clamp(0, 1) for x in images.values()]
    tiles += [torch.zeros_like(tiles[0])] * (-len(tiles) % 3)
    rows = [torch.cat(tiles[k : k + 3], 1) for k in range(0, len(tiles), 3)]
    Image.fromarray((255 * torch.cat(rows)).byte().numpy()).save(path)


if __name__ == "__main__":
    main()
