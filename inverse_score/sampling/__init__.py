"""Samplers of a prior: x0_hat = SAMPLERS[name](prior, xT, times, noise, hook=, callback=, ...)."""

from .driver import Counter, counted, integrate, start
from .generate import SAMPLERS, as_prior, calls_of, check_pair, sample, sampler_options
from .grid import check_grid, end_ratio, make_grid
from .mcmc import CORRECTORS, PREDICTORS

__all__ = [
    "CORRECTORS",
    "PREDICTORS",
    "SAMPLERS",
    "Counter",
    "as_prior",
    "calls_of",
    "check_grid",
    "check_pair",
    "counted",
    "end_ratio",
    "integrate",
    "make_grid",
    "sample",
    "sampler_options",
    "start",
]
