"""Metal in CT: its trace, what is written into it, and that the recipe leaves its rays alone."""

import math

import pytest
import torch

from inverse_score import GaussianPrior
from inverse_score.errors import BadInput
from inverse_score.sde import KarrasSDE
from operators import check_adjoint
from operators.ct import WATER, Radon, from_hounsfield
from operators.observed import Observed
from recipes.ct import ct
from recipes.metal import interpolated, kept_rays, metal_trace, normalized

SIZE = 24


def scanner(views=40):
    return Radon(SIZE, torch.arange(views) * math.pi / views, pixel_size=2.0)


def body(metal=8000.0):
    """A disc of water with a dot of metal, and its mask; HU."""
    i = torch.arange(SIZE) - (SIZE - 1) / 2
    r2 = i[:, None] ** 2 + i**2
    x = torch.where(r2 < 81, 0.0, -1000.0)[None, None]
    dot = ((i[:, None] - 3) ** 2 + (i + 2) ** 2 < 2)[None, None]
    return torch.where(dot, metal, x), dot, x


def smooth_prior():
    at = torch.cartesian_prod(torch.arange(SIZE), torch.arange(SIZE)).double()
    cov = 0.5**2 * torch.exp(-torch.cdist(at, at) / 8) + 1e-4 * torch.eye(SIZE**2).double()
    return GaussianPrior(torch.zeros(1, SIZE, SIZE), cov, KarrasSDE(80.0), range=(1000.0, -500.0))


def test_rays_through_metal_change_nothing_of_the_reconstruction():
    radon, (with_metal, dot, _) = scanner(), body()
    p = radon(from_hounsfield(with_metal))
    corrupted = torch.where(metal_trace(radon, dot), 0.3 * p + 1, p)
    recipe = ct(smooth_prior(), radon, metal=dot[0, 0], noise_std=0.01, method="moment-matching",
                covariance="isotropic", steps=8)  # fmt: skip
    one, two = (recipe(data, num_samples=2).samples for data in (p, corrupted))
    torch.testing.assert_close(one, two)


def test_a_threshold_on_the_back_projection_finds_the_metal():
    radon, (with_metal, dot, _) = scanner(), body()
    p = radon(from_hounsfield(with_metal))
    keep, mask = kept_rays(radon, p, 3000.0)
    assert bool(mask[dot].all())
    assert mask.sum() < 5 * dot.sum()
    assert not bool(keep[metal_trace(radon, dot)].any())
    problem = ct(smooth_prior(), radon, metal=3000.0).prepare(p)
    assert problem.facts["metal_pixels"] == int(mask.sum())
    assert bool((problem.y[~keep] == 0).all())
    assert int(problem.operator.num_measured) == int(keep.sum())


def test_thresholds_that_leave_out_no_ray_or_every_ray_are_named():
    radon, (with_metal, _, _) = scanner(), body()
    p = radon(from_hounsfield(with_metal))
    with pytest.raises(BadInput, match=r"leaves out 0 to 0 % of the rays"):
        kept_rays(radon, p, 1e6)
    with pytest.raises(BadInput, match=r"metal mask leaves out \d\d to \d\d %"):
        kept_rays(radon, p, torch.ones(SIZE, SIZE))


def test_interpolation_across_the_trace_is_linear_and_leaves_other_rays():
    p = torch.tensor([[[[0.0, 1.0, 9.0, 9.0, 4.0, 9.0]]]])
    trace = torch.tensor([[[[False, False, True, True, False, True]]]])
    filled = torch.tensor([[[[0.0, 1.0, 2.0, 3.0, 4.0, 4.0]]]])
    torch.testing.assert_close(interpolated(p, trace), filled)


def test_normalization_beats_interpolation_where_the_body_varies():
    radon, (with_metal, dot, without) = Radon(48, torch.arange(60) * math.pi / 60), body()
    x, metal, without = (v.float().repeat_interleave(2, -1).repeat_interleave(2, -2)
                         for v in (with_metal, dot, without))  # fmt: skip
    for image in (x, without):
        image[..., 10:14, 28:32] = 1200.0
    p, clean = radon(from_hounsfield(x)), radon(from_hounsfield(without))
    trace = metal_trace(radon, metal)
    linear = (interpolated(p, trace) - clean)[trace].square().mean()
    assert (normalized(radon, p, trace) - clean)[trace].square().mean() < 0.5 * linear


def test_an_observed_operator_has_its_adjoint_and_its_items():
    radon = scanner(5)
    keep = torch.rand(3, *radon.out_shape, generator=torch.Generator().manual_seed(0)) < 0.6
    A = Observed(WATER * radon, keep)
    assert check_adjoint(A) < 1e-12
    x = torch.randn(3, *radon.in_shape)
    torch.testing.assert_close(A[[2]](x[2:]), A(x)[2:])
    T = A.forms.transform
    torch.testing.assert_close(T.embed(A(x)), T.mask * T.T(x))
    with pytest.raises(ValueError, match="keep must hold 0 and 1"):
        Observed(radon, 2.0 * keep)
