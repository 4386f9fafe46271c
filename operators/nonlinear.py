"""Forward models that are not linear: y = A(x), differentiable, with their derivative at x.

x (B, *in_shape), y (B, *out_shape) real. `linearize(x)` is the derivative at x as a LinearOperator
of B items. Methods that need more than that (a pseudo-inverse, singular values) do not take them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .linear import Forms, LinearOperator


class NonlinearOperator:
    """y = A(x). Subclasses write `forward` and `linearize`, or `forward` alone."""

    in_complex = False
    out_complex = False

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int], batch: int | None = None):
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        self.batch = batch

    def forward(self, x: Tensor) -> Tensor:
        """A(x): (B, *in_shape) -> (B, *out_shape)."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, x: Tensor) -> Tensor:
        """A(x); raises ValueError unless x is (B, *in_shape)."""
        if tuple(x.shape[1:]) != self.in_shape or x.ndim != len(self.in_shape) + 1:
            raise ValueError(f"{self!r} takes (B, *{self.in_shape}); got {tuple(x.shape)}")
        return self.forward(x)

    def linearize(self, x: Tensor) -> LinearOperator:
        """dA/dx at each item of x, by automatic differentiation."""
        return _Derivative(self, x.detach())

    @property
    def forms(self) -> Forms:
        """No formulas, but a family."""
        return Forms(type(self).__name__)

    @property
    def num_measured(self) -> int:
        return math.prod(self.out_shape)

    def __getitem__(self, index: Any) -> NonlinearOperator:
        """The operator of those items."""
        return self

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_shape} -> {self.out_shape})"

    @staticmethod
    def from_function(f: Callable[[Tensor], Tensor], in_shape: Sequence[int]) -> NonlinearOperator:
        """The operator of a function that autograd differentiates twice, item by item."""
        return _FromFunction(f, in_shape)


class Rescaled(NonlinearOperator):
    """u -> A(scale u + offset): an operator of x as one of u, where x = scale u + offset."""

    def __init__(self, A: NonlinearOperator, scale: float, offset: float):
        super().__init__(A.in_shape, A.out_shape, A.batch)
        self.A, self.scale, self.offset = A, scale, offset

    def forward(self, x: Tensor) -> Tensor:
        return self.A(self.scale * x + self.offset)

    def linearize(self, x: Tensor) -> LinearOperator:
        return self.scale * self.A.linearize(self.scale * x + self.offset)

    def __getitem__(self, index: Any) -> NonlinearOperator:
        return Rescaled(self.A[index], self.scale, self.offset)


class _Derivative(LinearOperator):
    """dA/dx at x by two backward passes: J^T r, and J v as the derivative of r -> <J^T r, v>."""

    _per_item = ("x",)

    def __init__(self, operator: NonlinearOperator, x: Tensor):
        super().__init__(operator.in_shape, operator.out_shape, len(x))
        self.operator, self.x = operator, x

    def _vjp(self, r: Tensor, *, again: bool) -> Tensor:
        x = self.x.to(r.dtype).requires_grad_()
        return torch.autograd.grad(self.operator(x), x, r, create_graph=again)[0]

    @torch.enable_grad()
    def forward(self, x: Tensor) -> Tensor:
        r = torch.zeros(len(x), *self.out_shape, dtype=x.dtype, device=x.device).requires_grad_()
        return torch.autograd.grad(self._vjp(r, again=True), r, x)[0]

    @torch.enable_grad()
    def adjoint(self, y: Tensor) -> Tensor:
        return self._vjp(y, again=False)


class _FromFunction(NonlinearOperator):
    def __init__(self, f: Callable[[Tensor], Tensor], in_shape: Sequence[int]):
        out = f(torch.ones(1, *in_shape))
        if out.is_complex():
            raise ValueError("a nonlinear operator's y must be real: stack real and imaginary part")
        super().__init__(in_shape, out.shape[1:])
        self.forward = f  # type: ignore[method-assign]


def newton_data(A: NonlinearOperator, x: Tensor, y: Tensor) -> tuple[LinearOperator, Tensor]:
    """(J, y - A(x) + J x), J the derivative at x: y = A(x') to first order in x' - x."""
    J = A.linearize(x)
    return J, y - A(x) + J(x)
