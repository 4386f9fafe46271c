"""Dequantization and the likelihood bound against densities that are known."""

import math

import pytest
import torch

from inverse_score.dequantization import (
    DequantizationFlow,
    dequantized_bits,
    fit,
    likelihood_bound,
    spread,
)
from inverse_score.gaussian import GaussianPrior
from inverse_score.randomness import Noise
from inverse_score.sde import VPSDE

LEVELS = 4


def gaussian_surprise(data, noise):
    """-log N(0.55, 0.2^2) of each pixel."""
    z = (data - 0.55) / 0.2
    return (0.5 * z**2 + math.log(0.2) + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def bin_bits(x):
    """-log2 of the mass of each pixel's bin, a pixel."""
    normal = torch.distributions.Normal(0.55, 0.2)
    mass = normal.cdf((x + 1) / LEVELS) - normal.cdf(x / LEVELS)
    return -mass.log2().flatten(1).mean(1)


def images(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(LEVELS, (count, 1, 4, 4), generator=generator).float()


def test_learned_dequantization_is_between_the_bin_mass_and_the_uniform_bound():
    """-log2 P(x) <= learned < uniform, and the learned gap is a small part of the uniform one."""
    torch.manual_seed(0)
    x = images(256)
    flow = DequantizationFlow(1, LEVELS, width=8, couplings=2)
    parameters = list(flow.parameters())
    fit(x, gaussian_surprise, LEVELS, parameters=parameters, flow=flow, steps=200, lr=1e-2)
    test = images(512, seed=1)
    exact = bin_bits(test).mean().item()
    noise = Noise(3, range(len(test)))
    with torch.no_grad():
        learned = dequantized_bits(test, gaussian_surprise, LEVELS, noise, flow=flow).mean().item()
        uniform = dequantized_bits(test, gaussian_surprise, LEVELS, noise).mean().item()
    assert uniform > exact + 0.05
    assert exact - 0.005 < learned < exact + 0.2 * (uniform - exact)


def test_flow_density_integrates_to_one():
    """E_uniform[q(u | x)] = 1 on one pixel: q from u by inverting the flow on a fine grid."""
    torch.manual_seed(0)
    flow = DequantizationFlow(1, LEVELS, width=8, couplings=2).double()
    for parameter in flow.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    eps = torch.linspace(-8, 8, 20001, dtype=torch.float64).reshape(-1, 1, 1, 1)
    u, log_q = flow(torch.full_like(eps, 2.0), eps)
    u, q = u.flatten(), log_q.exp()
    assert (u[1:] > u[:-1]).all()
    assert torch.trapezoid(q, u).item() == pytest.approx(1.0, abs=1e-6)


def test_untrained_flow_is_nearly_uniform():
    flow = DequantizationFlow(1, 16)
    x = torch.zeros(4000, 1, 1, 1)
    u, log_q = flow(x, Noise(0, range(4000))(x, 0))
    assert u.mean().item() == pytest.approx(0.5, abs=0.02)
    assert u.std().item() == pytest.approx(12**-0.5, abs=0.01)
    assert 0 < log_q.mean().item() < 0.05


def test_bound_is_tight_on_average_for_the_exact_score():
    """E over x_0 and its noise = E[-log p_e(x_e)], the entropy of the blurred Gaussian."""
    torch.manual_seed(0)
    d, sde = 4, VPSDE()
    cov = 0.3 * torch.eye(d) + 0.1
    prior = GaussianPrior(torch.full((d,), 0.5), cov, sde)
    count = 40_000
    x = torch.full((d,), 0.5) + torch.randn(count, d) @ torch.linalg.cholesky(cov).T
    bound = likelihood_bound(prior, x, Noise(0, range(count)))
    blurred = sde.alpha(prior.t_min) ** 2 * cov + sde.sigma(prior.t_min) ** 2 * torch.eye(d)
    entropy = 0.5 * torch.logdet(2 * math.pi * math.e * blurred).item()
    standard_error = bound.std().item() / math.sqrt(count)
    assert bound.mean().item() == pytest.approx(entropy, abs=4 * standard_error + 2e-3)
    assert standard_error < 0.2


def test_uniform_spread_stays_in_its_bin():
    x = images(64)
    data, log_q = spread(x, LEVELS, Noise(0, range(64)))
    assert torch.equal((data * LEVELS).floor(), x)
    assert not log_q.any()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((1, 1, 2, 2), 0.5), r"whole numbers 0 \.\. 3; got values from 0.5 to 0.5"),
        (torch.full((1, 1, 2, 2), 4.0), "got values from 4.0 to 4.0"),
        (torch.zeros(1, 2, 2, 2), r"x must be \(B, 1, H, W\); got \(1, 2, 2, 2\)"),
    ],
)
def test_images_that_are_not_levels_are_errors(x, message):
    with pytest.raises(ValueError, match=message):
        DequantizationFlow(1, LEVELS)(x, torch.zeros_like(x))
