"""Denoisers made consistent with the data, and the step that DDNM, DiffPIR and DDS share.

With r = sigma / alpha that step is
x_s = alpha_s x0 + sigma_s (sqrt(1 - zeta) eps + sqrt(zeta) z), and differ in x0 and eps.

zeta None, the default of all three, ties the share of fresh noise to the step (`tied_share`), and
eps to the corrected x0, so that eps carries the posterior's spread from step to step. The papers'
constants renew most of it at each step, about an x0 that is one point: the spread is lost, and
more of it the more steps there are.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ..randomness import PREDICTOR, Noise
from ..sampling.driver import Step, integrate
from ..sde import Time
from .conditional import ConditionalPrior
from .measurement import LinearMeasurement
from .method import Walk, start_of


class Consistent(ConditionalPrior):
    """A denoiser followed by a step towards the data: `correct(x0_hat, r)`, r = sigma / alpha."""

    # Which x0 gives eps = (x - alpha x0) / sigma: the network's own or the corrected one.
    eps_of_network = False

    def correct(self, data: LinearMeasurement, x0_hat: Tensor, r: Any) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no correction")

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        return self.correct(self.measurement_for(x), self.inner.denoise(x, t), self.sde.ratio(t))


def renoise(cond: Consistent, noise: Noise, *, zeta: float | None) -> Step:
    """x_s = alpha_s x0 + sigma_s (sqrt(1 - zeta) eps + sqrt(zeta) z): DiffPIR's and DDS's step.

    zeta None: `tied_share`, and eps of the corrected x0; a number: the paper's step.
    """
    sde = cond.sde

    def step(k: int, x: Tensor, t: float, s: float) -> tuple[Tensor, Tensor]:
        x0_hat = cond.inner.denoise(x, t)
        x0 = cond.correct(cond.measurement_for(x), x0_hat, sde.ratio(t))
        known = x0_hat if cond.eps_of_network and zeta is not None else x0
        eps = (x - sde.alpha(t) * known) / sde.sigma(t)
        share = tied_share(sde.ratio(t), sde.ratio(s)) if zeta is None else zeta
        fresh = math.sqrt(1 - share) * eps + math.sqrt(share) * noise(x, k, PREDICTOR)
        return sde.alpha(s) * x0 + sde.sigma(s) * fresh, x0

    return step


def tied_share(r: float, r_s: float) -> float:
    """1 - (r_s / r)^4, the share of fresh noise in a step from noise-to-signal r to r_s.

    1 - (r_s / r)^2 is that of the reverse SDE, whose law the step then follows as steps shrink.
    Twice its noise, the other half as of a Langevin corrector, forgets more of what an isotropic
    variance got wrong before: of the powers 0, 1, 2, 4, 6, 8, 16 this one leaves the trace of the
    posterior's covariance nearest to right on inpainting and blur.
    """
    return 1 - (r_s / r) ** 4


def descend(
    cond: Consistent, step: Step, data: LinearMeasurement, noise: Noise, walk: Walk
) -> Tensor:
    """x0_hat of the data's rows after `step` from time to time of the walk."""
    xT = start_of(cond, data, noise)
    return integrate(step, cond, xT, walk.times, callback=walk.callback)
