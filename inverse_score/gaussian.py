"""Priors whose score, density and posterior are known in closed form: the references of all tests.

If x_0 ~ sum_k w_k N(m_k, C_k), then x_t ~ sum_k w_k N(alpha m_k, alpha^2 C_k + sigma^2 I). With the
eigendecomposition C_k = V_k diag(l_k) V_k^T every time costs one product with V_k.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .prior import Prior
from .randomness import OTHER, Noise
from .sde import SDE, Time, per_item


class Gaussian(NamedTuple):
    """N(mean, cov) of each item: mean (B, *event), cov (B, d, d); float64 on the CPU."""

    mean: Tensor
    cov: Tensor


class Mixture(NamedTuple):
    """A mixture for each item: weights (B, K), means (B, K, *event), covs (B, K, d, d)."""

    weights: Tensor
    means: Tensor
    covs: Tensor


class GaussianMixturePrior(Prior):
    """x_0 ~ sum_k w_k N(m_k, C_k), with exact score, denoiser, density, samples and posterior.

    weights (K,), positive, normalized here; means (K, *event); covs (K, d, d), d = prod(event),
    symmetric positive definite, else ValueError. Kept in float64; computed in x's dtype.
    """

    def __init__(
        self,
        weights: Tensor,
        means: Tensor,
        covs: Tensor,
        sde: SDE,
        *,
        range: tuple[float, float] = (1.0, 0.0),
    ):
        weights = torch.as_tensor(weights).detach().to("cpu", torch.float64)
        means = torch.as_tensor(means).detach().to("cpu", torch.float64)
        covs = torch.as_tensor(covs).detach().to("cpu", torch.float64)
        _check_parameters(weights, means, covs)
        self.values, self.vectors = _eigh(0.5 * (covs + covs.mT))
        # x0_hat at ratio r has lost r^2 / (C + r^2) of the variance C: 2 % at r = 0.15 std.
        self._smallest_scale = 0.15 * math.sqrt(self.values.min().item())
        super().__init__(
            self._network,
            sde,
            output="x0",
            event_shape=tuple(means.shape[1:]),
            range=range,
            t_min=max(1e-7 * sde.T, sde.time(min(1e-3, self._smallest_scale))),
        )
        self.weights, self.means, self.covs = weights / weights.sum(), means, covs
        self._cache: dict[Any, tuple[Tensor, ...]] = {}

    @property
    def smallest_scale(self) -> float:
        """The noise-to-signal at which sampling ends: 0.15 of the least principal std, or the
        SDE's own least where that is larger (VE's sigma_min)."""
        return max(self._smallest_scale, self.sde.ratio(self.t_min))

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        """E[x_0 | x_t] = sum_k r_k (m_k + alpha C_k (alpha^2 C_k + sigma^2)^-1 (x - alpha m_k))."""
        alpha, _ = self._scales(x, t)
        _, means, values, vectors = self._on(x)
        projected, variance = self._project(x, t)
        each = means + _rotate(vectors, alpha * values / variance * projected)
        return self._average(each, projected, variance, x)

    def score(self, x: Tensor, t: Time) -> Tensor:
        """grad log p_t(x) = -sum_k r_k (alpha^2 C_k + sigma^2)^-1 (x - alpha m_k)."""
        projected, variance = self._project(x, t)
        return self._average(-_rotate(self._on(x)[3], projected / variance), projected, variance, x)

    def log_prob(self, x: Tensor, t: Time | None = None) -> Tensor:
        """log p_t(x) in nats, (B,); t None: the law of x_0 itself. x in the prior's own u."""
        return torch.logsumexp(self._log_joint(*self._project(x, t), x), dim=1)

    def sample(
        self, num: int, *, seed: int = 0, t: float | None = None, dtype: Any = torch.float64
    ) -> Tensor:
        """`num` exact draws of x_0, or of x_t if t is given: (num, *event), in u."""
        noise, d = Noise(seed, [0]), self.means[0].numel()
        like = torch.empty(1, num, d, dtype=torch.float64)
        uniform = noise.uniform(like[..., 0], 0, OTHER)[0]
        k = torch.searchsorted(self.weights.cumsum(0)[:-1], uniform, right=True)
        z, x = noise(like, 1, OTHER)[0], torch.empty(num, d, dtype=torch.float64)
        for j in range(len(self.weights)):
            rows = k == j
            # The symmetric root: V sqrt(l) would move with the eigensolver's signs and bases.
            root = self.vectors[j] * self.values[j].sqrt() @ self.vectors[j].T
            x[rows] = z[rows] @ root + self.means[j].flatten()
        if t is not None:
            x = self.sde.alpha(t) * x + self.sde.sigma(t) * noise(like, 2, OTHER)[0]
        return x.reshape(num, *self.means.shape[1:]).to(dtype)

    def posterior(self, y: Tensor, A: Any, noise_std: Any) -> Any:
        """p(x | y) for y = A x + noise_std n, as a Mixture of float64 tensors on the CPU.

        y (B, *out), real or complex (noise_std is per real and imaginary part); A any linear
        callable x (B, *event) -> y; noise_std a float, (B,) or broadcastable to y; 0 means exact
        data. Speaks the prior's own u. Costs d applications of A and O(d^3).
        """
        parts = [
            [_condition(m, C, H, row, var) for m, C in zip(self.means, self.covs, strict=True)]
            for H, row, var in self._measured(y, A, noise_std)
        ]
        log_w = torch.stack([torch.stack([p[2] for p in item]) for item in parts])
        return Mixture(
            torch.softmax(self.weights.log() + log_w, dim=1),
            torch.stack([torch.stack([p[0] for p in item]) for item in parts]),
            torch.stack([torch.stack([p[1] for p in item]) for item in parts]),
        )

    def _measured(self, y: Tensor, A: Any, noise_std: Any):
        """(H, y, noise variance) of each item, in real numbers."""
        std = _noise_of(noise_std, y)
        shared = None if getattr(A, "batch", None) is not None else self._dense(A)
        for i in range(y.shape[0]):
            H = self._dense(A[[i]]) if shared is None else shared
            yield H, _as_reals(y[i : i + 1])[0], _as_reals(std[i : i + 1])[0] ** 2

    def _dense(self, A: Any) -> Tensor:
        """A as a real matrix (reals of y, d), from its action on the basis vectors."""
        d = self.means[0].numel()
        basis = torch.eye(d, dtype=torch.float64).reshape(d, *self.event_shape)  # type: ignore[misc]
        if getattr(A, "batch", None) == 1:
            return torch.cat([_as_reals(A(e[None])) for e in basis]).T
        return _as_reals(A(basis)).T

    def _network(self, x: Tensor, t: Tensor) -> Tensor:
        return self.denoise(x, t)

    def _scales(self, x: Tensor, t: Time | None) -> tuple[Any, Any]:
        """alpha and sigma, shaped to scale (B, K, d)."""
        if t is None:
            return 1.0, 0.0
        flat = x.reshape(x.shape[0], 1, -1)
        return per_item(self.sde.alpha(t), flat), per_item(self.sde.sigma(t), flat)

    def _on(self, x: Tensor) -> tuple[Tensor, ...]:
        key = (x.device, x.dtype)
        if key not in self._cache:
            parts = (self.weights.log(), self.means.flatten(1), self.values, self.vectors)
            self._cache[key] = tuple(part.to(x.dtype).to(x.device) for part in parts)
        return self._cache[key]

    def _project(self, x: Tensor, t: Time | None) -> tuple[Tensor, Tensor]:
        """V_k^T (x - alpha m_k) and alpha^2 l_k + sigma^2, both (B, K, d)."""
        self.check_event(x)
        if t is not None and not (isinstance(t, float | int) and t == 0):
            self.sde.check_time(t)
        alpha, sigma = self._scales(x, t)
        _, means, values, vectors = self._on(x)
        centred = x.flatten(1)[:, None] - alpha * means
        projected = torch.einsum("kij,bki->bkj", vectors, centred)
        return projected, alpha**2 * values + sigma**2 + torch.zeros_like(projected)

    def _log_joint(self, projected: Tensor, variance: Tensor, x: Tensor) -> Tensor:
        """log w_k N(x; k), (B, K)."""
        quadratic = (projected**2 / variance + torch.log(2 * math.pi * variance)).sum(-1)
        return self._on(x)[0] - 0.5 * quadratic

    def _average(self, each: Tensor, projected: Tensor, variance: Tensor, x: Tensor) -> Tensor:
        """sum_k r_k each_k, r_k = p(k | x_t); each (B, K, d)."""
        if each.shape[1] == 1:
            return each.reshape(x.shape)
        r = torch.softmax(self._log_joint(projected, variance, x), dim=1)
        return torch.einsum("bk,bkd->bd", r, each).reshape(x.shape)


class GaussianPrior(GaussianMixturePrior):
    """x_0 ~ N(mean, cov): mean (*event), cov (d, d) symmetric positive definite."""

    def __init__(
        self, mean: Tensor, cov: Tensor, sde: SDE, *, range: tuple[float, float] = (1.0, 0.0)
    ):
        mean, cov = torch.as_tensor(mean), torch.as_tensor(cov)
        super().__init__(torch.ones(1), mean[None], cov[None], sde, range=range)
        self.mean, self.cov = self.means[0], self.covs[0]

    def posterior(self, y: Tensor, A: Any, noise_std: Any) -> Gaussian:
        """p(x | y) = N(m + K (y - A m), C - K A C), K = C A^T (A C A^T + noise_std^2)^-1.

        Arguments as for the mixture; cov is one expanded tensor if A and noise are shared.
        """
        items = list(self._measured(y, A, noise_std))
        alike = all(H is items[0][0] and torch.equal(var, items[0][2]) for H, _, var in items)
        if not alike:
            parts = [_condition(self.mean, self.cov, *item) for item in items]
            return Gaussian(torch.stack([p[0] for p in parts]), torch.stack([p[1] for p in parts]))
        H, _, var = items[0]
        gain, cov, _, _ = _kalman(self.cov, H, var)
        residual = torch.stack([row for _, row, _ in items]) - H @ self.mean.flatten()
        mean = (residual @ gain.T).reshape(-1, *self.mean.shape) + self.mean
        return Gaussian(mean, cov.expand(len(items), *cov.shape))


def gaussian_kl(mean: Tensor, cov: Tensor, true_mean: Tensor, true_cov: Tensor) -> float:
    """KL(N(mean, cov) || N(true_mean, true_cov)) in nats; means (d,), covs (d, d)."""
    root = torch.linalg.cholesky(true_cov)
    ratio = torch.cholesky_solve(cov, root)
    shift = torch.linalg.solve_triangular(root, (mean - true_mean)[:, None], upper=False)
    logs = torch.linalg.slogdet(cov).logabsdet - 2 * root.diagonal().log().sum()
    return 0.5 * (ratio.trace() + shift.square().sum() - len(mean) - logs).item()


def _rotate(vectors: Tensor, coordinates: Tensor) -> Tensor:
    """V_k c_k, (B, K, d)."""
    return torch.einsum("kij,bkj->bki", vectors, coordinates)


def _kalman(C: Tensor, H: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gain K, posterior covariance, and the eigenpairs of A C A^T + R that are not zero."""
    S = H @ C @ H.T + torch.diag(variance)
    values, vectors = torch.linalg.eigh(0.5 * (S + S.T))
    # Entries that are not measured have no variance when the data are exact.
    kept = values > values[-1].clamp(min=1e-300) * 1e-13
    values, vectors = values[kept], vectors[:, kept]
    gain = C @ H.T @ (vectors / values) @ vectors.T
    # Joseph's form stays positive semidefinite under rounding.
    rest = torch.eye(len(C), dtype=C.dtype) - gain @ H
    return gain, rest @ C @ rest.T + (gain * variance) @ gain.T, values, vectors


def _condition(m: Tensor, C: Tensor, H: Tensor, y: Tensor, variance: Tensor):
    """Posterior mean and covariance, and log N(y; H m, H C H^T + R)."""
    gain, cov, values, vectors = _kalman(C, H, variance)
    residual = y - H @ m.flatten()
    white = vectors.T @ residual
    log_y = -0.5 * (white**2 / values + torch.log(2 * math.pi * values)).sum()
    return m + (gain @ residual).reshape(m.shape), cov, log_y


def _as_reals(y: Tensor) -> Tensor:
    """(B, *out) as float64 rows; a complex number counts as two reals."""
    y = y.detach().cpu()
    if y.is_complex():
        y = torch.view_as_real(y.to(torch.complex128))
    return y.to(torch.float64).flatten(1)


def _noise_of(noise_std: Any, y: Tensor) -> Tensor:
    """noise_std of every real number of y: y's shape, complex with equal parts if y is."""
    std = torch.as_tensor(noise_std, dtype=torch.float64, device="cpu")
    if not (torch.isfinite(std).all() and (std >= 0).all()):
        raise ValueError(f"noise_std must be finite and >= 0; got {noise_std}")
    if std.ndim == 1 and y.ndim > 1 and std.shape[0] == y.shape[0]:
        std = std.reshape(-1, *[1] * (y.ndim - 1))
    std = std.expand(y.shape)
    return torch.complex(std, std) if y.is_complex() else std


def _eigh(covs: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(0.5 * (covs + covs.mT))
    smallest, largest = values[:, 0], values[:, -1]
    bad = torch.nonzero(~(smallest > 1e-14 * largest.abs()))
    if len(bad):
        k = bad[0].item()
        raise ValueError(
            "covariances must be positive definite; "
            f"number {k} has eigenvalues from {smallest[k]:.3g} to {largest[k]:.3g}"
        )
    return values, vectors


def _check_parameters(weights: Tensor, means: Tensor, covs: Tensor) -> None:
    K, d = means.shape[0], math.prod(means.shape[1:])
    if weights.shape != (K,) or covs.shape != (K, d, d):
        raise ValueError(
            "weights, means and covs must be (K,), (K, *event), (K, d, d) with d = prod(event); "
            f"got {tuple(weights.shape)}, {tuple(means.shape)}, {tuple(covs.shape)}"
        )
    if not all(torch.isfinite(value).all() for value in (weights, means, covs)):
        raise ValueError("weights, means and covs must be finite")
    if not (weights > 0).all():
        raise ValueError(f"weights must be positive; got {weights.tolist()}")
    asymmetry = (covs - covs.mT).abs().amax()
    if asymmetry > 1e-6 * covs.abs().amax():
        raise ValueError(f"covs must be symmetric; they differ from their transpose by {asymmetry}")
