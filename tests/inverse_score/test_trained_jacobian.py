"""`budget="accurate"` on trained networks, whose Jacobians are neither symmetric nor positive."""

from pathlib import Path

import pytest
import torch

from inverse_score import load_prior, solve
from inverse_score.posterior.conditional import denoise_with_vjp
from inverse_score.posterior.jacobian import JacobianMatching, matched
from inverse_score.posterior.measurement import LinearMeasurement
from inverse_score.randomness import Noise
from inverse_score.testing.problems import ToyProblem
from operators import Identity, Mask, vstack

PRIOR = Path(__file__).parents[1] / "studies" / "nonstationary.safetensors"
COUNT = 64


@pytest.fixture(scope="module")
def problem():
    """Half the pixels at noise 0.01: plain conjugate gradients diverge here."""
    return ToyProblem("inpainting", "nonstationary", 0.01), load_prior(PRIOR)


def _run(problem, prior, budget, **options):
    rec = solve(
        problem.y, problem.operator, prior, noise_std=0.01, budget=budget, num_samples=COUNT,
        batch_size=COUNT, seed=1, **options,
    )  # fmt: skip
    post, x = problem.posterior, rec.samples[:, 0].double().flatten(1)
    shift = x.mean(0) - post.mean[0].flatten()
    mean = (shift @ torch.linalg.solve(post.cov[0], shift) / 64).sqrt()
    return rec, float(mean), float((torch.cov(x.T).trace() / post.cov[0].trace()).sqrt())


def test_accurate_is_near_the_exact_posterior_of_a_trained_network_and_no_worse_than_fast(problem):
    """64 exact samples' mean errs by 0.125 standard deviations."""
    fast, accurate = _run(*problem, "fast"), _run(*problem, "accurate")
    assert accurate[1] < 0.22
    assert accurate[1] < fast[1] + 0.03
    assert accurate[2] == pytest.approx(1.0, abs=0.1)
    assert accurate[0].misfit_ok.all()
    assert not accurate[0].warnings


def test_the_network_is_one_on_which_the_jacobian_is_not_a_covariance(problem):
    _, prior = problem
    t = prior.sde.time(5.0)
    x = 5.0 * torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    _, vjp = denoise_with_vjp(prior, x.expand(64, -1, -1, -1), t)
    J = vjp(torch.eye(64).reshape(64, 1, 8, 8)).flatten(1)
    assert (J - J.T).norm() / (J + J.T).norm() > 0.05
    assert (torch.linalg.eigvalsh((J + J.T) / 2) < 0).sum() > 5


@pytest.mark.parametrize("operator", ["inpainting", "radon"])
@pytest.mark.parametrize("r", [0.02, 0.3, 5.0])
def test_on_a_closed_form_the_step_is_the_exact_one_in_posterior_standard_deviations(operator, r):
    """Where the error spectrum is off by far, and C asks for most of the 40 products."""
    problem = ToyProblem(operator, "nonstationary", 0.01)
    prior, t = problem.prior, problem.prior.sde.time(r)
    # In float64, with noise and data that belong to one image.
    x0 = prior.sample(4, seed=2)
    A = problem.operator
    y = A(x0) + 0.01 * Noise(1, range(4))(A(x0), 0) * (A(x0) != 0)
    alpha = prior.sde.alpha(t)
    x = alpha * (x0 + r * Noise(2, range(4))(x0, 0))
    found = JacobianMatching(prior, LinearMeasurement(A, y, 0.01)).denoise(x, t)
    both = vstack([A, Identity(A.in_shape)])
    noise = torch.cat([torch.full(A.out_shape, 0.01).flatten(), torch.full((64,), r)])
    exact = prior.posterior(torch.cat([y.flatten(1), (x / alpha).flatten(1)], 1), both, noise)
    shift = (found.flatten(1) - exact.mean.flatten(1))[..., None]
    error = (shift.mT @ torch.linalg.solve(exact.cov, shift) / 64).sqrt()
    assert error.max() < 0.02 * (1 + r**2 / 0.03) ** 0.5


def _measurement(rows, noise_std=0.1):
    y = torch.randn(rows, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    return LinearMeasurement(Mask(torch.ones(1, 4, 4)), y, noise_std)


def _matrix_map(C):
    return lambda s: (s.flatten(1) @ C.T).reshape(s.shape)


def _covariance(seed, negative=0):
    g = torch.Generator().manual_seed(seed)
    V = torch.linalg.qr(torch.randn(16, 16, generator=g).double())[0]
    values = torch.logspace(0, -3, 16).double()
    values[:negative] *= -1
    return (V * values) @ V.T


def test_the_step_is_the_exact_one_for_a_symmetric_positive_covariance():
    C = _covariance(1)
    root = torch.linalg.cholesky(C + 0.01 * torch.eye(16))
    data = _measurement(3)
    data.y = _matrix_map(root)(data.y)
    r = data.weights.sqrt() * data.y
    found = matched(data, _matrix_map(C), lambda b: data.solve(b, 1.0), r, 1e-6, 40)
    exact = torch.linalg.solve(C + 0.01 * torch.eye(16), data.y.flatten(1).T).T @ C
    torch.testing.assert_close(found.flatten(1), exact, rtol=1e-6, atol=1e-6)


def test_negative_variance_and_asymmetry_leave_a_bounded_step():
    data, g = _measurement(4), torch.Generator().manual_seed(2)
    C = _covariance(1, negative=6) + 0.3 * torch.randn(16, 16, generator=g).double()
    r = data.weights.sqrt() * data.y
    for most in (0, 1, 2, 4, 40):
        step = matched(data, _matrix_map(C), lambda b: data.solve(b, 1.0), r, 1e-6, most)
        assert step.square().mean() < 4 * data.y.square().mean()


def test_an_items_step_does_not_depend_on_the_others():
    data, C = _measurement(3), [_covariance(1), _covariance(2, negative=4), _covariance(3)]
    r = data.weights.sqrt() * data.y

    def product(items):
        return lambda s: torch.stack(
            [(C[i] @ row.flatten()).reshape(row.shape) for i, row in zip(items, s, strict=True)]
        )

    together = matched(data, product([0, 1, 2]), lambda b: data.solve(b, 1.0), r, 1e-4, 40)
    for i in range(3):
        one = data.rows([i])
        solve_one = lambda b, one=one: one.solve(b, 1.0)  # noqa: E731
        alone = matched(one, product([i]), solve_one, r[[i]], 1e-4, 40)
        torch.testing.assert_close(together[[i]], alone, rtol=1e-9, atol=1e-12)
