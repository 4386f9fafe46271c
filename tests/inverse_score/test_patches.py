"""Patch-wise denoising: the whole image's answer, without seams, in the memory of a patch."""

import pytest
import torch

import recipes
from inverse_score import GaussianPrior, KarrasSDE, PatchWise, Prior
from inverse_score.patches import spans
from inverse_score.randomness import Noise

SDE = KarrasSDE(20.0)


class Local(torch.nn.Module):
    """A denoiser of reach 2: the mean of 5 x 5 pixels, zeros outside, times a pixelwise slope."""

    def forward(self, x, t):
        mean = torch.nn.functional.avg_pool2d(x, 5, stride=1, padding=2)
        return mean * torch.tanh(x) / (1 + t[:, None, None, None])


def images(*shape, seed=0):
    return Noise(seed, range(shape[0]))(torch.empty(*shape, dtype=torch.float64), 0)


@pytest.mark.parametrize(("length", "size", "overlap"), [(50, 16, 4), (17, 16, 8), (9, 16, 4)])
def test_weights_of_the_patches_sum_to_one_at_every_pixel(length, size, overlap):
    total = torch.zeros(length)
    for start, weights in spans(length, size, overlap):
        total[start : start + len(weights)] += weights
    torch.testing.assert_close(total, torch.ones(length))
    # Where patches meet the weights pass through a half, not from 1 to 0 at once.
    if length > size:
        (_, first), *_ = spans(length, size, overlap)
        assert float(first.diff().abs().max()) < 2 / overlap


@pytest.mark.parametrize("shape", [(3, 41), (37, 16), (12, 50)])
def test_a_prior_of_independent_pixels_gives_the_whole_image_exactly(shape):
    class Pixelwise(torch.nn.Module):
        def forward(self, x, t):
            return 0.3 * x / (0.3 + t[:, None, None, None] ** 2) + torch.sin(x)

    prior = Prior(Pixelwise(), SDE, output="x0", t_min=0.01)
    x, t = images(2, 3, *shape), torch.tensor([0.5, 2.0], dtype=torch.float64)
    patched = PatchWise(prior, 16, overlap=6, max_patches=3)
    torch.testing.assert_close(patched.denoise(x, t), prior.denoise(x, t))
    torch.testing.assert_close(patched.score(x, t), prior.score(x, t))


def test_a_convolution_differs_only_within_its_reach_of_a_patch_s_edge():
    prior = Prior(Local(), SDE, output="x0", t_min=0.01)
    x = images(1, 1, 40, 16)
    error = (PatchWise(prior, 16, overlap=4).denoise(x, 0.5) - prior.denoise(x, 0.5)).abs()[0, 0]
    starts = [start for start, _ in spans(40, 16, 4)]
    near = torch.zeros(40, dtype=torch.bool)
    for edge in {*starts, *(start + 16 for start in starts)} - {0, 40}:
        near[edge - 2 : edge + 2] = True
    assert float(error[~near].max()) < 1e-12
    assert float(error[near].max()) > 1e-6


def test_products_with_the_jacobian_are_those_of_the_blend():
    prior = Prior(Local(), SDE, output="x0", t_min=0.01)
    patched = PatchWise(prior, 16, overlap=4)
    x = images(1, 1, 30, 30).requires_grad_()
    out = patched.denoise(x, 0.5)
    v, h = images(1, 1, 30, 30, seed=1), 1e-6
    first, again = (torch.autograd.grad(out, x, v, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, again)
    direction = images(1, 1, 30, 30, seed=2)
    ahead, behind = (patched.denoise(x.detach() + s * direction, 0.5) for s in (h, -h))
    slope = (ahead - behind) / (2 * h)
    assert float((first * direction).sum()) == pytest.approx(float((v * slope).sum()), rel=1e-6)


def test_a_recipe_runs_on_patches_and_has_the_exact_posterior_s_mean():
    side = 24
    pixels = torch.full((1, side, side), 0.5, dtype=torch.float64)
    whole = GaussianPrior(pixels, 0.04 * torch.eye(side**2, dtype=torch.float64), SDE)
    small = GaussianPrior(pixels[:, :16, :16], 0.04 * torch.eye(256, dtype=torch.float64), SDE)
    mask = (torch.arange(side**2).reshape(side, side) % 2).double()
    y = mask * images(1, side, side)
    options = {"noise_std": 0.1, "method": "moment-matching", "covariance": "isotropic"}
    recs = [
        recipes.inpainting(prior, mask, **options, steps=10)(y, num_samples=2)
        for prior in (whole, PatchWise(small, 16))
    ]
    torch.testing.assert_close(recs[1].samples, recs[0].samples, atol=1e-6, rtol=0)


def test_patches_that_the_prior_cannot_take_are_refused():
    prior = GaussianPrior(torch.zeros(1, 4, 4), torch.eye(16), SDE)
    with pytest.raises(ValueError, match=r"images are \(4, 4\); got patches of size 8"):
        PatchWise(prior, 8)
    with pytest.raises(ValueError, match="overlap <= size / 2; got size 4, overlap 3"):
        PatchWise(prior, 4, overlap=3)
