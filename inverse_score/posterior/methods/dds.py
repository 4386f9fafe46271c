"""DDS: a few CG iterations towards the data between denoising and fresh noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from operators.linalg import conjugate_gradient, per_item

from ...prior import Prior
from ...randomness import Noise
from ..along_z import AlongZ
from ..consistency import Consistent, descend, renoise
from ..measurement import LinearMeasurement
from ..method import Course, Method, Walk, check_count, check_positive, check_share
from ..moments import IsotropicError


@dataclass(frozen=True)
class DDSOptions:
    """As of `KrylovStep`; zeta: the share of fresh noise, None tied to the step."""

    gamma: float | None = None
    iterations: int = 15
    between_slices: float | None = None
    penalty: str = "tv"
    splits: int = 3
    zeta: float | None = None

    def __post_init__(self) -> None:
        check_positive("gamma", self.gamma)
        check_count("iterations", self.iterations)
        check_share("zeta", self.zeta)


class KrylovStep(Consistent):
    """DDS: x0 = a few CG iterations from x0_hat on (I + gamma N) x = x0_hat + gamma A^T W y.

    Chung, Lee & Ye 2024, alg. 1. gamma None (default): v_t of the prior; a number (preset
    "paper": 1, in units where |A| = 1 and W = 1): gamma itself. Exact data: CG on N x = A^T y.
    iterations: 15 by default, 5 in the paper, whose operators are nearly projections: CT of 30
    views stays 6 noise standard deviations off its data with 5, 3 with 15 or 40.
    between_slices, penalty, splits: hold the slices of a volume together (the paper's 3-D form),
    as `AlongZ` says.
    """

    eps_of_network = True

    def __init__(self, prior: Prior, data: LinearMeasurement, options: DDSOptions):
        super().__init__(prior, data)
        self.coupling = None
        if options.between_slices is not None:
            self.coupling = AlongZ(options.between_slices, options.penalty, options.splits)
            if data.exact:
                raise ValueError(
                    "between_slices is weighed against the data's noise: noise_std must be positive"
                )
        self.gamma, self.iterations = options.gamma, int(options.iterations)
        self.error = None
        if self.gamma is None and not data.exact:
            self.error = IsotropicError(prior, data)

    def correct(self, data: LinearMeasurement, x0_hat: Tensor, r: Any) -> Tensor:
        b = data.gradient(x0_hat)
        if self.gamma is not None and not data.exact:
            g = self.gamma / data.gain
        elif self.error is not None:
            g = torch.as_tensor(self.error(r))
        else:
            g = torch.tensor(math.inf)
        rho = per_item(1 / g.to(b), b)

        def matrix(v: Tensor) -> Tensor:
            return data.normal(v) + rho * v

        if self.coupling is not None:
            return self.coupling.step(matrix, b, x0_hat, self.iterations)
        step, _ = conjugate_gradient(matrix, b, max_iter=self.iterations)
        return x0_hat + step


def dds(
    prior: Prior, data: LinearMeasurement, noise: Noise, walk: Walk, options: DDSOptions
) -> Tensor:
    """Chung, Lee & Ye 2024, alg. 1."""
    cond = KrylovStep(prior, data, options)
    return descend(cond, renoise(cond, noise, zeta=options.zeta), data, noise, walk)


METHOD = Method(
    "dds",
    DDSOptions,
    dds,
    Course(None, steps=50),
    conditional=KrylovStep,
    presets={
        "paper": {
            "gamma": 1.0, "zeta": 0.85**2, "iterations": 5, "steps": 50, "kind": "uniform"
        }
    },
    calls=lambda options, steps: steps,
    needs_noise=False,
)  # fmt: skip
