"""What a sampler's last mean leaves out: the draw at the grid's end that moment matching adds."""

import pytest
import torch

from inverse_score import solve
from inverse_score.gaussian import GaussianPrior
from inverse_score.posterior import error_spectrum
from inverse_score.posterior.jacobian import COVARIANCES
from inverse_score.posterior.measurement import LinearMeasurement
from inverse_score.randomness import Noise
from inverse_score.sde import VPSDE
from operators import Mask

ROWS, NOISE = 4000, 0.2


def white_prior(shape=(1, 4, 4)) -> GaussianPrior:
    d = shape[1] * shape[2]
    return GaussianPrior(torch.zeros(shape), torch.eye(d), VPSDE())


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_the_rest_has_the_covariance_of_x0_given_the_state_and_the_data(covariance):
    prior = white_prior()
    images = prior.sample(4096, seed=1, dtype=torch.float32)
    prior.card["error_spectrum"] = error_spectrum(prior, images, batch_size=4096)
    seen = torch.zeros(1, 4, 4)
    seen[:, :, ::2] = 1
    data = LinearMeasurement(Mask(seen), torch.zeros(ROWS, 1, 4, 4), NOISE)
    x = torch.zeros(ROWS, 1, 4, 4)
    r = 0.3
    draws = COVARIANCES[covariance](prior, data).rest(x, prior.sde.time(r), Noise(0, range(ROWS)))
    cov = torch.cov(draws.flatten(1).T)
    variance = r**2 / (1 + r**2)
    expected = torch.diag(1 / (seen.flatten() / NOISE**2 + 1 / variance))
    # Four standard errors of a covariance, and the 2 % of a spectrum measured on 4096 images.
    scale = expected.diagonal().sqrt()
    gap = (cov - expected) / (scale[:, None] * scale)
    assert gap.abs().max() < 4 * (2 / ROWS) ** 0.5 + 0.03


def test_measured_directions_keep_the_variance_that_the_last_mean_would_take():
    prior = white_prior((1, 8, 8))
    y = torch.zeros(1, 1, 8, 8)
    samples = solve(
        y, Mask(torch.ones(1, 8, 8)), prior, noise_std=0.1, num_samples=1000, seed=3,
        method="moment-matching", covariance="isotropic", sampler="dpm++2m", steps=100,
    ).samples  # fmt: skip
    # The grid ends at a fifth of the noise, whose x0_hat alone would leave 1 / 1.04 of it.
    assert float(samples.var()) == pytest.approx(0.01 / 1.01, rel=0.015)
