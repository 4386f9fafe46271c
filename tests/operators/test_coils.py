import pytest
import torch

from operators import (
    birdcage_maps,
    calibration_region,
    column_mask,
    espirit,
    fft2c,
    low_resolution_maps,
)


@pytest.fixture(scope="module")
def scan():
    """Undersampled k-space of a smooth-edged disc with details, its mask and true maps."""
    n = 64
    c = torch.linspace(-1, 1, n)
    radius = torch.hypot(c, c[:, None])
    image = torch.sigmoid(40 * (0.75 - radius)) * (1 + 0.5 * torch.cos(9 * c) * c[:, None])
    maps = birdcage_maps(5, (n, n))
    mask = column_mask("equispaced-fraction", n, 3, 0.3, seed=0).mask
    return fft2c(maps * image) * mask, mask, maps, radius < 0.65


def agreement(found, maps):
    """|<found, maps>| per pixel: 1 where they are equal up to a phase."""
    return (found.conj() * maps).sum(0).abs()


def test_espirit_recovers_the_maps_up_to_a_phase(scan):
    kspace, mask, maps, body = scan
    found = espirit(kspace, mask)
    assert float(agreement(found, maps)[body].min()) > 0.995
    torch.testing.assert_close(found.abs().square().sum(0)[body], torch.ones(int(body.sum())))


def test_low_resolution_maps_are_near_and_fast(scan):
    kspace, mask, maps, body = scan
    found = low_resolution_maps(kspace, mask)
    assert float(agreement(found, maps)[body].mean()) > 0.99


def test_espirit_is_at_least_as_near_as_sigpys(scan):
    app = pytest.importorskip("sigpy.mri.app")
    kspace, mask, maps, body = scan
    theirs = app.EspiritCalib(kspace.numpy(), calib_width=19, show_pbar=False).run()
    theirs = agreement(torch.from_numpy(theirs), maps)[body].mean()
    assert float(agreement(espirit(kspace, mask), maps)[body].mean()) >= float(theirs) - 1e-3


def test_maps_do_not_depend_on_the_scale_of_the_data(scan):
    kspace, mask, _, body = scan
    torch.testing.assert_close(
        espirit(kspace * 1e-6, mask)[:, body], espirit(kspace, mask)[:, body], rtol=1e-3, atol=1e-3
    )


def test_calibration_region_is_the_fully_sampled_centre(scan):
    kspace, mask, _, _ = scan
    region = calibration_region(kspace, mask)
    assert region.shape[1] == 32
    assert 17 <= region.shape[2] <= 21
    with pytest.raises(ValueError, match="no calibration region"):
        calibration_region(kspace, torch.arange(64) % 3 == 0)


def test_birdcage_maps_have_unit_norm_and_differ_between_coils():
    maps = birdcage_maps(6, (20, 31))
    torch.testing.assert_close(maps.abs().square().sum(0), torch.ones(20, 31))
    brightest = maps.abs().flatten(1).argmax(1)
    assert len(set(brightest.tolist())) == 6


def test_unusable_kspace_is_refused(scan):
    kspace, mask, _, _ = scan
    with pytest.raises(ValueError, match=r"complex \(coils, H, W\)"):
        espirit(kspace[0], mask)
    broken = kspace.clone()
    broken[0, 0, 0] = complex("nan")
    with pytest.raises(ValueError, match="NaN or infinite"):
        espirit(broken, mask)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("width", [128, 171])
def test_every_eightfold_mask_with_a_centre_has_a_calibration_region(width, seed):
    mask = column_mask("equispaced-fraction", width, 8, seed=seed).mask
    region = calibration_region(torch.zeros(2, 96, width, dtype=torch.complex64), mask)
    assert region.shape[1] == 32
    assert 4 <= region.shape[2] <= 8
