"""From data units to the prior's: y, its noise and the operator checked, and y = A u + n made."""

from __future__ import annotations

import math
from typing import Any, overload

import torch
from torch import Tensor

from operators.linear import LinearOperator
from operators.nonlinear import NonlinearOperator, Rescaled

from ..prior import Prior
from ..randomness import Noise
from ..sampling.driver import start
from .measurement import LinearMeasurement, Measurement, NonlinearMeasurement


@overload
def measure(
    prior: Prior, y: Tensor, operator: LinearOperator, noise_std: Any
) -> LinearMeasurement: ...
@overload
def measure(
    prior: Prior, y: Tensor, operator: NonlinearOperator, noise_std: Any
) -> NonlinearMeasurement: ...
def measure(prior: Prior, y: Tensor, operator: Any, noise_std: Any) -> Measurement:
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
        return _nonlinear(prior, y, operator, noise_std.to(y))
    if offset != 0.0:
        like = torch.full((operator.batch or 1, *operator.in_shape), offset)
        y = y - operator(like.to(device=y.device, dtype=dtype))
    std = noise_std.to(device=y.device, dtype=dtype)
    return LinearMeasurement(operator, y / scale, std / scale)


def _nonlinear(
    prior: Prior, y: Tensor, operator: NonlinearOperator, noise_std: Tensor
) -> NonlinearMeasurement:
    """The measurement of u, x = scale u + offset; y and noise_std keep their units."""
    scale, offset = prior.range
    if (scale, offset) != (1.0, 0.0):
        operator = Rescaled(operator, scale, offset)
    like = torch.empty(1, *operator.in_shape, dtype=y.dtype, device=y.device)
    xT = start(prior, like.shape, Noise(0, [0]), dtype=y.dtype, device=y.device)
    with torch.no_grad():
        reference = prior.denoise(xT, prior.sde.T)
    return NonlinearMeasurement(operator, y, noise_std, reference)


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
