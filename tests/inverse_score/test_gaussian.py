import math

import pytest
import torch

from inverse_score import gaussian as gaussian_module
from inverse_score.gaussian import GaussianMixturePrior, GaussianPrior, gaussian_kl
from inverse_score.prior import Prior
from inverse_score.sde import VESDE, VPSDE, KarrasSDE, SubVPSDE

sdes = pytest.mark.parametrize("sde", [VESDE(), VPSDE(), SubVPSDE(), KarrasSDE()])
D = 6


def random_parameters(count=3):
    draw = torch.Generator().manual_seed(0)
    root = torch.randn(count, D, D, generator=draw, dtype=torch.float64)
    covs = root @ root.mT / D + 0.1 * torch.eye(D, dtype=torch.float64)
    means = torch.randn(count, 2, 3, generator=draw, dtype=torch.float64)
    return torch.arange(1.0, count + 1), means, covs


def mixture(sde):
    return GaussianMixturePrior(*random_parameters(), sde)


def gaussian(sde):
    _, means, covs = random_parameters()
    return GaussianPrior(means[0], covs[0], sde)


def matrix_operator(rows, complex_rows=0):
    draw = torch.Generator().manual_seed(1)
    H = torch.randn(rows, D, generator=draw, dtype=torch.float64)

    def A(x):
        y = x.flatten(1) @ H.T
        if complex_rows:
            return torch.complex(y[:, :complex_rows], y[:, complex_rows:])
        return y

    return A, H


def other_basis(values, vectors):
    """As true an eigendecomposition: other signs, and turned within equal values."""
    vectors = vectors * torch.tensor([1.0, -1, -1, 1, -1, 1])
    turn = torch.eye(D, dtype=torch.float64)
    c, s = math.cos(0.7), math.sin(0.7)
    turn[2:4, 2:4] = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    assert (values[:, 2] - values[:, 3]).abs().max() < 1e-14
    return values, vectors @ turn


def test_draws_do_not_depend_on_the_eigensolver_s_choice_of_basis(monkeypatch):
    weights, means, covs = random_parameters()
    vectors = torch.linalg.eigh(covs)[1]
    spectrum = torch.tensor([0.1, 0.2, 0.5, 0.5, 1.0, 2.0], dtype=torch.float64)
    covs = vectors * spectrum @ vectors.mT
    one = GaussianMixturePrior(weights, means, covs, VPSDE()).sample(50, seed=3)
    solver = gaussian_module._eigh
    monkeypatch.setattr(gaussian_module, "_eigh", lambda covs: other_basis(*solver(covs)))
    other = GaussianMixturePrior(weights, means, covs, VPSDE()).sample(50, seed=3)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@sdes
@pytest.mark.parametrize("make", [mixture, gaussian])
def test_score_is_the_gradient_of_the_log_density(make, sde):
    prior = make(sde)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64) * sde.T
    x = prior.sample(3).requires_grad_()
    (gradient,) = torch.autograd.grad(prior.log_prob(x, t).sum(), x)
    torch.testing.assert_close(prior.score(x, t), gradient)


@sdes
@pytest.mark.parametrize("make", [mixture, gaussian])
def test_denoiser_and_score_obey_tweedies_formula(make, sde):
    prior, t = make(sde), 0.3 * sde.T
    x = prior.sample(5, t=t)
    torch.testing.assert_close(prior.score(x, t), Prior.score(prior, x, t))
    torch.testing.assert_close(prior.denoise(x.float(), t), prior.denoise(x, t).float())


def test_the_mixtures_density_integrates_to_one():
    one = torch.eye(1, dtype=torch.float64)
    prior = GaussianMixturePrior(
        torch.tensor([1.0, 3.0]),
        torch.tensor([[-1.0], [2.0]]),
        torch.stack([0.3 * one, 0.1 * one]),
        VPSDE(),
    )
    x = torch.linspace(-12, 12, 20001, dtype=torch.float64)[:, None]
    for t in (None, 0.1, 0.7):
        assert abs(torch.trapezoid(prior.log_prob(x, t).exp(), x[:, 0]).item() - 1) < 1e-9


def test_samples_have_the_mixtures_weights_means_and_covariance():
    prior, n = mixture(VPSDE()), 40000
    x = prior.sample(n).flatten(1)
    w, m = prior.weights, prior.means.flatten(1)
    mean = w @ m
    cov = torch.einsum("k,kij->ij", w, prior.covs) + (m - mean).T @ ((m - mean) * w[:, None])
    # The KL of sample moments is about d (d + 3) / 4n for a Gaussian; a mixture's is near it.
    assert gaussian_kl(x.mean(0), torch.cov(x.T), mean, cov) < 4 * D * (D + 3) / (4 * n)


def test_samples_at_t_follow_the_marginal():
    prior, n, t = gaussian(SubVPSDE()), 40000, 0.4
    x = prior.sample(n, t=t).flatten(1)
    alpha, sigma = prior.sde.alpha(t), prior.sde.sigma(t)
    cov = alpha**2 * prior.cov + sigma**2 * torch.eye(D)
    found = gaussian_kl(x.mean(0), torch.cov(x.T), alpha * prior.mean.flatten(), cov)
    assert found < 2 * D * (D + 3) / (4 * n)


@pytest.mark.parametrize("complex_rows", [0, 2])
def test_gaussian_posterior_is_the_information_form(complex_rows):
    prior = gaussian(VPSDE())
    A, H = matrix_operator(4, complex_rows)
    x = prior.sample(3)
    posterior = prior.posterior(A(x), A, 0.3)
    precision = torch.linalg.inv(prior.cov) + H.T @ H / 0.3**2
    rhs = torch.linalg.solve(prior.cov, prior.mean.flatten()) + x.flatten(1) @ H.T @ H / 0.3**2
    torch.testing.assert_close(posterior.cov[1], torch.linalg.inv(precision))
    torch.testing.assert_close(posterior.mean.flatten(1).T, torch.linalg.solve(precision, rhs.T))


def test_noise_may_differ_by_item_and_by_measurement():
    prior = gaussian(VPSDE())
    A, _ = matrix_operator(4)
    y = A(prior.sample(2))
    std = torch.tensor([0.1, 0.2, 0.3, 0.4])
    by_item = prior.posterior(y, A, torch.tensor([0.1, 0.4]))
    for i, noise_std in enumerate((0.1, 0.4)):
        alone = prior.posterior(y[i : i + 1], A, noise_std)
        torch.testing.assert_close(by_item.mean[i], alone.mean[0])
        torch.testing.assert_close(by_item.cov[i], alone.cov[0])
    assert not torch.allclose(prior.posterior(y, A, std).mean, prior.posterior(y, A, 0.1).mean)


def test_exact_data_are_met_exactly_with_unmeasured_entries():
    prior = gaussian(VPSDE())
    mask = torch.tensor([1.0, 0, 1, 0, 0, 1], dtype=torch.float64)
    x = prior.sample(2)

    def A(x):
        return mask * x.flatten(1)

    posterior = prior.posterior(A(x), A, 0.0)
    torch.testing.assert_close(A(posterior.mean), A(x))
    assert torch.linalg.matrix_rank(posterior.cov[0], tol=1e-9) == 3


def test_mixture_posterior_is_bayes_rule():
    """The ratio of posterior densities of two points is that of prior times likelihood."""
    prior = mixture(VPSDE())
    A, _ = matrix_operator(2)
    y, noise_std = A(prior.sample(1)), 0.5
    posterior = prior.posterior(y, A, noise_std)
    of_x = GaussianMixturePrior(
        posterior.weights[0], posterior.means[0], posterior.covs[0], VPSDE()
    )
    x = prior.sample(6, seed=2)
    joint = prior.log_prob(x) - 0.5 * ((y - A(x)) / noise_std).square().sum(1)
    ratio = of_x.log_prob(x) - joint
    torch.testing.assert_close(ratio, ratio.mean().expand(6))


def test_bad_parameters_say_what_was_expected():
    w, m, C = random_parameters()
    bad = C.clone()
    bad[1] = -torch.eye(D)
    with pytest.raises(ValueError, match="positive definite; number 1 has eigenvalues from -1"):
        GaussianMixturePrior(w, m, bad, VPSDE())
    with pytest.raises(ValueError, match="must be symmetric"):
        GaussianPrior(m[0], C[0] + torch.triu(torch.ones(D, D), 1), VPSDE())
    with pytest.raises(ValueError, match=r"got \(3,\), \(3, 2, 3\), \(3, 5, 5\)"):
        GaussianMixturePrior(w, m, C[:, :5, :5], VPSDE())
    with pytest.raises(ValueError, match="weights must be positive"):
        GaussianMixturePrior(-w, m, C, VPSDE())
    prior = gaussian(VPSDE())
    with pytest.raises(ValueError, match=r"the prior's x is \(B, \*\(2, 3\)\); got \(4, 6\)"):
        prior.denoise(torch.zeros(4, 6), 0.5)
    with pytest.raises(ValueError, match=r"t must lie in \(0, 1.0\]"):
        prior.score(torch.zeros(4, 2, 3), 1.5)
    A, _ = matrix_operator(2)
    with pytest.raises(ValueError, match="noise_std must be finite and >= 0; got -1"):
        prior.posterior(torch.zeros(1, 2), A, -1)
