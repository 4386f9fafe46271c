"""Siemens raw data: made files have the images they were made of, damaged ones are refused."""

import struct

import numpy as np
import pytest

pytest.importorskip("twixtools")

from inverse_score.errors import BadInput
from inverse_score.io.reading import read_scan
from inverse_score.testing.formats import centred_image, marker_volume
from inverse_score.testing.twix import write_twix

IMAGES = marker_volume(3, 12, 10)[:, None] * np.array([1, 1j])[:, None, None]


def images_of(scan):
    return np.stack([centred_image(scan[k]) for k in range(len(scan))])


def test_a_scan_is_its_images_without_oversampling(tmp_path):
    scan = read_scan(write_twix(tmp_path / "a.dat", IMAGES))
    assert scan.shape == (3, 2, 12, 10)
    np.testing.assert_allclose(images_of(scan), IMAGES, atol=1e-6 * np.abs(IMAGES).max())


def test_an_odd_readout_keeps_its_centre(tmp_path):
    odd = IMAGES[:, :, :11]
    scan = read_scan(write_twix(tmp_path / "a.dat", odd))
    np.testing.assert_allclose(images_of(scan), odd, atol=1e-6 * np.abs(odd).max())


def test_no_orientation_is_invented_and_the_notes_say_so(tmp_path):
    scan = read_scan(write_twix(tmp_path / "a.dat", IMAGES))
    assert scan.affine is None
    assert "30 readouts: 30 kept; dropped: none" in scan.notes
    assert any("siemens_to_ismrmrd" in note for note in scan.notes)


def test_adjustments_before_the_scan_are_passed_over_unless_chosen(tmp_path):
    path = write_twix(tmp_path / "a.dat", IMAGES, adjustments=True)
    assert read_scan(path).shape == (3, 2, 12, 10)
    with pytest.raises(BadInput, match=r"2 measurements with data, 0 to 1 .*got 5"):
        read_scan(path, key="measurement=5")


def test_a_noise_scan_whitens_the_coils(tmp_path):
    """W C W^H = 2 I, C the noise's covariance in the image, whose k-space is the conjugate."""
    rng = np.random.default_rng(0)
    white = rng.standard_normal((2, 3000)) + 1j * rng.standard_normal((2, 3000))
    noise = np.array([[3, 0], [1 + 1j, 0.5]]) @ white
    images = IMAGES + np.array([0, 100])[:, None, None] * rng.random((12, 10))
    plain = read_scan(write_twix(tmp_path / "a.dat", images))
    scan = read_scan(write_twix(tmp_path / "b.dat", images, noise=noise))
    assert scan.noise_std == 1
    before, after = (images_of(s).swapaxes(0, 1).reshape(2, -1) for s in (plain, scan))
    whitening = after @ np.linalg.pinv(before)
    found = noise.conj().astype(np.complex64)
    covariance = found @ found.conj().T / noise.shape[1]
    np.testing.assert_allclose(
        whitening @ covariance @ whitening.conj().T, 2 * np.eye(2), atol=1e-3
    )


def test_the_patient_of_the_header_is_named_nowhere(tmp_path):
    scan = read_scan(write_twix(tmp_path / "a.dat", IMAGES))
    assert "DOE" not in f"{scan.notes} {scan.facts} {scan.geometry}"


def _overwrite(content: bytes, at: int, form: str, value: int) -> bytes:
    data = bytearray(content)
    struct.pack_into(form, data, at, value)
    return bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c[:10300],
        lambda c: c[:-3000],
        lambda c: _overwrite(c, 8 + 8, "<Q", 1 << 60),  # where the measurement starts
        lambda c: _overwrite(c, 10240, "<I", 1 << 31),  # length of its protocol
        lambda c: _overwrite(c, 10752, "<I", 0)[:10792] + b"\x21" + c[10793:],  # a block of 0 bytes
        lambda c: c.replace(b"ucTrajectory = 1", b"ucTrajectory = 4"),
        lambda c: c.replace(b"lPhaseEncodingLines = 10", b"lPhaseEncodingLines = 0 "),
    ],
    ids=[
        "cut protocol",
        "cut readouts",
        "far start",
        "long protocol",
        "no length",
        "spiral",
        "no lines",
    ],
)
def test_damaged_files_are_refused_in_one_sentence(tmp_path, damage):
    path = write_twix(tmp_path / "a.dat", IMAGES)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput) as caught:
        images_of(read_scan(path))
    assert str(caught.value).startswith("a.dat")
    assert "\n" not in str(caught.value)
    assert "DOE" not in str(caught.value)


def test_a_list_of_the_protocol_cannot_take_all_memory(tmp_path):
    """twixtools fills a list up to any index that the protocol names."""
    path = write_twix(tmp_path / "a.dat", IMAGES)
    entry = b"asSlice[0].dThickness = 5.0"
    hostile = b"asSlice[9999999999].x = 1.".ljust(len(entry), b"0")
    path.write_bytes(path.read_bytes().replace(entry, hostile))
    with pytest.raises(BadInput, match=r"a\.dat (is damaged or hostile|cannot be read: damaged)"):
        read_scan(path)
