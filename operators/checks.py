"""Checks of an operator against its own contract, for those who write one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .events import moved, normal_draw
from .form_checks import forms_gaps
from .linalg import inner
from .linear import LinearOperator

SMALL = 4096  # entries a side of the matrices that the forms are compared with


def check_operator(A: LinearOperator, *, batch: int = 2, seed: int = 0) -> dict[str, float]:
    """How far A is from its contract, by name, as relative gaps; ValueError names what fails.

    "adjoint" and "items": `check_adjoint`; "linear": A(2 x - v) = 2 A(x) - A(v); "dtype": float32
    in, float32 out, equal to float64's to its rounding; "index": A[[1, 0]] of the items turned
    round. Then each of `A.forms` against dense matrices of the first and the last item, where A
    is no larger than 4096 x 4096 real numbers: write it at a small size to have it checked.
    """
    gaps = {"adjoint": check_adjoint(A, batch=batch, seed=seed)}
    x = normal_draw((A.batch or batch, *A.in_shape), A.in_complex, seed).to(A.device)
    v = normal_draw(tuple(x.shape), A.in_complex, seed + 2).to(A.device)
    gaps["linear"] = _checked("linear", A(2 * x - v), 2 * A(x) - A(v), 1e-10)
    single = A(moved(x, torch.float32))
    if single.real.dtype != torch.float32:
        raise ValueError(f"dtype: A of a float32 x is {single.dtype}; let it follow its input")
    gaps["dtype"] = _checked("dtype", single.to(A(x)), A(x), 1e-4)
    turned = list(range(len(x)))[::-1]
    gaps["index"] = _checked("index", A[turned](x[turned]), A(x)[turned], 1e-10)
    numbers = (
        math.prod(A.in_shape) * (1 + A.in_complex),
        math.prod(A.out_shape) * (1 + A.out_complex),
    )
    if max(numbers) <= SMALL:
        for item in sorted({0, len(x) - 1}) if A.batch is not None else [0]:
            for name, gap in forms_gaps(A, item, seed).items():
                gaps[name] = max(gaps.get(name, 0.0), gap)
    return gaps


def check_adjoint(
    A: LinearOperator,
    *,
    batch: int = 2,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device | None = None,
    tol: float | None = None,
    seed: int = 0,
) -> float:
    """The gap |<A x, y> - <x, A^T y>| / (|A x| |y|), largest over items, for random x and y.

    For users' own operators: also checks both output shapes, and that items do not meet.
    Raises ValueError above tol (default 1e-12 in float64, 1e-5 in float32).
    """
    batch = A.batch or batch
    device = A.device if device is None else torch.device(device)
    x = normal_draw((batch, *A.in_shape), A.in_complex, seed).to(device)
    y = normal_draw((batch, *A.out_shape), A.out_complex, seed + 1).to(device)
    x, y = (moved(v, dtype) for v in (x, y))
    Ax, ATy = A(x), A.T(y)
    A._check_out(Ax, "A(x)")
    A._check_in(ATy, "A.T(y)")
    scale = (inner(Ax, Ax) * inner(y, y)).sqrt().clamp_min(torch.finfo(dtype).tiny)
    gap = float(((inner(Ax, y) - inner(x, ATy)).abs() / scale).max())
    limit = (1e-12 if dtype == torch.float64 else 1e-5) if tol is None else tol
    if not gap <= limit:
        raise ValueError(f"A.T is not the adjoint of A: relative gap {gap:.2e} above {limit:.0e}")
    alone = A[:1](x[:1])
    spread = float((alone - Ax[:1]).abs().max() / Ax.abs().max().clamp_min(1e-300))
    if not spread <= 1e3 * limit:
        raise ValueError(f"an item's A(x) depends on the batch: relative change {spread:.2e}")
    return gap


def _checked(name: str, found: Tensor, expected: Tensor, limit: float) -> float:
    gap = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-300))
    if not gap <= limit:
        raise ValueError(f"{name}: relative gap {gap:.2e} above {limit:.0e}")
    return gap
