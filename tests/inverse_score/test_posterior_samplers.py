"""Every method against the closed-form posterior of a Gaussian image, half its pixels measured."""

import math

import pytest
import torch

from inverse_score import condition, guide, sample, solve
from inverse_score.posterior import METHODS
from inverse_score.testing.half_seen import NOISE, excess, gaussian_prior, half_mask, measurement

SAMPLES = 1000
# Excess KL in nats that each method's approximation leaves on this problem, with a margin for the
# scatter of 1000 samples (0.02). ddnm, diffpir and dds renew a share of noise that is tied to the
# step; with all of it fresh, or the papers' constants, they leave 27.66, 1.76 and 1.71.
PLATEAUS = {
    ("moment-matching", "jacobian"): 0.06,
    ("moment-matching", "spectrum"): 0.08,
    ("moment-matching", "isotropic"): 4.5,
    ("pigdm", None): 0.15,
    ("dps", None): 0.15,
    ("song21", None): 2.8,
    ("ddnm", None): 0.46,
    ("diffpir", None): 0.46,
    ("dds", None): 0.58,
}


@pytest.fixture(scope="module")
def problem():
    prior, A = gaussian_prior(), half_mask()
    x, y = measurement(prior, A)
    return prior, A, x, y, prior.posterior(y, A, NOISE)


@pytest.mark.parametrize(("method", "covariance"), PLATEAUS)
def test_a_method_stays_within_its_stated_distance_of_the_exact_posterior(
    problem, method, covariance
):
    prior, A, _, y, posterior = problem
    options = {} if covariance is None else {"covariance": covariance}
    rec = solve(y, A, prior, noise_std=NOISE, method=method, num_samples=SAMPLES, **options)
    assert excess(rec.samples[:, 0], posterior) < PLATEAUS[method, covariance]


def test_the_jacobian_gives_mean_and_variance_within_four_standard_errors(problem):
    prior, A, _, y, posterior = problem
    rec = solve(y, A, prior, noise_std=NOISE, budget="accurate", num_samples=SAMPLES)
    variance = posterior.cov[0].diagonal().reshape(1, 4, 4)
    gap = (rec.mean[0] - posterior.mean[0]).abs() / (variance / SAMPLES).sqrt()
    assert gap.max() < 4
    assert ((rec.std[0] ** 2 / variance - 1).abs() < 4 * math.sqrt(2 / SAMPLES) + 0.02).all()


def test_true_posterior_samples_have_misfit_one_and_their_mean_less(problem):
    prior, A, _, _, _ = problem
    _, y = measurement(prior, A, items=100)
    rec = solve(y, A, prior, noise_std=NOISE, num_samples=4)
    # A posterior sample and the truth are exchangeable, so E|y - A x|^2 is that of noise.
    assert rec.misfit.mean().item() == pytest.approx(1.0, abs=4 * math.sqrt(2 / 600))
    assert rec.misfit_mean.mean() < 0.9


@pytest.mark.parametrize("method", ["jalal", "replacement", "song22"])
def test_langevin_and_replacement_methods_follow_the_data(problem, method):
    prior, A, _, y, posterior = problem
    rec = solve(y, A, prior, noise_std=NOISE, method=method, num_samples=24, steps=60)
    assert rec.misfit_mean.item() < 2.0
    gap = (rec.mean[0] - posterior.mean[0]).square().mean().sqrt()
    prior_gap = (prior.mean - posterior.mean[0]).square().mean().sqrt()
    assert gap < 0.6 * prior_gap


def test_a_paper_preset_runs_and_says_so(problem):
    prior, A, _, y, _ = problem
    rec = solve(y, A, prior, noise_std=NOISE, method="diffpir", preset="paper", num_samples=2)
    assert "preset paper" in rec.method
    assert rec.settings["lam"] == METHODS["diffpir"].presets["paper"]["lam"]


def test_a_conditional_prior_runs_under_any_sampler(problem):
    prior, A, _, y, posterior = problem
    cond = condition(prior, y.expand(600, -1, -1, -1), A, noise_std=NOISE)
    x = sample(cond, (600, 1, 4, 4), method="ddim", eta=1.0, steps=120)
    spread = posterior.cov[0].diagonal().sqrt().reshape(1, 4, 4)
    assert ((x.mean(0) - posterior.mean[0]).abs() < 4.5 * spread / math.sqrt(600)).all()


def test_guidance_by_a_gaussian_likelihood_is_exact_conditioning():
    """log p(c | x_t) of a measurement of x_t's mean pixel, in closed form, shifts the denoiser as
    the exact posterior does."""
    prior = gaussian_prior(spectrum=False)
    w, c, std, t = torch.full((16,), 1 / 16, dtype=torch.float64), 0.8, 0.1, 0.4
    alpha, sigma = prior.sde.alpha(t), prior.sde.sigma(t)
    S = torch.linalg.inv(torch.linalg.inv(prior.cov) + torch.eye(16) * (alpha / sigma) ** 2)

    def log_prob(x, t):
        return -0.5 * (c - prior.denoise(x, t).flatten(1) @ w) ** 2 / (std**2 + w @ S @ w)

    x = torch.full((2, 1, 4, 4), 0.3, dtype=torch.float64)
    x0 = prior.denoise(x, t).flatten(1)
    gain = S @ w / (std**2 + w @ S @ w)
    expected = x0 + (c - x0 @ w)[:, None] * gain
    found = guide(prior, log_prob).denoise(x, t).flatten(1)
    torch.testing.assert_close(found, expected)
    doubled = guide(prior, log_prob, scale=2.0).denoise(x, t).flatten(1)
    torch.testing.assert_close(doubled - x0, 2 * (expected - x0))


def test_exact_data_are_met_exactly_and_the_rest_keeps_its_spread(problem):
    prior, A, x, _, _ = problem
    y = A(x)
    rec = solve(y, A, prior, noise_std=0.0, num_samples=600)
    assert rec.method.startswith("moment-matching")
    assert rec.misfit_kind == "relative"
    assert rec.misfit.max() < 1e-5
    exact = prior.posterior(y, A, 1e-4)
    free = A.forms.row_gram.flatten() == 0
    true = exact.cov[0].diagonal().sqrt()[free]
    # 600 samples give a std to 3 %, the mean of eight of them to 2 %; the walk has 20 steps.
    ratio = (rec.std.flatten()[free] / true).mean()
    assert ratio.item() == pytest.approx(1.05, abs=0.09)
    gap = (rec.mean.flatten() - exact.mean.flatten())[free].abs() / true
    assert gap.max() < 0.25
