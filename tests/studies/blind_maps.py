"""Coil maps found blindly beside the true ones: arrays x acceleration x lines x heads and frames.

    python tests/studies/blind_maps.py --quick            # held-out heads of the examples
    python tests/studies/blind_maps.py --data DIR         # people of `inverse-score prepare`

PSNR of the posterior mean (4 samples, 2 of --quick) with periodic maps (ESPIRiT from 15 lines,
low resolution below), fitted ones and true ones, beside zero-filling and TV whose weight the truth
chose; the RMS error of the maps; seconds that the maps took. Results are kept beside the script,
case by case, in blind_maps.json, and printed as a table.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import recipes
from inverse_score import load_prior, solve
from operators import as_complex, column_mask, fft2c, ifft2c
from operators.mri.coils import unit_norm
from operators.noise import add_gaussian
from recipes.arrays import array_maps
from recipes.simulate import smooth_phase, upsampled

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_suffix(".json")
ARRAYS = ("birdcage 8", "loops 12", "lobes 8", "one-sided 6", "loops 24")
LINES = {4: (15, 12, 8, 4, 0), 6: (10, 6, 4), 8: (6, 4)}
STRENGTHS = (0.6, 2.0, 6.0)
NOISE = 0.01
HEAD, FRAME = (144, 104), (112, 96)


@dataclass(frozen=True)
class Case:
    """image: name of a head or frame; array: kind and number of coils."""

    image: str
    array: str
    acc: int
    lines: int


@dataclass(frozen=True)
class Scan:
    kspace: Tensor
    mask: Tensor
    maps: Tensor
    truth: Tensor


def simulate(x: Tensor, case: Case, seed: int = 0) -> Scan:
    """A scan of x (H, W) on a grid twice as fine, and the maps on its own grid."""
    kind, coils = case.array.split()
    H, W = x.shape
    fine = upsampled(x[None], 2)[0].clamp_min(0)
    fine = torch.polar(fine, smooth_phase((2 * H, 2 * W), math.pi / 2, seed).to(fine))
    wide = array_maps(kind, int(coils), (2 * H, 2 * W), seed)
    central = (..., slice(H - H // 2, 2 * H - H // 2), slice(W - W // 2, 2 * W - W // 2))
    truth = ifft2c(fft2c(fine)[central] / 2).abs()
    clean = fft2c(wide * fine)[central][None] / 2
    noisy = add_gaussian(clean, NOISE * float(truth.max()), seed=seed, items=[0])
    mask = sampling(W, case)
    return Scan(noisy * mask, mask, unit_norm(wide[..., H % 2 :: 2, W % 2 :: 2]), truth)


def sampling(width: int, case: Case) -> Tensor:
    """Equispaced columns and the central lines, no more than 60 % of all that are measured; with 0
    lines columns drawn at random."""
    if case.lines:
        fraction = min(case.lines / width, 0.6 / case.acc)
        return column_mask("equispaced-fraction", width, case.acc, fraction, seed=0).mask.bool()
    chance = np.random.default_rng(0).random(width)
    return torch.from_numpy(chance < 1 / case.acc)


def measure(case: Case, x: Tensor, prior, samples: int) -> dict[str, float]:
    """PSNR by reconstruction, map error and seconds."""
    scan, row = simulate(x, case), {}
    row["zero-filled"] = psnr(ifft2c(scan.kspace[0]).abs().square().sum(0).sqrt(), scan)
    periodic = "espirit" if case.lines >= 15 else "low-resolution"
    choices = {"fitted": {"maps": "fitted"}, "true": {"sens_maps": scan.maps}}
    if case.lines >= 4:
        choices = {"periodic": {"maps": periodic}, **choices}
    for name, options in choices.items():
        began = time.process_time()
        problem = recipes.mri(prior, scan.mask, **options).prepare(scan.kspace)
        row[f"{name} seconds"] = time.process_time() - began
        row[f"{name} error"] = map_error(problem.operator.sens_maps, scan)
        rec = problem.solve(prior, num_samples=samples, seed=0)
        row[name] = psnr(as_complex(rec.mean)[0].abs(), scan)
        if name == "fitted":
            row["tv"] = max(psnr(tv(problem, prior, weight), scan) for weight in STRENGTHS)
            row["network seconds"] = rec.seconds
    return row


def tv(problem, prior, strength: float) -> Tensor:
    rec = solve(problem.y, problem.operator, prior, noise_std=problem.noise_std, method="tv",
                strength=strength, iterations=40)  # fmt: skip
    return as_complex(problem.to_units(rec.samples[0]))[0].abs()


def psnr(image: Tensor, scan: Scan) -> float:
    error = (image - scan.truth).square().mean().sqrt()
    return float(20 * torch.log10(scan.truth.max() / error))


def map_error(maps: Tensor, scan: Scan) -> float:
    """RMS over coils and body of unit-norm maps, up to a phase a pixel."""
    agreement = (unit_norm(maps).conj() * scan.maps).sum(0).abs().clamp(max=1)
    body = scan.truth > 0.1 * scan.truth.quantile(0.99)
    return float(((2 - 2 * agreement)[body].mean() / len(maps)).sqrt())


def held_out() -> dict[str, Tensor]:
    """The heads of the examples, whole and as frames."""
    found = {}
    for name in ("head-t1", "head-pd"):
        with np.load(ROOT / "examples" / "data" / f"{name}.npz") as file:
            found |= views(name, file["image"].astype(np.float32))
    return found


def prepared(folder: Path) -> dict[str, Tensor]:
    """Axial slices of the whole heads that `inverse-score prepare brain-mri` makes."""
    found = {}
    for name, k in (("colin27", 90), ("s1", 130), ("colin27", 60)):
        with np.load(folder / "train" / f"{name}.npz") as file:
            found |= views(f"{name} {k}", file["image"][k, ::-1].astype(np.float32))
    return found


def views(name: str, image: np.ndarray) -> dict[str, Tensor]:
    """The whole head, HEAD, and a piece of it, FRAME, that tissue fills."""
    x = torch.from_numpy(np.ascontiguousarray(image))
    rows, columns = ((x > 0.15 * x.quantile(0.99)).any(d).nonzero().flatten() for d in (1, 0))
    body = x[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    h, w = body.shape
    scale = 0.95 * min(HEAD[0] / h, HEAD[1] / w)
    small = resized(body, (round(h * scale), round(w * scale)))
    down, right = HEAD[0] - small.shape[0], HEAD[1] - small.shape[1]
    head = torch.nn.functional.pad(
        small, (right // 2, right - right // 2, down // 2, down - down // 2)
    )
    frame = resized(body[h // 4 : h // 4 + h // 3, w // 4 : w // 4 + round(w * 0.4)], FRAME)
    return {f"{name}, head": head / head.max(), f"{name}, frame": frame / frame.max()}


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.nn.functional.interpolate(
        x[None, None], size=size, mode="bicubic", align_corners=False, antialias=True
    )[0, 0].clamp_min(0)


def cases(names: list[str], quick: bool) -> list[Case]:
    """All combinations; or one in 13, images in turn."""
    every = [Case("", a, acc, n) for acc, counts in LINES.items() for n in counts for a in ARRAYS]
    if not quick:
        return [Case(n, c.array, c.acc, c.lines) for n, c in product(names, every)]
    steps = range(0, len(every) * len(names), 13)
    picked = [(names[k % len(names)], every[k % len(every)]) for k in steps]
    return [Case(n, c.array, c.acc, c.lines) for n, c in picked]


def report(results: dict[str, dict[str, float]]) -> str:
    """A markdown table, worst loss to the true maps first."""
    columns = ("periodic", "fitted", "true", "zero-filled", "tv")
    lines = ["| case | " + " | ".join(columns) + " | map error | seconds |", "|---" * 8 + "|"]
    for name, row in sorted(results.items(), key=lambda item: item[1]["fitted"] - item[1]["true"]):
        values = " | ".join(f"{row[c]:.1f}" if c in row else "-" for c in columns)
        error = f"{row.get('periodic error', math.nan):.3f} to {row['fitted error']:.3f}"
        lines.append(f"| {name} | {values} | {error} | {row['fitted seconds']:.1f} |")
    loss = [row["true"] - row["fitted"] for row in results.values()]
    behind = sum(row["fitted"] < max(row["zero-filled"], row["tv"]) for row in results.values())
    lines.append(f"\nLoss to the true maps: mean {np.mean(loss):.2f} dB, worst {max(loss):.2f} dB; "
                 f"behind zero-filling or TV: {behind} of {len(loss)}.")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one case in 13")
    parser.add_argument("--data", type=Path, help="a folder of `inverse-score prepare brain-mri`")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    images = held_out() if options.data is None else prepared(options.data)
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    prior = load_prior("brain-mri")
    for case in cases(list(images), options.quick):
        name = f"{case.image}, {case.array}, {case.acc}x, {case.lines} lines"
        if name not in results:
            results[name] = measure(case, images[case.image], prior, 2 if options.quick else 4)
            options.out.write_text(json.dumps(results, indent=1))
            print(name, {k: round(v, 3) for k, v in results[name].items()}, flush=True)
    print(report(results))


if __name__ == "__main__":
    main()
