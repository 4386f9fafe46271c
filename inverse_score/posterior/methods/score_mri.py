"""Score-MRI: predictor-corrector sampling with a step back to the measured k-space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.linalg import per_item

from ...prior import Prior
from ...randomness import Noise
from ...sde import Time
from ..measurement import LinearMeasurement
from ..method import Course, Method, Walk, check_count, check_share


class ChannelWise(Prior):
    """A 1-channel prior of each channel alone: p(x) = product of p(x_c), x (B, channels, H, W).

    What Score-MRI's complex and coil-wise forms assume of real and imaginary parts. A call passes
    all channels to the prior at once, and counts as one.
    """

    def __init__(self, prior: Prior, channels: int):
        event = (1, None, None) if prior.event_shape is None else prior.event_shape
        if len(event) != 3 or event[0] != 1 or channels < 1:
            raise ValueError(
                f"ChannelWise lifts priors of events (1, H, W) to channels >= 1; got {event}, "
                f"channels {channels}"
            )
        super().__init__(
            prior.network,
            prior.sde,
            output=prior.output,
            event_shape=(channels, *event[1:]),
            range=prior.range,
            t_min=prior.t_min,
        )
        self.inner = prior

    @property
    def smallest_scale(self) -> float:
        return self.inner.smallest_scale

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        return self._each(self.inner.denoise, x, t)

    def score(self, x: Tensor, t: Time) -> Tensor:
        return self._each(self.inner.score, x, t)

    def _each(self, function: Callable[[Tensor, Time], Tensor], x: Tensor, t: Time) -> Tensor:
        self.check_event(x)
        if isinstance(t, Tensor) and t.ndim == 1:
            t = t.repeat_interleave(x.shape[1])
        return function(x.flatten(0, 1)[:, None], t).reshape(x.shape)


@dataclass(frozen=True)
class ScoreMRIOptions:
    """As of `score_mri`."""

    lam: float | None = None
    sense_every: int | None = None

    def __post_init__(self) -> None:
        check_share("lam", self.lam)
        check_count("sense_every", self.sense_every)


def score_mri(
    prior: Prior, data: LinearMeasurement, noise: Noise, walk: Walk, options: ScoreMRIOptions
) -> Tensor:
    """Score-MRI (Chung & Ye 2022), alg. 2 to 5: x <- x + lam A^T (alpha y - A x) / |A|^2.

    After every predictor and corrector step, y without the state's noise as in the paper. What
    the operator takes decides the form:
      real:    CartesianMRI(mask, ...) @ RealImage((H, W)), a prior of real images (alg. 2);
      complex: CartesianMRI(mask, ...), ChannelWise(prior, 2), parts apart (alg. 3);
      SSOS:    CoilwiseMRI(mask, coils), ChannelWise(prior, 2 coils); operators.mri.coilwise.
               root_sum_of_squares of the samples is the image (alg. 4);
      hybrid:  CoilwiseMRI with sens_maps: every sense_every steps (default: a tenth of all) also
               x_c <- x_c + mu S_c A_S^H (alpha y - A_S sum_c conj(S_c) x_c), mu from 1 to 0.2
               over the run whatever its length (alg. 5).
    lam None: r^2 / (r^2 + level^2), r = sigma / alpha and level the data's noise; preset "paper":
    1. Approximates the law of x_t given y by that of an x_t whose measured part has no noise.
    """
    every = options.sense_every or max(1, len(walk.times) // 10)
    consistent = _Consistency(data, options.lam)
    sense, turns = data.operator.forms.sense, _Turns(walk.times, every)

    def hook(x: Tensor, t: float) -> Tensor:
        known = prior.sde.alpha(t) * data.y
        x = consistent(x, known, prior.sde.ratio(t))
        if sense is None or (mu := turns(t)) is None:
            return x
        return x + mu * sense(x, known)

    x0_hat = walk.sample(prior, data, noise, hook)
    # The last step denoises, so that only a step after it leaves the data as they are.
    return consistent(x0_hat, data.y, prior.sde.ratio(walk.times[-1]))


class _Consistency:
    """x + lam A^T (known - A x) / |A|^2."""

    def __init__(self, data: LinearMeasurement, lam: float | None):
        self.A, self.lam, self.level = data.operator, lam, data.level
        self.norm2 = self.A.norm().to(data.y.real) ** 2

    def __call__(self, x: Tensor, known: Tensor, r: float) -> Tensor:
        weight = r**2 / (r**2 + self.level**2) if self.lam is None else torch.tensor(self.lam)
        step = self.A.T(known - self.A(x))
        return x + per_item(weight.to(self.norm2) / self.norm2, x) * step


class _Turns:
    """mu of the SENSE step: 1 to 0.2 linearly, once at every `every`-th time; else None."""

    def __init__(self, times: Sequence[float], every: int):
        chosen = list(times)[every::every]
        count = max(1, len(chosen) - 1)
        self.mu = {float(t): 1 - 0.8 * k / count for k, t in enumerate(chosen)}

    def __call__(self, t: float) -> float | None:
        # A time returns for each corrector step; the SENSE step is taken at its first.
        return self.mu.pop(float(t), None)


METHOD = Method(
    "score-mri",
    ScoreMRIOptions,
    score_mri,
    Course("pc", steps=250),
    presets={
        "paper": {
            "lam": 1.0,
            "steps": 2000,
            "kind": "uniform",
            "sampler_options": {"corrector_options": {"snr": 0.16}},
        }
    },
)
