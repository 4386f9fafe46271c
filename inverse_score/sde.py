"""Diffusions dx = f(t) x dt + g(t) dw with closed-form marginals x_t = alpha(t) x_0 + sigma(t) eps.

Every SDE is four functions of time, and for all of them alpha' = f alpha and
(sigma^2)' = 2 f sigma^2 + g^2 (VESDE's sigma(0) = sigma_min is the one initial condition that is
not zero; design: p_t is the law of alpha x_0 + sigma eps at every t). Times may be Python floats,
which give Python floats in double precision, or tensors, which give tensors of their own dtype.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from operators.linalg import per_item

Time = Any  # float -> float, Tensor -> Tensor of the same shape, dtype and device


def _of_time(function: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Time], Time]:
    """Let a function written for tensors take and return Python floats in double precision.

    A sampler asks for the same few times again and again, so floats' answers are kept: SDEs are
    frozen, and a tensor operation on one number costs as much as a pass over a small image.
    """

    @functools.lru_cache(maxsize=4096)
    def of_float(self: Any, t: float) -> float:
        return function(self, torch.tensor(t, dtype=torch.float64)).item()

    @functools.wraps(function)
    def wrapped(self: Any, t: Time) -> Time:
        return function(self, t) if isinstance(t, Tensor) else of_float(self, float(t))

    return wrapped


class SDE(ABC):
    """A linear diffusion. Subclasses give f, g, alpha and sigma; the rest follows from them."""

    T: float = 1.0
    name: ClassVar[str]

    @abstractmethod
    def f(self, t: Time) -> Time:
        """Drift coefficient: the drift is f(t) x."""

    @abstractmethod
    def g(self, t: Time) -> Time:
        """Diffusion coefficient."""

    @abstractmethod
    def alpha(self, t: Time) -> Time:
        """Signal scale of the marginal: E[x_t | x_0] = alpha(t) x_0."""

    @abstractmethod
    def sigma(self, t: Time) -> Time:
        """Noise scale of the marginal: std[x_t | x_0] = sigma(t)."""

    def marginal(self, x0: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """Mean and std of x_t given x_0 (B, *event), t a float or (B,); both broadcast to x_0."""
        return per_item(self.alpha(t), x0) * x0, per_item(self.sigma(t), x0)

    def transition(self, s: Time, t: Time) -> tuple[Time, Time]:
        """(a, std) of the exact kernel x_t | x_s ~ N(a x_s, std^2), for 0 <= s <= t.

        a = alpha(t) / alpha(s) and std^2 = sigma(t)^2 - a^2 sigma(s)^2, which is
        alpha(t)^2 int_s^t g^2 / alpha^2 (Sarkka & Solin 2019, ch. 6).
        """
        a = self.alpha(t) / self.alpha(s)
        variance = self.sigma(t) ** 2 - (a * self.sigma(s)) ** 2
        if isinstance(variance, Tensor):
            return a, variance.clamp(min=0.0).sqrt()
        return a, math.sqrt(max(variance, 0.0))

    def terminal(self, shape: tuple[int, ...]) -> tuple[Tensor, float]:
        """(mean, std) of the law that sampling starts from: N(0, sigma(T)^2) of this shape."""
        return torch.zeros(shape), self.sigma(self.T)

    def ratio(self, t: Time) -> Time:
        """Noise to signal, sigma(t) / alpha(t): the level of Gaussian noise in x_t / alpha(t)."""
        return self.sigma(t) / self.alpha(t)

    def time(self, ratio: Time) -> Time:
        """The t whose noise-to-signal is `ratio`; inverse of `ratio`, clamped to [0, T].

        Bisection in double precision; subclasses override it where a closed form exists.
        """
        target = torch.as_tensor(ratio, dtype=torch.float64, device="cpu")
        low, high = torch.zeros_like(target), torch.full_like(target, self.T)
        for _ in range(80):
            middle = 0.5 * (low + high)
            below = self.ratio(middle) < target
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        t = 0.5 * (low + high)
        return t.to(ratio) if isinstance(ratio, Tensor) else t.item()

    def check_time(self, t: Time) -> None:
        """Raise ValueError unless every t lies in (0, T]."""
        low, high = (t.min().item(), t.max().item()) if isinstance(t, Tensor) else (t, t)
        # Float32 times may exceed T by rounding.
        if not (low > 0.0 and high <= self.T * (1 + 1e-6)):
            raise ValueError(f"t must lie in (0, {self.T}]; got values from {low} to {high}")


@dataclass(frozen=True)
class VESDE(SDE):
    """Variance exploding: sigma(t) = sigma_min (sigma_max / sigma_min)^t (Song et al. 2021).

    sigma(0) = sigma_min and not 0, so p_0 is the data blurred by sigma_min.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    name: ClassVar[str] = "ve"

    def __post_init__(self) -> None:
        _check_order("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    @property
    def log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    @_of_time
    def f(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    @_of_time
    def g(self, t: Tensor) -> Tensor:
        return self.sigma(t) * math.sqrt(2 * self.log_ratio)

    @_of_time
    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    @_of_time
    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.exp(t * self.log_ratio)

    @_of_time
    def time(self, ratio: Tensor) -> Tensor:
        return (torch.log(ratio / self.sigma_min) / self.log_ratio).clamp(0.0, self.T)


class _VariancePreserving(SDE):
    """What VP and sub-VP share: alpha = exp(-B / 2), B(t) the integral of beta from 0 to t."""

    @abstractmethod
    def beta(self, t: Time) -> Time: ...

    @abstractmethod
    def integral(self, t: Time) -> Time:
        """B(t), the integral of beta from 0 to t."""

    @_of_time
    def f(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta(t)

    @_of_time
    def g(self, t: Tensor) -> Tensor:
        return self.beta(t).sqrt()

    @_of_time
    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self.integral(t))

    @_of_time
    def sigma(self, t: Tensor) -> Tensor:
        # 1 - alpha^2 would cancel near t = 0.
        return (-torch.expm1(-self.integral(t))).sqrt()


class _LinearBeta(_VariancePreserving):
    beta_min: float
    beta_max: float

    def __post_init__(self) -> None:
        _check_order("beta_min", self.beta_min, "beta_max", self.beta_max)

    @_of_time
    def beta(self, t: Tensor) -> Tensor:
        return self.beta_min + t * (self.beta_max - self.beta_min)

    @_of_time
    def integral(self, t: Tensor) -> Tensor:
        return t * self.beta_min + 0.5 * t**2 * (self.beta_max - self.beta_min)

    def _time_of_integral(self, integral: Tensor) -> Tensor:
        """Solve B(t) = integral, in the form of the quadratic's root that does not cancel."""
        slope = self.beta_max - self.beta_min
        root = (self.beta_min**2 + 2 * slope * integral).sqrt()
        return (2 * integral / (self.beta_min + root)).clamp(0.0, self.T)


@dataclass(frozen=True)
class VPSDE(_LinearBeta):
    """Variance preserving with beta linear in t (Song et al. 2021, eq. 32)."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    name: ClassVar[str] = "vp"

    @_of_time
    def time(self, ratio: Tensor) -> Tensor:
        return self._time_of_integral(torch.log1p(ratio**2))


@dataclass(frozen=True)
class SubVPSDE(_LinearBeta):
    """Sub-VP: VP's mean with sigma = 1 - exp(-B) (Song et al. 2021, eq. 34)."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    name: ClassVar[str] = "subvp"

    @_of_time
    def g(self, t: Tensor) -> Tensor:
        return (self.beta(t) * -torch.expm1(-2 * self.integral(t))).sqrt()

    @_of_time
    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self.integral(t))

    @_of_time
    def time(self, ratio: Tensor) -> Tensor:
        # sigma / alpha = exp(B/2) - exp(-B/2) = 2 sinh(B/2).
        return self._time_of_integral(2 * torch.asinh(0.5 * ratio))


@dataclass(frozen=True)
class CosineVPSDE(_VariancePreserving):
    """VP with alpha(t) = cos(pi (t + s) / (2 (1 + s))) / cos(pi s / (2 (1 + s))).

    The squared-cosine schedule of Nichol & Dhariwal 2021 (eq. 17) in continuous time, ending at
    t_end < 1 of their schedule, because beta diverges at its end.
    """

    s: float = 0.008
    t_end: float = 0.995
    name: ClassVar[str] = "cosine"

    def __post_init__(self) -> None:
        if not (self.s >= 0 and 0 < self.t_end < 1):
            raise ValueError(f"s must be >= 0, t_end in (0, 1); got s {self.s}, t_end {self.t_end}")

    def _angle(self, t: Tensor) -> Tensor:
        return 0.5 * math.pi * (t * self.t_end + self.s) / (1 + self.s)

    @_of_time
    def beta(self, t: Tensor) -> Tensor:
        return math.pi * self.t_end / (1 + self.s) * torch.tan(self._angle(t))

    @_of_time
    def integral(self, t: Tensor) -> Tensor:
        return 2 * (math.log(math.cos(self._angle(0.0))) - torch.log(torch.cos(self._angle(t))))  # type: ignore[arg-type]


@dataclass(frozen=True)
class DiscreteVPSDE(_VariancePreserving):
    """VP through DDPM's chain: at t = i / steps alpha^2 is prod_{j <= i} (1 - beta_j).

    beta_j linear from beta_start to beta_end (Ho et al. 2020); B(t) is linear between these times,
    so that the kernel from (i - 1) / steps to i / steps is N(sqrt(1 - beta_i) x, beta_i) exactly.
    (SMLD's chain is VESDE on a grid uniform in t.)
    """

    beta_start: float = 1e-4
    beta_end: float = 0.02
    steps: int = 1000
    name: ClassVar[str] = "ddpm"

    def __post_init__(self) -> None:
        _check_order("beta_start", self.beta_start, "beta_end", self.beta_end)
        if not (self.beta_end < 1 and self.steps >= 1):
            raise ValueError(f"need beta_end < 1, steps >= 1; got {self.beta_end}, {self.steps}")

    @functools.cached_property
    def _sums(self) -> Tensor:
        """B(i / steps), i = 0 .. steps."""
        betas = torch.linspace(self.beta_start, self.beta_end, self.steps, dtype=torch.float64)
        return torch.cat([torch.zeros(1, dtype=torch.float64), -torch.log1p(-betas).cumsum(0)])

    def _cell(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The index i of the cell [i, i + 1) / steps of t, and B at its ends."""
        i = (t * self.steps).floor().clamp(0, self.steps - 1).long().cpu()
        return i, self._sums[i].to(t), self._sums[i + 1].to(t)

    @_of_time
    def beta(self, t: Tensor) -> Tensor:
        _, low, high = self._cell(t)
        return (high - low) * self.steps

    @_of_time
    def integral(self, t: Tensor) -> Tensor:
        i, low, high = self._cell(t)
        return low + (t * self.steps - i.to(t)) * (high - low)

    @_of_time
    def time(self, ratio: Tensor) -> Tensor:
        integral = torch.log1p(ratio.detach().cpu().to(torch.float64) ** 2)
        i = torch.searchsorted(self._sums, integral, right=True).sub(1).clamp(0, self.steps - 1)
        low, high = self._sums[i], self._sums[i + 1]
        return ((i + (integral - low) / (high - low)) / self.steps).clamp(0.0, self.T).to(ratio)


@dataclass(frozen=True)
class KarrasSDE(SDE):
    """sigma(t) = t, alpha = 1, T = sigma_max (Karras et al. 2022, table 1)."""

    sigma_max: float = 80.0
    name: ClassVar[str] = "karras"

    def __post_init__(self) -> None:
        _check_order("0", 0.0, "sigma_max", self.sigma_max)

    @property
    def T(self) -> float:  # type: ignore[override]
        return self.sigma_max

    @_of_time
    def f(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    @_of_time
    def g(self, t: Tensor) -> Tensor:
        return (2 * t).sqrt()

    @_of_time
    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    @_of_time
    def sigma(self, t: Tensor) -> Tensor:
        return t.clone()

    @_of_time
    def time(self, ratio: Tensor) -> Tensor:
        return ratio.clamp(0.0, self.T)


SDES: dict[str, type[SDE]] = {
    sde.name: sde for sde in (VESDE, VPSDE, SubVPSDE, CosineVPSDE, DiscreteVPSDE, KarrasSDE)
}


def _check_order(low_name: str, low: float, high_name: str, high: float) -> None:
    if not (0 <= low < high < math.inf):
        raise ValueError(f"need 0 <= {low_name} < {high_name} < inf; got {low} and {high}")
