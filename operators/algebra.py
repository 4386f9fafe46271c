"""Operators made of operators: A @ B, a * A, stacks, and the operator of a linear function."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .linalg import per_item
from .linear import Forms, LinearOperator, Shape


def common_batch(operators: Sequence[LinearOperator]) -> int | None:
    batches = {A.batch for A in operators} - {None}
    if len(batches) > 1:
        raise ValueError(f"operators hold parameters of different numbers of items: {operators}")
    return batches.pop() if batches else None


class Adjoint(LinearOperator):
    """A.T; its own T is A again."""

    _parts = ("inner_operator",)

    def __init__(self, operator: LinearOperator):
        super().__init__(operator.out_shape, operator.in_shape, operator.batch)
        self.inner_operator = operator
        self.in_complex, self.out_complex = operator.out_complex, operator.in_complex

    def forward(self, x: Tensor) -> Tensor:
        return self.inner_operator.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner_operator.forward(y)

    @property
    def T(self) -> LinearOperator:
        return self.inner_operator


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
        super().__init__(B.in_shape, A.out_shape, common_batch([A, B]))
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
        y = self.operator.forward(x)
        return per_item(self.factor, y) * y

    def adjoint(self, y: Tensor) -> Tensor:
        x = self.operator.adjoint(y)
        return per_item(self.factor, x) * x

    def _normal(self, x: Tensor) -> Tensor:
        return per_item(self._squared, x) * self.operator._normal(x)

    @property
    def _squared(self) -> float | Tensor:
        return self.factor**2

    def norm(self, **options: Any) -> Tensor:
        value = self.operator.norm(**options)
        factor = self.factor
        return value * (factor.abs().to(value) if isinstance(factor, Tensor) else abs(factor))

    @property
    def num_measured(self) -> int | Tensor:
        return self.operator.num_measured

    @property
    def forms(self) -> Forms:
        return self.operator.forms.scaled(self.factor)

    @property
    def sens_maps(self) -> Tensor | None:
        return getattr(self.operator, "sens_maps", None)


class Diagonal(LinearOperator):
    """y = d * x elementwise, d real: (*shape) or broadcastable to it, or (B, *shape) per item.

    For whitening, (1 / noise_std) * A(x) with a noise_std per measurement; `complex` says that x
    and y are complex.
    """

    def __init__(
        self, diagonal: Tensor, shape: Sequence[int] | None = None, *, complex: bool = False
    ):
        shape = tuple(diagonal.shape) if shape is None else tuple(shape)
        if diagonal.is_complex() or not bool(diagonal.isfinite().all()):
            raise ValueError(f"a diagonal must be real and finite; got {diagonal.dtype}")
        self.diagonal, batch = as_event(diagonal, shape, "diagonal")
        super().__init__(shape, shape, batch)
        self._per_item = () if batch is None else ("diagonal",)
        self.in_complex = self.out_complex = complex

    def forward(self, x: Tensor) -> Tensor:
        return self.diagonal.to(device=x.device, dtype=x.real.dtype) * x

    def adjoint(self, y: Tensor) -> Tensor:
        return self.forward(y)

    @property
    def forms(self) -> Forms:
        gram = self.diagonal**2
        gram = gram.expand(self.out_shape)[None] if self.batch is None else gram
        return Forms.of(self, row_gram=gram, pinv=self._inverse)

    def _inverse(self, y: Tensor) -> Tensor:
        d = self.diagonal.to(device=y.device, dtype=y.real.dtype)
        return y * torch.where(d != 0, 1 / torch.where(d != 0, d, 1.0), 0.0)

    @property
    def num_measured(self) -> int | Tensor:
        return count(self.diagonal != 0, self.out_shape, self.batch) * (1 + self.out_complex)


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
