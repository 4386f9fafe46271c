import pytest
import torch

from inverse_score.sampling import make_grid
from inverse_score.sde import VPSDE
from recipes.benchmarks.moments import exact_moments
from recipes.benchmarks.orders import COUNTS, strong_errors
from recipes.benchmarks.sampler_checks import ORDERS, _slope, limit_variance, weak_order
from recipes.benchmarks.sampler_runs import IsotropicModes
from recipes.benchmarks.samplers import TABLES, main, merge
from recipes.benchmarks.toys import grid_of_modes, stationary


def test_tables_replace_their_own_sections_and_keep_the_others():
    first = merge("", {"noise": "n1", "quality": "q1"})
    second = merge(first, {"noise": "n2"})
    assert "q1" in second
    assert "n1" not in second
    assert second.index("q1") < second.index("n2")
    assert merge(second, {}) == second


def test_unknown_tables_are_named(capsys):
    with pytest.raises(SystemExit):
        main(["--tables", "quality,speed"])
    assert f"unknown tables speed; known: {', '.join(TABLES)}" in capsys.readouterr().err


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
        assert least < _slope(errors, COUNTS) < most


@pytest.mark.slow
@pytest.mark.parametrize("name", ORDERS)
def test_weak_orders_against_the_closed_form_are_the_theoretical_ones(name):
    assert abs(weak_order(name) - ORDERS[name][0]) < 0.05
