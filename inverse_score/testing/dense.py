"""The dense real matrix of an operator, column by column: A e_j for every unit vector e_j."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators import LinearOperator


def real(v: Tensor) -> Tensor:
    """(B, numbers): complex numbers as pairs, flattened per item."""
    v = torch.view_as_real(v) if v.is_complex() else v
    return v.reshape(v.shape[0], -1)


def dense(A: LinearOperator, item: int = 0) -> Tensor:
    """(m, n) float64 of one item's operator; m counts a complex number as two."""
    A = A if A.batch is None else A[[item]]
    n = math.prod(A.in_shape)
    columns = torch.eye(n, dtype=torch.float64).reshape(n, *A.in_shape)
    parts = [A(column[None]) for column in columns]
    return real(torch.cat(parts)).T
