"""The density model of the dequantization table against the law that it stands for."""

import torch

from inverse_score.sde import VPSDE
from inverse_score.testing.pixel_mixture import LEVELS, SIDE, DigitDenoiser, new_prior


def digits(count):
    """Whole numbers 0 .. 255, half of the pixels empty."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(LEVELS, (count, 1, SIDE, SIDE), generator=draw).float()
    return x * (torch.rand(x.shape, generator=draw) < 0.5)


def test_untrained_denoiser_is_the_posterior_mean_of_background_and_mean_pixel():
    """alpha x0_hat = x + sigma^2 grad log p_t(x), p_t of the two components by hand."""
    sde = VPSDE()
    mean, std = torch.full((1, 3, 3), -0.2), torch.full((1, 3, 3), 0.6)
    network = DigitDenoiser(sde, mean, std, width=8, blocks=1)
    for t in (1e-5, 1e-3, 0.1, 0.5):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        x = torch.linspace(-1.1, 1.1, 9).reshape(1, 1, 3, 3).double().requires_grad_()
        # A bin is 2 / LEVELS wide, and a uniform law's variance is width^2 / 12.
        centres, variances = (1 / LEVELS - 1, -0.2), ((2 / LEVELS) ** 2 / 12, 0.36)
        laws = [
            torch.distributions.Normal(alpha * h, (alpha**2 * v + sigma**2) ** 0.5)
            for h, v in zip(centres, variances, strict=True)
        ]
        total = torch.logsumexp(torch.stack([law.log_prob(x) for law in laws]), 0).sum()
        (score,) = torch.autograd.grad(total, x)
        expected = (x + sigma**2 * score).detach() / alpha
        found = network.double()(x.detach(), torch.tensor([t], dtype=torch.float64))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_untrained_prior_knows_the_pixels_mean_and_std():
    x = digits(512)
    prior = new_prior(x)
    torch.testing.assert_close(prior.network.h[1], (2 * x / LEVELS - 1).mean(0), rtol=0, atol=0.01)
    torch.testing.assert_close(prior.network.s[1], (2 * x / LEVELS).std(0), rtol=0.01, atol=0)
