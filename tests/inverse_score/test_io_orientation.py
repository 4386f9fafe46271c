"""A marker on one side stays there: every format in, `reconstruct`, every format out."""

import json

import numpy as np
import pytest
from command_line import command

from inverse_score.io.formats.bart import write_bart
from inverse_score.io.formats.fastmri import write_fastmri
from inverse_score.io.formats.nifti import write_nifti
from inverse_score.io.reading import read_scan
from inverse_score.testing.formats import (
    centred_fft,
    mrd_header,
    mrd_lines,
    read_volume,
    write_dicom_series,
    write_mrd,
)
from inverse_score.testing.scans import coil_maps
from inverse_score.testing.twix import write_twix

H, W = 24, 20
OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)
QUICK = ("--samples", 2, "--steps", 2, "--baseline", "none", "--no-pages", "--quiet", "--json",
         "--format-out", "nifti", "--format-out", "dicom", "--format-out", "bart")  # fmt: skip
CT = {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "HU", "Modality": "CT"}


def body() -> np.ndarray:
    """Two slices of 1 in air, and a marker of 2 at rows 5-7, columns 4-6 of the first: one side."""
    y, x = np.linspace(-1, 1, H)[:, None], np.linspace(-1, 1, W)
    volume = np.stack([np.hypot(y / 0.85, x / 0.8) < 1] * 2).astype(float)
    volume[0, 5:8, 4:7] = 2
    return volume


def coil_images() -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((2, 2, 4, H, W)) * 0.05
    return body()[:, None] * coil_maps(4, (H, W)) + noise[0] + 1j * noise[1]


def marker(scan) -> np.ndarray:
    """(slice, row, column) of the brightest part's centre."""
    volume = read_volume(scan).real  # BART knows complex numbers only
    low, high = volume.min(), volume.max()
    weight = np.maximum(volume - low - 0.75 * (high - low), 0)
    return np.array([np.average(axis, weights=weight) for axis in np.indices(volume.shape)])


def place(scan) -> np.ndarray:
    k, i, j = marker(scan)
    return (scan.affine @ (j, i, k, 1))[:3]


@pytest.fixture
def reconstruct(capsys, tiny_priors, tmp_path):
    def run(source, *arguments, prior="mri"):
        done = command(capsys, "reconstruct", source, "--prior", tiny_priors[prior], "-o",
                       tmp_path / "out", *QUICK, *arguments)  # fmt: skip
        assert done.code == 0, done.err
        names = json.loads(done.out)["scans"][0]["exports"]
        paths = [tmp_path / "out" / name for name in names]
        images = [path for path in paths if "-std" not in path.name]
        assert (len(paths), len(images)) == (6, 3), names
        return [read_scan(path, kind="image") for path in images]

    return run


def ismrmrd(folder):
    header = mrd_header((2 * H, W, 1), (H, W, 1), (480, 200, 5), (240, 200, 5), 2)
    return write_mrd(folder / "raw.h5", mrd_lines(coil_images(), 2 * H), header)


def mr_series(folder):
    return write_dicom_series(folder / "mr", 500 * body(), OBLIQUE, PixelSpacing=[2.0, 2.0])


def ct_series(folder):
    hu = np.where(body() > 0.5, 1000 * (body() - 1), -1000).astype(np.int16)
    return write_dicom_series(folder / "ct", hu, OBLIQUE, PixelSpacing=[8.0, 8.0], **CT)


def nifti(folder):
    affine = np.array([[0, -2.0, 0, 30], [2.0, 0, 0, -20], [0, 0, 4.0, 10], [0, 0, 0, 1]])
    write_nifti(folder / "x.nii.gz", body(), affine)
    return folder / "x.nii.gz"


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (ismrmrd, ()),
        (mr_series, ("--acc", 1, "--noise-std", 0.05)),
        (nifti, ("--acc", 1, "--noise-std", 0.05)),
        (ct_series, ("--operator", "ct", "--noise-std", 0.05)),
    ],
    ids=["ISMRMRD", "DICOM MR", "NIfTI", "DICOM CT"],
)
def test_a_marker_stays_on_its_side_of_the_patient(reconstruct, tmp_path, make, arguments):
    """ISMRMRD, DICOM and NIfTI in -> NIfTI and DICOM out: the same millimetres within a voxel."""
    pytest.importorskip("nibabel")
    source = make(tmp_path)
    nifti_out, dicom_out, bart_out = reconstruct(
        source, *arguments, prior="ct" if make is ct_series else "mri"
    )
    scan = read_scan(source)
    size = np.linalg.norm(nifti_out.affine[:3, :2], axis=0).max()
    if make is ismrmrd:
        # Pixels of 10 mm about (10, 20, 30) mm in LPS, the marker's centre at row 6, column 5.
        expected = np.array([-(10 + 10 * (5 - W // 2)), -(20 + 10 * (6 - H // 2)), 30])
    else:
        expected = place(scan)
    for found in (nifti_out, dicom_out):
        np.testing.assert_allclose(place(found), expected, atol=size)
    np.testing.assert_allclose(nifti_out.affine, dicom_out.affine, atol=1e-4)
    np.testing.assert_allclose(marker(bart_out), marker(nifti_out), atol=1e-3)
    assert abs(marker(bart_out)[2] - (bart_out.shape[2] - 1) / 2) > 2, "the marker is central"


def fastmri(folder):
    kspace = centred_fft(coil_images(), (-2, -1)).astype(np.complex64)
    rss = np.sqrt((np.abs(coil_images()) ** 2).sum(1))
    write_fastmri(folder / "k.h5", kspace, references={"reconstruction_rss": rss})
    return folder / "k.h5"


def bart(folder):
    kspace = centred_fft(coil_images(), (-2, -1))
    write_bart(folder / "k", kspace, ("SLICE", "COIL", "READ", "PHS1"))
    return folder / "k.cfl"


def twix(folder):
    pytest.importorskip("twixtools")
    return write_twix(folder / "k.dat", coil_images())


@pytest.mark.parametrize("make", [fastmri, bart, twix])
def test_without_geometry_the_marker_keeps_its_row_and_column(reconstruct, tmp_path, make):
    """fastMRI, BART, Siemens in: no orientation is invented, no axis turned."""
    pytest.importorskip("nibabel")
    found = reconstruct(make(tmp_path), "--allow-no-geometry")
    assert found[0].affine is None
    for scan in found:
        np.testing.assert_allclose(marker(scan), (0, 6, 5), atol=0.7)


def test_dicom_without_geometry_is_refused_before_the_work(capsys, tiny_priors, tmp_path):
    done = command(capsys, "reconstruct", fastmri(tmp_path), "--prior", tiny_priors["mri"], "-o",
                   tmp_path / "out", *QUICK)  # fmt: skip
    assert done.code == 3
    assert "no geometry" in done.err
    assert not list((tmp_path / "out").glob("*-dicom"))
