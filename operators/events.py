"""What goes in and out of operators: events, their shapes and numbers, and the checks of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Shape = tuple[int, ...]

COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def as_complex(x: Tensor) -> Tensor:
    """(B, 2, *space) real, channels real and imaginary part -> (B, *space) complex."""
    if x.is_complex() or x.ndim < 2 or x.shape[1] != 2:
        raise ValueError(
            "as_complex takes a real (B, 2, *space), channels real and imaginary part; got "
            f"{tuple(x.shape)} {x.dtype}"
        )
    return torch.complex(x[:, 0].contiguous(), x[:, 1].contiguous())


def as_channels(z: Tensor) -> Tensor:
    """(B, *space) complex -> (B, 2, *space) real, channels real and imaginary part."""
    if not z.is_complex():
        raise ValueError(f"as_channels takes a complex tensor; got {tuple(z.shape)} {z.dtype}")
    return torch.stack([z.real, z.imag], 1)


def check_event(
    v: Tensor, shape: Shape, complex_: bool, batch: int | None, what: str, owner: str
) -> None:
    """ValueError unless v is (B, *shape), floating, with B = batch where that is a number."""
    wanted = f"{what} of {owner} must be"
    if v.is_complex() and not complex_:
        raise ValueError(
            f"{wanted} real (B, {', '.join(map(str, shape))}); got complex {tuple(v.shape)}: "
            "as_channels gives two real channels, as_complex undoes it"
        )
    if tuple(v.shape[1:]) != shape or v.ndim != len(shape) + 1:
        raise ValueError(f"{wanted} (B, {', '.join(map(str, shape))}); got {tuple(v.shape)}")
    if batch is not None and v.shape[0] != batch:
        raise ValueError(
            f"{owner} holds parameters of {batch} items; got {what} of batch {v.shape[0]}: "
            "A[index] is the operator of some of the items"
        )
    if not (v.is_floating_point() or v.is_complex()):
        raise ValueError(f"{what} must be floating point; got {v.dtype}")


def checked_weights(weights: Tensor, shape: Shape) -> Tensor:
    """weights as a tensor; ValueError unless real, finite, >= 0 and broadcastable to shape."""
    weights = torch.as_tensor(weights)
    try:
        fits = torch.broadcast_shapes(weights.shape, shape) == torch.Size(shape)
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"weights must broadcast to y {shape}; got {tuple(weights.shape)}")
    if weights.is_complex() or not bool(((weights >= 0) & weights.isfinite()).all()):
        raise ValueError("weights must be real, finite and >= 0")
    return weights


def checked_rho(rho: float | Tensor, b: Tensor) -> float | Tensor:
    """rho as a float or (B,); ValueError unless it is finite and >= 0."""
    value = torch.as_tensor(rho)
    if value.ndim > 1 or (value.ndim == 1 and len(value) not in (1, b.shape[0])):
        raise ValueError(
            f"rho must be a scalar or (B,) with B = {b.shape[0]}; got {tuple(value.shape)}"
        )
    if not bool(((value >= 0) & value.isfinite()).all()):
        raise ValueError(f"rho must be finite and >= 0; got {rho}")
    return value if value.ndim == 1 else float(rho)


def normal_draw(shape: Shape, complex_: bool, seed: int) -> Tensor:
    """Standard normal draws that no global seed touches."""
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.complex128 if complex_ else torch.float64
    return torch.randn(shape, generator=generator, dtype=dtype)


def moved(value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """value.to(...), where a real dtype keeps complex tensors complex and spares integers."""

    def fitted(argument: Any) -> Any:
        if not isinstance(argument, torch.dtype):
            return argument
        if value.is_complex():
            return COMPLEX.get(argument, argument)
        return argument if value.is_floating_point() else value.dtype

    return value.to(*map(fitted, args), **{key: fitted(v) for key, v in kwargs.items()})
