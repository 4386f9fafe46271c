"""Sinogram HDF5: units and geometry are checked, and what is missing is named."""

import json

import h5py
import numpy as np
import pytest

from inverse_score.errors import BadInput
from inverse_score.io.formats.sinogram import MU_WATER, open_sinogram, write_sinogram

GEOMETRY = {"type": "parallel", "detector_spacing_mm": 1.5, "pixel_mm": 1.5,
            "image_shape": [16, 16]}  # fmt: skip
ANGLES = np.linspace(0, np.pi, 6, endpoint=False)


def written(path, geometry=GEOMETRY, **options):
    sinogram = np.random.default_rng(0).random((2, 6, 24)).astype(np.float32)
    write_sinogram(path, sinogram, ANGLES, geometry, **options)
    return path, sinogram


def test_a_written_file_reads_back_as_it_was(tmp_path):
    truth = np.ones((2, 16, 16))
    path, sinogram = written(tmp_path / "a.h5", references={"ground_truth": truth})
    scan = open_sinogram(path)
    np.testing.assert_array_equal(scan[1], sinogram[1])
    np.testing.assert_allclose(scan.angles, ANGLES)
    assert scan.geometry["image_shape"] == (16, 16)
    assert scan.geometry["mu_water_per_mm"] == MU_WATER
    assert scan.references["ground_truth"](1).shape == (16, 16)


def test_degrees_become_radians(tmp_path):
    path, _ = written(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file["angles"][...] = np.rad2deg(ANGLES)
        file["angles"].attrs["units"] = "deg"
    np.testing.assert_allclose(open_sinogram(path).angles, ANGLES)


def test_degrees_that_are_called_radians_are_noticed(tmp_path):
    path, _ = written(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file["angles"][...] = np.rad2deg(ANGLES)
    with pytest.raises(BadInput, match="set units to deg"):
        open_sinogram(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "cone"}, "geometry type must be one of"),
        ({"pixel_mm": -1}, "needs pixel_mm, a number above 0"),
        ({"type": "fan-flat"}, "needs source_origin_mm"),
        ({"detector_spacing_mm": float("nan")}, "needs detector_spacing_mm"),
        ({"image_shape": [16]}, "image_shape must be"),
        ({"colour": 1}, "unknown keys"),
    ],
)
def test_a_bad_geometry_is_named(tmp_path, change, message):
    path, _ = written(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file["geometry"]
        file["geometry"] = json.dumps({**GEOMETRY, **change})
    with pytest.raises(BadInput, match=message):
        open_sinogram(path)


def test_counts_need_the_counts_without_an_object(tmp_path):
    path, _ = written(tmp_path / "a.h5", {**GEOMETRY, "value": "counts"})
    with pytest.raises(BadInput, match="counts need I0"):
        open_sinogram(path)
    path, _ = written(tmp_path / "b.h5", {**GEOMETRY, "value": "counts", "I0": 1e5})
    assert open_sinogram(path).geometry["I0"] == 1e5


def test_without_an_image_shape_the_detector_decides(tmp_path):
    path, _ = written(tmp_path / "a.h5", {k: v for k, v in GEOMETRY.items() if k != "image_shape"})
    side = int(24 / np.sqrt(2))
    assert open_sinogram(path).geometry["image_shape"] == (side, side)


def test_a_reference_of_another_size_is_refused(tmp_path):
    path, _ = written(tmp_path / "a.h5", references={"ground_truth": np.ones((2, 8, 8))})
    with pytest.raises(BadInput, match="ground_truth must be 2 slices"):
        open_sinogram(path)
