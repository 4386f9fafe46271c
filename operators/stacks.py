"""Several operators of one x, their measurements joined."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .algebra import common_batch
from .events import Shape
from .linear import LinearOperator


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
        super().__init__(first.in_shape, shape, common_batch(operators))
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
