"""The contract of a linear operator: A(x), A.T(y), and what follows from the two.

Images x are (B, *in_shape), measurements y (B, *out_shape), real or complex; the inner product is
real, <u, v> = Re sum(conj(u) v). An operator never changes by being called, and holds either one
set of parameters for every item (`batch` None) or one set an item (`batch` B).

Optional attributes, present only where a closed form exists (so `hasattr` tells):
`svd` (operators.spectral.SVD), `transform` (operators.spectral.Transform: A = P(Lambda) T),
`row_gram` (the diagonal of A A^T where it is diagonal, with y's number of axes), `basis()`,
`fbp(y)`, `sens_maps`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from .linalg import (
    SolveInfo,
    conjugate_gradient,
    implicit_solve,
    inner,
    per_item,
    power_norm,
)

if TYPE_CHECKING:
    from .algebra import Composition, Scaled

Shape = tuple[int, ...]
Resolvent = Callable[[float | Tensor], Callable[[Tensor], Tensor]]


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


class LinearOperator:
    """y = A x. Subclasses write `forward` and `adjoint`, both batch first and without checks."""

    # Names of tensors with one entry an item, of all tensors, and of operators inside.
    _per_item: tuple[str, ...] = ()
    _parts: ClassVar[tuple[str, ...]] = ()
    in_complex = False
    out_complex = False

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int], batch: int | None = None):
        self.in_shape: Shape = tuple(int(n) for n in in_shape)
        self.out_shape: Shape = tuple(int(n) for n in out_shape)
        self.batch = batch
        if any(n < 1 for n in (*self.in_shape, *self.out_shape)):
            raise ValueError(f"sizes must be positive; got {self.in_shape} -> {self.out_shape}")

    def forward(self, x: Tensor) -> Tensor:
        """A x: (B, *in_shape) -> (B, *out_shape)."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y: (B, *out_shape) -> (B, *in_shape)."""
        raise NotImplementedError(f"{type(self).__name__} has no adjoint")

    def __call__(self, x: Tensor) -> Tensor:
        """A x; raises ValueError unless x is (B, *in_shape)."""
        self._check_in(x)
        return self.forward(x)

    @property
    def T(self) -> LinearOperator:
        """The adjoint as an operator; A.T.T is A."""
        return _Adjoint(self)

    def normal(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """A^T W A x, W = diag(weights), weights broadcastable to y; default the identity."""
        self._check_in(x)
        if weights is None:
            return self._normal(x)
        return self.adjoint(self._weights(weights, x.shape[0]) * self.forward(x))

    def _normal(self, x: Tensor) -> Tensor:
        return self.adjoint(self.forward(x))

    def pinv(
        self,
        y: Tensor,
        *,
        tol: float | None = None,
        max_iter: int = 1000,
        return_info: bool = False,
    ) -> Any:
        """A^+ y, the least-squares solution of least norm: closed form, else CG from zero."""
        self._check_out(y)
        x = self._closed_pinv(y)
        if x is not None:
            return (x, SolveInfo.closed_form(y)) if return_info else x
        return self.solve_normal(
            self.adjoint(y), 0.0, tol=tol, max_iter=max_iter, return_info=return_info
        )

    def solve_normal(
        self,
        b: Tensor,
        rho: float | Tensor,
        weights: Tensor | None = None,
        *,
        tol: float | None = None,
        max_iter: int = 100,
        x0: Tensor | None = None,
        resolvent: Resolvent | None = None,
        return_info: bool = False,
    ) -> Any:
        """(A^T W A + rho I)^-1 b: closed form where there is one, else CG item by item.

        b: (B, *in_shape); rho >= 0: scalar or (B,); weights >= 0: broadcastable to y. rho = 0
        gives the solution of least norm for b in the range. tol: relative residual (default 1e-6,
        float64 1e-12). resolvent: what `self.resolvent(weights)` gave, kept for many solves; CG is
        preconditioned with it where rho > 0, and residuals then have its norm. return_info adds a
        linalg.SolveInfo: iterations and residual of each item. Differentiable in b.
        """
        self._check_in(b, "b")
        rho = _checked_rho(rho, b)
        weights = None if weights is None else self._weights(weights, b.shape[0])
        x = self._closed_solve(b, rho, weights)
        if x is not None:
            return (x, SolveInfo.closed_form(b)) if return_info else x
        info: list[SolveInfo] = []
        shift = per_item(rho, b)

        def matrix(v: Tensor) -> Tensor:
            if weights is None:
                return self._normal(v) + shift * v
            return self.adjoint(weights * self.forward(v)) + shift * v

        near = None
        if resolvent is not None and bool((torch.as_tensor(rho) > 0).all()):
            near = resolvent(rho)

        def solve(v: Tensor) -> Tensor:
            options = {"x0": x0 if not info else None, "precondition": near}
            solution, report = conjugate_gradient(matrix, v, tol=tol, max_iter=max_iter, **options)
            info.append(report)
            return solution

        x = implicit_solve(solve, b)
        return (x, info[0]) if return_info else x

    def _closed_solve(
        self, b: Tensor, rho: float | Tensor, weights: Tensor | None
    ) -> Tensor | None:
        """(A^T W A + rho I)^-1 b by formula; None where there is none for these weights."""
        from . import spectral

        return spectral.solve_normal(self, b, rho, weights)

    def resolvent(self, weights: Tensor | None = None) -> Resolvent | None:
        """rho -> (b -> (A^T W A + rho I)^-1 b), rho > 0 a number or (B,), to precondition with.

        The formula of `solve_normal` where it has one; else what an operator has that is near it,
        symmetric and positive definite (CartesianMRI by whole columns); None: neither.
        """
        own = 1 if weights is None or weights.ndim <= len(self.out_shape) else len(weights)
        like = self._event(self.batch or own)
        if weights is not None:
            weights = self._weights(weights, len(like)).to(like.real)
        if self._closed_solve(like, 1.0, weights) is None:
            return None
        return lambda rho: lambda b: cast(Tensor, self._closed_solve(b, rho, weights))

    def _closed_pinv(self, y: Tensor) -> Tensor | None:
        """A^+ y by formula, or None."""
        from . import spectral

        return spectral.pinv(self, y)

    def norm(self, *, tol: float = 1e-4, max_iter: int = 200) -> Tensor:
        """The largest singular value: a scalar, or (B,) if parameters are per item.

        Exact where the singular values are known; else power iteration, which stops when it
        changes by less than tol relative and approaches from below.
        """
        svd = getattr(self, "svd", None)
        if svd is not None:
            if self.batch is None:
                return svd.s.amax()
            return svd.s.flatten(1).amax(1).expand(self.batch)
        start = _normal_draw((self.batch or 1, *self.in_shape), self.in_complex, seed=0)
        start = start.to(self._event(1))
        value = power_norm(self._normal, start, tol=tol, max_iter=max_iter)
        return value[0] if self.batch is None else value

    def _event(self, batch: int) -> Tensor:
        """Zeros (batch, *in_shape) of the operator's own dtype and device."""
        dtype = self._dtype(self.in_complex)
        return torch.zeros(batch, *self.in_shape, dtype=dtype, device=self.device)

    @property
    def num_measured(self) -> int | Tensor:
        """Measured real numbers per item (a complex entry is two); (B,) if items differ."""
        return math.prod(self.out_shape) * (2 if self.out_complex else 1)

    def __getitem__(self, index: Any) -> LinearOperator:
        """The operator of those items: index an int, slice, list or tensor of integers."""
        if self.batch is None:
            return self
        chosen = torch.arange(self.batch)[index].reshape(-1)
        item = copy.copy(self)
        item.batch = len(chosen)
        for name in self._per_item:
            value = getattr(self, name)
            if value is not None:
                setattr(item, name, value[chosen.to(value.device)])
        for name in self._parts:
            part = getattr(self, name)
            new = [p[chosen] for p in part] if isinstance(part, list) else part[chosen]
            setattr(item, name, new)
        return item

    def to(self, *args: Any, **kwargs: Any) -> LinearOperator:
        """A copy whose tensors are on a device or of a dtype, as torch.Tensor.to takes them.

        A real dtype turns complex tensors into its complex partner. Only for speed: a call on
        an input of another device or dtype converts the parameters itself.
        """
        moved = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(moved, name, _moved(value, *args, **kwargs))
            elif name in self._parts:
                new = (
                    [p.to(*args, **kwargs) for p in value]
                    if isinstance(value, list)
                    else value.to(*args, **kwargs)
                )
                setattr(moved, name, new)
        return moved

    @property
    def device(self) -> torch.device:
        """Where the operator's tensors are; the CPU if it has none."""
        for value in vars(self).values():
            if isinstance(value, Tensor):
                return value.device
        for name in self._parts:
            part = getattr(self, name)
            return part[0].device if isinstance(part, list) else part.device
        return torch.device("cpu")

    def _dtype(self, complex_: bool) -> torch.dtype:
        """The working precision: that of the operator's floating tensors, else float32."""
        real = torch.float32
        for value in vars(self).values():
            if isinstance(value, Tensor) and value.real.dtype == torch.float64:
                real = torch.float64
        return (
            {torch.float32: torch.complex64, torch.float64: torch.complex128}[real]
            if complex_
            else real
        )

    def __matmul__(self, other: LinearOperator) -> Composition:
        from .algebra import Composition

        return Composition(self, other) if isinstance(other, LinearOperator) else NotImplemented

    def __mul__(self, factor: float | Tensor) -> Scaled:
        from .algebra import Scaled

        if not isinstance(factor, int | float | Tensor):
            return NotImplemented
        return Scaled(self, factor)

    __rmul__ = __mul__

    def __neg__(self) -> Scaled:
        return self * -1.0

    def __truediv__(self, factor: float | Tensor) -> Scaled:
        return self * (1.0 / factor)

    @staticmethod
    def from_function(
        f: Callable[[Tensor], Tensor], in_shape: Sequence[int], **options: Any
    ) -> LinearOperator:
        """The operator of a linear f: (B, *in_shape) -> (B, *out_shape), its adjoint by autograd.

        f must be linear, treat items apart and be differentiable by torch; it is called once on
        zeros to learn out_shape, and checked for f(0) = 0. options: in_complex, dtype, device.
        """
        from .algebra import FromFunction

        return FromFunction(f, in_shape, **options)

    def _check_in(self, x: Tensor, name: str = "x") -> None:
        _check_event(self, x, self.in_shape, self.in_complex, name)

    def _check_out(self, y: Tensor, name: str = "y") -> None:
        _check_event(self, y, self.out_shape, self.out_complex, name)

    def _weights(self, weights: Tensor, batch: int) -> Tensor:
        weights = torch.as_tensor(weights)
        try:
            fits = torch.broadcast_shapes(weights.shape, (batch, *self.out_shape))
        except RuntimeError:
            fits = ()
        if fits != (batch, *self.out_shape):
            raise ValueError(
                f"weights must broadcast to y {(batch, *self.out_shape)}; got "
                f"{tuple(weights.shape)}"
            )
        if weights.is_complex() or not bool(((weights >= 0) & weights.isfinite()).all()):
            raise ValueError("weights must be real, finite and >= 0")
        return weights

    def __repr__(self) -> str:
        items = "" if self.batch is None else f", {self.batch} items"
        return f"{type(self).__name__}({self.in_shape} -> {self.out_shape}{items})"


class _Adjoint(LinearOperator):
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
    x = _normal_draw((batch, *A.in_shape), A.in_complex, seed).to(device)
    y = _normal_draw((batch, *A.out_shape), A.out_complex, seed + 1).to(device)
    x, y = (_moved(v, dtype) for v in (x, y))
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


def _check_event(A: LinearOperator, v: Tensor, shape: Shape, complex_: bool, name: str) -> None:
    if v.is_complex() and not complex_:
        raise ValueError(
            f"{name} of {type(A).__name__} must be real (B, {', '.join(map(str, shape))}); got "
            f"complex {tuple(v.shape)}: as_channels gives two real channels, as_complex undoes it"
        )
    if tuple(v.shape[1:]) != shape or v.ndim != len(shape) + 1:
        raise ValueError(
            f"{name} of {type(A).__name__} must be (B, {', '.join(map(str, shape))}); got "
            f"{tuple(v.shape)}"
        )
    if A.batch is not None and v.shape[0] != A.batch:
        raise ValueError(
            f"{type(A).__name__} holds parameters of {A.batch} items; got {name} of batch "
            f"{v.shape[0]}: A[index] is the operator of some of the items"
        )
    if not (v.is_floating_point() or v.is_complex()):
        raise ValueError(f"{name} must be floating point; got {v.dtype}")


def _checked_rho(rho: float | Tensor, b: Tensor) -> float | Tensor:
    value = torch.as_tensor(rho)
    if value.ndim > 1 or (value.ndim == 1 and len(value) not in (1, b.shape[0])):
        raise ValueError(
            f"rho must be a scalar or (B,) with B = {b.shape[0]}; got {tuple(value.shape)}"
        )
    if not bool(((value >= 0) & value.isfinite()).all()):
        raise ValueError(f"rho must be finite and >= 0; got {rho}")
    return value if value.ndim == 1 else float(rho)


def _normal_draw(shape: Shape, complex_: bool, seed: int) -> Tensor:
    """Standard normal draws that no global seed touches."""
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.complex128 if complex_ else torch.float64
    return torch.randn(shape, generator=generator, dtype=dtype)


_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def _moved(value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """value.to(...), where a real dtype keeps complex tensors complex and spares integers."""

    def fitted(argument: Any) -> Any:
        if not isinstance(argument, torch.dtype):
            return argument
        if value.is_complex():
            return _COMPLEX.get(argument, argument)
        return argument if value.is_floating_point() else value.dtype

    return value.to(*map(fitted, args), **{key: fitted(v) for key, v in kwargs.items()})
