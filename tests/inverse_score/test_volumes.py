"""Volumes: slices solved together, and held together along z by the proximal step."""

import pytest
import torch

from inverse_score import GaussianPrior, KarrasSDE, SliceWise, solve
from inverse_score.posterior.along_z import AlongZ, differences, differences_adjoint
from inverse_score.randomness import Noise
from operators import EachSlice, Mask

SIDE, SLICES, NOISE = 6, 5, 0.05


def draw(*shape, seed=0):
    return Noise(seed, range(shape[0]))(torch.empty(*shape, dtype=torch.float64), 0)


def prior() -> SliceWise:
    place = torch.cartesian_prod(*[torch.arange(float(SIDE), dtype=torch.float64)] * 2)
    cov = (-torch.cdist(place, place) / 3).exp()
    return SliceWise(GaussianPrior(torch.zeros(1, SIDE, SIDE), cov, KarrasSDE(20.0)))


def volume_problem():
    """A volume whose slices are all one image, a third of its pixels seen with noise."""
    truth = prior().inner.sample(1, seed=3, dtype=torch.float64)[:, :, None]
    truth = truth.expand(1, 1, SLICES, SIDE, SIDE)
    seen = torch.arange(SIDE**2).reshape(SIDE, SIDE) % 3 == 0
    A = EachSlice(Mask(seen.double(), image_shape=(1, SIDE, SIDE)), SLICES)
    noise = A(A.T(draw(1, *A.out_shape, seed=1)))
    return truth, A, A(truth) + NOISE * noise


def test_differences_along_z_have_their_adjoint():
    x, p = draw(2, 3, 4, 2, 2), draw(2, 3, 3, 2, 2, seed=1)
    left, right = (differences(x) * p).sum(), (x * differences_adjoint(p)).sum()
    assert float((left - right).abs()) < 1e-12


def test_two_slices_move_together_by_one_over_b_and_no_further_than_their_mean():
    """argmin |x - m|^2 / 2 + |x_2 - x_1| / b moves each slice by min(1 / b, half their gap)."""
    m = torch.tensor([0.0, 10.0, 0.0, 0.4], dtype=torch.float64).reshape(2, 1, 2, 1, 1)
    x = AlongZ(1.25, splits=200).step(lambda v: v, torch.zeros_like(m), m, 5)
    expected = torch.tensor([0.8, 9.2, 0.2, 0.2], dtype=torch.float64).reshape(m.shape)
    torch.testing.assert_close(x, expected, atol=1e-6, rtol=0)


def test_the_quadratic_penalty_solves_its_normal_equations():
    m, pull = draw(1, 1, 4, 2, 2), draw(1, 1, 4, 2, 2, seed=1)
    x = AlongZ(0.7, "quadratic").step(lambda v: 3 * v, pull, m, 50)
    gradient = 3 * (x - m) - pull + differences_adjoint(differences(x)) / 0.7**2
    assert float(gradient.abs().max()) < 1e-8


@pytest.mark.parametrize("penalty", ["tv", "quadratic"])
@pytest.mark.parametrize("b", [1e-5, 1e-12, 1e-200])
def test_a_scale_far_below_the_data_makes_the_slices_one_and_that_one_solves_its_own_problem(
    penalty, b
):
    """With all slices equal the step is that of their mean: sum_d M x = sum_d (M x_d + pull_d)."""
    m, pull = draw(2, 1, 6, 3, 3, seed=4), draw(2, 1, 6, 3, 3, seed=5)
    spectrum = torch.linspace(0.1, 30.0, 9, dtype=torch.float64).reshape(3, 3)
    x = AlongZ(b, penalty).step(lambda v: spectrum * v, pull, m, 15)
    expected = (m + pull / spectrum).mean(2, keepdim=True).expand_as(m)
    torch.testing.assert_close(x, expected, atol=max(1e-6, 100 * b), rtol=0)


def test_a_scale_far_above_the_data_leaves_the_step_of_each_slice_alone():
    m, pull = draw(1, 1, 4, 2, 2), draw(1, 1, 4, 2, 2, seed=1)
    x = AlongZ(1e9).step(lambda v: 3 * v, pull, m, 15)
    torch.testing.assert_close(x, m + pull / 3)


@pytest.mark.parametrize("penalty", ["tv", "quadratic"])
def test_slices_that_are_alike_come_out_alike_and_nearer_the_truth_when_coupled(penalty):
    truth, A, y = volume_problem()
    options = {"noise_std": NOISE, "method": "dds", "steps": 20, "num_samples": 4}
    alone = solve(y, A, prior(), **options)
    held = solve(y, A, prior(), **options, between_slices=0.05, penalty=penalty)

    def error(rec):
        return float((rec.samples - truth).square().mean())

    def flicker(rec):
        return float(rec.samples.diff(dim=3).square().mean())

    assert flicker(held) < 0.5 * flicker(alone)
    assert error(held) < 0.85 * error(alone)


def test_a_coupled_item_does_not_depend_on_the_batch():
    _, A, y = volume_problem()
    options = {"noise_std": NOISE, "method": "dds", "steps": 5, "between_slices": 0.1}
    both = solve(torch.cat([y, y + 1]), A, prior(), **options)
    alone = solve(y, A, prior(), **options)
    torch.testing.assert_close(both.samples[:, :1], alone.samples)


def test_coupling_is_refused_for_images_for_exact_data_and_for_scales_that_are_not():
    truth, A, y = volume_problem()
    with pytest.raises(ValueError, match="noise_std must be positive"):
        solve(A(truth), A, prior(), noise_std=0, method="dds", between_slices=0.1)
    with pytest.raises(ValueError, match="between_slices must be positive and finite; got 0"):
        solve(y, A, prior(), noise_std=NOISE, method="dds", between_slices=0.0)
    flat = Mask(torch.ones(SIDE, SIDE), image_shape=(1, SIDE, SIDE))
    with pytest.raises(ValueError, match="only volumes"):
        solve(y[:, 0], flat, prior().inner, noise_std=NOISE, method="dds", between_slices=0.1)
