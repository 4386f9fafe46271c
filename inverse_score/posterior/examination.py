"""Whether an operator and its noise level can be right: before sampling, and once an item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from operators.linalg import inner

from ..prior import Prior
from ..randomness import OTHER, Noise
from ..sampling.driver import start
from .covariance import ErrorSpectrum
from .measurement import LinearMeasurement
from .moments import LARGEST, SpectrumMatching, inflated
from .perturbation import unit_noise
from .preconditioning import mean_square

# RMS residual, in posterior standard deviations, to which the examination solves.
_SOLVED = 0.03


@dataclass(frozen=True)
class Examination:
    """factor (B,) >= 1: how many times noise_std the data lie off every image the prior knows.

    calls: network calls an item, apart from sampling's.
    """

    factor: Tensor
    calls: int = 1

    @property
    def words(self) -> str:
        """The finding in a sentence; empty where nothing was found."""
        worst = float(self.factor.max())
        if worst <= 1:
            return ""
        return (
            f"the data lie {worst:.2g} times noise_std off every image that the prior knows: the "
            "operator (coil maps, geometry) or noise_std is wrong; sampling takes noise_std as "
            "that much larger"
        )

    def applied(self, data: LinearMeasurement) -> LinearMeasurement:
        """The data with the noise that explains them; as they are where nothing was found."""
        return data.louder(self.factor) if self.words else data


@torch.no_grad()
def examine(
    prior: Prior,
    data: LinearMeasurement,
    *,
    seed: int = 0,
    items: Sequence[int] | None = None,
    **options: Any,
) -> Examination:
    """The noise factor of each item, from one call of the prior at x_T of (item, sample 0).

    A parametric bootstrap: what the Gaussian model e ~ N(0, W^-1 + A C A^T) leaves of
    e = y - A x0_hat, |e - A E[x_0 - x0_hat | e]|_W^2, against what it leaves of an e drawn from
    that model, C inflated as far as `SpectrumMatching.inflation` may. More means that A or
    noise_std is wrong: no image leaves so much. Maps from eight calibration lines do so at 8x, and
    taking them at their word cost up to 5 dB. Item by item, so that no answer depends on the batch.
    options: those of `SpectrumMatching`.
    """
    names = range(len(data)) if items is None else items
    found = [
        _factor(prior, data.rows([i]), Noise(seed, [name]), options) for i, name in enumerate(names)
    ]
    return Examination(torch.cat(found))


def _factor(prior: Prior, data: LinearMeasurement, noise: Noise, options: dict[str, Any]) -> Tensor:
    """(1,): the root of what the model leaves of the data over what it leaves of its own draw."""
    matching, like = SpectrumMatching(prior, data, **options), data.like()
    F = matching.spectrum
    xT = start(prior, like.shape, noise, dtype=like.dtype, device=like.device)
    x0_hat, ratio = prior.denoise(xT, prior.sde.T), prior.sde.ratio(prior.sde.T)
    S = F.scale(x0_hat, ratio)
    most = LARGEST / mean_square(S).flatten().clamp_max(1.0)
    c, S = inflated(F.at(ratio, xT), S, most)
    drawn, seen = _drawn(data, F, c, S)
    white = data.weights.sqrt() * seen

    def left(e: Tensor) -> Tensor:
        told = c.sqrt() * F.forward(S * data.backproject(seen * e))
        r = white * (e - data.operator(matching.solve(data, c, S, told, _SOLVED)))
        return inner(r, r)

    own, expected = left(data.residual(x0_hat)), left(drawn)
    # Each scatters by (2 expected)^1/2 or less; five standard deviations are no chance.
    off = own > expected + 5 * (4 * expected).sqrt()
    return torch.where(off, own / expected, 1.0).sqrt()


def _drawn(
    data: LinearMeasurement, F: ErrorSpectrum, c: Tensor, S: Tensor
) -> tuple[Tensor, Tensor]:
    """e drawn from the model, the same of every item, and which of its numbers are measured."""
    noise = Noise(0, [0])
    z = noise(data.like(1), 0, OTHER)
    clean = data.operator(S * F.inverse(c.sqrt() * z))
    # Zeros are not measured.
    return clean + unit_noise(data.y[:1], noise, 1) / data.weights.sqrt(), clean != 0
