"""What all fixed-grid samplers share: the loop, the last denoising step, counting and checks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..errors import NotFinite
from ..prior import Prior, Wrapped
from ..randomness import START, Noise
from ..sde import Time, per_item
from .grid import check_grid

Hook = Callable[[Tensor, float], Tensor]
# x0_hat is None only before the first call of the prior (predictor "none").
Callback = Callable[[int, float, Tensor, Tensor | None], None]
# step(k, x, t, s) -> (state at s, x0_hat of x at t, or None if it called no network).
Step = Callable[[int, Tensor, float, float], tuple[Tensor, Tensor | None]]
# correct(j, x, s, t) -> (state at s, x0_hat of x at s): the j-th move within p_s, after t.
Correct = Callable[[int, Tensor, float, float], tuple[Tensor, Tensor | None]]


def start(
    prior: Prior,
    shape: Sequence[int],
    noise: Noise,
    *,
    dtype: torch.dtype = torch.float32,
    device: Any = None,
) -> Tensor:
    """x_T of shape (B, *event) drawn from the SDE's terminal law."""
    mean, std = prior.sde.terminal(tuple(shape))
    mean = mean.to(device=prior.device if device is None else device, dtype=dtype)
    return mean + std * noise(mean, 0, START)


@torch.no_grad()
def integrate(
    step: Step,
    prior: Prior,
    xT: Tensor,
    times: Sequence[float],
    *,
    hook: Hook | None = None,
    callback: Callback | None = None,
    correct: Correct | None = None,
    corrector_steps: int = 1,
) -> Tensor:
    """Step down the grid, correct if asked, and return x0_hat = E[x_0 | x] at the last time.

    hook(x, t) -> x replaces xT and every new state; callback(k, t, x, x0_hat) sees the state and
    its denoised version at every time of the grid, the last included.
    """
    times = check_grid(prior.sde, times)
    prior.check_event(xT)
    x = xT if hook is None else hook(xT, times[0])
    latest = None
    for k, (t, s) in enumerate(pairwise(times)):
        new, x0_hat = step(k, x, t, s)
        x0_hat = latest if x0_hat is None else x0_hat
        if callback is not None:
            callback(k, t, x, x0_hat)
        x = new if hook is None else hook(new, s)
        for j in range(0 if correct is None else corrector_steps):
            x, latest = correct(k * corrector_steps + j, x, s, t)  # type: ignore[misc]
            x = x if hook is None else hook(x, s)
        check_finite(x, k, s)
    return finish(prior, x, times[-1], len(times) - 1, callback)


def finish(prior: Prior, x: Tensor, t: float, k: int, callback: Callback | None = None) -> Tensor:
    """The last step of every sampler: E[x_0 | x_t], one call of the prior."""
    x0_hat = prior.denoise(x, t)
    check_finite(x0_hat, k, t)
    if callback is not None:
        callback(k, t, x, x0_hat)
    return x0_hat


def check_finite(x: Tensor, k: int, t: float) -> None:
    """Raise NotFinite naming the step, the time and the items whose state is not finite."""
    # The sum is not finite if a term is not: one pass and no mask. Huge terms may overflow it.
    if bool(x.sum().isfinite()) or bool(torch.isfinite(x).all()):
        return
    bad = torch.nonzero(~torch.isfinite(x.flatten(1)).all(1)).flatten().tolist()
    raise NotFinite(
        f"the state is not finite after step {k}, at t = {t:.6g}, in items {bad[:8]} of the batch: "
        "the prior's score is not finite there or the step is too long"
    )


def check_options(function: Callable[..., Any], name: str, options: dict[str, Any]) -> None:
    """Raise ValueError for options that a method does not have, listing those it has."""
    known = list(defaults_of(function))
    unknown = sorted(set(options) - set(known))
    if unknown:
        offer = ", ".join(known) if known else "none"
        raise ValueError(f"{name!r} has no option {', '.join(unknown)}; its options: {offer}")


def defaults_of(function: Callable[..., Any]) -> dict[str, Any]:
    """A sampler's own options and their defaults: its keywords, hook and callback apart."""
    return {
        p.name: p.default
        for p in inspect.signature(function).parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.name not in ("hook", "callback")
    }


def choose(table: dict[str, Any], name: str, what: str) -> Any:
    """table[name], or a ValueError that lists the names."""
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}; known: {', '.join(table)}")
    return table[name]


class Counter:
    """nfe: calls of the prior; vjps: vector-Jacobian products taken through it."""

    def __init__(self) -> None:
        self.nfe, self.vjps = 0, 0


class _Counted(Wrapped):
    """A view of a prior whose calls are counted; everything else is the prior's own."""

    def __init__(self, inner: Prior, counter: Counter):
        super().__init__(inner)
        self.counter = counter

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        return self._count(self.inner.denoise(x, t))

    def score(self, x: Tensor, t: Time) -> Tensor:
        return self._count(self.inner.score(x, t))

    def _count(self, out: Tensor) -> Tensor:
        self.counter.nfe += 1
        if out.requires_grad:
            out.register_hook(self._count_vjp)
        return out

    def _count_vjp(self, grad: Tensor) -> None:
        self.counter.vjps += 1

    def __getattr__(self, name: str) -> Any:
        # Only reached for names that a Prior does not have, such as a closed form's log_prob.
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)


def counted(prior: Prior) -> tuple[Prior, Counter]:
    """(prior, counter): the same prior, each call for a whole batch counted as one.

    A backward pass through a call counts as one vjp.
    """
    counter = Counter()
    return _Counted(prior, counter), counter


def combined(*terms: tuple[float, Tensor]) -> Tensor:
    """sum_i c_i x_i, one pass over the memory a term: every step is one, of x, x0_hat and noise."""
    (c, x), *rest = terms
    total = x * c
    for c, x in rest:
        total.add_(x, alpha=c)
    return total


def score_of(x0_hat: Tensor, x: Tensor, alpha: Time, sigma: Time) -> Tensor:
    """grad log p_t(x) = (alpha x0_hat - x) / sigma^2 (Tweedie)."""
    return (per_item(alpha, x) * x0_hat - x) / per_item(sigma, x) ** 2
