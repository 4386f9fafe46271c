"""The contract of a linear operator: A(x), A.T(y), and what follows from the two.

Images x are (B, *in_shape), measurements y (B, *out_shape), real or complex; the inner product is
real, <u, v> = Re sum(conj(u) v). An operator never changes by being called, and holds either one
set of parameters for every item (`batch` None) or one set an item (`batch` B). What is known of it
by formula it tells as `forms` (operators.forms.Forms).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from .events import (
    COMPLEX,
    Shape,
    as_channels,
    as_complex,
    check_event,
    checked_rho,
    checked_weights,
    moved,
    normal_draw,
)
from .forms import Forms, Resolvent
from .linalg import SolveInfo, conjugate_gradient, implicit_solve, per_item, power_norm

if TYPE_CHECKING:
    from .algebra import Composition, Scaled

__all__ = ["Forms", "LinearOperator", "Resolvent", "Shape", "as_channels", "as_complex"]


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
        from .algebra import Adjoint

        return Adjoint(self)

    @property
    def forms(self) -> Forms:
        """What is known of A by formula: nothing, unless an operator says more."""
        return Forms(type(self).__name__)

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
        formula = self.forms.pinv
        if formula is not None:
            x = formula(y)
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
        rho = checked_rho(rho, b)
        weights = None if weights is None else self._weights(weights, b.shape[0])
        formula = self.forms.solve
        x = None if formula is None else formula(b, rho, weights)
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
            start = None if info else x0
            solution, report = conjugate_gradient(
                matrix, v, x0=start, tol=tol, max_iter=max_iter, precondition=near
            )
            info.append(report)
            return solution

        x = implicit_solve(solve, b)
        return (x, info[0]) if return_info else x

    def resolvent(self, weights: Tensor | None = None) -> Resolvent | None:
        """rho -> (b -> (A^T W A + rho I)^-1 b), rho > 0 a number or (B,), to precondition with.

        What `forms` has that is near it, else the formula of `solve_normal`; None: neither.
        """
        forms = self.forms
        if forms.near is not None:
            return forms.near(weights)
        formula = forms.solve
        if formula is None:
            return None
        own = 1 if weights is None or weights.ndim <= len(self.out_shape) else len(weights)
        like = self._event(self.batch or own)
        if weights is not None:
            weights = self._weights(weights, len(like)).to(like.real)
        if formula(like, 1.0, weights) is None:
            return None
        return lambda rho: lambda b: cast(Tensor, formula(b, rho, weights))

    def norm(self, *, tol: float = 1e-4, max_iter: int = 200) -> Tensor:
        """The largest singular value: a scalar, or (B,) if parameters are per item.

        Exact where the singular values are known; else power iteration, which stops when it
        changes by less than tol relative and approaches from below.
        """
        svd = self.forms.svd
        if svd is not None:
            if self.batch is None:
                return svd.s.amax()
            return svd.s.flatten(1).amax(1).expand(self.batch)
        start = normal_draw((self.batch or 1, *self.in_shape), self.in_complex, seed=0)
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
        copied = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(copied, name, moved(value, *args, **kwargs))
            elif name in self._parts:
                new = (
                    [p.to(*args, **kwargs) for p in value]
                    if isinstance(value, list)
                    else value.to(*args, **kwargs)
                )
                setattr(copied, name, new)
        return copied

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
        return COMPLEX[real] if complex_ else real

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
        check_event(x, self.in_shape, self.in_complex, self.batch, name, type(self).__name__)

    def _check_out(self, y: Tensor, name: str = "y") -> None:
        check_event(y, self.out_shape, self.out_complex, self.batch, name, type(self).__name__)

    def _weights(self, weights: Tensor, batch: int) -> Tensor:
        return checked_weights(weights, (batch, *self.out_shape))

    def __repr__(self) -> str:
        items = "" if self.batch is None else f", {self.batch} items"
        return f"{type(self).__name__}({self.in_shape} -> {self.out_shape}{items})"
