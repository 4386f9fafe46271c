"""Song et al. 2022: replacement with a weight, for any linear operator."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...prior import Prior
from ...randomness import Noise
from ..measurement import LinearMeasurement
from ..method import Course, Method, Walk, check_share
from .replacement import replacement_hook, replacement_weight


@dataclass(frozen=True)
class Song22Options:
    """lam: the weight of the replacement; None by the data's noise."""

    lam: float | None = None

    def __post_init__(self) -> None:
        check_share("lam", self.lam)


def song22(
    prior: Prior, data: LinearMeasurement, noise: Noise, walk: Walk, options: Song22Options
) -> Tensor:
    """Song, Shen, Xing & Ermon 2022, eq. 9: replacement with weight lam.

    lam None: r^2 / (r^2 + level^2), level the data's noise in the best measured direction, which
    is 1 while the diffusion's noise dominates; a number (preset "paper": 1): itself, throughout.
    """
    hook = replacement_hook(prior, data, noise, replacement_weight(data, options.lam))
    return walk.sample(prior, data, noise, hook)


METHOD = Method(
    "song22",
    Song22Options,
    song22,
    Course("pc", steps=250),
    presets={"paper": {"lam": 1.0, "steps": 1000, "kind": "uniform"}},
    needs_noise=False,
    projects=True,
)
