import numpy as np
import pytest
import torch

from operators import CartesianMRI, Mask, as_complex, ifft2c
from recipes.simulate import measure, simulate_ct, simulate_mri


def disc(n):
    c = torch.linspace(-1, 1, n)
    radius = torch.hypot(c, c[:, None])
    return torch.sigmoid(15 * (0.7 - radius)) * (1 + 0.3 * torch.sin(5 * c))


@pytest.fixture(scope="module")
def scan():
    return simulate_mri(torch.stack([disc(40), 0.5 * disc(40)]), acceleration=4, seed=3)


def test_simulation_is_a_function_of_its_arguments(scan):
    again = simulate_mri(torch.stack([disc(40), 0.5 * disc(40)]), acceleration=4, seed=3)
    assert torch.equal(again.kspace, scan.kspace)
    other = simulate_mri(torch.stack([disc(40), 0.5 * disc(40)]), acceleration=4, seed=4)
    assert not torch.equal(other.kspace, scan.kspace)


def test_ground_truth_is_the_noise_free_image(scan):
    assert scan.kspace.shape == (2, 8, 40, 40)
    assert float((scan.ground_truth[0] - disc(40)).abs().mean()) < 0.02
    rss = ifft2c(scan.clean).abs().square().sum(1).sqrt()
    assert float((rss - scan.ground_truth).norm() / scan.ground_truth.norm()) < 0.01


def test_noise_has_the_reported_std_and_only_where_sampled(scan):
    assert not (scan.kspace * ~scan.mask).any()
    noise = (scan.kspace - scan.clean)[..., scan.mask]
    assert abs(float(noise.real.std()) / scan.noise_std - 1) < 0.05
    assert scan.noise_std == pytest.approx(0.01 * float(scan.ground_truth.max()), rel=1e-6)


def test_the_scan_is_not_made_by_the_model_that_reconstructs_it(scan):
    """Coarse maps times the coarse image differ from the fine simulation, though not by much."""
    A = CartesianMRI(torch.ones(40), scan.sens_maps)
    x = torch.stack([scan.image.real, scan.image.imag], 1)
    gap = float((A(x) - scan.clean).norm() / scan.clean.norm())
    assert 1e-5 < gap < 0.02
    assert float(as_complex(x).angle()[scan.ground_truth > 0.1].std()) > 0.1


def test_ct_simulation_agrees_with_its_operator_up_to_the_grid():
    scan = simulate_ct(0.02 * disc(40), np.arange(30) * np.pi / 30, pixel_size=2.0, seed=1)
    model = scan.operator(scan.ground_truth[:, None])[:, 0]
    gap = float((model - scan.clean).norm() / scan.clean.norm())
    assert 1e-4 < gap < 0.01
    z = (scan.sinogram - scan.clean) / scan.noise_std
    assert abs(float(z.std()) - 1) < 0.05
    in_hu = simulate_ct(
        1000 * (disc(40) * 0.02 / 0.0193 - 1),
        np.arange(30) * np.pi / 30,
        pixel_size=2.0,
        unit="hu",
        seed=1,
    )
    torch.testing.assert_close(in_hu.clean, scan.clean, rtol=1e-3, atol=1e-4)


def test_measure_adds_noise_where_the_operator_measures():
    mask = torch.zeros(1, 8, 8)
    mask[:, :4] = 1
    y = measure(torch.ones(2, 1, 8, 8), Mask(mask), 0.1, seed=0)
    assert not y[:, :, 4:].any()
    assert float(y[:, :, :4].std()) > 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate_mri(torch.ones(2, 2, 4, 4)), r"\(H, W\) or \(slices, H, W\)"),
        (lambda: simulate_mri(torch.full((4, 4), torch.nan)), "NaN or infinite"),
        (lambda: simulate_ct(-torch.ones(4, 4), [0.0], pixel_size=1.0), "must be >= 0"),
        (lambda: simulate_ct(torch.ones(4, 4), [0.0], pixel_size=1.0, unit="mm"), "unit"),
    ],
)
def test_images_that_cannot_be_scanned_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
