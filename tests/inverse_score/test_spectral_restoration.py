"""DDRM: its marginals, which its theorem gives in closed form, and its distance from the truth."""

import pytest
import torch

from inverse_score import solve
from inverse_score.gaussian import GaussianPrior
from inverse_score.posterior.methods import METHODS, Walk
from inverse_score.posterior.units import measure
from inverse_score.randomness import Noise
from inverse_score.sde import VESDE
from inverse_score.testing.half_seen import NOISE, excess, gaussian_prior, measurement, seen_half
from operators import Mask

ROWS = 600


@pytest.mark.parametrize("eta_b", [None, 1.0, 0.5])
def test_states_spread_by_the_diffusions_noise_whatever_was_measured(eta_b):
    """Kawar et al. 2022, prop. 3.1: given x_0, and averaged over y, x_t ~ N(alpha x_0, sigma^2)."""
    prior = GaussianPrior(torch.zeros(1, 2, 2), 1e-12 * torch.eye(4), VESDE(sigma_max=10.0))
    A, std = Mask(torch.tensor([[[1.0, 1.0], [0.0, 1.0]]])), 0.3
    noise = Noise(0, range(ROWS))
    y = A(std * noise(torch.zeros(ROWS, 1, 2, 2), 0))
    data = measure(prior, y, A, std)
    times = [prior.sde.time(r) for r in (10.0, 1.0, 0.35, 0.2, 0.05)]
    seen = []
    plan = Walk("ddim", times, callback=lambda k, t, x, x0_hat: seen.append((t, x)))
    METHODS["ddrm"].run(prior, data, noise, plan, eta_b=eta_b)
    for t, x in seen[1:]:
        spread = x.std(0) / prior.sde.sigma(t)
        # Where r < noise the paper's eta < 1 mixes y's own noise in; eta^2 + (1 - eta^2) = 1.
        assert (spread - 1).abs().max() < 4 / (2 * ROWS) ** 0.5, t


def test_the_weight_tied_to_noise_leaves_less_error_than_the_papers():
    prior, A = gaussian_prior(), seen_half()
    _, y = measurement(prior, A)
    posterior = prior.posterior(y, A, NOISE)
    own, paper = (
        excess(
            solve(
                y, A, prior, noise_std=NOISE, method="ddrm", num_samples=300, steps=50, **o
            ).samples[:, 0],
            posterior,
        )
        for o in ({}, {"eta_b": 1.0})
    )
    assert own < paper
    assert own < 2.0


def test_an_operator_without_singular_values_is_refused():
    prior, A = gaussian_prior(), seen_half()
    _, y = measurement(prior, A)
    with pytest.raises(ValueError, match="singular values"):
        solve(y, A @ A, prior, noise_std=NOISE, method="ddrm")
