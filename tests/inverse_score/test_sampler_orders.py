import pytest
import torch

from inverse_score.sampling import make_grid
from inverse_score.sde import VPSDE
from inverse_score.testing.moments import exact_moments
from inverse_score.testing.orders import (
    COUNTS,
    ORDERS,
    limit_variance,
    slope,
    strong_errors,
    weak_order,
)
from inverse_score.testing.toys import IsotropicModes, grid_of_modes, stationary


def test_the_fast_denoiser_of_isotropic_modes_is_the_mixtures():
    prior = grid_of_modes(VPSDE())
    for t in (0.05, 0.5, 1.0):
        x = prior.sample(50, t=t, dtype=torch.float32)
        exact = prior.denoise(x.double(), t).float()
        torch.testing.assert_close(IsotropicModes(prior).denoise(x, t), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "deterministic"), [("heun", True), ("stochastic-rk", False)])
def test_the_limit_of_many_steps_is_the_closed_form(name, deterministic):
    prior = stationary(VPSDE(), 3)
    grid = make_grid(prior.sde, 301, end_ratio=0.05, start_ratio=5.0)
    variance = exact_moments(prior, name, grid)[1]
    limit = limit_variance(prior, grid, deterministic)
    torch.testing.assert_close(variance, limit, rtol=2e-3, atol=0)
    other = limit_variance(prior, grid, not deterministic)
    assert not torch.allclose(variance, other, rtol=2e-3, atol=0)


@pytest.mark.slow
def test_strong_orders_on_one_brownian_path_are_the_theoretical_ones():
    for name, least, most in (("ancestral", 0.8, 1.2), ("stochastic-rk", 1.4, 2.1)):
        errors = strong_errors(name, VPSDE(), 16)
        assert least < slope(errors, COUNTS) < most


@pytest.mark.slow
@pytest.mark.parametrize("name", ORDERS)
def test_weak_orders_against_the_closed_form_are_the_theoretical_ones(name):
    assert abs(weak_order(name) - ORDERS[name][0]) < 0.05
