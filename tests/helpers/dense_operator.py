"""The dense real matrix of an operator, column by column."""

import math

import torch


def real(v):
    """Complex numbers as pairs, flattened per item."""
    v = torch.view_as_real(v) if v.is_complex() else v
    return v.reshape(v.shape[0], -1)


def dense(A, item=0):
    """(m, n) float64 of one item's operator."""
    A = A if A.batch is None else A[[item]]
    n = math.prod(A.in_shape)
    columns = torch.eye(n, dtype=torch.float64).reshape(n, *A.in_shape)
    parts = [A(column[None]) for column in columns]
    return real(torch.cat(parts)).T
