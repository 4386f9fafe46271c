"""Operators made of operators: A @ B, a * A, stacks, and the operator of a linear function."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .linalg import per_item
from .linear import LinearOperator, Resolvent, Shape
from .spectral import SVD, Transform


def _common_batch(operators: Sequence[LinearOperator]) -> int | None:
    batches = {A.batch for A in operators} - {None}
    if len(batches) > 1:
        raise ValueError(f"operators hold parameters of different numbers of items: {operators}")
    return batches.pop() if batches else None


class Composition(LinearOperator):
    """(A @ B) x = A(B(x))."""

    _parts = ("outer", "inner_operator")

    def __init__(self, outer: LinearOperator, inner_operator: LinearOperator):
        A, B = outer, inner_operator
        if A.in_shape != B.out_shape or A.in_complex != B.out_complex:
            kinds = ["complex" if flag else "real" for flag in (A.in_complex, B.out_complex)]
            raise ValueError(
                f"A @ B: A takes {kinds[0]} {A.in_shape}, B gives {kinds[1]} {B.out_shape}"
            )
        super().__init__(B.in_shape, A.out_shape, _common_batch([A, B]))
        self.outer, self.inner_operator = A, B
        self.in_complex, self.out_complex = B.in_complex, A.out_complex

    def forward(self, x: Tensor) -> Tensor:
        return self.outer.forward(self.inner_operator.forward(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner_operator.adjoint(self.outer.adjoint(y))

    def _normal(self, x: Tensor) -> Tensor:
        B = self.inner_operator
        return B.adjoint(self.outer._normal(B.forward(x)))

    @property
    def num_measured(self) -> int | Tensor:
        return self.outer.num_measured


class Scaled(LinearOperator):
    """(a A) x = a A(x), a a real number or one an item (B,); keeps A's closed forms."""

    _parts = ("operator",)

    def __init__(self, operator: LinearOperator, factor: float | Tensor):
        batch = operator.batch
        if isinstance(factor, Tensor):
            if factor.is_complex() or factor.ndim > 1 or not bool(factor.isfinite().all()):
                raise ValueError(
                    f"a factor is a finite real number or (B,); got {tuple(factor.shape)} "
                    f"{factor.dtype}"
                )
            if factor.ndim == 1:
                if batch not in (None, len(factor)):
                    raise ValueError(f"{len(factor)} factors for the {batch} items of {operator}")
                batch, self._per_item = len(factor), ("factor",)
            else:
                factor = float(factor)
        elif not math.isfinite(factor):
            raise ValueError(f"a factor must be finite; got {factor}")
        super().__init__(operator.in_shape, operator.out_shape, batch)
        self.operator, self.factor = operator, factor
        self.in_complex, self.out_complex = operator.in_complex, operator.out_complex

    def forward(self, x: Tensor) -> Tensor:
        return per_item(self.factor, x) * self.operator.forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return per_item(self.factor, y) * self.operator.adjoint(y)

    def _normal(self, x: Tensor) -> Tensor:
        return per_item(self._squared, x) * self.operator._normal(x)

    @property
    def _squared(self) -> float | Tensor:
        return self.factor**2

    def _closed_solve(
        self, b: Tensor, rho: float | Tensor, weights: Tensor | None
    ) -> Tensor | None:
        # (a^2 A^T W A + rho)^-1 = (A^T W A + rho / a^2)^-1 / a^2
        if self._vanishes:
            return None
        square = self._squared
        if isinstance(square, Tensor):
            square = square.to(b.real)
        return self.operator._closed_solve(b / per_item(square, b), rho / square, weights)

    def resolvent(self, weights: Tensor | None = None) -> Resolvent | None:
        inner = None if self._vanishes else self.operator.resolvent(weights)
        if inner is None:
            return None
        square = self._squared

        def at(rho: float | Tensor) -> Callable[[Tensor], Tensor]:
            a2 = (
                square.to(rho) if isinstance(square, Tensor) and isinstance(rho, Tensor) else square
            )
            solve = inner(rho / a2)
            return lambda b: solve(b / per_item(square, b))

        return at

    def _closed_pinv(self, y: Tensor) -> Tensor | None:
        if self._vanishes:
            return None
        return self.operator._closed_pinv(y / per_item(self.factor, y))

    @property
    def _vanishes(self) -> bool:
        return bool((torch.as_tensor(self.factor) == 0).any())

    def norm(self, **options: Any) -> Tensor:
        value = self.operator.norm(**options)
        factor = self.factor
        return value * (factor.abs().to(value) if isinstance(factor, Tensor) else abs(factor))

    @property
    def num_measured(self) -> int | Tensor:
        return self.operator.num_measured

    @property
    def svd(self) -> SVD:
        return self.operator.svd.scaled(self.factor)

    @property
    def row_gram(self) -> Tensor:
        gram = self.operator.row_gram
        return gram * per_item(self._squared, gram)

    @property
    def transform(self) -> Transform:
        inner = self.operator.transform

        def embed(y: Tensor) -> Tensor:
            return inner.embed(y / per_item(self.factor, y))

        return Transform(inner.T, inner.T_inv, inner.mask, embed, inner.exact)

    @property
    def basis(self) -> Callable[[], Tensor]:
        return self.operator.basis

    @property
    def fbp(self) -> Callable[..., Tensor]:
        inner = self.operator.fbp
        return lambda y, **options: inner(y / per_item(self.factor, y), **options)

    @property
    def sens_maps(self) -> Tensor | None:
        return self.operator.sens_maps


class Diagonal(LinearOperator):
    """y = d * x elementwise, d real: (*shape) or broadcastable to it, or (B, *shape) per item.

    For whitening, (1 / noise_std) * A(x) with a noise_std per measurement; `complex` says that x
    and y are complex.
    """

    def __init__(self, diagonal: Tensor, shape: Sequence[int] | None = None, *, complex=False):
        shape = tuple(diagonal.shape) if shape is None else tuple(shape)
        if diagonal.is_complex() or not bool(diagonal.isfinite().all()):
            raise ValueError(f"a diagonal must be real and finite; got {diagonal.dtype}")
        self.diagonal, batch = as_event(diagonal, shape, "diagonal")
        super().__init__(shape, shape, batch)
        self._per_item = () if batch is None else ("diagonal",)
        self.in_complex = self.out_complex = complex

    def forward(self, x: Tensor) -> Tensor:
        return self.diagonal.to(device=x.device, dtype=x.real.dtype) * x

    adjoint = forward

    @property
    def row_gram(self) -> Tensor:
        gram = self.diagonal**2
        return gram.expand(self.out_shape)[None] if self.batch is None else gram

    def _closed_pinv(self, y: Tensor) -> Tensor | None:
        d = self.diagonal.to(device=y.device, dtype=y.real.dtype)
        return y * torch.where(d != 0, 1 / torch.where(d != 0, d, 1.0), 0.0)

    @property
    def num_measured(self) -> int | Tensor:
        return count(self.diagonal != 0, self.out_shape, self.batch) * (1 + self.out_complex)


class VStack(LinearOperator):
    """y = (A_1 x, A_2 x, ...): joined along the first axis of y, or raveled where shapes differ."""

    _parts = ("operators",)

    def __init__(self, operators: Sequence[LinearOperator]):
        operators = list(operators)
        if not operators:
            raise ValueError("vstack needs at least one operator")
        first = operators[0]
        for A in operators[1:]:
            if A.in_shape != first.in_shape or A.in_complex != first.in_complex:
                raise ValueError(
                    f"vstack: all operators take one x; got {[A.in_shape for A in operators]}"
                )
        tails = {A.out_shape[1:] for A in operators}
        self.joined = len(tails) == 1
        if self.joined:
            self.lengths = [A.out_shape[0] for A in operators]
            shape: Shape = (sum(self.lengths), *first.out_shape[1:])
        else:
            self.lengths = [math.prod(A.out_shape) for A in operators]
            shape = (sum(self.lengths),)
        super().__init__(first.in_shape, shape, _common_batch(operators))
        self.operators = operators
        self.in_complex = first.in_complex
        self.out_complex = any(A.out_complex for A in operators)

    def forward(self, x: Tensor) -> Tensor:
        parts = [A.forward(x) for A in self.operators]
        if not self.joined:
            parts = [part.flatten(1) for part in parts]
        return torch.cat(parts, 1)

    def adjoint(self, y: Tensor) -> Tensor:
        images = [A.adjoint(part) for A, part in zip(self.operators, self.split(y), strict=True)]
        return torch.stack(images).sum(0)

    def split(self, y: Tensor) -> list[Tensor]:
        """The measurements of each operator, in its own shape."""
        parts = []
        for A, part in zip(self.operators, y.split(self.lengths, 1), strict=True):
            part = part.reshape(y.shape[0], *A.out_shape)
            parts.append(part.real if self.out_complex and not A.out_complex else part)
        return parts

    def _normal(self, x: Tensor) -> Tensor:
        return torch.stack([A._normal(x) for A in self.operators]).sum(0)

    @property
    def num_measured(self) -> int | Tensor:
        return sum(A.num_measured for A in self.operators)


def vstack(operators: Sequence[LinearOperator]) -> VStack:
    """All of the operators' measurements of one x."""
    return VStack(operators)


class FromFunction(LinearOperator):
    """The operator of a linear function, its adjoint the vector-Jacobian product at zero."""

    def __init__(
        self,
        f: Callable[[Tensor], Tensor],
        in_shape: Sequence[int],
        *,
        in_complex: bool = False,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ):
        zero = torch.zeros((1, *in_shape), dtype=dtype, device=device)
        zero = torch.complex(zero, zero) if in_complex else zero
        y = f(zero)
        if y.ndim < 2 or y.shape[0] != 1:
            raise ValueError(f"f must keep the batch axis first; got {tuple(y.shape)} for batch 1")
        if not bool((y == 0).all()):
            raise ValueError("f must be linear; f(0) is not 0")
        super().__init__(in_shape, y.shape[1:])
        self.f, self.in_complex, self.out_complex = f, in_complex, y.is_complex()

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x)

    def adjoint(self, y: Tensor) -> Tensor:
        dtype = y.dtype if self.in_complex else y.real.dtype
        with torch.enable_grad():
            x = torch.zeros(y.shape[0], *self.in_shape, dtype=dtype, device=y.device)
            Ax = self.f(x.requires_grad_())
            # create_graph keeps the result differentiable in y.
            (grad,) = torch.autograd.grad(Ax, x, y, create_graph=y.requires_grad)
        return grad


def as_event(value: Tensor, shape: Shape, name: str) -> tuple[Tensor, int | None]:
    """A parameter broadcastable to (*shape), or (B, *shape): with its number of items or None."""
    if value.ndim == len(shape) + 1:
        tail, batch = value.shape[1:], value.shape[0]
    else:
        tail, batch = value.shape, None
    try:
        fits = torch.broadcast_shapes(tail, shape) == torch.Size(shape)
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name} must broadcast to {shape}, or be (B, *that); got {tuple(value.shape)}"
        )
    return value, batch


def count(kept: Tensor, shape: Shape, batch: int | None) -> int | Tensor:
    """How many entries of (*shape) are kept, per item (B,) if kept has items."""
    if batch is None:
        return int(kept.expand(shape).sum())
    return kept.expand(batch, *shape).flatten(1).sum(1)
