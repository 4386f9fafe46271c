"""A prior: an SDE and a network that gives the score of its marginals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .sde import SDE, Time, per_item

Network = Callable[[Tensor, Tensor], Tensor]


def _as_score(raw: Tensor, x: Tensor, alpha: Any, sigma: Any) -> Tensor:
    return (x + sigma**2 * raw) / alpha


def _as_eps(raw: Tensor, x: Tensor, alpha: Any, sigma: Any) -> Tensor:
    return (x - sigma * raw) / alpha


def _as_x0(raw: Tensor, x: Tensor, alpha: Any, sigma: Any) -> Tensor:
    return raw


def _as_v(raw: Tensor, x: Tensor, alpha: Any, sigma: Any) -> Tensor:
    # v = alpha eps - sigma x0 (Salimans & Ho 2022), solved with x = alpha x0 + sigma eps.
    return (alpha * x - sigma * raw) / (alpha**2 + sigma**2)


_OUTPUTS = {"score": _as_score, "eps": _as_eps, "x0": _as_x0, "v": _as_v}


class Prior:
    """p(x) known through score(x_t, t) = grad log p_t(x_t), x_t = alpha(t) x_0 + sigma(t) eps.

    network(x, t): x (B, *event) in the prior's own units u, t (B,) in [t_min, T]; what it returns
    is named by `output`: "score", "eps" (the unit noise), "x0" (the denoiser) or "v".
    range: (scale, offset), data = scale * u + offset. Score and denoiser speak u; `sample`,
    `solve`, `log_likelihood` and `encode` speak data units.
    t_min: the smallest time that the network was trained at; default: noise-to-signal 0.002, or
    t = 1e-5 where that is larger (Song et al. 2021).
    """

    def __init__(
        self,
        network: Network,
        sde: SDE,
        *,
        output: str = "score",
        event_shape: tuple[int | None, ...] | None = None,
        range: tuple[float, float] = (1.0, 0.0),
        t_min: float | None = None,
        card: dict[str, Any] | None = None,
    ):
        if output not in _OUTPUTS:
            raise ValueError(f"output must be one of {', '.join(_OUTPUTS)}; got {output!r}")
        scale, offset = (float(value) for value in range)
        if not (math.isfinite(scale) and scale > 0 and math.isfinite(offset)):
            raise ValueError(f"range must be (scale > 0, offset), both finite; got {range}")
        self.network, self.sde, self.output = network, sde, output
        self.event_shape = None if event_shape is None else tuple(event_shape)
        self.range = (scale, offset)
        self.t_min = max(1e-5, sde.time(0.002)) if t_min is None else float(t_min)
        if not 0 < self.t_min < sde.T:
            raise ValueError(f"t_min must lie in (0, {sde.T}); got {self.t_min}")
        self.card = {} if card is None else dict(card)

    @property
    def channels(self) -> int | None:
        """Channels of an image prior, or the length of a vector's event; None if unknown."""
        return None if self.event_shape is None else self.event_shape[0]

    @property
    def fixed_shape(self) -> tuple[int, ...] | None:
        """event_shape where it leaves no size open, else None."""
        sizes = tuple(n for n in self.event_shape or () if n is not None)
        return sizes if sizes and len(sizes) == len(self.event_shape or ()) else None

    @property
    def smallest_scale(self) -> float:
        """The noise-to-signal at which unconditional sampling ends: that of t_min."""
        return self.sde.ratio(self.t_min)

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        """E[x_0 | x_t]: x (B, *event), t a float or (B,)."""
        self.check_event(x)
        self.sde.check_time(t)
        raw = self.network(x, batch_time(t, x))
        alpha, sigma = per_item(self.sde.alpha(t), x), per_item(self.sde.sigma(t), x)
        return _OUTPUTS[self.output](raw, x, alpha, sigma)

    def score(self, x: Tensor, t: Time) -> Tensor:
        """grad log p_t(x_t) = (alpha E[x_0 | x_t] - x_t) / sigma^2 (Tweedie)."""
        if self.output == "score":
            self.check_event(x)
            self.sde.check_time(t)
            return self.network(x, batch_time(t, x))
        alpha, sigma = per_item(self.sde.alpha(t), x), per_item(self.sde.sigma(t), x)
        return (alpha * self.denoise(x, t) - x) / sigma**2

    def check_event(self, x: Tensor) -> None:
        """Raise ValueError if x (B, *event) is not a batch of this prior's events.

        An entry None of event_shape takes any size.
        """
        if self.event_shape is None:
            return
        fits = x.ndim == len(self.event_shape) + 1 and all(
            want is None or want == got
            for want, got in zip(self.event_shape, x.shape[1:], strict=True)
        )
        if not fits:
            raise ValueError(f"the prior's x is (B, *{self.event_shape}); got {tuple(x.shape)}")

    def to(self, *args: Any, **kwargs: Any) -> Prior:
        """Move the network's tensors, as torch.nn.Module.to does; returns self."""
        if isinstance(self.network, torch.nn.Module):
            self.network.to(*args, **kwargs)
        return self

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are; the CPU for a network without any."""
        if isinstance(self.network, torch.nn.Module):
            for tensor in self.network.parameters():
                return tensor.device
        return torch.device("cpu")

    def to_data(self, u: Tensor) -> Tensor:
        """data = scale * u + offset."""
        return self.range[0] * u + self.range[1]

    def from_data(self, x: Tensor) -> Tensor:
        """u = (data - offset) / scale."""
        return (x - self.range[1]) / self.range[0]

    def under(self, sde: SDE) -> Prior:
        """The same prior under another SDE.

        x_t / alpha(t) is x_0 plus Gaussian noise of std sigma / alpha, whatever the SDE, so one
        denoiser serves all: E[x_0 | x_t] = D(x_t alpha' / alpha, t'), sigma' / alpha' at t' being
        sigma / alpha at t.
        """
        return _Under(self, sde)


class Wrapped(Prior):
    """A prior that speaks through another: all facts are the inner one's until a subclass says."""

    def __init__(self, inner: Prior):
        self.inner = inner
        for name in ("network", "sde", "output", "event_shape", "range", "t_min", "card"):
            setattr(self, name, getattr(inner, name))

    @property
    def smallest_scale(self) -> float:
        return self.inner.smallest_scale

    @property
    def device(self) -> torch.device:
        return self.inner.device


class _Under(Wrapped):
    def __init__(self, prior: Prior, sde: SDE):
        super().__init__(prior)
        self.sde, self.t_min = sde, max(1e-9, sde.time(prior.sde.ratio(prior.t_min)))

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        self.sde.check_time(t)
        inner_t = self.inner.sde.time(self.sde.ratio(t))
        rescale = self.inner.sde.alpha(inner_t) / self.sde.alpha(t)
        return self.inner.denoise(per_item(rescale, x) * x, inner_t)

    def score(self, x: Tensor, t: Time) -> Tensor:
        alpha, sigma = per_item(self.sde.alpha(t), x), per_item(self.sde.sigma(t), x)
        return (alpha * self.denoise(x, t) - x) / sigma**2


class SliceWise(Wrapped):
    """A 2-D prior of every slice of a volume: x (B, C, D, H, W), one item.

    axis 0, 1 or 2 is the one of D, H, W across which slices are taken: p(x) is proportional to the
    product of p(slice) over it, so slices are independent. A call passes all slices of the batch
    to the prior at once; max_slices bounds how many.
    """

    def __init__(self, prior: Prior, axis: int = 0, *, max_slices: int | None = None):
        if axis not in (0, 1, 2):
            raise ValueError(f"axis must be 0, 1 or 2 (of D, H, W); got {axis!r}")
        if max_slices is not None and max_slices < 1:
            raise ValueError(f"max_slices must be >= 1; got {max_slices}")
        event = (None, None, None) if prior.event_shape is None else prior.event_shape
        if len(event) != 3:
            raise ValueError(f"SliceWise lifts priors of events (C, H, W); got {event}")
        plane = list(event[1:])
        plane.insert(axis, None)
        super().__init__(prior)
        self.event_shape = (event[0], *plane)
        self.axis, self.max_slices = axis, max_slices

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        return self._by_slice(self.inner.denoise, x, t)

    def score(self, x: Tensor, t: Time) -> Tensor:
        return self._by_slice(self.inner.score, x, t)

    def _by_slice(self, function: Network, x: Tensor, t: Time) -> Tensor:
        self.check_event(x)
        moved = x.movedim(2 + self.axis, 1)
        slices = moved.flatten(0, 1)
        t = t.repeat_interleave(moved.shape[1]) if isinstance(t, Tensor) and t.ndim == 1 else t
        size = self.max_slices or len(slices)
        times = t.split(size) if isinstance(t, Tensor) and t.ndim == 1 else None
        done = [
            function(part, t if times is None else times[i])
            for i, part in enumerate(slices.split(size))
        ]
        return torch.cat(done).reshape(moved.shape).movedim(1, 2 + self.axis)


def batch_time(t: Time, x: Tensor) -> Tensor:
    """t as (B,) on x's device, in x's dtype (float32 at the least)."""
    dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
    t = torch.as_tensor(t, dtype=dtype, device=x.device)
    return t.expand(x.shape[0]) if t.ndim == 0 else t
