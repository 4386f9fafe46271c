"""Adapters: operators of other libraries as LinearOperator, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .linear import LinearOperator


class _FromPair(LinearOperator):
    """y = f(x), A^T y = g(y), both taking batches; differentiable by each other."""

    def __init__(
        self,
        f: Callable[[Tensor], Tensor],
        g: Callable[[Tensor], Tensor],
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        *,
        in_complex: bool = False,
        out_complex: bool = False,
    ):
        super().__init__(in_shape, out_shape)
        self.f, self.g = f, g
        self.in_complex, self.out_complex = in_complex, out_complex

    def forward(self, x: Tensor) -> Tensor:
        return _Call.apply(x, self.f, self.g)

    def adjoint(self, y: Tensor) -> Tensor:
        return _Call.apply(y, self.g, self.f)


class _Call(torch.autograd.Function):
    """f(v) with the gradient g."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, f: Any, g: Any) -> Tensor:
        ctx.pair = (g, f)
        return f(v)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, None, None]:
        return _Call.apply(grad, *ctx.pair), None, None


def from_scipy(
    operator: Any, in_shape: Sequence[int], out_shape: Sequence[int] | None = None
) -> LinearOperator:
    """The operator of a real scipy.sparse matrix or scipy.sparse.linalg.LinearOperator (m, n).

    in_shape: of one item, n numbers; out_shape: default (m,). Items are applied one by one, on
    the CPU.
    """
    from scipy.sparse.linalg import aslinearoperator

    A = aslinearoperator(operator)
    out_shape = (A.shape[0],) if out_shape is None else tuple(out_shape)
    if (math.prod(out_shape), math.prod(in_shape)) != tuple(A.shape):
        raise ValueError(f"operator is {A.shape}; got {tuple(in_shape)} -> {out_shape}")
    if np.issubdtype(A.dtype, np.complexfloating):
        raise ValueError("from_scipy takes real operators; a complex x is two real channels")

    def items(product: Callable[[np.ndarray], np.ndarray], shape: Sequence[int]) -> Any:
        def apply(v: Tensor) -> Tensor:
            rows = v.detach().cpu().numpy().reshape(v.shape[0], -1)
            out = np.stack([product(row) for row in rows])
            return torch.from_numpy(out).to(v).reshape(v.shape[0], *shape)

        return apply

    return _FromPair(
        items(A.matvec, out_shape), items(A.rmatvec, tuple(in_shape)), in_shape, out_shape
    )


def to_scipy(operator: LinearOperator, dtype: torch.dtype = torch.float64) -> Any:
    """One item's operator as a real scipy LinearOperator (m, n).

    Complex numbers are pairs (real, imaginary), so that .T is the adjoint.
    """
    from scipy.sparse.linalg import LinearOperator as ScipyOperator

    if operator.batch not in (None, 1):
        raise ValueError(f"{operator} holds several items: take one of them by A[index]")

    def through(f: Callable[[Tensor], Tensor], shape: Sequence[int], complex_: bool) -> Any:
        def product(v: np.ndarray) -> np.ndarray:
            x = torch.from_numpy(np.array(v).ravel()).to(dtype)
            if complex_:
                x = torch.view_as_complex(x.reshape(-1, 2).contiguous())
            y = f(x.reshape(1, *shape))[0]
            y = torch.view_as_real(y) if y.is_complex() else y
            return y.detach().cpu().numpy().ravel()

        return product

    A = operator
    m = math.prod(A.out_shape) * (1 + A.out_complex)
    n = math.prod(A.in_shape) * (1 + A.in_complex)
    make: Any = ScipyOperator  # its __new__ gives another class
    return make(
        (m, n),
        matvec=through(A, A.in_shape, A.in_complex),
        rmatvec=through(A.T, A.out_shape, A.out_complex),
        dtype=np.dtype(str(dtype).removeprefix("torch.")),
    )


def from_physics(physics: Any, in_shape: Sequence[int]) -> LinearOperator:
    """The operator of an object with batched A(x) and A_adjoint(y) (deepinv's convention)."""
    y = physics.A(torch.zeros(1, *in_shape))
    return _FromPair(
        physics.A, physics.A_adjoint, in_shape, y.shape[1:], out_complex=y.is_complex()
    )


class _Physics:
    """A LinearOperator behind A, A_adjoint and A_dagger."""

    def __init__(self, operator: LinearOperator):
        self.A, self.A_adjoint = operator, operator.T
        self.A_dagger = operator.pinv


def to_physics(operator: LinearOperator) -> Any:
    """An object with A(x), A_adjoint(y) and A_dagger(y)."""
    return _Physics(operator)


def from_linop(linop: Any) -> LinearOperator:
    """The operator of a sigpy-style complex Linop (ishape, oshape, .H, called on numpy arrays).

    x: (B, 2, *ishape), real and imaginary part; y: complex (B, *oshape).
    """
    from .linear import as_channels, as_complex

    def numpy_items(f: Any, v: Tensor) -> Tensor:
        rows = v.detach().cpu().numpy()
        return torch.from_numpy(np.stack([np.asarray(f(row)) for row in rows])).to(v.dtype)

    return _FromPair(
        lambda x: numpy_items(linop, as_complex(x)),
        lambda y: as_channels(numpy_items(linop.H, y)),
        (2, *linop.ishape),
        linop.oshape,
        out_complex=True,
    )
