"""The measurement y = A u + n in the prior's own units, whitened once for every method."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from operators.linalg import inner, per_item, power_norm
from operators.linear import LinearOperator, Resolvent
from operators.nonlinear import NonlinearOperator

from ..prior import Prior
from ..randomness import Noise


class Measurement:
    """y = A u + n, n ~ N(0, noise_std^2) per real and imaginary part, independent.

    y (B, *out_shape), real or complex; noise_std: scalar, (B,) or broadcastable to y, all
    positive or all zero (exact data). What the methods see is unit noise: with W = noise_std^-2,
    the log-likelihood is -|y - A u|_W^2 / 2. For exact data W = 1, and `exact` is True.
    """

    linear = True

    def __init__(self, operator: LinearOperator, y: Tensor, noise_std: float | Tensor):
        self.operator, self.y = operator, y
        self.noise_std = _spread(noise_std, y)
        self.exact = bool((self.noise_std == 0).all())
        if not self.exact and bool((self.noise_std == 0).any()):
            raise ValueError("noise_std must be positive everywhere or zero everywhere; got both")
        self.weights = torch.ones_like(self.noise_std) if self.exact else self.noise_std**-2

    @property
    def shared(self) -> bool:
        """Whether each item has one noise level, so that W is a number an item."""
        return self.noise_std.numel() == self.noise_std.shape[0]

    def __len__(self) -> int:
        return self.y.shape[0]

    def residual(self, u: Tensor) -> Tensor:
        """y - A u."""
        return self.y - self.operator(u)

    def gradient(self, u: Tensor) -> Tensor:
        """A^T W (y - A u), the gradient of the log-likelihood."""
        return self.backproject(self.residual(u))

    def log_likelihood(self, u: Tensor) -> Tensor:
        """(B,): -|y - A u|_W^2 / 2."""
        white = self.weights.sqrt() * self.residual(u)
        return -0.5 * inner(white, white)

    def at(self, u: Tensor) -> Measurement:
        """The linear measurement that agrees with this one about u (B, *in_shape): itself."""
        return self

    def pullback(self, u: Tensor, r: Tensor) -> Tensor:
        """A^T r, unweighted; for other A the derivative's transpose at u."""
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

    @cached_property
    def gain(self) -> Tensor:
        """The largest eigenvalue of A^T W A, (B,)."""
        start = Noise(0, [0])(self._event(1), 0).expand(len(self), *self.operator.in_shape)
        # Power iteration stops from below.
        return 1.05 * power_norm(self.normal, start.clone(), tol=5e-3, max_iter=30) ** 2

    @cached_property
    def level(self) -> Tensor:
        """(B,) noise-to-signal of the data in the best measured direction: 1 / sqrt(gain)."""
        return torch.zeros_like(self.gain) if self.exact else self.gain.rsqrt()

    @cached_property
    def typical(self) -> Tensor:
        """(B,) noise-to-signal of the data in a typical measured direction.

        sqrt(num_measured / tr A^T W A), the trace from random signs.
        """
        if self.exact:
            return torch.zeros_like(self.gain)
        probes = [Noise(0, [0]).rademacher(self._event(1), k) for k in range(2)]
        signs = [z.expand(len(self), *self.operator.in_shape).contiguous() for z in probes]
        trace = torch.stack([inner(z, self.normal(z)) for z in signs]).mean(0)
        count = torch.as_tensor(self.operator.num_measured, device=trace.device)
        return (count / trace.clamp_min(1e-30)).sqrt()

    def masked(self, keep: Tensor) -> Measurement:
        """The measurement with W multiplied by keep (0 or 1, broadcasting to y)."""
        part = copy.copy(self)
        for name in ("gain", "level", "typical", "_resolvent"):
            vars(part).pop(name, None)
        part.noise_std = self.noise_std.expand(self.y.shape)
        part.weights = self.weights * keep
        return part

    def louder(self, factor: Tensor) -> Measurement:
        """The measurement with noise_std times factor (B,)."""
        return Measurement(self.operator, self.y, per_item(factor, self.y) * self.noise_std)

    def noisy(self, ratio: float) -> Measurement:
        """Exact data as if measured with noise `ratio` times |A|, in u; others as they are."""
        if not self.exact:
            return self
        size = per_item(self.gain.sqrt(), self.y)
        return Measurement(self.operator, self.y, ratio * torch.as_tensor(size))

    def rows(self, index: Sequence[int]) -> Measurement:
        """The measurement of some of the items, repeats allowed."""
        index = list(index)
        operator = self.operator if self.operator.batch is None else self.operator[index]
        part = Measurement(operator, self.y[index], self.noise_std[index])
        for name in ("gain", "level", "typical"):
            if name in vars(self):
                vars(part)[name] = vars(self)[name][index]
        return part

    def _event(self, batch: int) -> Tensor:
        return torch.empty(
            batch, *self.operator.in_shape, dtype=self.y.real.dtype, device=self.y.device
        )

    def misfit(self, u: Tensor) -> Tensor:
        """(B,): |y - A u|_W^2 / num_measured; |y - A u| / |y| for exact data."""
        r = self.residual(u)
        if self.exact:
            return (inner(r, r) / inner(self.y, self.y).clamp_min(1e-300)).sqrt()
        w = self.weights.sqrt() * r
        count = torch.as_tensor(self.operator.num_measured, device=r.device)
        return inner(w, w) / count


def measure(prior: Prior, y: Tensor, operator: LinearOperator, noise_std: Any) -> Measurement:
    """The measurement of u, where data = scale * u + offset: A u = (y - A(offset)) / scale.

    Checks that y, operator, prior and noise_std fit, before anything expensive.
    """
    _check_operator(prior, operator)
    _check_data(prior, y, operator)
    noise_std = noise_level(noise_std, operator, y)
    scale, offset = prior.range
    dtype = working_dtype(prior, y)
    y = y.to(dtype.to_complex() if y.is_complex() else dtype)
    if isinstance(operator, NonlinearOperator):
        from .nonlinear import measure_nonlinear

        return measure_nonlinear(prior, y, operator, noise_std.to(y))
    if offset != 0.0:
        like = torch.full((operator.batch or 1, *operator.in_shape), offset)
        y = y - operator(like.to(device=y.device, dtype=dtype))
    std = noise_std.to(device=y.device, dtype=dtype)
    return Measurement(operator, y / scale, std / scale)


def noise_level(noise_std: Any, operator: LinearOperator, y: Tensor) -> Tensor:
    """noise_std as a float64 tensor; None asks the operator's estimate_noise(y)."""
    if noise_std is None:
        estimate = getattr(operator, "estimate_noise", None)
        if estimate is None:
            raise ValueError(
                f"noise_std is None and {type(operator).__name__} has no estimate_noise(y): give "
                "noise_std in the units of y (per real and imaginary part), or 0 for exact data"
            )
        noise_std = estimate(y)
    std = torch.as_tensor(noise_std, dtype=torch.float64).detach().to(y.device)
    bad = ~(std.isfinite() & (std >= 0))
    if bool(bad.any()):
        raise ValueError(
            f"noise_std must be finite and >= 0; got {std[bad].flatten()[0].item()}"
            + ("" if std.ndim == 0 else f" at {tuple(bad.nonzero()[0].tolist())}")
        )
    return std


def working_dtype(prior: Prior, y: Tensor) -> torch.dtype:
    """The network's own precision, never below float32; y's where there is no network."""
    if isinstance(prior.network, torch.nn.Module):
        for tensor in prior.network.parameters():
            return torch.float64 if tensor.dtype == torch.float64 else torch.float32
    return torch.float64 if y.real.dtype == torch.float64 else torch.float32


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


def _check_operator(prior: Prior, operator: LinearOperator) -> None:
    if not isinstance(operator, LinearOperator | NonlinearOperator):
        raise ValueError(
            "operator must be a LinearOperator or a NonlinearOperator; got "
            f"{type(operator).__name__} (from_function makes one of a function)"
        )
    want, got = prior.event_shape, operator.in_shape
    if want is None:
        return
    if len(want) != len(got) or any(a not in (None, b) for a, b in zip(want, got, strict=True)):
        hint = ""
        if len(want) == len(got) == 3 and want[0] != got[0]:
            hint = f"; the prior has {want[0]} channels and the operator's images {got[0]}"
        raise ValueError(f"the prior's events are {want}, the operator takes {got}{hint}")


def _check_data(prior: Prior, y: Tensor, operator: LinearOperator) -> None:
    if not isinstance(y, Tensor) or not (y.is_floating_point() or y.is_complex()):
        raise ValueError(f"y must be a floating-point or complex tensor; got {_kind(y)}")
    if y.is_complex() != bool(operator.out_complex):
        want = "complex" if operator.out_complex else "real"
        raise ValueError(f"{operator!r} measures {want} data; got y of dtype {y.dtype}")
    if tuple(y.shape[1:]) != operator.out_shape or y.ndim != len(operator.out_shape) + 1:
        raise ValueError(
            f"y must be (B, {', '.join(map(str, operator.out_shape))}) for {operator!r}; got "
            f"{tuple(y.shape)}"
        )
    if y.shape[0] == 0:
        raise ValueError("y holds no item (its first axis is 0)")
    if operator.batch is not None and operator.batch != y.shape[0]:
        raise ValueError(f"{operator!r} holds {operator.batch} items; y has {y.shape[0]}")
    finite = torch.isfinite(y)
    if not bool(finite.all()):
        where = tuple((~finite).nonzero()[0].tolist())
        count = math.prod(y.shape) - int(finite.sum())
        raise ValueError(f"y has {count} non-finite values, the first at {where}")
    if y.device.type != prior.device.type:
        raise ValueError(f"y is on {y.device}, the prior on {prior.device}")


def _kind(y: Any) -> str:
    return str(y.dtype) if hasattr(y, "dtype") else type(y).__name__
