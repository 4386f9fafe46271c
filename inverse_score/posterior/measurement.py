"""The measurement y = A(u) + n in the prior's own units, whitened once for every method."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from operators.linalg import inner, per_item, power_norm
from operators.linear import LinearOperator, Resolvent
from operators.nonlinear import NonlinearOperator, newton_data

from ..randomness import Noise

_CACHED = ("gain", "typical", "_resolvent", "_about")


class Measurement:
    """y = A(u) + n, n ~ N(0, noise_std^2) per real and imaginary part, independent.

    y (B, *out_shape), real or complex; noise_std: scalar, (B,) or broadcastable to y, all
    positive or all zero (exact data). What the methods see is unit noise: with W = noise_std^-2,
    the log-likelihood is -|y - A(u)|_W^2 / 2. For exact data W = 1, and `exact` is True.
    Subclasses give `at`, `pullback`, `gain` and `typical`.
    """

    linear: ClassVar[bool] = False

    def __init__(self, operator: Any, y: Tensor, noise_std: float | Tensor):
        self.operator, self.y = operator, y
        self.noise_std = _spread(noise_std, y)
        self.exact = bool((self.noise_std == 0).all())
        if not self.exact and bool((self.noise_std == 0).any()):
            raise ValueError("noise_std must be positive everywhere or zero everywhere; got both")
        self.weights = torch.ones_like(self.noise_std) if self.exact else self.noise_std**-2

    def __len__(self) -> int:
        return self.y.shape[0]

    def like(self, batch: int | None = None) -> Tensor:
        """An empty tensor of `batch` (default: B) events u."""
        shape = (len(self) if batch is None else batch, *self.operator.in_shape)
        return torch.empty(shape, dtype=self.y.real.dtype, device=self.y.device)

    def residual(self, u: Tensor) -> Tensor:
        """y - A(u)."""
        return self.y - self.operator(u)

    def at(self, u: Tensor) -> LinearMeasurement:
        """The linear measurement that agrees with this one about u (B, *in_shape)."""
        raise NotImplementedError(f"{type(self).__name__} has no linearization")

    def pullback(self, u: Tensor, r: Tensor) -> Tensor:
        """J^T r, unweighted, J the derivative of A at u."""
        raise NotImplementedError(f"{type(self).__name__} has no derivative")

    def gradient(self, u: Tensor) -> Tensor:
        """J^T W (y - A(u)), the gradient of the log-likelihood."""
        return self.pullback(u, self.weights * self.residual(u))

    def log_likelihood(self, u: Tensor) -> Tensor:
        """(B,): -|y - A(u)|_W^2 / 2."""
        white = self.weights.sqrt() * self.residual(u)
        return -0.5 * inner(white, white)

    def misfit(self, u: Tensor) -> Tensor:
        """(B,): |y - A(u)|_W^2 / num_measured; |y - A(u)| / |y| for exact data."""
        r = self.residual(u)
        if self.exact:
            size = inner(self.y, self.y)
            return (inner(r, r) / size.clamp_min(torch.finfo(size.dtype).tiny)).sqrt()
        w = self.weights.sqrt() * r
        count = torch.as_tensor(self.operator.num_measured, device=r.device)
        return inner(w, w) / count

    @property
    def shared(self) -> bool:
        """Whether each item has one noise level, so that W is a number an item."""
        return self.noise_std.numel() == self.noise_std.shape[0]

    @cached_property
    def gain(self) -> Tensor:
        """The largest eigenvalue of J^T W J, (B,)."""
        raise NotImplementedError(f"{type(self).__name__} has no gain")

    @cached_property
    def typical(self) -> Tensor:
        """(B,) noise-to-signal of the data in a typical measured direction."""
        raise NotImplementedError(f"{type(self).__name__} has no typical direction")

    @property
    def level(self) -> Tensor:
        """(B,) noise-to-signal of the data in the best measured direction: 1 / sqrt(gain)."""
        return torch.zeros_like(self.gain) if self.exact else self.gain.rsqrt()

    def rows(self, index: Sequence[int]) -> Self:
        """The measurement of some of the items, repeats allowed."""
        index = list(index)
        operator = self.operator if self.operator.batch is None else self.operator[index]
        part = self._with(
            operator=operator,
            y=self.y[index],
            noise_std=self.noise_std[index],
            weights=self.weights[index],
        )
        for name in ("gain", "typical"):
            if name in vars(self):
                vars(part)[name] = vars(self)[name][index]
        return part

    def louder(self, factor: Tensor) -> Self:
        """The measurement with noise_std times factor (B,)."""
        return self._of_noise(per_item(factor, self.y) * self.noise_std)

    def _of_noise(self, noise_std: Any) -> Self:
        """The same data with another noise, positive."""
        std = _spread(noise_std, self.y)
        return self._with(noise_std=std, weights=std**-2, exact=False)

    def _with(self, **changes: Any) -> Self:
        part = copy.copy(self)
        for name in _CACHED:
            vars(part).pop(name, None)
        vars(part).update(changes)
        return part


class LinearMeasurement(Measurement):
    """y = A u + n for a linear A: adjoint, normal matrix, solves and pseudo-inverse beside."""

    linear = True
    operator: LinearOperator

    def at(self, u: Tensor) -> LinearMeasurement:
        """Itself: A is its own derivative."""
        return self

    def pullback(self, u: Tensor, r: Tensor) -> Tensor:
        """A^T r, unweighted."""
        return self.operator.T(r)

    def backproject(self, r: Tensor) -> Tensor:
        """A^T W r."""
        return self.operator.T(self.weights * r)

    def normal(self, v: Tensor) -> Tensor:
        """A^T W A v."""
        if self.shared:
            return per_item(self.weights.flatten(), v) * self.operator.normal(v)
        return self.operator.normal(v, self.weights)

    def white(self, u: Tensor) -> Tensor:
        """W^(1/2) A u."""
        return self.weights.sqrt() * self.operator(u)

    def white_adjoint(self, r: Tensor) -> Tensor:
        """A^T W^(1/2) r."""
        return self.operator.T(self.weights.sqrt() * r)

    def solve(self, b: Tensor, rho: Any, **options: Any) -> Tensor:
        """(A^T W A + rho I)^-1 b; rho scalar or (B,)."""
        if self._resolvent is not None:
            options = {"resolvent": self._resolvent, **options}
        if not self.shared:
            return self.operator.solve_normal(b, rho, self.weights, **options)
        # (w N + rho)^-1 b = (N + rho / w)^-1 b / w keeps the operator's closed form.
        w = self.weights.flatten()
        scaled = torch.as_tensor(rho, dtype=w.dtype, device=w.device) / w
        return self.operator.solve_normal(b / per_item(w, b), scaled, **options)

    def resolvent(self) -> Resolvent | None:
        """rho -> (b -> (A^T W A + rho I)^-1 b), nearly: see LinearOperator.resolvent."""
        inner = self._resolvent
        if not self.shared or inner is None:
            return inner
        w = self.weights.flatten()

        def at(rho: float | Tensor) -> Callable[[Tensor], Tensor]:
            solve = inner(rho / w)
            return lambda b: solve(b / per_item(w, b))

        return at

    @cached_property
    def _resolvent(self) -> Resolvent | None:
        """The operator's, with W only where W is more than a number an item."""
        return self.operator.resolvent(None if self.shared else self.weights)

    def pinv(self, r: Tensor) -> Tensor:
        """A^+ r, unweighted."""
        return self.operator.pinv(r)

    def project(self, u: Tensor) -> Tensor:
        """u + A^+ (y - A u): u moved onto A u = y."""
        return u + self.pinv(self.residual(u))

    @cached_property
    def gain(self) -> Tensor:
        """The largest eigenvalue of A^T W A, (B,)."""
        start = Noise(0, [0])(self.like(1), 0).expand(len(self), *self.operator.in_shape)
        # Power iteration stops from below.
        return 1.05 * power_norm(self.normal, start.clone(), tol=5e-3, max_iter=30) ** 2

    @cached_property
    def typical(self) -> Tensor:
        """(B,) noise-to-signal of the data in a typical measured direction.

        sqrt(num_measured / tr A^T W A), the trace from random signs.
        """
        if self.exact:
            return torch.zeros_like(self.gain)
        probes = [Noise(0, [0]).rademacher(self.like(1), k) for k in range(2)]
        signs = [z.expand(len(self), *self.operator.in_shape).contiguous() for z in probes]
        trace = torch.stack([inner(z, self.normal(z)) for z in signs]).mean(0)
        count = torch.as_tensor(self.operator.num_measured, device=trace.device)
        return (count / trace.clamp_min(1e-30)).sqrt()

    def masked(self, keep: Tensor) -> LinearMeasurement:
        """The measurement with W multiplied by keep (0 or 1, broadcasting to y)."""
        return self._with(
            noise_std=self.noise_std.expand(self.y.shape), weights=self.weights * keep
        )

    def noisy(self, ratio: float) -> LinearMeasurement:
        """Exact data as if measured with noise `ratio` times |A|, in u; others as they are."""
        if not self.exact:
            return self
        return self._of_noise(ratio * torch.as_tensor(per_item(self.gain.sqrt(), self.y)))


class NonlinearMeasurement(Measurement):
    """y = A(u) + n: only what methods of gradients need.

    gain and typical are those of the linearization about `reference` (1, *in_shape), the prior's
    mean: the grid of times ends by them.
    """

    operator: NonlinearOperator

    def __init__(
        self, operator: NonlinearOperator, y: Tensor, noise_std: float | Tensor, reference: Tensor
    ):
        super().__init__(operator, y, noise_std)
        self.reference = reference

    def at(self, u: Tensor) -> LinearMeasurement:
        """The linearization about u: y - A(u) + J u = J x + n, J the derivative at u."""
        J, y = newton_data(self.operator, u, self.y)
        return LinearMeasurement(J, y, self.noise_std)

    def pullback(self, u: Tensor, r: Tensor) -> Tensor:
        return self.operator.linearize(u).T(r)

    @cached_property
    def _about(self) -> LinearMeasurement:
        return self.at(self.reference.expand(len(self), *self.operator.in_shape))

    @cached_property
    def gain(self) -> Tensor:
        return self._about.gain

    @cached_property
    def typical(self) -> Tensor:
        return self._about.typical


def _spread(noise_std: float | Tensor, y: Tensor) -> Tensor:
    """noise_std as (B, 1, ..., 1) or with y's axes, so that it multiplies y."""
    std = torch.as_tensor(noise_std, dtype=y.real.dtype, device=y.device)
    if std.ndim == 0:
        std = std.expand(y.shape[0])
    if std.ndim == 1 and std.shape[0] == y.shape[0]:
        return std.reshape(-1, *[1] * (y.ndim - 1))
    try:
        fits = torch.broadcast_shapes(std.shape, y.shape) == y.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"noise_std must be a float, (B,) = ({y.shape[0]},) or broadcast to y "
            f"{tuple(y.shape)}; got {tuple(std.shape)}"
        )
    std = std.reshape(*[1] * (y.ndim - std.ndim), *std.shape)
    return std.expand(y.shape[0], *std.shape[1:])
