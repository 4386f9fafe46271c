"""Methods that are exact in a limit, along it and off it.

    python tests/studies/method_limits.py [--samples 4096]

The 8x8 Gaussian toy, half of its pixels measured. Along its own limit a method's error falls; with
what the limit needs held back it stops. Nothing else is varied. Two problems in the plane that are
not linear are compared with sums over a grid. Writes results/limits.md.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inverse_score.gaussian import GaussianMixturePrior, GaussianPrior, gaussian_kl
from inverse_score.posterior import METHODS, measure
from inverse_score.posterior.methods import Walk, grid_for
from inverse_score.posterior.methods.split_gibbs import reverse_draw
from inverse_score.posterior.moments import IsotropicError
from inverse_score.posterior.perturbation import conditional_draw
from inverse_score.prior import Prior
from inverse_score.sde import VPSDE
from inverse_score.testing.affine import Recorder, UnitDraws
from inverse_score.testing.draws import BatchNoise
from inverse_score.testing.problems import ToyProblem
from inverse_score.testing.scores import sampling_kl
from operators import LinearOperator
from operators.detection import BeerLambert, Magnitude
from operators.nonlinear import NonlinearOperator

RESULTS = Path(__file__).parent / "results"
NOISE = 0.1


def draw(
    prior: Prior, operator: Any, y: Tensor, noise_std: Any, count: int, method: str, **options: Any
) -> Tensor:
    """`count` samples in u, the grid of `steps` times chosen as solve would."""
    steps = options.pop("steps")
    one = measure(prior, y, operator, noise_std)
    times = grid_for(prior, float(one.level[0]), float(one.typical[0]), steps)
    with torch.no_grad():
        rows = one.rows([0] * count)
        return METHODS[method].run(prior, rows, BatchNoise(), Walk("ddim", times), **options)


def excess(problem: ToyProblem, count: int, method: str, **options: Any) -> float:
    """KL of the samples' moments less what as many exact samples have, nats."""
    x = draw(
        problem.prior, problem.operator, problem.y, problem.noise_std, count, method, **options
    )
    x = x.double().flatten(1)
    mean, cov = problem.posterior.mean[0].flatten(), problem.posterior.cov[0]
    return gaussian_kl(x.mean(0), torch.cov(x.T), mean, cov) - sampling_kl(x)


def blurred_kl(problem: ToyProblem, rho: float) -> float:
    """KL of the law that split Gibbs has at rho: the posterior of noise^2 + rho^2 A A^T."""
    noise = math.hypot(problem.noise_std, rho)
    law = problem.prior.posterior(problem.y, problem.operator, noise)
    true = problem.posterior
    return gaussian_kl(law.mean[0].flatten(), law.cov[0], true.mean[0].flatten(), true.cov[0])


def sweep(
    title: str, name: str, values: list[Any], columns: dict[str, Callable[[Any], float]]
) -> str:
    """A table of the columns at each value, and each column's rate between neighbours."""
    lines = [f"## {title}\n", f"| {name} | " + " | ".join(f"{c} | rate" for c in columns) + " |"]
    lines.append("|---|" + "---|---|" * len(columns))
    last: dict[str, tuple[float, float]] = {}
    for value in values:
        cells = [f"{value:g}"]
        for label, function in columns.items():
            found = function(value)
            rate = "-"
            if label in last and found > 0 and last[label][1] > 0:
                before, kl = last[label]
                rate = f"{math.log(found / kl) / math.log(value / before):.1f}"
            last[label] = (value, found)
            cells += [f"{found:.4f}" if found < 10 else f"{found:.1f}", rate]
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def split_gibbs_by_rho(problem: ToyProblem, count: int) -> str:
    def run(inner: int) -> Callable[[float], float]:
        return lambda q: stationary_kl(problem, q * NOISE, inner)

    return sweep(
        "Split Gibbs along rho, after infinitely many sweeps (exact moments, no samples)",
        "rho / noise",
        [2.0, 1.0, 0.5, 0.25, 0.125, 0.0625],
        {
            "in theory": lambda q: blurred_kl(problem, q * NOISE),
            **{f"{inner} calls": run(inner) for inner in (1, 4, 16, 64)},
        },
    )


def stationary_kl(problem: ToyProblem, rho: float, inner: int) -> float:
    """KL of the stationary law of the sweep x -> M x + c + Q^(1/2) z, from its own moments."""
    data = measure(problem.prior, problem.y.double(), problem.operator, problem.noise_std)
    error, prior = IsotropicError(problem.prior, data), problem.prior

    def sweep_once(x: Tensor, noise: Any) -> Tensor:
        rows = data.rows([0] * len(x))
        z = conditional_draw(rows, x, rho**2, noise, 0)
        return reverse_draw(prior, z, rho, inner, error, noise, 0).flatten(1)

    d, shape = problem.truth.numel(), tuple(problem.truth.shape[1:])
    recorder = Recorder()
    with torch.no_grad():
        basis = torch.cat([torch.zeros(1, d), torch.eye(d)]).double().reshape(d + 1, *shape)
        moved = sweep_once(basis, recorder)
        impulses = UnitDraws(recorder.draws)
        spread = sweep_once(basis.new_zeros(impulses.rows, *shape), impulses)
    c, M = moved[0], (moved[1:] - moved[0]).T
    columns = (spread[1:] - spread[0]).T
    cov, power = columns @ columns.T, M
    for _ in range(40):
        cov, power = cov + power @ cov @ power.T, power @ power
    mean = torch.linalg.solve(torch.eye(d).double() - M, c)
    true = problem.posterior
    return gaussian_kl(mean, cov, true.mean[0].flatten(), true.cov[0])


def split_gibbs_by_sweeps(problem: ToyProblem, count: int) -> str:
    def run(**options: Any) -> Callable[[int], float]:
        return lambda k: excess(problem, count, "split-gibbs", steps=k, inner=1, **options)

    return sweep(
        "Split Gibbs by sweeps: down to the law of its rho",
        "sweeps",
        [50, 100, 200],
        {"rho = noise / 5": run(), "rho = noise": run(rho_end=NOISE)},
    )


def annealing_by_levels(problem: ToyProblem, count: int) -> str:
    def run(**options: Any) -> Callable[[int], float]:
        return lambda k: excess(problem, count, "daps", steps=k, **options)

    return sweep(
        "Decoupled annealing by levels, with the prior's v and with r^2 / 4 for it",
        "levels",
        [25, 50, 100, 200],
        {"v of the prior": run(), "v = r^2 / 4": run(scale=0.5)},
    )


def particles_by_number(problem: ToyProblem, count: int) -> str:
    def run(levels: int) -> Callable[[int], float]:
        return lambda p: excess(problem, count // 4, "smc", steps=levels, num_particles=p)

    return sweep(
        "Twisted particles by their number, at 40 and at 10 levels",
        "particles",
        [1, 2, 4, 8, 16],
        {"40 levels": run(40), "10 levels": run(10)},
    )


def plane_problems() -> dict[str, tuple[Prior, NonlinearOperator, Tensor, Any]]:
    """Phase retrieval of a pair (modes swapped and negated), transmission CT of few counts."""
    root = 0.5**0.5
    covs = 0.2**2 * torch.eye(2).expand(2, 2, 2)
    means = torch.tensor([[1.0, 0.4], [0.2, 1.1]])
    pairs = GaussianMixturePrior(torch.tensor([0.35, 0.65]), means, covs, VPSDE())
    phases = Magnitude(_matrix([[root, root], [root, -root]]))
    pixels = GaussianPrior(
        torch.tensor([1.0, 1.2]), torch.tensor([[0.4, 0.1], [0.1, 0.3]]), VPSDE()
    )
    rays = BeerLambert(_matrix([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), I0=30.0)
    counts = torch.tensor([[3.0, 15.0, 6.0]])
    return {
        "phase retrieval": (pairs, phases, torch.tensor([[1.0, 0.5]]), 0.1),
        "transmission CT": (pixels, rays, counts, counts.sqrt()),
    }


def _matrix(rows: list[list[float]]) -> LinearOperator:
    M = torch.tensor(rows)
    return LinearOperator.from_function(lambda x: x @ M.to(x).T, (2,))


def grid_moments(prior: Any, A: Any, y: Tensor, noise_std: Any) -> tuple[Tensor, Tensor]:
    """Mean and covariance of p(x | y) by sums over 700 x 700 points of [-2.5, 4.5]^2."""
    at = torch.linspace(-2.5, 4.5, 700, dtype=torch.float64)
    x = torch.cartesian_prod(at, at)
    log_p = prior.log_prob(x) - 0.5 * ((y - A(x)) / noise_std).square().sum(1)
    p = torch.softmax(log_p, 0)
    mean = p @ x
    return mean, (p[:, None] * (x - mean)).T @ (x - mean)


def nonlinear(count: int) -> str:
    """Error of mean and std, in posterior standard deviations, of the methods that take any A."""
    lines = [
        "## Forward models that are not linear, in the plane\n",
        "Largest error of the mean, and of the standard deviation less 1, both in the posterior's "
        f"own standard deviations, from sums over a grid; {count} samples.\n",
        "| problem | method | mean | std | s |",
        "|---|---|---|---|---|",
    ]
    choices = {
        "daps": [{"steps": 25, "langevin": 20}, {"steps": 100, "langevin": 20}],
        "split-gibbs": [{"steps": 25, "langevin": 20}, {"steps": 100, "langevin": 20}],
        "dps": [{"steps": 50}],
        "red-diff": [{"steps": 50}],
    }
    for name, (prior, A, y, noise_std) in plane_problems().items():
        mean, cov = grid_moments(prior, A, y, noise_std)
        std = cov.diagonal().sqrt()
        for method, options in ((m, o) for m, each in choices.items() for o in each):
            began = time.perf_counter()
            x = _sample_plane(prior, A, y, noise_std, count, method, dict(options))
            shift = float(((x.mean(0) - mean) / std).abs().max())
            width = float((torch.cov(x.T).diagonal().sqrt() / std - 1).abs().max())
            said = ", ".join(f"{v} {k}" for k, v in options.items())
            seconds = time.perf_counter() - began
            lines.append(
                f"| {name} | {method}, {said} | {shift:.3f} | {width:.3f} | {seconds:.0f} |"
            )
            print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def _sample_plane(
    prior: Prior, A: Any, y: Tensor, noise_std: Any, count: int, method: str, options: dict
) -> Tensor:
    if METHODS[method].conditional is None:
        return draw(prior, A, y, noise_std, count, method, **options).double()
    one = measure(prior, y, A, noise_std)
    times = grid_for(prior, float(one.level[0]), float(one.typical[0]), options["steps"])
    with torch.no_grad():
        entry = METHODS[method]
        walk = Walk(entry.course_of(entry.options()).sampler, times)
        return entry.run(prior, one.rows([0] * count), BatchNoise(), walk).double()


SECTIONS: dict[str, Callable[[int], str]] = {
    "rho": lambda n: split_gibbs_by_rho(toy(), n),
    "sweeps": lambda n: split_gibbs_by_sweeps(toy(), n),
    "levels": lambda n: annealing_by_levels(toy(), n),
    "particles": lambda n: particles_by_number(toy(), n),
    "nonlinear": lambda n: nonlinear(n // 2),
}


def toy() -> ToyProblem:
    return ToyProblem("inpainting", "stationary", NOISE)


def merged(text: str, section: str, samples: int) -> str:
    """The report with this section new and those of other titles as they were."""
    head = (
        "# Methods that are exact in a limit (python tests/studies/method_limits.py)\n\n"
        f"8x8 Gaussian, 32 of 64 pixels measured, noise {NOISE:g}: excess KL in nats of {samples} "
        "samples (particles: a quarter), which scatters by about "
        f"{math.sqrt(64 * 67 / 4) / samples:.3f}; rate: d log KL / d log of the first column.\n\n"
    )
    title = section.splitlines()[0]
    others = ["## " + part.strip() + "\n" for part in text.split("\n## ")[1:]]
    kept = [part for part in others if part.splitlines()[0] != title]
    return head + "\n".join([*kept, section])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    options = parser.parse_args()
    for name in options.only:
        section = SECTIONS[name](options.samples)
        path = RESULTS / "limits.md"
        path.write_text(merged(path.read_text() if path.exists() else "", section, options.samples))


if __name__ == "__main__":
    main()
