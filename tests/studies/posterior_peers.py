"""deepinv's and azula's conditional samplers on the same problems, with the same exact denoiser.

Both are optional: rows are left out where a package is not installed. Settings are each package's
defaults or those of its examples unless the row says otherwise; noise levels are given truthfully.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inverse_score.testing.problems import ToyProblem

Run = Callable[[int], tuple[Tensor, int, int]]


def peers(problem: ToyProblem) -> dict[str, Run]:
    """name -> run(n) -> (samples (n, *event), nfe, vjps); empty without the packages."""
    found: dict[str, Run] = {}
    for rows in (_deepinv_rows, _azula_rows):
        try:
            found.update(rows(problem))
        except ImportError:
            continue
    return found


class _Exact:
    """E[x_0 | x_0 + s n] of the problem's prior, counting calls and vjps."""

    def __init__(self, problem: ToyProblem):
        self.prior, self.nfe, self.vjps = problem.prior, 0, 0

    def __call__(self, x: Tensor, s: Tensor | float) -> Tensor:
        self.nfe += 1
        sde = self.prior.sde
        t = sde.time(float(torch.as_tensor(s).flatten()[0]))
        out = self.prior.denoise(sde.alpha(t) * x, t)
        if out.requires_grad:
            out.register_hook(self._count)
        return out

    def _count(self, grad: Tensor) -> None:
        self.vjps += 1


def _as_real(y: Tensor) -> Tensor:
    """Complex measurements as one more axis of two."""
    return torch.view_as_real(y) if y.is_complex() else y


def _azula_rows(problem: ToyProblem) -> dict[str, Run]:
    from azula import sample
    from azula.denoise import Denoiser, DiracPosterior
    from azula.guidance import diffpir, dps, mmps, pgdm, tmpd
    from azula.linalg.covariance import IsotropicCovariance
    from azula.noise import VPSchedule

    exact, A = _Exact(problem), problem.operator
    noise = problem.noise_std

    class ExactDenoiser(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.schedule = VPSchedule()

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> Any:
            alpha, sigma = self.schedule(t)
            return DiracPosterior(mean=exact(x_t / alpha, sigma / alpha))

    denoiser = ExactDenoiser()

    def forward(x: Tensor) -> Tensor:
        return _as_real(A(x))

    def run(make: Callable[[Tensor], Any]) -> Run:
        def go(n: int) -> tuple[Tensor, int, int]:
            exact.nfe = exact.vjps = 0
            torch.manual_seed(0)
            y = _as_real(problem.y).expand(n, *_as_real(problem.y).shape[1:])
            sampler = make(y)
            x = sampler(sampler.init((n, *A.in_shape)))
            return x.detach(), exact.nfe, exact.vjps

        return go

    cov = IsotropicCovariance(torch.tensor(noise**2))

    def moment(y: Tensor, iterations: int) -> Any:
        return mmps.MMPSDenoiser(denoiser, y, forward, cov, iterations=iterations)

    options = {"silent": True, "steps": 100}
    rows = {
        "azula DPS": run(lambda y: dps.DPSSampler(denoiser, y, forward, silent=True, steps=1000)),
        "azula MMPS, DDIM": run(lambda y: sample.DDIMSampler(moment(y, 1), **options)),
        "azula MMPS, 5 GMRES, DDIM": run(lambda y: sample.DDIMSampler(moment(y, 5), **options)),
        "azula TMPD, DDPM": run(
            lambda y: sample.DDPMSampler(
                tmpd.TMPDenoiser(denoiser, y, forward, noise**2), **options
            )
        ),
        "azula DiffPIR, DDIM": run(
            lambda y: sample.DDIMSampler(
                diffpir.DiffPIRDenoiser(denoiser, y, forward, noise**2), **options
            )
        ),
    }
    if not problem.y.is_complex():
        rows["azula PGDM"] = run(
            lambda y: pgdm.PGDMSampler(denoiser, y, forward, A.pinv, **options)
        )
    return rows


def _deepinv_rows(problem: ToyProblem) -> dict[str, Run]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepinv as dinv
        from deepinv import sampling as dis
    exact, A, noise = _Exact(problem), problem.operator, problem.noise_std

    class ExactDenoiser(dinv.models.Denoiser):
        def forward(self, x: Tensor, sigma: Any = None, **_: Any) -> Tensor:
            return exact(x, sigma)

    denoiser = ExactDenoiser()
    model = dinv.physics.GaussianNoise(noise)
    if problem.operator_name == "inpainting":
        mask = A.forms.row_gram[0]
        physics = dinv.physics.Inpainting(img_size=A.in_shape, mask=mask, noise_model=model)
    else:
        physics = dinv.physics.LinearPhysics(
            A=lambda x, **_: _as_real(A(x)),
            A_adjoint=lambda y, **_: A.T(torch.view_as_complex(y) if A.out_complex else y),
            noise_model=model,
        )

    def run(make: Callable[[], Any], **options: Any) -> Run:
        def go(n: int) -> tuple[Tensor, int, int]:
            exact.nfe = exact.vjps = 0
            torch.manual_seed(0)
            y = _as_real(problem.y).expand(n, *_as_real(problem.y).shape[1:]).contiguous()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                x = make()(y, physics, **options)
            return x.detach(), exact.nfe, exact.vjps

        return go

    def posterior(fidelity: Any, steps: int, solver: str, alpha: float) -> Callable[[], Any]:
        sde = dis.VariancePreservingDiffusion(alpha=alpha)
        end = 0.001 if solver == "heun" else 0.0
        times = torch.linspace(1, end, steps + 1, dtype=torch.float64)
        kind = {"heun": dis.HeunSolver, "ddpm": dis.DDPMSolver}[solver]
        return lambda: dis.PosteriorDiffusion(
            data_fidelity=fidelity, denoiser=denoiser, sde=sde, solver=kind(timesteps=times)
        )

    def matching(iterations: int) -> Any:
        return dis.MomentMatchingDataFidelity(cg_max_iter=iterations, cg_tol=1e-6)

    rows = {
        "deepinv DPS": run(lambda: dis.DPS(denoiser, num_steps=1000)),
        "deepinv PiGDM, DDPM": run(posterior(dis.PiGDMDataFidelity(), 100, "ddpm", 1.0)),
        "deepinv moment matching, DDPM": run(posterior(matching(3), 100, "ddpm", 1.0)),
        "deepinv moment matching, 40 CG, Heun ODE": run(posterior(matching(40), 50, "heun", 0.0)),
        "deepinv DiffPIR": run(lambda: dis.DiffPIR(denoiser, dinv.optim.data_fidelity.L2())),
    }
    if problem.operator_name == "inpainting":
        rows["deepinv DDRM"] = run(lambda: dis.DDRM(denoiser))
    return rows


def finite(value: float) -> str:
    """A number for a table cell; divergence is shown as such."""
    return "diverged" if not math.isfinite(value) else f"{value:.3g}"
