"""Coil maps from few lines or none: error, equivariance, independence, and given maps."""

import numpy as np
import pytest
import torch
from torch import Tensor

from inverse_score import VPSDE, GaussianPrior
from operators import as_complex, column_mask, fft2c, grid_mask, ifft2c
from operators.mri.coils import low_resolution, unit_norm
from recipes import calibration, mri
from recipes.arrays import ARRAYS, array_maps
from recipes.coil_maps import fitted_maps
from recipes.simulate import simulate_mri

SHAPE = (64, 48)
LINES = column_mask("equispaced-fraction", SHAPE[1], 3, 8 / SHAPE[1], seed=1).mask
PRIOR = GaussianPrior(torch.zeros(2, 1, 1), torch.eye(2), VPSDE())


def tissue(seed: int = 0, shape: tuple[int, int] = SHAPE) -> Tensor:
    """An image whose structures fill the field of view to its edges."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    image = np.full(shape, 0.5)
    for _ in range(40):
        (cy, cx), (a, b) = rng.uniform(-1.1, 1.1, 2), rng.uniform(0.05, 0.35, 2)
        image += rng.uniform(-0.3, 0.3) * (((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 < 1)
    return torch.from_numpy(image.clip(0.05, 1)).float()


def scan_of(mask: Tensor = LINES, array: str = "lobes", **options):
    settings = {"coils": 6, "noise_level": 0.005, "seed": 2, **options}
    return simulate_mri(tissue(), mask, array=array, **settings)


def fit(scan, **options) -> Tensor:
    mask = scan.mask.bool().expand(scan.kspace.shape[-2:])
    return fitted_maps(scan.kspace, mask, torch.tensor([scan.noise_std]), **options)


def error(maps: Tensor, array: str, coils: int = 6, seed: int = 2) -> float:
    """RMS over coils and pixels of unit-norm maps, up to a phase a pixel."""
    true = array_maps(array, coils, SHAPE, seed)
    agreement = (unit_norm(maps).conj() * true).sum(-3).abs().clamp(max=1)
    return float(((2 - 2 * agreement).mean() / coils).sqrt())


@pytest.mark.parametrize("array", ["lobes", "loops", "one-sided"])
def test_maps_of_tissue_that_fills_the_field_of_view_beat_periodic_ones(array):
    scan = scan_of(array=array)
    periodic = unit_norm(low_resolution(scan.kspace, (SHAPE[0], 8)))
    assert error(fit(scan), array) < error(periodic, array) / 3


def test_the_grid_must_be_larger_than_the_field_of_view():
    scan = scan_of()
    assert error(fit(scan), "lobes") < error(fit(scan, over=1.0), "lobes") / 2


def test_a_reconstruction_as_the_image_improves_on_a_flat_one():
    scan = scan_of()
    assert error(fit(scan), "lobes") < 0.7 * error(fit(scan, rounds=0), "lobes")


def test_scale_and_phase_of_kspace_change_the_phase_of_the_maps_alone():
    scan = scan_of()
    c = 3e-5 * torch.exp(torch.tensor(0.7j))
    mask = scan.mask.bool().expand(SHAPE)
    scaled = fitted_maps(c * scan.kspace, mask, torch.tensor([abs(c) * scan.noise_std]))
    torch.testing.assert_close(scaled, fit(scan) * c / c.abs(), rtol=0, atol=2e-3)


def test_maps_of_an_item_do_not_depend_on_its_batch():
    scan, other = scan_of(), scan_of(seed=5)
    both = torch.cat([scan.kspace, 1e4 * other.kspace])
    std = torch.tensor([scan.noise_std, 1e4 * other.noise_std])
    together = fitted_maps(both, scan.mask.bool().expand(SHAPE), std)
    torch.testing.assert_close(together[:1], fit(scan), rtol=1e-5, atol=1e-6)


def test_no_calibration_region_is_no_obstacle():
    """Poisson-disc samples without a centre at 3x: 6 dB and more ahead of zero-filling."""
    mask = grid_mask("poisson-disc", SHAPE, 3, 0.0, seed=3).mask.clone()
    mask[31:34, 23:26] = torch.eye(3).bool()
    assert calibration.sampled_centre(mask) is None
    scan = scan_of(mask)
    problem = mri(PRIOR, mask).prepare(scan.kspace)
    assert problem.facts["maps_rounds"] == 8
    A = problem.operator
    image = as_complex(A.solve_normal(A.T(problem.y), 0.01))[0].abs() * float(problem.scale)
    truth, zero_filled = scan.ground_truth[0], ifft2c(scan.kspace[0]).abs().square().sum(0).sqrt()
    errors = [float((x - truth).square().mean()) for x in (image, zero_filled)]
    assert errors[0] < errors[1] / 4


def test_odd_sizes_and_one_coil_are_served():
    scan = simulate_mri(tissue(shape=(37, 31)), column_mask("equispaced", 31, 2, seed=0).mask,
                        coils=3, noise_level=0.01)  # fmt: skip
    maps = mri(PRIOR, scan.mask).prepare(scan.kspace).operator.sens_maps
    assert maps.shape == (3, 37, 31)
    one = mri(PRIOR, scan.mask).prepare(scan.kspace[:, :1])
    assert one.facts["maps"] == "low-resolution"


def test_given_maps_are_taken_to_the_bit_and_refined_on_request():
    scan, true = scan_of(), array_maps("lobes", 6, SHAPE, 2)
    given = mri(PRIOR, scan.mask, true, noise_std=0.01).prepare(scan.kspace)
    low = low_resolution(scan.kspace, calibration.calibration_lines(LINES.expand(SHAPE)))
    expected = calibration.real_phase(true[None].to(scan.kspace), low)[0]
    assert torch.equal(given.operator.sens_maps, expected)
    wrong = unit_norm(low)[0]
    refined = mri(PRIOR, scan.mask, wrong, noise_std=0.01, maps="refine").prepare(scan.kspace)
    assert refined.facts["maps"] == "refined"
    assert error(refined.operator.sens_maps, "lobes") < error(wrong, "lobes") / 3
    with pytest.raises(ValueError, match="needs sens_maps"):
        mri(PRIOR, maps="refine")


def test_a_coil_a_thousand_times_louder_leaves_the_other_maps_as_they_were():
    torch.manual_seed(0)
    scan, gain = scan_of(), torch.tensor([1e3, 1, 1, 1, 1, 1])[:, None, None]
    noise_scan = scan.noise_std * 2**0.5 * torch.randn(6, 4000, dtype=torch.complex64)
    plain = mri(PRIOR, scan.mask, noise_scan=noise_scan).prepare(scan.kspace)
    loud = mri(PRIOR, scan.mask, noise_scan=gain[..., 0] * noise_scan).prepare(gain * scan.kspace)
    assert error(loud.operator.sens_maps, "lobes") < 1.2 * error(plain.operator.sens_maps, "lobes")


@pytest.mark.parametrize("array", ARRAYS)
def test_arrays_have_unit_norm_and_the_finer_grid_holds_the_coarser(array):
    maps, fine = (array_maps(array, 4, size, 1) for size in ((12, 10), (24, 20)))
    torch.testing.assert_close(maps.abs().square().sum(0), torch.ones(12, 10))
    if array != "birdcage":
        torch.testing.assert_close(fine[:, ::2, ::2], maps, rtol=1e-4, atol=1e-5)
    assert float((fft2c(maps).abs() > 0).float().mean()) > 0.99


def test_an_unknown_array_is_named():
    with pytest.raises(ValueError, match="array must be one of birdcage"):
        array_maps("saddle", 4, (8, 8))
