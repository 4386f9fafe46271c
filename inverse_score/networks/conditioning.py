"""What a released network is told about the noise level, and what its raw output means.

A network of this package is called with the SDE's time. A released one was trained with labels
of its own: the logarithm of sigma, a multiple of t, or the index of a discrete level. A
`Conditioning` turns t into (scale, label, skip, out): the network's output is
skip x + out F(scale x, label), each of them (B,) or a float.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..sde import SDE, SDES


@dataclass(frozen=True)
class Conditioning:
    """label: one of the kinds below; `output` says what the network returns, as Prior reads it."""

    sde: SDE

    def __call__(self, t: Tensor) -> tuple[Any, Tensor | None, Any, Any]:
        raise NotImplementedError

    @property
    def output(self) -> str:
        return "score"

    def smallest_time(self) -> float:
        """The smallest time of the usual training: 1e-5 of T (Song et al. 2021)."""
        return 1e-5 * self.sde.T


@dataclass(frozen=True)
class LogSigma(Conditioning):
    """label ln(gain sigma(t)), score = F / sigma: NCSN++ with Fourier features.

    gain: 1 in score_sde, 1/2 in EDM's VE networks, whose images span 2 and not 1.
    """

    gain: float = 1.0
    divide: bool = True

    def __call__(self, t: Tensor) -> tuple[Any, Tensor | None, Any, Any]:
        sigma = self.sde.sigma(t)
        return 1.0, torch.log(self.gain * sigma), 0.0, 1 / sigma if self.divide else 1.0


@dataclass(frozen=True)
class Level(Conditioning):
    """label k = round((steps - 1) (1 - t / T)), score = F / sigma at that level: discrete VE.

    The levels are in descending order, sigma_max first, as in score_sde.
    """

    steps: int = 1000
    divide: bool = True

    def __call__(self, t: Tensor) -> tuple[Any, Tensor | None, Any, Any]:
        label = torch.round((1 - t / self.sde.T) * (self.steps - 1))
        sigma = self.sde.sigma(self.sde.T * (1 - label / (self.steps - 1)))
        return 1.0, label, 0.0, 1 / sigma if self.divide else 1.0


@dataclass(frozen=True)
class NoLabel(Conditioning):
    """No label, score = F / sigma: NCSNv2 (Song & Ermon 2020, technique 3)."""

    def __call__(self, t: Tensor) -> tuple[Any, Tensor | None, Any, Any]:
        return 1.0, None, 0.0, 1 / self.sde.sigma(t)


@dataclass(frozen=True)
class TimeLabel(Conditioning):
    """label (steps - 1) t / T, F = eps: DDPM++ in continuous time, VP and sub-VP."""

    steps: int = 1000

    def __call__(self, t: Tensor) -> tuple[Any, Tensor | None, Any, Any]:
        return 1.0, t * ((self.steps - 1) / self.sde.T), 0.0, 1.0

    @property
    def output(self) -> str:
        return "eps"


@dataclass(frozen=True)
class Schedule(Conditioning):
    """F = eps of a discrete chain x_k = a_k x_0 + sqrt(1 - a_k^2) eps, a_k^2 = prod (1 - beta_j).

    label: the index k, between two levels interpolated in the logarithm of the noise-to-signal,
    at which the chain's noise-to-signal is the SDE's at t. (t (steps - 1) itself would be wrong by
    40 % of sigma at the smallest levels: a chain starts at sigma 0.01 and not at 0.)
    kind: "linear" (beta from start to end), "scaled-linear" (sqrt beta so) or "cosine" (Nichol &
    Dhariwal 2021, eq. 17). predicts: what F is, "eps", "x0" or "v", of that chain.
    """

    kind: str = "linear"
    start: float = 1e-4
    end: float = 0.02
    steps: int = 1000
    predicts: str = "eps"

    def __call__(self, t: Tensor) -> tuple[Any, Tensor | None, Any, Any]:
        # In double precision on the CPU: labels count up to 1000 radians of the embedding.
        ratio = self.sde.ratio(t.detach().to("cpu", torch.float64))
        label = np.interp(ratio.log().numpy(), self.log_ratios, np.arange(self.steps))
        scale = 1 / (self.sde.alpha(t) * (1 + self.sde.ratio(t) ** 2).sqrt())
        return scale, torch.from_numpy(label).to(t), 0.0, 1.0

    @property
    def output(self) -> str:
        return self.predicts

    def smallest_time(self) -> float:
        """Where the noise-to-signal is that of the chain's first level."""
        return self.sde.time(math.exp(self.log_ratios[0]))

    @cached_property
    def log_ratios(self) -> np.ndarray:
        """ln(sqrt(1 - a_k^2) / a_k), ascending, one a level."""
        log_signal = np.cumsum(np.log1p(-self.betas()))
        return 0.5 * (np.log(-np.expm1(log_signal)) - log_signal)

    def betas(self) -> np.ndarray:
        if self.kind == "linear":
            return np.linspace(self.start, self.end, self.steps)
        if self.kind == "scaled-linear":
            return np.linspace(self.start**0.5, self.end**0.5, self.steps) ** 2
        if self.kind != "cosine":
            raise ValueError(f"schedule must be linear, scaled-linear or cosine; got {self.kind!r}")
        angle = (np.arange(self.steps + 1) / self.steps + 0.008) / 1.008 * math.pi / 2
        return np.minimum(1 - np.cos(angle[1:]) ** 2 / np.cos(angle[:-1]) ** 2, 0.999)


@dataclass(frozen=True)
class Karras(Conditioning):
    """x0_hat = c_skip x + c_out F(c_in x, ln(s) / 4), s noise-to-signal (Karras et al. 2022, T. 1).

    Under an SDE with alpha other than 1, x stands for x_t / alpha.
    """

    sigma_data: float = 0.5

    @property
    def output(self) -> str:
        return "x0"

    def smallest_time(self) -> float:
        """Noise-to-signal 0.002, where EDM's samplers end."""
        return self.sde.time(0.002)

    def __call__(self, t: Tensor) -> tuple[Any, Tensor | None, Any, Any]:
        s, alpha = self.sde.ratio(t), self.sde.alpha(t)
        total = s**2 + self.sigma_data**2
        skip, out = self.sigma_data**2 / total, s * self.sigma_data / total.sqrt()
        return total.rsqrt() / alpha, s.log() / 4, skip / alpha, out


KINDS: dict[str, type[Conditioning]] = {
    "log-sigma": LogSigma,
    "level": Level,
    "none": NoLabel,
    "time": TimeLabel,
    "schedule": Schedule,
    "karras": Karras,
}


def build_conditioning(label: dict[str, Any], sde: dict[str, Any]) -> Conditioning:
    """From {"kind": a key of KINDS, **arguments} and {"name": a key of SDES, **arguments}."""
    sde, label = dict(sde), dict(label)
    name, kind = sde.pop("name", None), label.pop("label", None)
    if name not in SDES:
        raise ValueError(f"sde's name must be one of {', '.join(SDES)}; got {name!r}")
    if kind not in KINDS:
        raise ValueError(f"label must be one of {', '.join(KINDS)}; got {kind!r}")
    try:
        return KINDS[kind](SDES[name](**sde), **label)
    except TypeError as error:
        raise ValueError(f"conditioning {kind!r} under {name!r}: {error}") from None
