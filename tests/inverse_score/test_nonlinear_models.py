"""Phase retrieval and transmission CT of two numbers, whose posterior a grid gives exactly."""

import pytest
import torch

from inverse_score import GaussianMixturePrior, GaussianPrior, solve
from inverse_score.posterior import METHODS, measure
from inverse_score.posterior.methods import Walk, grid_for
from inverse_score.sde import VPSDE
from inverse_score.testing.draws import BatchNoise
from operators import LinearOperator
from operators.detection import BeerLambert, Magnitude
from operators.nonlinear import NonlinearOperator

ROOT = 0.5**0.5
TAKE = ["dps", "red-diff", "daps", "split-gibbs"]


def matrix(rows):
    M = torch.tensor(rows)
    return LinearOperator.from_function(lambda x: x @ M.to(x).T, (2,))


def phase_retrieval():
    """|F x| of a pair, F its Fourier transform: swapped and negated pairs measure the same."""
    covs = 0.2**2 * torch.eye(2).expand(2, 2, 2)
    means = torch.tensor([[1.0, 0.4], [0.2, 1.1]])
    prior = GaussianMixturePrior(torch.tensor([0.35, 0.65]), means, covs, VPSDE())
    A = Magnitude(matrix([[ROOT, ROOT], [ROOT, -ROOT]]))
    return prior, A, torch.tensor([[1.0, 0.5]]), 0.1


def transmission():
    """Three rays of a pair of pixels, so few counts that the logarithm of one is far off."""
    cov = torch.tensor([[0.4, 0.1], [0.1, 0.3]])
    prior = GaussianPrior(torch.tensor([1.0, 1.2]), cov, VPSDE())
    A = BeerLambert(matrix([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), I0=30.0)
    y = torch.tensor([[3.0, 15.0, 6.0]])
    return prior, A, y, y.sqrt()


PROBLEMS = {"phase retrieval": phase_retrieval, "transmission": transmission}


def moments_by_grid(prior, A, y, noise_std):
    """Mean and covariance of p(x | y) and the mass with x_1 > x_2, by sums over a fine grid."""
    at = torch.linspace(-2.5, 4.5, 500, dtype=torch.float64)
    x = torch.cartesian_prod(at, at)
    log_p = prior.log_prob(x) - 0.5 * ((y - A(x)) / noise_std).square().sum(1)
    p = torch.softmax(log_p, 0)
    mean = p @ x
    return mean, (p[:, None] * (x - mean)).T @ (x - mean), p[x[:, 0] > x[:, 1]].sum()


@pytest.mark.parametrize("method", ["daps", "split-gibbs"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_methods_exact_in_a_limit_sample_the_posterior_that_a_grid_gives(name, method):
    prior, A, y, noise_std = PROBLEMS[name]()
    mean, cov, above = moments_by_grid(prior, A, y, noise_std)
    data = measure(prior, y, A, noise_std).rows([0] * 800)
    times = grid_for(prior, float(data.level[0]), float(data.typical[0]), 50)
    inner = {"inner": 2} if method == "split-gibbs" else {}
    with torch.no_grad():
        plan = Walk("ddim", times)
        u = METHODS[method].run(prior, data, BatchNoise(3), plan, langevin=20, **inner)
    x = u.double()
    std = cov.diagonal().sqrt()
    # Split Gibbs freezes the weights of modes where its falling rho first keeps them apart.
    several = name == "phase retrieval" and method == "split-gibbs"
    assert ((x.mean(0) - mean) / std).abs().max() < (0.4 if several else 0.2)
    assert (torch.cov(x.T).diagonal().sqrt() / std - 1).abs().max() < 0.2
    assert ((x[:, 0] > x[:, 1]).double().mean() - above).abs() < (0.2 if several else 0.1)


@pytest.mark.parametrize("name", PROBLEMS)
def test_red_diff_and_dps_fit_data_that_are_not_linear(name):
    prior, A, y, noise_std = PROBLEMS[name]()
    options = {"noise_std": noise_std, "num_samples": 40}
    for method in ("dps", "red-diff"):
        rec = solve(y, A, prior, method=method, steps=40, **options)
        assert rec.misfit.median() < 3, method


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_derivative_is_that_of_the_forward_model(name):
    _, A, _, _ = PROBLEMS[name]()
    x, v = torch.tensor([[0.7, 0.3], [1.1, 0.8]]).double(), torch.tensor([[0.3, -1], [1, 0.2]])
    v = v.double()
    J, by_autograd = A.linearize(x), NonlinearOperator.linearize(A, x)
    difference = (A(x + 1e-6 * v) - A(x - 1e-6 * v)) / 2e-6
    torch.testing.assert_close(J(v), difference, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(by_autograd(v), difference, rtol=1e-6, atol=1e-8)
    r = difference + 1
    torch.testing.assert_close(by_autograd.T(r), J.T(r))
    torch.testing.assert_close((J.T(r) * v).sum(1), (r * J(v)).sum(1))


def test_what_needs_a_linear_operator_says_so_and_names_what_does_not():
    prior, A, y, noise_std = transmission()
    for method, entry in METHODS.items():
        if method in TAKE:
            assert entry.nonlinear
            continue
        with pytest.raises(ValueError, match=f"'{method}' needs a linear operator.*dps, red-diff"):
            solve(y, A, prior, noise_std=noise_std, method=method)
    assert solve(y, A, prior, noise_std=noise_std, steps=5).method.startswith("daps")


def test_units_of_the_prior_do_not_change_the_samples():
    prior, A, y, noise_std = transmission()
    scaled = GaussianPrior((prior.mean - 1) / 2, prior.cov / 4, VPSDE(), range=(2.0, 1.0))
    options = {"noise_std": noise_std, "method": "daps", "steps": 20, "num_samples": 200}
    one, two = (solve(y, A, p, langevin=5, **options).samples[:, 0] for p in (prior, scaled))
    assert (one.mean(0) - two.mean(0)).abs().max() < 0.2
