"""The papers' settings of samples and likelihoods, as arguments of `sample` and `bits_per_dim`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...prior import Prior


def published_sampling(prior: Prior) -> dict[str, Any]:
    """Keyword arguments with which `sample(prior, shape, **...)` samples as published.

    From the card of an imported prior: predictor and corrector with their snr on the grid uniform
    in t from T to the published end (Song et al. 2021, app. G), or the method and number of steps.
    The langevin corrector's norms are each item's own and not the batch's mean, as in the released
    code. ValueError for a prior whose card names no published settings.
    """
    settings = dict(prior.card.get("published_sampling") or {})
    if not settings:
        raise ValueError("the prior's card names no published settings of sampling")
    steps = settings.pop("steps")
    if "predictor" not in settings:
        end = settings.pop("t_end", None)
        grid = {"steps": steps} if end is None else {"times": _uniform(prior, steps, end)}
        return {**settings, **grid}
    corrector, snr = settings["corrector"], settings.get("snr")
    options = {} if snr is None else {"corrector_options": {"snr": snr}}
    end = max(settings["t_end"], prior.t_min)
    return {
        "method": "pc",
        "predictor": settings["predictor"],
        "corrector": corrector,
        "times": _uniform(prior, steps, end),
        **options,
    }


def published_likelihood(prior: Prior) -> dict[str, Any]:
    """Keyword arguments of `bits_per_dim(x, prior, **...)` as in Song et al. 2021, app. D.2.

    The probability flow down to t = 1e-5 with tolerances 1e-5, one Rademacher probe, and 8-bit
    images dequantized as (255 x + u) / 256; they average it over five draws.
    """
    return {
        "t_end": max(1e-5 * prior.sde.T, prior.t_min),
        "rtol": 1e-5,
        "atol": 1e-5,
        "trace": "hutchinson",
        "probes": 1,
        "dequantize": "rescaled",
        "draws": 5,
    }


def _uniform(prior: Prior, steps: int, end: float) -> list[float]:
    return np.linspace(prior.sde.T, max(end, prior.t_min), steps).tolist()
