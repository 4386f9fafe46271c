"""Reconstructions without a learned prior: closed forms and a piecewise constant image."""

import pytest
import torch

from inverse_score import Prior, solve
from inverse_score.posterior import pixel_variance
from inverse_score.posterior.wavelets import psi, psi_inverse
from inverse_score.randomness import Noise
from inverse_score.sde import VPSDE
from inverse_score.testing.half_seen import NOISE, gaussian_prior, measurement, seen_half
from operators import CartesianMRI, GaussianBlur, Radon

SIZE = 32


def blocks():
    """A rectangle and a square on a dark ground, in the real part; a fainter imaginary part."""
    x = torch.zeros(1, 2, SIZE, SIZE)
    x[:, 0, 6:24, 5:27] = 0.6
    x[:, 0, 10:16, 12:18] = 1.0
    x[:, 1, 12:28, 8:20] = 0.3
    return x


def white_prior(shape):
    """N(0, 0.3^2 I), so that the baselines know the scale of an image and nothing else."""

    def network(x, t):
        v, alpha, sigma = 0.09, sde.alpha(t[0].item()), sde.sigma(t[0].item())
        return alpha * v / (alpha**2 * v + sigma**2) * x

    sde = VPSDE()
    return Prior(network, sde, output="x0", event_shape=shape)


@pytest.fixture(scope="module")
def scan():
    """40 % of k-space at random and its 8 x 8 middle, noise 0.02: incoherent, as sparsity needs."""
    generator = torch.Generator().manual_seed(1)
    mask = (torch.rand(SIZE, SIZE, generator=generator) < 0.4).float()
    mask[12:20, 12:20] = 1
    A = CartesianMRI(mask, image_shape=(SIZE, SIZE))
    x = blocks()
    y = A(x)
    n = torch.complex(*(Noise(4, [0])(y.real, k) for k in range(2)))
    return x, A, y + 0.02 * mask * n, white_prior((2, SIZE, SIZE))


def error(x, rec):
    return float((rec.mean - x).norm() / x.norm())


@pytest.mark.parametrize(("method", "gain"), [("tv", 0.3), ("wavelet", 0.85)])
def test_sparse_edges_beat_the_zero_filled_image(scan, method, gain):
    x, A, y, prior = scan
    plain = error(x, solve(y, A, prior, noise_std=0.02, method="zero-filled"))
    rec = solve(y, A, prior, noise_std=0.02, method=method)
    assert error(x, rec) < gain * plain
    # Cross-validation knows no truth, and still loses little to the best of all strengths.
    options = {"noise_std": 0.02, "method": method}
    each = [solve(y, A, prior, strength=s, **options) for s in (0.1, 1.0, 3.0, 10.0)]
    assert error(x, rec) < 1.05 * min(error(x, other) for other in each)
    assert rec.misfit.item() < 2.5


def test_tikhonov_is_the_ridge_solution_of_the_normal_equations():
    """(A^T A / noise^2 + strength / v)^-1 A^T y / noise^2."""
    prior, A = gaussian_prior(), GaussianBlur((1, 4, 4), std=0.8)
    _, y = measurement(prior, A)
    v = pixel_variance(prior, (1, 4, 4))
    rows = A(torch.eye(16).reshape(16, 1, 4, 4)).flatten(1).T
    normal = rows.T @ rows / NOISE**2 + 0.7 / v * torch.eye(16)
    expected = torch.linalg.solve(normal, rows.T @ y.flatten() / NOISE**2)
    rec = solve(y, A, prior, noise_std=NOISE, method="tikhonov", strength=0.7)
    torch.testing.assert_close(rec.mean.flatten(), expected, rtol=1e-3, atol=1e-3)


def test_zero_filling_is_the_adjoint_and_pinv_fits_the_data():
    prior, A = gaussian_prior(), seen_half()
    _, y = measurement(prior, A)
    rec = solve(y, A, prior, noise_std=NOISE, method="zero-filled")
    torch.testing.assert_close(rec.mean, A.T(y))
    rec = solve(y, A, prior, noise_std=NOISE, method="pinv")
    assert rec.misfit.item() < 1e-8


def test_filtered_back_projection_restores_a_disc_that_back_projection_does_not():
    A = Radon(SIZE, torch.arange(48) * torch.pi / 48)
    i = torch.arange(SIZE) - SIZE / 2 + 0.5
    x = ((i[:, None] ** 2 + i**2) < 8**2).float()[None, None]
    prior = white_prior((1, SIZE, SIZE))
    rec = solve(A(x), A, prior, noise_std=0.01, method="fbp")
    assert error(x, rec) < 0.3
    assert rec.mean[0, 0, 13:19, 13:19].mean().item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("strength", [0.0, -1.0])
def test_a_strength_must_be_positive(strength):
    prior, A = gaussian_prior(), seen_half()
    _, y = measurement(prior, A)
    with pytest.raises(ValueError, match="strength must be positive"):
        solve(y, A, prior, noise_std=NOISE, method="tikhonov", strength=strength)


def test_the_wavelet_transform_is_orthonormal_and_annihilates_cubic_details():
    """Four vanishing moments: away from the periodic seam a cubic has no detail coefficients."""
    x = Noise(0, [0])(torch.empty(1, 1, 16, 16, dtype=torch.float64), 0)
    torch.testing.assert_close(psi_inverse(psi(x)), x)
    torch.testing.assert_close(psi(x).norm(), x.norm())
    cubic = (torch.linspace(-1, 1, 64, dtype=torch.float64) ** 3).expand(1, 1, 64, 64)
    assert psi(cubic)[0, 0, :32, 32:60].abs().max() < 1e-10
