"""Does the prior fit this scan? Two alarms that need no ground truth.

The likelihood of a reconstruction under the prior is none: the reconstruction was drawn from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from operators.linear import Forms, LinearOperator, Resolvent

from .posterior.covariance import KEY
from .posterior.units import measure
from .prior import Prior
from .randomness import MEASUREMENT, OTHER, Noise
from .solver import solve


class Kept(LinearOperator):
    """keep * A: the operator without its withheld measurements; keep 0 or 1, broadcasting to y."""

    _parts = ("operator",)

    def __init__(self, operator: LinearOperator, keep: Tensor):
        super().__init__(operator.in_shape, operator.out_shape, operator.batch)
        self.in_complex, self.out_complex = operator.in_complex, operator.out_complex
        self.operator, self.keep = operator, keep

    def forward(self, x: Tensor) -> Tensor:
        return self.keep.to(x.device) * self.operator.forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.operator.adjoint(self.keep.to(y.device) * y)

    @property
    def forms(self) -> Forms:
        return Forms(type(self).__name__, near=self._near)

    def _near(self, weights: Tensor | None) -> Resolvent | None:
        return self.operator.resolvent(self.keep) if weights is None else None

    @property
    def num_measured(self) -> int | Tensor:
        """Measured numbers, from where A of two random images is not zero."""
        noise = Noise(0, [0])
        like = torch.empty(1, *self.in_shape, device=self.device)
        probes = [noise(like, k).expand(self.batch or 1, *self.in_shape) for k in range(2)]
        seen = torch.stack([self.forward(p.contiguous()).abs() for p in probes]).sum(0) > 0
        count = seen.flatten(1).sum(1) * (2 if self.out_complex else 1)
        return int(count[0]) if self.batch is None else count


@dataclass(frozen=True)
class FitReport:
    """What withheld lines say, item by item.

    ratio (B,): squared prediction error there over what spread and noise predict; 1 in
    expectation. p_value (B,): the share of exchangeable predictions that are as far off, at best
    1 / (n + 1). lines: which were withheld.
    """

    ratio: Tensor
    p_value: Tensor
    lines: list[int]


def fit_check(
    y: Tensor,
    operator: LinearOperator,
    prior: Prior,
    *,
    noise_std: Any,
    axis: int,
    protected: Sequence[int] | None = None,
    fraction: float = 0.1,
    num_samples: int = 19,
    seed: int = 0,
    **options: Any,
) -> FitReport:
    """Withhold a tenth of the measured lines, reconstruct without them, and predict them.

    axis: of y, negative, along which lines are counted (-1: k-space columns, -2: views).
    protected: lines never withheld (default: the longest run of neighbours that are measured, if
    it is shorter than all: MRI's calibration lines). Draws y_s = A x_s + n are exchangeable with
    y if prior, operator and noise are right, so the rank of y's distance to the mean of the others
    among theirs gives an exact p-value. A large ratio: an image that the prior does not know.
    """
    if not -y.ndim < axis < 0:
        raise ValueError(f"axis counts from the end of y {tuple(y.shape)}; got {axis}")
    lines = withheld_lines(y, axis, protected, fraction, seed)
    shape = [1] * y.ndim
    shape[axis] = y.shape[axis]
    keep = torch.ones(y.shape[axis])
    keep[lines] = 0
    keep = keep.reshape(shape).to(y.device)
    kept = Kept(operator, keep)
    rec = solve(
        keep * y, kept, prior, noise_std=noise_std, num_samples=num_samples, seed=seed, **options
    )
    data = measure(prior, y, operator, noise_std)
    members = [(1 - keep) * data.y]
    signal = []
    for s in range(num_samples):
        u = prior.from_data(rec.samples[s])  # type: ignore[index]
        signal.append((1 - keep) * operator(u))
        members.append(signal[-1] + (1 - keep) * _measurement_noise(data, seed, s))
    return _report(torch.stack(members), torch.stack(signal), data, 1 - keep, lines)


def withheld_lines(
    y: Tensor, axis: int, protected: Sequence[int] | None, fraction: float, seed: int
) -> list[int]:
    """A random `fraction` of the measured lines of y, outside the protected ones; at least one."""
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie in (0, 1); got {fraction}")
    rest = [k for k in range(y.ndim) if k != axis % y.ndim]
    measured = (y.abs() > 0).sum(rest).nonzero().flatten().tolist()
    guarded = set(_longest_run(measured) if protected is None else protected)
    free = [line for line in measured if line not in guarded]
    if not free:
        raise ValueError(
            f"no line to withhold along axis {axis}: {len(measured)} measured, all protected"
        )
    order = Noise(seed, [0]).uniform(torch.empty(1, len(free)), 0, MEASUREMENT)[0].argsort()
    count = min(len(free), max(1, round(fraction * len(measured))))
    return sorted(free[i] for i in order[:count].tolist())


def denoising_fit(x: Tensor, prior: Prior, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(levels (L,), ratio (L, B), z (L, B)): x's denoising error against the card's.

    x (B, *event) in data units, a posterior sample rather than a mean, which is too smooth.
    ratio is |x - D(alpha x + sigma n)|^2 over the mean of the images measured at the noise
    levels of its card, z the difference in their standard deviations. Costs L calls.
    """
    card = prior.card.get(KEY)
    if card is None or "error_mean" not in card:
        raise ValueError("the prior's card has no error_spectrum with error_mean and error_std")
    u = prior.from_data(x)
    levels = [r for r in card["sigma"] if prior.sde.ratio(prior.t_min) <= r]
    first = len(card["sigma"]) - len(levels)
    errors = []
    for k, r in enumerate(levels):
        t = prior.sde.time(r)
        n = Noise(seed, range(len(u)))(u, k, OTHER)
        with torch.no_grad():
            back = prior.denoise(prior.sde.alpha(t) * u + prior.sde.sigma(t) * n, t)
        errors.append((u - back).square().flatten(1).mean(1))
    error = torch.stack(errors)
    mean, std = (
        torch.tensor(card[name][first:]).to(error)[:, None] for name in ("error_mean", "error_std")
    )
    return torch.tensor(levels), error / mean, (error - mean) / std.clamp_min(1e-30)


def _measurement_noise(data: Any, seed: int, sample: int) -> Tensor:
    """noise_std z, z standard normal per real and imaginary part."""
    noise = Noise(seed, range(len(data)), [sample] * len(data))
    real = noise(data.y.real, 0, MEASUREMENT)
    if not data.y.is_complex():
        return data.noise_std * real
    return data.noise_std * torch.complex(real, noise(data.y.real, 1, MEASUREMENT))


def _report(
    members: Tensor, signal: Tensor, data: Any, withheld: Tensor, lines: list[int]
) -> FitReport:
    """members (n + 1, B, ...): y first, then the draws; signal (n, B, ...): A x_s."""
    n = len(signal)
    total = members.sum(0)
    distance = torch.stack([_power(m - (total - m) / n) for m in members])
    p_value = (distance >= distance[0]).double().mean(0)
    centre = signal.mean(0)
    spread = torch.stack([_power(v - centre) for v in signal]).sum(0) / max(n - 1, 1)
    seen = (members[0].abs() > 0).to(data.noise_std) * (2 if data.y.is_complex() else 1)
    noise = (withheld * seen * data.noise_std**2).flatten(1).sum(1)
    expected = (1 + 1 / n) * spread + noise
    error = _power(members[0] - centre)
    return FitReport(error / expected.clamp_min(1e-300), p_value, lines)


def _power(v: Tensor) -> Tensor:
    """|v|^2 of each item, (B,)."""
    return (v.abs() ** 2).flatten(1).sum(1)


def _longest_run(lines: list[int]) -> list[int]:
    """The longest run of consecutive lines, empty if it is all of them or a single one."""
    best: list[int] = []
    run: list[int] = []
    for line in lines:
        run = [*run, line] if run and line == run[-1] + 1 else [line]
        best = run if len(run) > len(best) else best
    return best if 1 < len(best) < len(lines) else []
