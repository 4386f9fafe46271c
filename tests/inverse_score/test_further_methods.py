"""MCG, RED-diff and Score-MRI: what each does to a Gaussian whose posterior is known."""

import pytest
import torch

from inverse_score import GaussianPrior, solve
from inverse_score.posterior.methods.score_mri import ChannelWise
from inverse_score.sde import VPSDE
from inverse_score.testing.half_seen import (
    NOISE,
    SIZE,
    excess,
    gaussian_prior,
    measurement,
    seen_half,
)
from operators import CartesianMRI, check_adjoint
from operators.mri.coilwise import CoilwiseMRI, RealImage, root_sum_of_squares

COLUMNS = torch.tensor([1, 0, 1, 1], dtype=torch.bool)


@pytest.fixture(scope="module")
def problem():
    prior, A = gaussian_prior(), seen_half()
    _, y = measurement(prior, A)
    return prior, A, y, prior.posterior(y, A, NOISE)


def test_red_diff_ends_about_the_mode_with_too_little_spread():
    """Six problems of 40 samples: a mean of 40, whose spread is 0.65 std, is off by 0.10 std."""
    prior, A = gaussian_prior(), seen_half()
    _, y = measurement(prior, A, items=6)
    posterior = prior.posterior(y, A, NOISE)
    x = solve(y, A, prior, noise_std=NOISE, method="red-diff", num_samples=40).samples
    std = posterior.cov.diagonal(dim1=1, dim2=2).sqrt().reshape(posterior.mean.shape)
    assert ((x.mean(0) - posterior.mean) / std).square().mean().sqrt() < 0.15
    assert (x.std(0) / std).mean() < 0.8


def test_mcg_with_the_paper_s_weights_puts_the_data_on_the_measured_pixels(problem):
    prior, A, y, _ = problem
    options = {"method": "mcg", "num_samples": 8, "steps": 50, "noise_std": NOISE}
    paper = solve(y, A, prior, lam=1.0, **options).misfit.mean()
    tied = solve(y, A, prior, **options).misfit.mean()
    assert paper < 0.05
    assert tied > 0.1


@pytest.mark.filterwarnings("ignore:item 0. misfit")
def test_mcg_is_nearer_to_the_posterior_with_weights_tied_to_the_noise(problem):
    prior, A, y, posterior = problem
    options = {"method": "mcg", "num_samples": 300, "steps": 30, "noise_std": NOISE}
    tied = excess(solve(y, A, prior, **options).samples[:, 0], posterior)
    paper = excess(solve(y, A, prior, lam=1.0, weight=1.0, **options).samples[:, 0], posterior)
    assert tied < 0.5 * paper


def complex_problem(coils=1):
    """Real prior of 4x4 images, k-space of coil images whose parts are drawn from it."""
    prior = gaussian_prior(VPSDE(), spectrum=False)
    x = prior.sample(2 * coils, seed=3, dtype=torch.float32).reshape(1, 2 * coils, SIZE, SIZE)
    return prior, x


def test_the_parts_of_a_complex_image_have_the_real_prior_each():
    prior, x = complex_problem()
    lifted = ChannelWise(prior, 2)
    t = torch.tensor([0.3])
    both = lifted.denoise(x, t)
    torch.testing.assert_close(both[:, 1:], prior.denoise(x[:, 1:], t))


# It holds no noise to account for: misfits of 13 to 30, which `solve` tells.
@pytest.mark.filterwarnings("ignore:item 0. misfit")
@pytest.mark.parametrize("form", ["real", "complex", "ssos", "hybrid"])
def test_every_form_of_score_mri_ends_on_the_measured_k_space(form):
    coils = 2 if form in ("ssos", "hybrid") else 1
    prior, x = complex_problem(coils)
    if form == "real":
        A, x, lifted = CartesianMRI(COLUMNS, None, (4, 4)) @ RealImage((4, 4)), x[:, :1], prior
    elif form == "complex":
        A, lifted = CartesianMRI(COLUMNS, None, (4, 4)), ChannelWise(prior, 2)
    else:
        maps = torch.full((2, 4, 4), 0.5**0.5, dtype=torch.complex64) if form == "hybrid" else None
        A, lifted = CoilwiseMRI(COLUMNS, 2, (4, 4), sens_maps=maps), ChannelWise(prior, 4)
        x = x[:, :2].repeat(1, 2, 1, 1)
    y = A(x)
    options = {"method": "score-mri", "noise_std": 0.01, "num_samples": 2, "steps": 40}
    rec = solve(y, A, lifted, **options)
    assert rec.nfe == 79
    # Two draws of the prior differ by 0.17.
    assert (rec.samples[0] - x).abs().mean() < 0.1
    if form != "real":  # A real part moves the measured k-space of a real image.
        paper = solve(y, A, lifted, lam=1.0, **options).samples[0]
        assert (A(paper) - y).abs().max() < 1e-5


def test_coil_images_that_are_one_image_satisfy_the_sense_step():
    """S A_S^H (kspace - A_S S^H x) is 0 for x_c = S_c image and points there otherwise."""
    maps = torch.randn(3, 4, 5, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    maps = maps / maps.abs().square().sum(0).sqrt()
    A = CoilwiseMRI(torch.ones(5, dtype=torch.bool), sens_maps=maps)
    image = torch.randn(1, 1, 4, 5, dtype=torch.complex128)
    coil = torch.view_as_real(maps * image).movedim(-1, 2).flatten(1, 2)
    assert A.forms.sense(coil, A(coil)).abs().max() < 1e-12
    moved = A.forms.sense(torch.zeros_like(coil), A(coil))
    torch.testing.assert_close(moved, coil)
    torch.testing.assert_close(root_sum_of_squares(coil), image[:, 0].abs())


@pytest.mark.parametrize(
    "A", [CoilwiseMRI(COLUMNS, 3, (5, 4)), CoilwiseMRI(torch.eye(4).bool(), 2), RealImage((3, 4))]
)
def test_coilwise_operators_have_their_adjoint_and_solves(A):
    assert check_adjoint(A) < 1e-12
    b = torch.randn(2, *A.in_shape, dtype=torch.float64)
    x = A.solve_normal(b, 0.3)
    torch.testing.assert_close(A.normal(x) + 0.3 * x, b)


def test_a_channel_wise_prior_refuses_a_prior_of_two_channels():
    prior = GaussianPrior(torch.zeros(2, 2, 2), torch.eye(8), VPSDE())
    with pytest.raises(ValueError, match=r"events \(1, H, W\).*got \(2, 2, 2\)"):
        ChannelWise(prior, 4)
