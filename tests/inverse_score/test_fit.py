"""Does the prior fit this scan: withheld lines and denoising errors, against closed forms."""

import pytest
import torch

from inverse_score.fit import Kept, denoising_fit, fit_check, withheld_lines
from inverse_score.gaussian import GaussianPrior
from inverse_score.randomness import Noise
from inverse_score.sde import VPSDE
from inverse_score.testing.half_seen import NOISE, gaussian_prior, measurement, seen_half
from operators import CartesianMRI, Mask

OPTIONS = {"method": "moment-matching", "covariance": "jacobian", "steps": 20, "num_samples": 9}


@pytest.fixture(scope="module")
def checked():
    """Reports on 120 images of the prior and on as many of unit pixels that it does not know."""
    prior, A = gaussian_prior(spectrum=False), Mask(torch.ones(1, 4, 4))
    _, known = measurement(prior, A, items=120)
    strange = 0.5 + 0.4 * Noise(3, range(120))(known, 0)
    return [fit_check(y, A, prior, noise_std=NOISE, axis=-1, **OPTIONS) for y in (known, strange)]


def test_images_of_the_prior_are_predicted_as_well_as_spread_and_noise_say(checked):
    """E ratio = 1; the mean of 120 with about 3 independent values each scatters by 0.08."""
    assert checked[0].ratio.mean().item() == pytest.approx(1.0, abs=0.25)


def test_the_mean_of_few_draws_is_off_by_its_own_scatter_too():
    """E|y - mean of n|^2 = (1 + 1/n) spread + noise^2: half as much again for two draws.

    White images of 256 pixels, half withheld: one ratio scatters by about 0.2, the mean of 20 by
    0.04, about 1.01 as it divides by a spread of 128 numbers.
    """
    flat = torch.zeros(1, 16, 16, dtype=torch.float64)
    prior = GaussianPrior(flat, 0.3**2 * torch.eye(256, dtype=torch.float64), VPSDE())
    A, x = Mask(torch.ones(1, 16, 16)), prior.sample(20, seed=6, dtype=torch.float32)
    y = x + NOISE * Noise(4, range(20))(x, 0)
    options = {"covariance": "isotropic", "fraction": 0.5, "steps": 20, "num_samples": 2}
    report = fit_check(y, A, prior, noise_std=NOISE, axis=-1, method="moment-matching", **options)
    assert report.ratio.mean().item() == pytest.approx(1.0, abs=0.2)


def test_p_values_of_images_of_the_prior_are_uniform_and_of_strange_ones_small(checked):
    """Uniform on k / 10: mean 0.55, standard deviation 0.287, of the mean of 120 0.026."""
    known, strange = checked
    assert known.p_value.mean().item() == pytest.approx(0.55, abs=4 * 0.026)
    assert (10 * known.p_value).sub((10 * known.p_value).round()).abs().max() < 1e-9
    assert (strange.p_value == 0.1).double().mean() > 0.8
    assert strange.ratio.median() > 4


def test_withheld_lines_are_a_tenth_of_the_measured_and_never_calibration():
    mask = torch.zeros(40)
    mask[::3] = 1
    mask[16:24] = 1
    y = CartesianMRI(mask, image_shape=(8, 40))(torch.ones(1, 2, 8, 40) + torch.rand(1, 2, 8, 40))
    measured = set(mask.nonzero().flatten().tolist())
    seen = set()
    for seed in range(30):
        lines = withheld_lines(y, -1, None, 0.1, seed)
        assert len(lines) == round(0.1 * len(measured))
        seen |= set(lines)
    # The run of neighbours 15..24 is longer than 16:24 by the lines of the sparse pattern.
    assert seen == measured - set(range(15, 25))


def test_what_is_withheld_reaches_neither_the_operator_nor_its_adjoint():
    A, keep = Mask(torch.ones(1, 4, 4)), torch.tensor([1.0, 0.0, 1.0, 1.0])
    kept, x = Kept(A, keep), torch.rand(2, 1, 4, 4)
    assert kept(x)[..., 1].abs().max() == 0
    assert kept.T(x)[..., 1].abs().max() == 0
    assert kept.num_measured == 12
    torch.testing.assert_close((kept(x) * x).sum(), (x * kept.T(x)).sum())


def test_a_check_without_lines_to_withhold_is_an_error():
    prior, A = gaussian_prior(spectrum=False), seen_half()
    _, y = measurement(prior, A)
    with pytest.raises(ValueError, match="no line to withhold along axis -1: 4 measured"):
        fit_check(y, A, prior, noise_std=NOISE, axis=-1, protected=range(4))
    with pytest.raises(ValueError, match="axis counts from the end"):
        fit_check(y, A, prior, noise_std=NOISE, axis=3)
    with pytest.raises(ValueError, match="fraction must lie"):
        fit_check(y, A, prior, noise_std=NOISE, axis=-1, fraction=1.5)


def test_denoising_error_of_other_images_is_off_by_the_closed_form():
    """x = m + 2 z, z ~ N(0, C): error tr(M 4 C M) + r^2 tr K^2 over tr(M C M) + r^2 tr K^2,
    K = C (C + r^2)^-1, M = I - K."""
    prior = gaussian_prior()
    known = prior.sample(400, seed=9, dtype=torch.float64)
    levels, ratio, z = denoising_fit(known, prior)
    _, doubled, far = denoising_fit(prior.mean + 2 * (known - prior.mean), prior)
    assert (ratio.mean(1) - 1).abs().max() < 0.08
    assert z.mean(1).abs().max() < 0.25
    for k, r in enumerate(levels.tolist()):
        eye = torch.eye(16, dtype=torch.float64)
        K = prior.cov @ torch.linalg.inv(prior.cov + r**2 * eye)
        bias, noise = ((eye - K) @ prior.cov @ (eye - K)).trace(), r**2 * (K @ K).trace()
        expected = (4 * bias + noise) / (bias + noise)
        assert doubled[k].mean().item() == pytest.approx(expected.item(), rel=0.12), r
    assert far[-1].mean() > 2


def test_denoising_fit_needs_the_held_out_errors():
    with pytest.raises(ValueError, match="no error_spectrum"):
        denoising_fit(torch.zeros(1, 1, 4, 4), gaussian_prior(spectrum=False))
