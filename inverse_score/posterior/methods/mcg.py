"""MCG: the gradient of DPS, then replacement."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...prior import Prior
from ...randomness import Noise
from ..measurement import LinearMeasurement
from ..method import Course, Method, Walk, check_positive, check_share
from . import dps
from .replacement import replacement_hook, replacement_weight


@dataclass(frozen=True)
class MCGOptions:
    """weight: as of "dps"; lam: as of "song22"."""

    weight: float | None = None
    lam: float | None = None

    def __post_init__(self) -> None:
        check_positive("weight", self.weight)
        check_share("lam", self.lam)


def mcg(
    prior: Prior, data: LinearMeasurement, noise: Noise, walk: Walk, options: MCGOptions
) -> Tensor:
    """MCG (Chung, Sim, Ryu & Ye 2022), alg. 1: the gradient of DPS, then replacement.

    weight, as of "dps": None the Gaussian likelihood's, a number the paper's. lam, as of "song22":
    None by the data's noise, preset "paper" 1, which puts y_t on the measured part after every
    step. The data thus enter twice, which no limit makes exact. One vjp a call.
    """
    cond = dps.PosteriorSampling(prior, data, dps.DPSOptions(options.weight))
    hook = replacement_hook(prior, data, noise, replacement_weight(data, options.lam))
    return walk.sample(cond, data, noise, hook)


METHOD = Method(
    "mcg",
    MCGOptions,
    mcg,
    Course("pc", steps=100),
    differentiates=True,
    presets={
        "paper": {
            "weight": 1.0, "lam": 1.0, "sampler": "ancestral", "steps": 1000, "kind": "uniform"
        }
    },
)  # fmt: skip
