"""`python tests/studies/walk_calibration.py HEADS BODIES`: what `unseen` and `eta` are worth.

HEADS and BODIES are folders that `inverse-score prepare brain-mri` and `prepare body-ct` filled.
Only training people are looked at, as they are and with contrasts that nobody has: inverted, and
the square root. MRI at 4x with 8 simulated coils and their true maps, noise 1 %, 160 x 128; CT of
30 views, 1e5 counts. A row: PSNR of the mean of 6 samples; the share of the body whose truth lies
within their range (71.4 % is right); the mean's error over the samples' std (1 is right).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from inverse_score import load_prior
from inverse_score.posterior.covariance import KEY, ErrorSpectrum
from operators import as_complex, column_mask
from recipes.ct import ct
from recipes.mri import mri
from recipes.problem import Problem
from recipes.simulate import simulate_ct, simulate_mri

RESULT = Path(__file__).parent / "results" / "walk_calibration.md"
ROWS = ((1.0, 2.0), (1.0, 1.0), (2.5, 1.0), (4.0, 0.5))
SAMPLES, SEED = 6, 11
CONTRASTS: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda x: x,
    "inverted": lambda x: torch.where(x > 0.08, (1.05 - x).clamp(0.02, 1.0), 0.2 * x),
    "square root": lambda x: x.sqrt(),
}


class Case(NamedTuple):
    """picture: samples (n, 1, C, H, W) as images (n, H, W); span: the data range of PSNR."""

    name: str
    problem: Problem
    truth: Tensor
    body: Tensor
    picture: Callable[[Tensor], Tensor]
    span: float


def heads(folder: Path, prior: object) -> Iterator[Case]:
    for person, axis, share in (("colin27", 2, 0.5), ("s1", 1, 0.6)):
        with np.load(folder / "train" / f"{person}.npz") as file:
            volume = np.moveaxis(file["image"], axis, 0)
        x = torch.from_numpy(volume[int(share * len(volume))].astype(np.float32))
        for contrast, change in CONTRASTS.items():
            image = _centre(change(x / x.max()), 160, 128)
            mask = column_mask("equispaced-fraction", 128, 4, 0.08, seed=SEED).mask
            scan = simulate_mri(image, coils=8, noise_level=0.01, seed=SEED, items=[SEED])
            problem = mri(prior, mask, scan.sens_maps).prepare(scan.kspace * mask)  # type: ignore[arg-type]
            truth = scan.ground_truth[0]
            peak = float(truth.max())
            yield Case(
                f"{person}, {contrast}", problem, truth, truth > 0.05 * peak, _magnitude, peak
            )


def chests(folder: Path, prior: object) -> Iterator[Case]:
    for person, slice_, shrink, pixel in (("lung1", 24, 3, 1.71), ("thorax", 90, 1, 1.5)):
        with np.load(folder / "train" / f"{person}.npz") as file:
            x = torch.from_numpy(file["image"][slice_].astype(np.float32))
        x = torch.nn.functional.avg_pool2d(x[None, None], shrink)[0, 0]
        x = _centre(x, min(160, x.shape[0]), min(168, x.shape[1]))
        angles = torch.arange(30, dtype=torch.float64) * math.pi / 30
        scan = simulate_ct(x, angles, pixel_size=pixel, unit="hu", I0=1e5, seed=SEED, items=[SEED])
        recipe = ct(prior, scan.operator, noise_std=scan.noise_std[:, None].float())  # type: ignore[arg-type]
        problem = recipe.prepare(scan.sinogram[:, None].float())
        yield Case(person, problem, x, x > -500.0, lambda s: s[:, 0, 0], 2000.0)


def measured(case: Case, prior: object, unseen: float, eta: float) -> str:
    """One row of the table."""
    card = {**prior.card[KEY], "unseen": unseen}  # type: ignore[attr-defined]
    rec = case.problem.solve(
        prior,  # type: ignore[arg-type]
        SAMPLES,
        method="moment-matching",
        covariance="spectrum",
        spectrum=ErrorSpectrum(card),
        steps=20 if case.span < 1000 else 28,
        tol=0.003,
        eta=eta,
        balanced=True,
    )
    x, mean = case.picture(rec.samples), case.picture(rec.mean[None])[0]  # type: ignore[arg-type]
    error, std = (mean - case.truth)[case.body], x.std(0)[case.body]
    inside = ((x.amin(0) < case.truth) & (case.truth < x.amax(0)))[case.body].float().mean()
    psnr = 10 * math.log10(case.span**2 / float((mean - case.truth).square().mean()))
    ratio = (error.square().mean() / std.square().mean() / (1 + 1 / SAMPLES)).sqrt()
    return (
        f"| {case.name} | {unseen:g} | {eta:g} | {psnr:.2f} | {100 * inside:.1f} | {ratio:.2f} "
        f"| {float(rec.misfit.mean()):.2f} |"
    )


def _centre(x: Tensor, rows: int, columns: int) -> Tensor:
    top, left = (x.shape[0] - rows) // 2, (x.shape[1] - columns) // 2
    return x[top : top + rows, left : left + columns]


def _magnitude(samples: Tensor) -> Tensor:
    return as_complex(samples[:, 0]).abs()


def main(heads_folder: str, bodies_folder: str) -> None:
    lines = [(__doc__ or "").strip(), ""]
    lines += [
        "| case | unseen | eta | PSNR | in range, % | error / std | misfit |",
        "|---" * 7 + "|",
    ]
    for name, make, folder in (
        ("brain-mri", heads, heads_folder),
        ("body-ct", chests, bodies_folder),
    ):
        prior = load_prior(name)
        for case in make(Path(folder), prior):
            for unseen, eta in ROWS:
                lines.append(measured(case, prior, unseen, eta))
                print(lines[-1], flush=True)
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
