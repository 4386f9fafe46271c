"""MRI and CT recipes: noise, calibration, phase, scale, whitening, HU, each against its truth."""

import math

import numpy as np
import pytest
import torch

from inverse_score import VPSDE, GaussianPrior
from inverse_score.errors import BadInput, BadPrior
from inverse_score.io.formats.fastmri import open_fastmri
from inverse_score.testing.scans import coil_maps, ellipse, fastmri_file, kspace
from operators import CartesianMRI, Radon, as_channels, as_complex, column_mask, fft2c, ifft2c
from operators.mri.coils import low_resolution, unit_norm
from recipes import calibration, ct, mri
from recipes.ct import sinogram_noise_std
from recipes.scans import CTScan, MRIScan
from recipes.simulate import simulate_mri

SHAPE = (48, 40)
FULL = torch.ones(SHAPE, dtype=torch.bool)


def gaussian(shape=(2, 24, 32), mean=0.0, std=0.5):
    size = math.prod(shape)
    return GaussianPrior(torch.full(shape, mean), std**2 * torch.eye(size), VPSDE())


def scan_of(noise=0.02, **options):
    k, truth = kspace(1, shape=SHAPE, noise=noise, **options)
    return torch.from_numpy(k), truth[0]


def test_the_border_tells_the_noise_per_part_and_coil():
    torch.manual_seed(0)
    noise = torch.randn(1, 3, 256, 256, dtype=torch.complex64) * math.sqrt(2)
    std = torch.tensor([0.5, 1.0, 2.0])
    found = calibration.noise_std(
        noise * std[None, :, None, None], torch.ones(256, 256, dtype=torch.bool)
    )
    torch.testing.assert_close(found[0], std, rtol=0.03, atol=0)


def test_signal_at_a_few_border_samples_does_not_move_the_noise():
    torch.manual_seed(0)
    noise = torch.randn(1, 1, 256, 256, dtype=torch.complex64) * math.sqrt(2)
    noise[..., ::20, :3] += 100
    found = calibration.noise_std(noise, torch.ones(256, 256, dtype=torch.bool))
    assert float(found) == pytest.approx(1.0, rel=0.05)


def test_unsampled_zeros_are_no_noise():
    k, _ = scan_of(noise=0.5)
    columns = (torch.arange(SHAPE[1]) % 3 == 0).expand(SHAPE)
    found = calibration.noise_std(k * columns, columns)
    assert float(found.mean()) == pytest.approx(0.5, rel=0.1)
    with pytest.raises(BadInput, match="give noise_std"):
        calibration.noise_std(torch.zeros_like(k), FULL)


@pytest.mark.parametrize("noise", [0.003, 0.05])
@pytest.mark.parametrize("shape", [(24, 32), (64, 64), (128, 96)])
def test_sharp_edges_in_the_border_of_small_scans_are_no_noise(shape, noise):
    """The border alone reads 7 to 12 times 0.003 here; the air beside the ellipse does not."""
    k = torch.from_numpy(kspace(1, shape=shape, noise=noise)[0])
    found = calibration.noise_std(k, torch.ones(shape, dtype=torch.bool))
    assert float(found.square().mean().sqrt()) == pytest.approx(noise, rel=0.12)
    border, _ = calibration.border_noise_std(k, torch.ones(shape, dtype=torch.bool))
    assert noise > 0.01 or float(border.mean()) > 5 * noise


def test_an_object_that_fills_the_readout_leaves_the_border_to_tell_the_noise():
    torch.manual_seed(0)
    noise = 0.1 * math.sqrt(2) * torch.randn(1, 2, 64, 64, dtype=torch.complex64)
    smooth = torch.zeros(64, 64)
    smooth[:, 20:44] = torch.hann_window(24, periodic=False)
    k = fft2c((smooth + 0j)[None, None]) * 8 + noise
    found = calibration.noise_std(k, torch.ones(64, 64, dtype=torch.bool))
    assert float(found.mean()) == pytest.approx(0.1, rel=0.1)


def test_noise_of_patterns_of_points_comes_from_the_border():
    torch.manual_seed(0)
    mask = torch.rand(96, 96) < 0.5
    noise = math.sqrt(2) * torch.randn(1, 1, 96, 96, dtype=torch.complex64) * mask
    assert calibration.air_noise_std(noise, mask)[1] == 0
    assert float(calibration.noise_std(noise, mask)) == pytest.approx(1.0, rel=0.06)


@pytest.mark.parametrize("centre", [10, 13])
def test_the_calibration_region_is_the_sampled_centre(centre):
    mask = torch.arange(40) % 5 == 0
    first = (40 - centre + 1) // 2
    mask[first : first + centre] = True
    rows, columns = calibration.calibration_lines(mask.expand(SHAPE))
    assert rows == 48
    assert centre - 1 <= columns <= centre + 1
    left = 20 - columns // 2
    assert bool(mask[left : left + columns].all())


def test_no_centre_is_an_error_that_says_what_to_give():
    mask = (torch.arange(40) % 4 == 1).expand(SHAPE)
    with pytest.raises(BadInput, match=r"no calibration region.*sens_maps"):
        calibration.calibration_lines(mask)


def test_maps_take_the_phase_so_that_the_image_is_real_and_positive():
    k, truth = scan_of(noise=0.0)
    low = low_resolution(k, SHAPE)
    maps = calibration.real_phase(unit_norm(low), low)
    norm = maps.abs().square().sum(1)[0, torch.from_numpy(truth > 0)]
    torch.testing.assert_close(norm, torch.ones_like(norm), rtol=1e-3, atol=1e-3)
    combined = (maps.conj() * low).sum(1)
    assert float(combined.imag.abs().max()) < 1e-4 * float(combined.real.max())
    assert float(combined.real.min()) > -1e-5
    image = as_complex(CartesianMRI(FULL, maps).T(k))[0]
    inside = torch.from_numpy(truth > 0.5)
    assert float((image.imag[inside].abs() / image.abs()[inside]).median()) < 0.02


def test_removing_the_readout_oversampling_keeps_image_and_noise():
    torch.manual_seed(0)
    x = torch.randn(1, 1, 64, 20, dtype=torch.complex64)
    cropped = calibration.crop_readout(fft2c(x), 32)
    torch.testing.assert_close(ifft2c(cropped), x[..., 16:48, :], rtol=1e-4, atol=1e-5)
    assert float(cropped.abs().square().mean()) == pytest.approx(1.0, rel=0.1)


def test_whitening_makes_coils_independent_with_unit_noise():
    torch.manual_seed(0)
    mix = torch.randn(3, 3, dtype=torch.complex64) + 2 * torch.eye(3)
    noise = mix @ (math.sqrt(2) * torch.randn(3, 40_000, dtype=torch.complex64))
    inverse = calibration.whitening(noise.reshape(1, 3, 200, 200), noise)
    flat = inverse @ noise
    torch.testing.assert_close(
        flat @ flat.mH / flat.shape[1], 2 * torch.eye(3).to(flat), rtol=0, atol=1e-3
    )
    assert inverse.shape == (3, 3)


def test_the_scale_does_not_depend_on_where_single_pixels_lie():
    image = torch.from_numpy(ellipse((224, 224)))[None].float()
    speckled = image.clone()
    speckled[0, ::9, ::9] += 3.0
    scale = calibration.image_scale(image)
    assert float(scale) == pytest.approx(1.0, rel=0.01)
    assert float(calibration.image_scale(speckled)) < 1.3
    torch.testing.assert_close(calibration.image_scale(5e-6 * image), 5e-6 * scale)


def test_the_recipe_is_equivariant_to_the_scale_of_kspace():
    k, _ = kspace(1)
    recipe = mri(gaussian(), maps="low-resolution", steps=4)
    k = torch.from_numpy(k[0])
    one, scaled = (recipe(c * k, num_samples=2, items=[3]) for c in (1.0, 1e-6))
    torch.testing.assert_close(scaled.samples, 1e-6 * one.samples, rtol=1e-3, atol=1e-9)
    problems = recipe.prepare(k), recipe.prepare(1e-6 * k)
    for key in ("scale", "noise_std"):
        first, second = (problem.facts[key][0] for problem in problems)
        assert second == pytest.approx(1e-6 * first, rel=1e-4)


def test_the_posterior_of_a_complete_noisy_scan_is_its_own_image():
    k, truth = kspace(1, noise=0.01)
    maps = torch.from_numpy(coil_maps(4)).to(torch.complex64)
    rec = mri(gaussian(), sens_maps=maps, noise_std=0.01, steps=12)(
        torch.from_numpy(k[0]), num_samples=4
    )
    image = as_complex(rec.mean).abs()[0].numpy()
    assert np.abs(image - truth[0]).mean() < 0.02
    assert float(rec.misfit.mean()) == pytest.approx(1.0, abs=0.15)


def test_given_maps_take_the_phase_that_the_calibration_lines_show():
    """At 4x: what is left of the image's phase, not that of its folded copies."""
    i = torch.linspace(-1, 1, 64)
    disc = ((i[:, None] ** 2 + i**2 < 0.6) * (1 + 0.5 * torch.cos(9 * i))).float()[None]
    full = simulate_mri(disc, coils=8, noise_level=0.0, seed=3)
    mask = column_mask("equispaced-fraction", 64, 4.0, 0.15, seed="a").mask
    problem = mri(gaussian(), mask, full.sens_maps, noise_std=0.01).prepare(full.kspace * mask)
    x = (problem.operator.sens_maps.conj() * ifft2c(full.kspace)).sum(-3).squeeze()
    assert x.imag.abs().mean() < 0.03 * x.real.abs().mean()
    assert x.real.sum() > 0


def test_a_noise_scan_and_given_noise_agree():
    torch.manual_seed(0)
    k, _ = kspace(1, noise=0.02)
    noise = 0.02 * math.sqrt(2) * torch.randn(4, 20_000, dtype=torch.complex64)
    k = torch.from_numpy(k[0])
    given = mri(gaussian(), noise_std=0.02, maps="low-resolution").prepare(k)
    scanned = mri(gaussian(), noise_scan=noise, maps="low-resolution").prepare(k)
    x = as_channels(torch.randn(1, 24, 32, dtype=torch.complex64))
    sizes = [
        float((p.y - p.operator(x)).norm() / torch.as_tensor(p.noise_std)) for p in (given, scanned)
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)


@pytest.mark.parametrize(
    ("options", "kspace_", "message"),
    [
        ({}, torch.zeros(4, 24, 32), "must be complex"),
        ({"sens_maps": torch.ones(8, 24, 32) + 0j}, None, r"sens_maps \(8, 24, 32\)"),
        ({"mask": torch.ones(31)}, None, r"mask must be \(32,\)"),
        ({"mask": torch.zeros(32)}, None, "zero everywhere"),
    ],
)
def test_bad_arguments_name_both_shapes(options, kspace_, message):
    k = torch.from_numpy(kspace(1)[0][0]) if kspace_ is None else kspace_
    with pytest.raises(ValueError, match=message):
        mri(gaussian(), noise_std=0.01, **options)(k)


def test_priors_of_other_channels_are_refused():
    with pytest.raises(BadPrior, match="2 channels; this one has 1"):
        mri(gaussian((1, 4, 4)))
    with pytest.raises(BadPrior, match="1 channel; this one has 2"):
        ct(gaussian((2, 4, 4)), Radon(4, [0.0]))


def test_a_complete_file_is_undersampled_within_its_encoded_columns(tmp_path):
    scan = open_fastmri(fastmri_file(tmp_path / "a.h5", shape=(24, 64)))
    recipe = MRIScan(scan, acc=4)
    assert recipe.achieved == pytest.approx(4, rel=0.1)
    assert recipe.asked == 4
    again = MRIScan(scan, acc=4)
    np.testing.assert_array_equal(recipe.mask, again.mask)
    assert (MRIScan(scan, acc=4, seed=3).mask != recipe.mask).any()


def disc(size=20, hu=(0.0, 60.0)):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    r = np.hypot(x, y)
    return np.where(r < size * 0.2, hu[1], np.where(r < size * 0.4, hu[0], -1000.0))


@pytest.mark.parametrize("value", ["line_integral", "transmission", "counts"])
def test_ct_returns_hounsfield_units_whatever_the_sinogram_holds(value):
    truth = torch.from_numpy(disc())[None, None].float()
    radon = Radon(20, torch.arange(30, dtype=torch.float64) * math.pi / 30, pixel_size=8.0)
    p = radon(0.0193 * (1 + truth / 1000))
    I0 = 1e6
    data = {"line_integral": p, "transmission": (-p).exp(), "counts": I0 * (-p).exp()}[value]
    prior = GaussianPrior(torch.full((1, 20, 20), -500.0), 800.0**2 * torch.eye(400), VPSDE())
    recipe = ct(prior, radon, value=value, I0=I0 if value == "counts" else None,
                noise_std=None if value == "counts" else 1e-3, method="tikhonov")  # fmt: skip
    rec = recipe(data, num_samples=1)
    inside = disc() > -500
    assert np.abs((rec.mean[0, 0].numpy() - disc())[inside]).mean() < 60
    problem = recipe.prepare(data)
    torch.testing.assert_close(problem.operator(truth), problem.y, rtol=1e-3, atol=2e-3)


def test_counts_weigh_rays_by_what_reached_them():
    radon = Radon(8, [0.0, 1.0])
    counts = torch.full((1, 1, *radon.out_shape[1:]), 100.0)
    counts[..., 0] = 4.0
    prior = gaussian((1, 8, 8))
    noise = ct(prior, radon, value="counts", I0=1e3).prepare(counts).noise_std
    torch.testing.assert_close(noise[..., 0], torch.full_like(noise[..., 0], 0.5))
    torch.testing.assert_close(noise[..., 1], torch.full_like(noise[..., 1], 0.1))


def test_noise_of_line_integrals_is_seen_in_their_second_differences():
    torch.manual_seed(0)
    ramp = torch.linspace(0, 3, 400).expand(1, 1, 90, 400)
    found = sinogram_noise_std(ramp + 0.05 * torch.randn(1, 1, 90, 400))
    assert float(found) == pytest.approx(0.05, rel=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value": "counts"}, "counts need I0"),
        ({"value": "photons"}, "value must be one of"),
        ({"mu_water": -1.0}, "mu_water must be positive"),
    ],
)
def test_bad_ct_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ct(gaussian((1, 8, 8)), Radon(8, [0.0]), **options)


def test_every_acc_th_view_is_kept(tmp_path):
    from inverse_score.io.formats.sinogram import open_sinogram, write_sinogram

    angles = np.linspace(0, np.pi, 12, endpoint=False)
    geometry = {"pixel_mm": 2.0, "detector_spacing_mm": 2.0, "image_shape": [8, 8]}
    write_sinogram(tmp_path / "a.h5", np.ones((1, 12, 12)), angles, geometry)
    scan = open_sinogram(tmp_path / "a.h5")
    recipe = CTScan(scan, acc=3)
    assert recipe.achieved == 3
    np.testing.assert_allclose(recipe.radon().angles.numpy(), angles[::3])
    with pytest.raises(BadInput, match="whole number up to 12 views"):
        CTScan(scan, acc=2.5)


def test_a_method_with_one_answer_needs_no_number_of_samples():
    prior = gaussian((1, 8, 8))
    radon = Radon(8, torch.arange(6) * math.pi / 6)
    sinogram = torch.full((1, *radon.out_shape), 0.1)
    recipe = ct(prior, radon, noise_std=0.1)
    assert len(recipe(sinogram, method="tikhonov").samples) == 1
    assert len(recipe(sinogram, steps=3).samples) == 8
