"""Twisted sequential Monte Carlo: particles of the reverse diffusion weighed by the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.linalg import inner

from ...prior import Prior
from ...randomness import PREDICTOR, START, Noise
from ...sampling.driver import check_finite
from ..measurement import LinearMeasurement
from ..method import Course, Method, Walk, check_count, check_positive, check_share
from ..moments import IsotropicError
from ..perturbation import gaussian_draw


@dataclass(frozen=True)
class SMCOptions:
    """As of `smc`."""

    num_particles: int = 16
    variance: float | None = None
    threshold: float = 0.5

    def __post_init__(self) -> None:
        check_count("num_particles", self.num_particles)
        check_positive("variance", self.variance)
        check_share("threshold", self.threshold)


def smc(
    prior: Prior, data: LinearMeasurement, noise: Noise, walk: Walk, options: SMCOptions
) -> Tensor:
    """Twisted diffusion sampler (Wu, Trippe, Naesseth, Blei & Cunningham 2023), moment-matched.

    In u = x / alpha with q = r_s^2 / r_t^2, p(u_s | u_t) = N(q u_t + (1 - q) x0_hat, w),
    w = r_s^2 (1 - q) + (1 - q)^2 v_t, the kernel of x_0 | x_t ~ N(x0_hat, v_t). Its optimal
    proposal draws x_0 ~ N(x0_hat, v_t) p(y | x_0) / Z, then u_s; the weight of a particle is
      N(y; A x0_hat(u_s), noise^2 + v_s A A^T) / N(y; A m', noise^2 + v' A A^T),
    m' and v' the mean and variance of x_0 given u_s and u_t. Determinants are the same for all
    particles. Each row of the data has num_particles of its own (not samples: one of them is
    returned), resampled systematically by `noise` when 1 / sum w^2 < threshold * num_particles.
    Exact as num_particles and steps -> infinity. No vjp; steps * num_particles calls.
    """
    error = IsotropicError(prior, data, options.variance)
    swarm = _Swarm(prior, data, noise, int(options.num_particles), error)
    log_w = swarm.begin(walk.times[0])
    for k, (t, s) in enumerate(zip(walk.times[:-1], walk.times[1:], strict=True)):
        if walk.callback is not None:
            walk.callback(k, t, prior.sde.alpha(t) * swarm.u[:, 0], swarm.x0_hat[:, 0])
        log_w = swarm.move(k, t, s, log_w)
        check_finite(swarm.x0_hat, k, s)
        log_w = swarm.resample(k, log_w, options.threshold)
    swarm.resample(len(walk.times), log_w, 1.0)
    return swarm.x0_hat[:, 0]


class _Swarm:
    """States u = x / alpha and x0_hat, both (B, P, *event), of P particles a row."""

    def __init__(
        self,
        prior: Prior,
        data: LinearMeasurement,
        noise: Noise,
        count: int,
        error: IsotropicError,
    ):
        self.prior, self.data, self.noise, self.count = prior, data, noise, count
        self.error = error

    def begin(self, t: float) -> Tensor:
        """Draws of the SDE's start and their first log weights (B, P)."""
        sde, like = self.prior.sde, self.data.like()
        mean, std = sde.terminal(tuple(like.shape))
        draws = [mean.to(like) + std * self.noise(like, p, START) for p in range(self.count)]
        self.u = torch.stack(draws, 1) / sde.alpha(t)
        self._denoise(t)
        return self._log_likelihood(self.x0_hat, self.error(sde.ratio(t)))

    def move(self, k: int, t: float, s: float, log_w: Tensor) -> Tensor:
        """Propose from t to s; the log weights after it."""
        r_t, r = self.prior.sde.ratio(t), self.prior.sde.ratio(s)
        q, v = (r / r_t) ** 2, self.error(r_t)
        kernel = r**2 * (1 - q) + (1 - q) ** 2 * v
        before, mean = self.x0_hat, q * self.u + (1 - q) * self.x0_hat
        for p in range(self.count):
            name = k * self.count + p
            x0 = gaussian_draw(self.data, before[:, p], v, self.noise, name)
            z = self.noise(x0, name, PREDICTOR)
            self.u[:, p] = q * self.u[:, p] + (1 - q) * x0 + r * math.sqrt(1 - q) * z
        expected = before + (1 - q) * v / kernel * (self.u - mean)
        self._denoise(s)
        rest = v * r**2 * (1 - q) / kernel
        gain = self._log_likelihood(self.x0_hat, self.error(r))
        return log_w + gain - self._log_likelihood(expected, rest)

    def resample(self, k: int, log_w: Tensor, threshold: float) -> Tensor:
        """Systematic resampling of the rows whose effective number of particles is too small.

        threshold 1: all rows; the particle in the first place is then a draw from the weights.
        """
        w = torch.softmax(log_w.double(), 1)
        due = 1 / w.square().sum(1) < threshold * self.count
        due = due | (threshold == 1)
        offset = self.noise.uniform(w.new_empty(len(w), 2), k)
        steps = torch.arange(self.count, device=w.device)
        places = (steps + offset[:, :1]) / self.count
        # A cyclic shift by a uniform number makes every place a draw from the weights.
        places = (places + offset[:, 1:]) % 1.0
        chosen = torch.searchsorted(w.cumsum(1), places.contiguous()).clamp_max(self.count - 1)
        chosen = torch.where(due[:, None], chosen, steps)
        rows = torch.arange(len(w), device=w.device)[:, None]
        self.u, self.x0_hat = self.u[rows, chosen], self.x0_hat[rows, chosen]
        return torch.where(due[:, None], 0.0, log_w)

    def _denoise(self, t: float) -> None:
        alpha = self.prior.sde.alpha(t)
        each = [self.prior.denoise(alpha * self.u[:, p], t) for p in range(self.count)]
        self.x0_hat = torch.stack(each, 1)

    def _log_likelihood(self, x: Tensor, v: float) -> Tensor:
        """log N(y; A x, noise^2 + v A A^T) up to a constant, (B, P).

        e^T (noise^2 + v A A^T)^-1 e = e^T W e - g^T (A^T W A + I / v)^-1 g, g = A^T W e (Woodbury).
        """
        return torch.stack([self._one(x[:, p], v) for p in range(self.count)], 1)

    def _one(self, x: Tensor, v: float) -> Tensor:
        e = self.data.residual(x)
        white, g = self.data.weights.sqrt() * e, self.data.backproject(e)
        return -0.5 * (inner(white, white) - inner(g, self.data.solve(g, 1 / v)))


METHOD = Method(
    "smc",
    SMCOptions,
    smc,
    Course(None, steps=50),
    calls=lambda options, steps: steps * options.num_particles,
)
