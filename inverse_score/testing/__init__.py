"""What a test of your own operator, sampler, prior or file reader needs: laws that are known.

A toy prior p(x) = N(m, C) or a mixture has every marginal, score and posterior in closed form:
p(x | y) = N(m + K (y - A m), C - K A C), K = C A^T (A C A^T + noise_std^2 I)^-1. So whatever
samples can be held against the truth, and what is affine in its noise without sampling error.

    toys, half_seen     priors with closed forms, distances to them, numbers of modes found
    problems, scores    a toy, an operator and noise; KL, moments and ranks of what solves it
    moments, affine     exact law of a sampler, or of a posterior method, that is affine in noise
    orders              strong and weak order of convergence
    oracles             draws of a posterior, or of one with a std that is wrong
    dense               the matrix of an operator; check_operator: the laws of an operator
    denoising           a trained prior against other denoisers; samples that are copies
    scans, formats, twix    small files of every format; fuzz, fuzz_targets: mutated ones
    released            networks in released layouts with weights by a formula
"""

from operators.checks import check_operator

from .dense import dense
from .draws import BatchNoise, sampler_draws
from .moments import exact_kl, exact_moments
from .oracles import posterior_draws
from .problems import ToyProblem
from .scores import gaussian_scores, rank_scores, sampled_scores
from .toys import (
    ModeReport,
    excess_kl,
    grid_of_modes,
    kl_floor,
    mode_report,
    nonstationary,
    random_half,
    sliced_wasserstein,
    stationary,
)

__all__ = [
    "BatchNoise",
    "ModeReport",
    "ToyProblem",
    "check_operator",
    "dense",
    "exact_kl",
    "exact_moments",
    "excess_kl",
    "gaussian_scores",
    "grid_of_modes",
    "kl_floor",
    "mode_report",
    "nonstationary",
    "posterior_draws",
    "random_half",
    "rank_scores",
    "sampled_scores",
    "sampler_draws",
    "sliced_wasserstein",
    "stationary",
]
