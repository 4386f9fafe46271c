"""Methods that are exact in a limit: their error against a closed form falls along it."""

import pytest
import torch
from gaussian_problem import NOISE, excess, gaussian_prior, half_mask, measurement

from inverse_score.posterior.measurement import measure
from inverse_score.posterior.methods import METHODS, Plan, grid_for


class Draws:
    """Noise without names: one generator, fast for many rows."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(3)

    def __call__(self, like, step, stream=0):
        return torch.randn(like.shape, dtype=like.dtype, generator=self.generator)

    def uniform(self, like, step, stream=0):
        return torch.rand(like.shape, dtype=like.dtype, generator=self.generator)


@pytest.fixture(scope="module")
def error():
    prior, A = gaussian_prior(), half_mask()
    _, y = measurement(prior, A)
    posterior = prior.posterior(y, A, NOISE)
    data = measure(prior, y.expand(1000, -1, -1, -1), A, NOISE)

    def run(method, steps, **options):
        plan = Plan("ddim", grid_for(prior, NOISE, NOISE, steps))
        with torch.no_grad():
            u = METHODS[method].run(prior, data, Draws(), plan, **options)
        return excess(u, posterior)

    return run


def test_decoupled_annealing_nears_the_posterior_with_its_number_of_levels(error):
    few, more, many = (error("daps", levels) for levels in (25, 100, 400))
    assert few > 0.4
    assert more < 0.3 * few
    assert many < 0.08


def test_twisted_particles_near_the_posterior_with_their_number(error):
    one, four, sixteen = (error("smc", 30, num_particles=count) for count in (1, 4, 16))
    assert one > 0.8
    assert four < 0.3 * one
    assert sixteen < 0.12
