"""DiffPIR: a proximal step towards the data between denoising and fresh noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...prior import Prior
from ...randomness import Noise
from ..consistency import Consistent, descend, renoise
from ..measurement import LinearMeasurement
from ..method import Course, Method, Walk, check_positive, check_share
from ..moments import IsotropicError


@dataclass(frozen=True)
class DiffPIROptions:
    """lam as of `ProximalStep`; zeta: the share of fresh noise, None tied to the step."""

    lam: float | None = None
    zeta: float | None = None

    def __post_init__(self) -> None:
        check_positive("lam", self.lam)
        check_share("zeta", self.zeta)


class ProximalStep(Consistent):
    """DiffPIR: x0 = argmin |y - A x|_W^2 + |x - x0_hat|^2 / v  (Zhu et al. 2023, eq. 12).

    lam None (default): v = v_t, the mean variance of x_0 given x_t under the prior; a number
    (preset "paper": 7): v = r^2 / lam.
    """

    def __init__(self, prior: Prior, data: LinearMeasurement, options: DiffPIROptions):
        super().__init__(prior, data)
        self.lam = options.lam
        self.error = IsotropicError(prior, data) if self.lam is None else None

    def correct(self, data: LinearMeasurement, x0_hat: Tensor, r: Any) -> Tensor:
        rho = 1 / self.error(r) if self.error is not None else self.lam / r**2
        return x0_hat + data.solve(data.gradient(x0_hat), rho)


def diffpir(
    prior: Prior, data: LinearMeasurement, noise: Noise, walk: Walk, options: DiffPIROptions
) -> Tensor:
    """Zhu et al. 2023, alg. 1."""
    cond = ProximalStep(prior, data, options)
    return descend(cond, renoise(cond, noise, zeta=options.zeta), data, noise, walk)


METHOD = Method(
    "diffpir",
    DiffPIROptions,
    diffpir,
    Course(None, steps=100),
    conditional=ProximalStep,
    presets={"paper": {"lam": 7.0, "zeta": 0.3, "steps": 100, "kind": "uniform"}},
    calls=lambda options, steps: steps,
)
