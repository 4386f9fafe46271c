"""Methods that are exact in a limit: their error against a closed form falls along it."""

import pytest
import torch

from inverse_score import solve
from inverse_score.posterior.methods import METHODS, Walk, grid_for
from inverse_score.posterior.units import measure
from inverse_score.testing.draws import BatchNoise
from inverse_score.testing.half_seen import NOISE, excess, gaussian_prior, measurement, seen_half


@pytest.fixture(scope="module")
def error():
    prior, A = gaussian_prior(), seen_half()
    _, y = measurement(prior, A)
    posterior = prior.posterior(y, A, NOISE)
    data = measure(prior, y.expand(1000, -1, -1, -1), A, NOISE)

    def run(method, steps, **options):
        plan = Walk("ddim", grid_for(prior, NOISE, NOISE, steps))
        with torch.no_grad():
            u = METHODS[method].run(prior, data, BatchNoise(3), plan, **options)
        return excess(u, posterior)

    return run


def test_decoupled_annealing_nears_the_posterior_with_its_number_of_levels(error):
    few, more, many = (error("daps", levels) for levels in (25, 100, 400))
    assert few > 0.15
    assert more < 0.3 * few
    assert many < 0.08


def test_twisted_particles_near_the_posterior_with_their_number(error):
    one, four, twelve = (error("smc", 25, num_particles=count) for count in (1, 4, 12))
    assert one > 0.4
    assert four < 0.3 * one
    assert twelve < 0.08


def test_split_gibbs_nears_the_posterior_as_rho_falls(error):
    """The law of x is that of noise^2 + rho^2: KL falls as rho^4, here from rho = 2 noise on."""
    far, near = error("split-gibbs", 60, rho_end=0.1, inner=1), error("split-gibbs", 60, inner=1)
    assert far > 2
    assert near < 0.1


def test_split_gibbs_stays_at_the_law_of_the_blurred_data_however_long_it_runs():
    prior, A = gaussian_prior(), seen_half()
    _, y = measurement(prior, A)
    rho = 0.05
    blurred = prior.posterior(y, A, (NOISE**2 + rho**2) ** 0.5)
    data = measure(prior, y.expand(1000, -1, -1, -1), A, NOISE)
    plan = Walk("ddim", grid_for(prior, NOISE, NOISE, 60))
    with torch.no_grad():
        u = METHODS["split-gibbs"].run(prior, data, BatchNoise(3), plan, rho_end=rho, inner=1)
    assert excess(u, prior.posterior(y, A, NOISE)) > 0.5
    assert abs(excess(u, blurred)) < 0.1


@pytest.mark.parametrize("method", ["daps", "split-gibbs"])
def test_langevin_moves_draw_what_the_exact_step_draws(error, method):
    assert error(method, 40, langevin=20) < 2 * error(method, 40) + 0.05


def test_split_gibbs_refuses_rho_below_the_prior_s_least_noise():
    prior, A = gaussian_prior(), seen_half()
    _, y = measurement(prior, A)
    with pytest.raises(ValueError, match=r"rho must fall .* got rho_start .* rho_end 1e-09"):
        solve(y, A, prior, noise_std=NOISE, method="split-gibbs", rho_end=1e-9)
