"""What measures samplers measures right: exact moments, excess KL, ranks."""

import math

import pytest

from inverse_score.testing import ToyProblem, kl_floor, posterior_draws, rank_scores
from inverse_score.testing.affine import exact_scores
from inverse_score.testing.scores import gaussian_scores, sampled_scores, sampling_kl

PROBLEM = ToyProblem("inpainting", "stationary", 0.1)


def test_exact_posterior_samples_have_no_excess_and_the_right_trace():
    x = PROBLEM.exact_samples(2048)
    found = gaussian_scores(PROBLEM, x)
    # The excess of 2048 samples in 64 numbers scatters by 0.02 nats.
    assert abs(found["excess"]) < 0.1
    assert found["trace"] == pytest.approx(1, abs=0.03)
    assert sampling_kl(x.flatten(1)) == pytest.approx(kl_floor(64, 2048), rel=0.05)


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_wrong_std_costs_what_the_closed_form_says(factor):
    """KL(N(m, f^2 C) || N(m, C)) = d (f^2 - 1 - 2 ln f) / 2."""
    mean = PROBLEM.posterior.mean[0]
    x = mean + factor * (PROBLEM.exact_samples(4096) - mean)
    expected = 32 * (factor**2 - 1 - 2 * math.log(factor))
    assert gaussian_scores(PROBLEM, x)["excess"] == pytest.approx(expected, rel=0.06)


def test_exact_scores_are_what_many_samples_score():
    options = {"method": "moment-matching", "covariance": "isotropic", "steps": 10}
    steps = options.pop("steps")
    exact = exact_scores(PROBLEM, options, steps=steps)
    drawn = sampled_scores(PROBLEM, 4096, steps=steps, **options)
    assert drawn["nfe"] == exact["nfe"]
    assert drawn["excess"] == pytest.approx(exact["excess"], abs=0.1, rel=0.05)
    assert drawn["trace"] == pytest.approx(exact["trace"], rel=0.03)


def test_ranks_of_exact_samples_are_uniform_and_of_narrow_ones_not():
    right = rank_scores(*posterior_draws(1.0, 400, 19, seed=1))
    narrow = rank_scores(*posterior_draws(0.5, 400, 19, seed=1))
    assert right["rank_p"] > 1e-3
    assert right["band_low"] - 0.03 < right["coverage_90"] < right["band_high"] + 0.03
    assert narrow["rank_p"] < 1e-6
    assert narrow["coverage_90"] < right["band_low"]
