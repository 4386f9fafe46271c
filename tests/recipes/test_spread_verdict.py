"""The verdict on a sampler's spread: right samplers pass, wrong ones are named."""

import math

import pytest
import torch

from inverse_score.errors import BadInput
from inverse_score.testing.oracles import posterior_draws
from recipes.spread_verdict import conformal_by_person, dispersion_of, judge, spread_of


@pytest.mark.parametrize(("factor", "calibrated"), [(0.8, False), (1.0, True), (1.25, False)])
def test_a_std_off_by_a_quarter_is_flagged_and_the_exact_sampler_is_not(factor, calibrated):
    drawn = posterior_draws(factor, measurements=200, num_samples=32, seed=3)
    found = judge(*drawn, seed=3)
    assert found.calibrated is calibrated
    assert found.spread == pytest.approx(factor, rel=0.08)
    assert found.detectable[0] < 1 < found.detectable[1]
    assert ("NOT calibrated" in found.words()) is not calibrated


def test_a_shifted_sampler_is_flagged_by_its_centre():
    rng = torch.Generator().manual_seed(0)
    truth = torch.randn(200, 4, generator=rng)
    samples = torch.randn(16, 200, 4, generator=rng) + 0.6
    assert not judge(samples, truth).calibrated


def test_dispersion_of_ranks_is_one_twelfth_for_a_right_spread_and_inverts():
    assert dispersion_of(1.0) == pytest.approx(1 / 12)
    for spread in (0.5, 0.8, 1.0, 1.25, 2.0):
        assert spread_of(dispersion_of(spread)) == pytest.approx(spread)


def test_dispersion_matches_ranks_of_samples_that_are_too_wide():
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(200_000, generator=rng, dtype=torch.float64)
    u = 0.5 * torch.erfc(-z / 1.5 / math.sqrt(2))
    assert float(((u - 0.5) ** 2).mean()) == pytest.approx(dispersion_of(1.5), rel=0.01)


def test_the_conformal_factor_covers_every_image_of_every_person():
    rng = torch.Generator().manual_seed(0)
    truth = torch.randn(6, 1, 20, 20, generator=rng)
    mean, std = torch.zeros_like(truth), torch.full_like(truth, 0.5)
    found = conformal_by_person(mean, std, truth, ["a", "a", "b", "b", "c", "c"], level=0.9)
    inside = (truth - mean).abs() <= found["factor"] * std
    shares = inside.flatten(1).double().mean(1)
    assert float(shares.min()) == pytest.approx(0.9, abs=0.003)
    assert (found["people"], found["confidence"]) == (3, 0.75)


def test_too_few_measurements_are_refused():
    with pytest.raises(BadInput, match="at least 8 measurements and 2 samples"):
        judge(torch.zeros(4, 3, 5), torch.zeros(3, 5))
