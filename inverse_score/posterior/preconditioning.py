"""A preconditioner for the matrix I + R^T N R of moment matching with an error spectrum.

N = A^T W A and R = S F^T c^1/2 (moments.SpectrumMatching). Were N = diag(d) in the basis F and
S^2 = s^2 everywhere, the inverse would be (I + q)^-1, q = c s^2 d. What differs from that in the
image is undone there:

    P = (I + q)^-1 + H F E F^T H,   H = q^1/2 (I + q)^-1,

with E = s^2 S^-2 - I, so that P is the inverse of the whole where q is large, and of I where the
data say nothing, q << 1. Where F is far from diagonalising N but (N + rho)^-1 is at hand (masks,
MRI by whole columns: `LinearOperator.resolvent`), N goes into the image part too: d is its mean
over the basis, and E = s^2 d S^-1 (N + rho)^-1 S^-1 - I. E > -I, so that P is positive definite.

rho: where N vanishes the inverse of the whole is I, (1 + q)^-1 + H E H = 1, hence E = 1 + q and
rho = d / (2 + q). One rho serves all coefficients: q is their mean with the weights H^2 of E.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from operators.linalg import per_item

from ..randomness import Noise
from .covariance import ErrorSpectrum
from .measurement import LinearMeasurement

Map = Callable[[Tensor], Tensor]
# The smallest S^2 over its mean, and how far rows of N may exceed its diagonal before N's resolvent
# serves better than the diagonal. Iterations hardly depend on them.
_LOWEST, _SCATTERED = 0.05, 1.2


class Preconditioner:
    """P for the measurement `data`; `diagonal` is d, see `normal_in_basis`.

    hidden (B,): how much smaller than the error in the energy norm the residual's P-norm may be,
    about: the norm of N's rows over its diagonal where P knows no more of N than these.
    """

    def __init__(self, data: LinearMeasurement, spectrum: ErrorSpectrum):
        self.spectrum = spectrum
        self.diagonal, self.rows = normal_in_basis(data, spectrum)
        self.mean, rows = (v.flatten(1).mean(1) for v in (self.diagonal, self.rows))
        self.hidden = torch.ones_like(self.mean)
        if self.diagonal.ndim == 4:
            self.hidden = (rows / self.mean.clamp_min(1e-30)).clamp_min(1.0)
        self.scattered = self.hidden > _SCATTERED
        self.resolvent: Any = None
        if bool(self.scattered.any()):
            self.resolvent = data.resolvent()
        if self.resolvent is not None:
            self.hidden = torch.where(self.scattered, 1.0, self.hidden)

    def at(self, c: Tensor, S: Tensor) -> Map:
        """z -> P z, z (B, C, H, W); c alike or of one item, S (B, 1, H, W)."""
        if self.resolvent is None:
            return self._by_diagonal(c, S)
        if bool(self.scattered.all()):
            return self._by_resolvent(c, S)
        # What an item gets must not depend on the others.
        one, other = self._by_resolvent(c, S), self._by_diagonal(c, S)
        scattered = per_item(self.scattered, c) > 0
        return lambda z: torch.where(scattered, one(z), other(z))

    def _by_diagonal(self, c: Tensor, S: Tensor) -> Map:
        square = mean_square(S)
        diagonal, sides = parts(c * square, self.rows)
        if self.spectrum.local is None:
            return diagonal
        E = square / torch.maximum(S.square(), _LOWEST * square) - 1
        return self._both(diagonal, sides, lambda v: E * v)

    def _by_resolvent(self, c: Tensor, S: Tensor) -> Map:
        square, d = mean_square(S), per_item(self.mean, c)
        diagonal, sides = parts(c * square, d)
        solve = self.resolvent(self.mean / (2 + _weighted(c * square * d)))
        scale = (d / (S.square() / square).clamp_min(_LOWEST)).sqrt()
        return self._both(diagonal, sides, lambda v: scale * solve(scale * v) - v)

    def _both(self, diagonal: Map, sides: Map, undone: Map) -> Map:
        F = self.spectrum
        return lambda z: diagonal(z) + sides(F.forward(undone(F.inverse(sides(z)))))


def mean_square(S: Tensor) -> Tensor:
    """The mean of s^2 over an item's pixels, (B, 1, 1, 1)."""
    return S.square().mean((1, 2, 3), keepdim=True)


def _weighted(q: Tensor) -> Tensor:
    """The mean of q (B, C, H, W) with the weights q / (1 + q)^2, (B,)."""
    weights = q / (1 + q).square()
    return (weights * q).flatten(1).sum(1) / weights.flatten(1).sum(1)


def parts(c: Tensor, d: Tensor) -> tuple[Map, Map]:
    """z -> (I + q)^-1 z and H z, q = c^1/2 d c^1/2; c, z (B, C, H, W), d (B, [C,] C, H, W)."""
    if d.ndim == c.ndim:
        q = c * d
        K, H = 1 / (1 + q), q.sqrt() / (1 + q)
        return lambda z: K * z, lambda z: H * z
    # Eigenvalues of a block differ by up to 1e6; not every device has double precision.
    root = c.cpu().double().sqrt()
    M = root[:, :, None] * d.cpu().double() * root[:, None]
    values, vectors = torch.linalg.eigh(M.permute(0, 3, 4, 1, 2))
    # Blocks averaged from probes need not be quite positive semidefinite.
    values = values.clamp_min(0.0)
    K, H = (
        ((vectors * f[..., None, :]) @ vectors.mT).to(c)
        for f in (1 / (1 + values), values.sqrt() / (1 + values))
    )
    return lambda z: _blocks(K, z), lambda z: _blocks(H, z)


def _blocks(M: Tensor, z: Tensor) -> Tensor:
    return torch.einsum("bhwij,bjhw->bihw", M, z)


def normal_in_basis(
    data: LinearMeasurement, spectrum: ErrorSpectrum, probes: int = 4
) -> tuple[Tensor, Tensor]:
    """The diagonal of M = F A^T W A F^T, and its rows' Euclidean norms, both (B, C, H, W).

    From random signs z: z * (M z) has the mean diag M, (M z)^2 the rows' squared norms. Exact where
    M is diagonal (all probes agree); else smoothed over neighbours, since each probe carries the
    rest of M as noise. A diagonal matrix of row norms never takes a row for smaller than it acts,
    which costs CG far more than the opposite. Where A mixes channels both are (B, C, C, H, W), all
    products of two channels at a coefficient, from probes of one channel at a time.
    """
    like = data.like(1)
    noise = Noise(0, [0])
    channels = like.shape[1]

    def probe(k: int, lit: Tensor) -> tuple[Tensor, Tensor]:
        """Random signs z in the lit channels, and M z: (1, C, H, W), (B, C, H, W)."""
        z = noise.rademacher(like, k) * lit[:, None, None]
        own = z.expand(len(data), *like.shape[1:]).contiguous()
        return z, spectrum.forward(data.normal(spectrum.inverse(own)))

    def column(j: int, count: int) -> Tensor:
        pairs = [probe(k, torch.eye(channels)[j].to(like)) for k in range(count)]
        return _averaged([z[:, j : j + 1] * Mz for z, Mz in pairs])[0]

    if channels > 2 and _mixes(column(0, 1)):
        blocks = torch.stack([column(j, 2) for j in range(channels)], 2)
        blocks = (blocks + blocks.transpose(1, 2)) / 2
        return blocks, blocks
    pairs = [probe(k, torch.ones(channels).to(like)) for k in range(probes)]
    diagonal, exact = _averaged([z * Mz for z, Mz in pairs])
    square = _smooth(torch.stack([Mz.square() for _, Mz in pairs]).mean(0))
    diagonal = diagonal.clamp_min(0.0)
    return diagonal, torch.where(per_item(exact, square) > 0, diagonal, square.sqrt())


def _averaged(draws: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The mean of draws (B, C, H, W), smoothed unless all agree, and whether they do, (B,)."""
    stacked = torch.stack(draws)
    mean = stacked.mean(0)
    scatter = (stacked - mean).square().flatten(2).mean((0, 2)).sqrt()
    exact = scatter < 1e-3 * mean.abs().flatten(1).mean(1).clamp_min(1e-30)
    return torch.where(per_item(exact, mean) > 0, mean, _smooth(mean)), exact


def _smooth(x: Tensor) -> Tensor:
    """Means over 5 x 5 coefficients, the border's repeated beyond it."""
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
    return torch.nn.functional.avg_pool2d(padded, 5, stride=1)


def _mixes(column: Tensor) -> bool:
    """Whether what channel 0 sends to the others (B, C, H, W) is over 5 % of what it keeps."""
    share = column.mean((-2, -1)).abs()
    return bool((share[:, 1:].amax(1) > 0.05 * share[:, 0]).any())
