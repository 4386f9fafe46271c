"""Operators of images applied to every slice of a volume, which is one item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from .forms import Solve
from .linear import Forms, LinearOperator


class ItemWise(LinearOperator):
    """y_b = A_b x_b: an operator of its own for every item, such as the slices of a scan.

    operators: of one pair of shapes, each of one item or any (batch 1 or None).
    """

    _parts = ("operators",)

    def __init__(self, operators: Sequence[LinearOperator]):
        first = operators[0]
        for A in operators:
            if (A.in_shape, A.out_shape) != (first.in_shape, first.out_shape):
                raise ValueError(f"ItemWise takes operators of one shape; got {first!r} and {A!r}")
            if A.batch not in (None, 1):
                raise ValueError(f"ItemWise takes operators of one item each; got {A!r}")
        super().__init__(first.in_shape, first.out_shape, len(operators))
        self.operators = list(operators)
        self.in_complex, self.out_complex = first.in_complex, first.out_complex

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([A.forward(v) for A, v in zip(self.operators, x.split(1), strict=True)])

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.cat([A.adjoint(v) for A, v in zip(self.operators, y.split(1), strict=True)])

    @property
    def num_measured(self) -> Tensor:
        return torch.tensor([int(A.num_measured) for A in self.operators])

    def __getitem__(self, index: Any) -> LinearOperator:
        """The operators of those items, which may repeat."""
        chosen = torch.arange(len(self.operators))[index].reshape(-1)
        return ItemWise([self.operators[i] for i in chosen.tolist()])


class EachSlice(LinearOperator):
    """y_d = A x_d for each slice d: x (B, C, D, H, W), y (B, D, *A.out_shape).

    A takes (C, H, W). With parameters an item (A.batch = D) these are the slices' own, the same
    for every volume. Solves use A's closed form where it has one.
    """

    _parts = ("operator",)

    def __init__(self, operator: LinearOperator, slices: int):
        if len(operator.in_shape) != 3:
            raise ValueError(
                f"EachSlice takes an operator of images (C, H, W); got {operator.in_shape}"
            )
        if operator.batch not in (None, slices):
            raise ValueError(f"the operator holds {operator.batch} items for {slices} slices")
        channels, height, width = operator.in_shape
        super().__init__((channels, slices, height, width), (slices, *operator.out_shape))
        self.operator, self.slices = operator, slices
        self.in_complex, self.out_complex = operator.in_complex, operator.out_complex

    def forward(self, x: Tensor) -> Tensor:
        return self._stack(self._each(x).forward(self._planes(x)))

    def adjoint(self, y: Tensor) -> Tensor:
        return self._volume(self._each(y).adjoint(y.flatten(0, 1)))

    def _normal(self, x: Tensor) -> Tensor:
        return self._volume(self._each(x)._normal(self._planes(x)))

    @property
    def forms(self) -> Forms:
        inner = self.operator.forms
        return Forms.of(
            self,
            solve=None if inner.solve is None else self._solve,
            pinv=None if inner.pinv is None else self._pinv,
            fbp=None if inner.fbp is None else self._fbp,
        )

    def _fbp(self, y: Tensor, *args: Any, **options: Any) -> Tensor:
        form = cast(Callable[..., Tensor], self._each(y).forms.fbp)
        return self._volume(form(y.flatten(0, 1), *args, **options))

    def _solve(self, b: Tensor, rho: float | Tensor, weights: Tensor | None) -> Tensor | None:
        if isinstance(rho, Tensor) and rho.ndim == 1:
            rho = rho.expand(len(b)).repeat_interleave(self.slices)
        if weights is not None:
            weights = weights.expand(len(b), *self.out_shape).flatten(0, 1)
        form = cast(Solve, self._each(b).forms.solve)
        x = form(self._planes(b), rho, weights)
        return None if x is None else self._volume(x)

    def _pinv(self, y: Tensor) -> Tensor:
        form = cast(Callable[..., Tensor], self._each(y).forms.pinv)
        return self._volume(form(y.flatten(0, 1)))

    @property
    def num_measured(self) -> int:
        count = self.operator.num_measured
        return int(count.sum()) if isinstance(count, Tensor) else count * self.slices

    def _each(self, batch: Tensor) -> LinearOperator:
        """The operator for the slices of all volumes of the batch."""
        if self.operator.batch is None:
            return self.operator
        return self.operator[list(range(self.slices)) * len(batch)]

    def _planes(self, x: Tensor) -> Tensor:
        return x.movedim(2, 1).flatten(0, 1)

    def _stack(self, y: Tensor) -> Tensor:
        return y.unflatten(0, (-1, self.slices))

    def _volume(self, planes: Tensor) -> Tensor:
        return self._stack(planes).movedim(1, 2)
