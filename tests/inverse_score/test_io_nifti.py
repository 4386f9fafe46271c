"""NIfTI in and out: values, affines, display, and honesty about unknown orientation."""

import json

import numpy as np
import pytest

from inverse_score.errors import BadInput
from inverse_score.io.formats.nifti import read_nifti, write_nifti
from inverse_score.io.reading import read_scan
from inverse_score.testing.formats import brightest_place, marker_volume, read_volume

nibabel = pytest.importorskip("nibabel")
VOLUME = marker_volume(4, 8, 6).astype(np.float32)
AFFINE = np.array([[-1.5, 0, 0, 40], [0, -1.48, 0.6, 30], [0, 0.25, 3.9, -20], [0, 0, 0, 1]])


def save(path, array, affine, code=1, **header):
    image = nibabel.Nifti1Image(array, affine)
    image.set_sform(affine, code)
    image.set_qform(None if code else affine, 0)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_what_is_written_is_read_the_same(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    write_nifti(path, VOLUME, AFFINE, description="test", sidecar={"seed": 3})
    scan = read_scan(path)
    np.testing.assert_array_equal(read_volume(scan), VOLUME)
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-5)
    image = nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(image.dataobj)[2, 1, 0], VOLUME[0, 1, 2])
    assert image.header.get_xyzt_units()[0] == "mm"
    assert int(image.header["sform_code"]) == 1
    assert image.get_data_dtype() == np.float32
    assert json.loads((tmp_path / "x.json").read_text()) == {"orientation": "scanner", "seed": 3}


def test_equal_volumes_give_equal_bytes(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, VOLUME, AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_sheared_affine_is_never_squeezed_into_a_quaternion(tmp_path):
    sheared = AFFINE.copy()
    sheared[1, 2] += 0.8
    write_nifti(tmp_path / "x.nii", VOLUME, sheared)
    image = nibabel.load(tmp_path / "x.nii")
    assert int(image.header["qform_code"]) == 0
    np.testing.assert_allclose(image.affine, sheared, atol=1e-6)


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "ASL", "PIR", "SRA", "IPL", "LAS"])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal", None])
def test_a_marker_stays_in_place_and_slices_are_turned_as_displayed(tmp_path, axcodes, plane):
    """Whatever order and direction the file stores its axes in."""
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(axcodes)
    )
    stored = nibabel.Nifti1Image(VOLUME.transpose(2, 1, 0), AFFINE).as_reoriented(turn)
    nibabel.save(stored, tmp_path / "x.nii")
    scan = read_scan(tmp_path / "x.nii", axes=plane)
    expected = AFFINE @ (2, 1, 0, 1)
    np.testing.assert_allclose(brightest_place(scan), expected[:3], atol=1e-4)
    codes = "".join(nibabel.aff2axcodes(scan.affine))
    shown = {"axial": "LPS", "coronal": "LIP", "sagittal": "PIR"}
    if plane is None:
        assert codes in shown.values()
    else:
        assert codes == shown[plane]


def test_without_orientation_nothing_is_invented(tmp_path):
    path = save(tmp_path / "x.nii", VOLUME.transpose(2, 1, 0), np.eye(4), code=0)
    scan = read_scan(path)
    assert scan.affine is None
    assert "no orientation in the file" in scan.notes[0]
    np.testing.assert_array_equal(read_volume(scan), VOLUME)
    write_nifti(tmp_path / "y.nii", VOLUME, None)
    header = nibabel.load(tmp_path / "y.nii").header
    assert int(header["sform_code"]) == int(header["qform_code"]) == 0
    assert json.loads((tmp_path / "y.json").read_text())["orientation"] == "unknown"
    assert read_scan(tmp_path / "y.nii").affine is None


def test_slope_and_intercept_are_applied(tmp_path):
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = nibabel.Nifti1Image(stored, np.diag([-1, -1, 1, 1]))
    image.header.set_slope_inter(2, -1024)
    nibabel.save(image, tmp_path / "x.nii")
    expected = 2 * stored.transpose(2, 1, 0) - 1024
    np.testing.assert_array_equal(read_volume(read_scan(tmp_path / "x.nii")), expected)


def test_a_volume_of_a_series_is_chosen(tmp_path):
    series = np.stack([VOLUME.transpose(2, 1, 0), 2 * VOLUME.transpose(2, 1, 0)], axis=-1)
    path = save(tmp_path / "x.nii.gz", series, np.diag([-1, -1, 1, 1]))
    with pytest.raises(BadInput, match="2 volumes: choose one of 0 to 1"):
        read_scan(path)
    np.testing.assert_array_equal(read_volume(read_scan(path, key=1)), 2 * VOLUME)


def test_damaged_nifti_is_refused_in_one_sentence(tmp_path):
    path = save(tmp_path / "x.nii", VOLUME.transpose(2, 1, 0), AFFINE)
    content = path.read_bytes()
    path.write_bytes(content[:-40])
    with pytest.raises(BadInput, match="cut off: it needs"):
        read_scan(path)
    path.write_bytes(content[:42] + b"\xff\x7f" * 3 + content[48:])
    with pytest.raises(BadInput, match=r"x\.nii"):
        read_scan(path)
    packed = save(tmp_path / "y.nii.gz", VOLUME.transpose(2, 1, 0), AFFINE)
    packed.write_bytes(packed.read_bytes()[:-60])
    with pytest.raises(BadInput, match=r"y\.nii\.gz"):
        read_volume(read_scan(packed))
    content = bytearray((save(packed, VOLUME.transpose(2, 1, 0), AFFINE)).read_bytes())
    content[-6] ^= 1  # in the checksum, which nothing else would notice
    packed.write_bytes(content)
    with pytest.raises(BadInput, match="CRC"):
        read_volume(read_scan(packed))
    bomb = save(tmp_path / "z.nii.gz", np.zeros((512, 512, 20), np.float32), AFFINE)
    with pytest.raises(BadInput, match="more than 200 times"):
        read_scan(bomb)


def test_a_plane_must_be_one_of_three(tmp_path):
    path = save(tmp_path / "x.nii", VOLUME.transpose(2, 1, 0), AFFINE)
    with pytest.raises(BadInput, match="axial"):
        read_nifti(path, axes="oblique")


@pytest.mark.parametrize("bad", [VOLUME[0], VOLUME + 1j, np.full((2, 2, 2), np.nan)])
def test_only_finite_real_volumes_are_written(tmp_path, bad):
    with pytest.raises(ValueError, match="must be finite, real, 3-D"):
        write_nifti(tmp_path / "x.nii", bad, AFFINE)
    assert not list(tmp_path.iterdir())
