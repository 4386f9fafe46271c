"""The benchmark of shipped priors: what its columns and distances mean."""

import numpy as np
import pytest
import torch

from inverse_score.gaussian import GaussianPrior
from inverse_score.sde import KarrasSDE
from inverse_score.testing.denoising import (
    denoised,
    denoising_table,
    nearest,
    nonlocal_means,
    total_variation,
)

RECTANGLE = np.zeros((1, 32, 32), np.float32)
RECTANGLE[0, 4:14, 8:28] = 1


@pytest.mark.parametrize("method", [total_variation, nonlocal_means])
def test_a_baseline_removes_most_noise_from_a_rectangle_and_keeps_its_shape(method):
    noise = 0.1 * np.random.default_rng(0).standard_normal(RECTANGLE.shape).astype(np.float32)
    result = method(RECTANGLE + noise, 0.1, 0.8)
    assert result.shape == RECTANGLE.shape
    assert np.mean((result - RECTANGLE) ** 2) < 0.2 * 0.1**2


def test_copies_are_at_distance_zero_and_unrelated_images_at_root_two():
    library = torch.randn(5, 1, 40, 40)
    assert nearest(3 * library[:2] + 7, library).max() < 1e-2
    assert nearest(torch.randn(5, 1, 40, 40), library).sub(2**0.5).abs().max() < 0.15


def test_the_prior_column_of_white_images_is_the_wiener_error():
    """x0 ~ N(0, 1): error / s^2 = 1 / (1 + s^2), and no baseline does better."""
    d = 64
    prior = GaussianPrior(torch.zeros(1, 8, 8), torch.eye(d), KarrasSDE())
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    u = denoised(prior, images, 1.0)
    torch.testing.assert_close(u, images / 2, atol=0.01, rtol=0.01)
    last = denoising_table(prior, images)[-1].split("|")
    assert float(last[1]) == 0.5
    assert abs(float(last[2]) - 10 * np.log10(1 / 1.25)) < 0.5
    assert float(last[5].split()[0]) > 0
