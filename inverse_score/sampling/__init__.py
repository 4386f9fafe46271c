"""Samplers of a prior: x0_hat = SAMPLERS[name](prior, xT, times, noise, hook=, callback=, ...)."""

from .driver import Counter, counted, integrate, start
from .generate import SAMPLERS, sample
from .grid import check_grid, end_ratio, make_grid
from .mcmc import CORRECTORS, PREDICTORS

__all__ = [
    "CORRECTORS",
    "PREDICTORS",
    "SAMPLERS",
    "Counter",
    "check_grid",
    "counted",
    "end_ratio",
    "integrate",
    "make_grid",
    "sample",
    "start",
]
