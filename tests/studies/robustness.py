"""`python tests/studies/robustness.py [--save]`: heads unlike those that `brain-mri` has seen.

The slices of `mini-mri` at 4x as they are, at other pixel sizes, turned and in other contrasts,
simulated and reconstructed as there; beside total variation with one weight for all. Some seven
minutes of one core. --save writes results/robustness.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from inverse_score import load_prior
from inverse_score.io.runs.commits import commit_bytes
from inverse_score.networks.precision import InBfloat16, has_quick_bfloat16
from recipes.benchmarks.definition import load_definition
from recipes.benchmarks.minis import mri_scene
from recipes.benchmarks.sources import open_items
from recipes.benchmarks.tables import markdown

SAMPLES, STRENGTH, ITERATIONS = 2, 2.57, 300
HEADER = ["case", "slices", "prior, mean of 2", "TV", "gain", "fall of the prior", "misfit"]


def zoomed(x: Tensor, factor: float) -> Tensor:
    """(C, H, W) with pixels `factor` times smaller, cut or padded to the same size."""
    H, W = x.shape[1:]
    size = [2 * round(n * factor / 2) for n in (H, W)]
    big = torch.nn.functional.interpolate(x[None], size, mode="bicubic", antialias=True)[0]
    out = torch.zeros_like(x)
    h, w = min(H, size[0]), min(W, size[1])
    top, left = ((n - k) // 2 for n, k in zip(size, (h, w), strict=True))
    down, right = (H - h) // 2, (W - w) // 2
    out[:, down : down + h, right : right + w] = big[:, top : top + h, left : left + w]
    return out.clamp_min(0.0)


def inverted(x: Tensor) -> Tensor:
    """Dark tissue bright and bright dark, air as it was."""
    top = torch.quantile(x, 0.99)
    smooth = torch.nn.functional.avg_pool2d(x[None], 7, 1, 3)[0]
    tissue = ((smooth - 0.05 * top) / (0.1 * top)).clamp(0.0, 1.0)
    return tissue * (1.1 * top - x).clamp_min(0.0)


VARIANTS: dict[str, Callable[[Tensor], Tensor]] = {
    "as they are": lambda x: x,
    "pixels 1.1 times smaller": lambda x: zoomed(x, 1.1),
    "pixels 1.33 times larger": lambda x: zoomed(x, 0.75),
    "turned by 90 degrees": lambda x: x.rot90(1, (-2, -1)),
    "turned by 180 degrees": lambda x: x.rot90(2, (-2, -1)),
    "square of the intensity": lambda x: x.square() / x.amax(),
    "root of the intensity": lambda x: (x.clamp_min(0.0) * x.amax()).sqrt(),
    "intensity inverted": inverted,
}


def row(name: str, plain: float | None) -> tuple[list[str], float]:
    """The table's line, and the prior's PSNR."""
    definition = load_definition("mini-mri")
    prior = load_prior(str(definition.prior.default))
    if has_quick_bfloat16("cpu"):
        prior.network = InBfloat16(prior.network)
    found = []
    for item in open_items(definition, None):
        changed = VARIANTS[name](item.load())
        varied = replace(item, load=lambda changed=changed: changed)
        scene = mri_scene(definition, replace(definition.cases[0], name=name), varied, prior)
        rec = scene.problem.solve(prior, num_samples=SAMPLES, seed=0, items=[item.number])
        tv = scene.problem.solve(prior, method="tv", strength=STRENGTH, iterations=ITERATIONS)
        scores = [scene.score(definition, scene.picture(r.mean))["psnr"] for r in (rec, tv)]
        found.append([*scores, float(rec.misfit.mean())])
    ours, tv_psnr, misfit = torch.tensor(found).mean(0).tolist()
    fall = "-" if plain is None else f"{plain - ours:.1f}"
    cells = ["4x", name, f"{ours:.1f}", f"{tv_psnr:.1f}", f"{ours - tv_psnr:+.1f}", fall]
    return [*cells, f"{misfit:.2f}"], ours


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--save", action="store_true", help="write results/robustness.md")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    lines, plain = [HEADER], None
    for name in VARIANTS:
        line, psnr = row(name, plain)
        plain = psnr if plain is None else plain
        lines.append(line)
        print(*line, sep="  ", flush=True)
    text = (
        "<!-- python tests/studies/robustness.py --save -->\n\n"
        "`brain-mri` on the held-out heads of `mini-mri` at 4x, changed before they are scanned. "
        f"PSNR in dB, means over the two; TV with weight {STRENGTH}, the oracle's for the "
        f"unchanged slices, and {ITERATIONS} iterations.\n\n{markdown(lines)}\n"
    )
    print(text)
    if chosen.save:
        commit_bytes(Path(__file__).parent / "results" / "robustness.md", text.encode())


if __name__ == "__main__":
    main()
