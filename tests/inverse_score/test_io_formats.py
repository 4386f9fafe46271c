"""BART, plain arrays and NIfTI: values and axes in and out, and what cannot be told is asked."""

import json
import struct

import h5py
import numpy as np
import pytest
import torch

from inverse_score.errors import BadInput
from inverse_score.io.formats.bart import DIMENSIONS, write_bart
from inverse_score.io.formats.sinogram import write_sinogram
from inverse_score.io.reading import read_scan
from inverse_score.io.scan import Scan, center_crop, crop_affine
from inverse_score.testing.formats import centred_image, marker_volume, read_volume

RNG = np.random.default_rng(2)
KSPACE = (RNG.standard_normal((3, 2, 8, 6)) + 1j * RNG.standard_normal((3, 2, 8, 6))).astype("c8")
VOLUME = marker_volume(3, 8, 6).astype(np.float32)


# BART


def write_cfl(stem, array, shape):
    """As BART does: dimensions in the header, values column-major, little-endian complex64."""
    stem.with_name(f"{stem.name}.hdr").write_text(f"# Dimensions\n{shape} \n# Command\nfft\n")
    values = np.asarray(array, "<c8").reshape(-1, order="F")
    values.tofile(stem.with_name(f"{stem.name}.cfl"))
    return stem


def write_ra(path, array):
    values = np.asarray(array, "<c8")
    head = struct.pack("<6Q", 0x7961727261776172, 0, 4, 8, values.nbytes, values.ndim)
    path.write_bytes(head + struct.pack(f"<{values.ndim}Q", *values.shape)
                     + values.tobytes(order="F"))  # fmt: skip
    return path


@pytest.mark.parametrize("ending", ["", ".cfl", ".hdr"])
def test_a_cfl_pair_is_read_by_either_name_or_its_stem(tmp_path, ending):
    bart = KSPACE.transpose(2, 3, 1, 0)  # READ, PHS1, COIL, SLICE
    write_cfl(tmp_path / "k", bart, "8 6 1 2 1 1 1 1 1 1 1 1 1 3 1 1")
    scan = read_scan(tmp_path / f"k{ending}")
    assert (scan.kind, scan.shape, scan.mask) == ("kspace", KSPACE.shape, None)
    np.testing.assert_array_equal(read_volume(scan), KSPACE)


def test_ra_holds_the_same(tmp_path):
    scan = read_scan(write_ra(tmp_path / "k.ra", KSPACE[0].transpose(1, 2, 0)[:, :, None]))
    np.testing.assert_array_equal(scan[0], KSPACE[0])


def test_a_slice_of_a_3d_scan_lies_in_the_two_phase_encodings(tmp_path):
    write_cfl(tmp_path / "k", KSPACE[0].transpose(1, 2, 0)[None], "1 8 6 2")
    np.testing.assert_array_equal(read_scan(tmp_path / "k")[0], KSPACE[0])


def test_3d_kspace_is_transformed_along_the_readout(tmp_path):
    write_cfl(tmp_path / "k", KSPACE.transpose(0, 2, 3, 1), "3 8 6 2")
    scan = read_scan(tmp_path / "k")
    assert scan.shape == (3, 2, 8, 6)
    expected = centred_image(KSPACE, axes=(0,))
    np.testing.assert_allclose(read_volume(scan), expected, atol=1e-6)


def test_unmeasured_entries_are_the_mask(tmp_path):
    columns, points = KSPACE.copy(), KSPACE.copy()
    columns[..., [1, 4]] = 0
    pattern = RNG.random((8, 6)) < 0.4
    points *= pattern
    for values, mask in [(columns, ~np.isin(np.arange(6), (1, 4))), (points, pattern)]:
        write_bart(tmp_path / "k", values, ("SLICE", "COIL", "READ", "PHS1"))
        np.testing.assert_array_equal(read_scan(tmp_path / "k").mask, mask)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_bart_arrays_round_trip_whatever_the_order_of_axes(tmp_path, order):
    names = ("SLICE", "READ", "PHS1")
    write_bart(tmp_path / "x", VOLUME.transpose(order), tuple(names[axis] for axis in order))
    np.testing.assert_array_equal(read_volume(read_scan(tmp_path / "x", kind="image")), VOLUME)
    assert (tmp_path / "x.cfl").stat().st_size == VOLUME.size * 8


def test_bart_refuses_dimensions_named_twice_or_wrongly(tmp_path):
    for names in (("READ", "READ", "PHS1"), ("READ", "PHS1"), ("READ", "PHS1", "Z")):
        with pytest.raises(ValueError, match="must name each of the 3 axes once"):
            write_bart(tmp_path / "x", VOLUME, names)
    assert not list(tmp_path.iterdir())
    assert len(DIMENSIONS) == 16


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("# Dimensions\n8 6 1 2\n", r"768 bytes; the file has 2304"),
        ("# Dimensions\n8 -6 1 2\n", "must name 1 to 16"),
        ("# Dimensions\n0 6 1 2\n", "must be 1 or more"),
        ("# Dimensions\n" + "9" * 19 + " 6\n", "the file has 2304"),
        ("# Dimensions\n" + "9" * 400 + "\n", "must name 1 to 16"),
        ("# Dimensions\n" + "2 " * 17 + "\n", "must name 1 to 16"),
        ("# Dimensions\n", "no line '# Dimensions' with numbers after it"),
        ("# Data\n/etc/passwd\n", "no line"),
        ("# Dimensions\n" + " " * (2 << 20), "longer than"),
        ("# Dimensions\n8 6 1 2 1 3\n", "further dimensions TE 3: cut one out"),
    ],
)
def test_a_bart_header_that_lies_is_refused_before_anything_is_read(tmp_path, header, message):
    write_cfl(tmp_path / "k", KSPACE, "8 6 1 2 1 1 1 1 1 1 1 1 1 3")
    (tmp_path / "k.hdr").write_text(header)
    with pytest.raises(BadInput, match=message):
        read_scan(tmp_path / "k")


def test_half_a_cfl_pair_and_a_lying_ra_are_refused(tmp_path):
    write_cfl(tmp_path / "k", KSPACE, "8 6 1 2 1 1 1 1 1 1 1 1 1 3")
    (tmp_path / "k.hdr").unlink()
    with pytest.raises(BadInput, match=r"k\.hdr: no such file"):
        read_scan(tmp_path / "k.cfl")
    path = write_ra(tmp_path / "k.ra", KSPACE[0])
    content = path.read_bytes()
    for place, value, message in [
        (40, 99, "1 to 16 dimensions"), (48, 1 << 60, "the file has"), (16, 5, "got type"),
        (32, 8, "declares 8 bytes"),
    ]:  # fmt: skip
        path.write_bytes(content[:place] + struct.pack("<Q", value) + content[place + 8 :])
        with pytest.raises(BadInput, match=message):
            read_scan(path)


# Plain arrays


def write_arrays(path, **arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name] = values
    return path


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
@pytest.mark.parametrize("axes", ["coil,slice,x,y", "x,y,coil,slice", "slice,coil,readout,phase"])
def test_axes_are_taken_by_name(tmp_path, suffix, axes):
    letters = {"slice": 0, "coil": 1, "y": 2, "x": 3, "readout": 2, "phase": 3}
    values = KSPACE.transpose([letters[name] for name in axes.split(",")])
    path = write_arrays(tmp_path / f"a{suffix}", raw=values)
    np.testing.assert_array_equal(read_volume(read_scan(path, key="raw", axes=axes)), KSPACE)


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_complex_numbers_come_in_every_usual_dress(tmp_path, suffix):
    pairs = np.stack([KSPACE.real, KSPACE.imag], axis=-1)
    compound = np.zeros(KSPACE.shape, [("real", "f4"), ("imag", "f4")])
    compound["real"], compound["imag"] = KSPACE.real, KSPACE.imag
    path = write_arrays(
        tmp_path / f"a{suffix}", pairs=pairs, first=np.moveaxis(pairs, -1, 0), compound=compound,
        double=KSPACE.astype("c16"), swapped=KSPACE.astype(">c8"),
    )  # fmt: skip
    for key, axes in [
        ("pairs", None), ("first", "complex,slice,coil,y,x"), ("compound", None), ("double", None),
        ("swapped", None),
    ]:  # fmt: skip
        scan = read_scan(path, key=key, axes=axes)
        assert scan.kind == "kspace"
        np.testing.assert_array_equal(scan[2], KSPACE[2])
        assert scan[2].dtype == np.complex64


def test_what_three_axes_mean_is_never_guessed(tmp_path):
    path = write_arrays(tmp_path / "a.npz", kspace=KSPACE[0])
    with pytest.raises(BadInput, match=r"\(slice, y, x\), \(coil, y, x\).*--axes"):
        read_scan(path)
    assert read_scan(path, axes="coil,y,x").shape == (1, 2, 8, 6)
    assert read_scan(path, axes="slice,y,x", kind="kspace").shape == (2, 1, 8, 6)


def test_magnitudes_are_no_kspace(tmp_path):
    path = write_arrays(tmp_path / "a.npz", kspace=np.abs(KSPACE))
    with pytest.raises(BadInput, match="magnitudes cannot be reconstructed"):
        read_scan(path, kind="kspace")
    np.save(tmp_path / "i.npy", VOLUME)
    np.testing.assert_array_equal(read_volume(read_scan(tmp_path / "i.npy", kind="image")), VOLUME)
    with pytest.raises(BadInput, match=r"needed is kspace|must be complex"):
        read_scan(tmp_path / "i.npy", kind="kspace", axes="slice,y,x")


def test_a_sinogram_brings_its_angles_in_radians(tmp_path):
    sinogram, angles = RNG.random((3, 5, 7)), np.linspace(0, np.pi, 5, endpoint=False)
    path = write_arrays(tmp_path / "a.npz", sinogram=sinogram, angles=angles)
    scan = read_scan(path, kind="sinogram")
    np.testing.assert_array_equal(scan.angles, angles)
    np.testing.assert_allclose(scan[1], sinogram[1], rtol=1e-6)
    turned = write_arrays(tmp_path / "b.npz", s=sinogram.transpose(2, 1, 0), angles=angles)
    scan = read_scan(turned, key="s", axes="detector,angle,slice")
    np.testing.assert_allclose(scan[1], sinogram[1], rtol=1e-6)
    for arrays, message in [
        ({"sinogram": sinogram}, "needs `angles`"),
        ({"sinogram": sinogram, "angles": angles[:4]}, "must be 5 finite numbers"),
        ({"sinogram": sinogram, "angles": np.rad2deg(angles)}, "which are degrees"),
    ]:
        with pytest.raises(BadInput, match=message):
            read_scan(write_arrays(tmp_path / "c.npz", **arrays), kind="sinogram")


def test_an_npz_gives_the_geometry_that_a_sinogram_hdf5_gives(tmp_path):
    """As one JSON text, or each entry an array; and the fan's distances are asked for by name."""
    sinogram, angles = RNG.random((2, 5, 7)), np.linspace(0, np.pi, 5, endpoint=False)
    geometry = {"type": "fan-flat", "detector_spacing_mm": 1.5, "pixel_mm": 0.5,
                "image_shape": [9, 11], "source_origin_mm": 500.0, "origin_detector_mm": 400.0,
                "center_offset": 0.25}  # fmt: skip
    about = {"value": "counts", "I0": 1e5, "mu_water_per_mm": 0.02}
    write_sinogram(tmp_path / "a.h5", sinogram, angles, geometry | about)
    expected = dict(read_scan(tmp_path / "a.h5").geometry)
    assert expected == geometry | about | {"image_shape": (9, 11)}
    common = {"sinogram": sinogram, "angles": np.rad2deg(angles), "units": "deg", **about}
    for form in ({"geometry": json.dumps(geometry)}, geometry):
        scan = read_scan(write_arrays(tmp_path / "b.npz", **common, **form), kind="sinogram")
        assert dict(scan.geometry) == expected
        assert scan.units == "counts"
        np.testing.assert_allclose(scan.angles, angles)
    with pytest.raises(BadInput, match="geometry needs source_origin_mm"):
        read_scan(write_arrays(tmp_path / "c.npz", type="fan-arc", **common), kind="sinogram")
    del common["I0"]
    with pytest.raises(BadInput, match="counts need I0"):
        read_scan(write_arrays(tmp_path / "d.npz", **common), kind="sinogram")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "none"}, "no array 'none'; it has"),
        ({"key": "kspace", "axes": "y,x"}, "for each axis"),
        ({"key": "kspace", "axes": "slice,coil,y,y"}, "for each axis"),
        ({"key": "kspace", "axes": "slice,coil,y,q"}, "for each axis"),
        ({"key": "kspace", "axes": "slice,coil,y,complex"}, "must hold two real numbers"),
        ({"key": "kspace", "kind": "image"}, "name its axes"),
        ({"nan": "ignore"}, "nan must be"),
    ],
)
def test_wrong_names_are_answered_with_the_right_ones(tmp_path, options, message):
    path = write_arrays(tmp_path / "a.npz", kspace=KSPACE, b=VOLUME)
    with pytest.raises(BadInput, match=message):
        read_scan(path, **options)


def test_nan_is_refused_with_slice_and_coil_or_replaced_when_asked(tmp_path):
    values = KSPACE.copy()
    values[1, 1, 2, 3], values[1, 0, 0, 0] = np.nan, np.inf
    path = write_arrays(tmp_path / "a.npz", kspace=values)
    scan = read_scan(path)
    np.testing.assert_array_equal(scan[0], KSPACE[0])
    with pytest.raises(BadInput, match=r"a\.npz, slice 1, coil 0, 1: 2 values are NaN or infinite"):
        scan[1]
    repaired = read_scan(path, nan="zero")[1]
    assert repaired[1, 2, 3] == repaired[0, 0, 0] == 0
    assert np.count_nonzero(repaired) == KSPACE[1].size - 2


def test_float64_beyond_float32_is_refused_like_infinity(tmp_path):
    path = write_arrays(tmp_path / "a.npz", image=np.full((4, 4), 1e300))
    with pytest.raises(BadInput, match="16 values are NaN or infinite"):
        read_scan(path, kind="image")[0]


# The scan itself


def test_a_part_of_a_scan_keeps_its_place(tmp_path):
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    scan = Scan("image", VOLUME.shape, VOLUME.__getitem__, (tmp_path,), "test", affine=affine)
    part = scan.select(range(1, 3))
    np.testing.assert_array_equal(read_volume(part), VOLUME[1:3])
    np.testing.assert_allclose(part.affine @ (0, 0, 0, 1), affine @ (0, 0, 1, 1))
    for bad in (range(0, 3, 2), range(2, 9), range(2, 2)):
        with pytest.raises(BadInput, match="has slices 0 to 2"):
            scan.select(bad)


@pytest.mark.parametrize("size", [(4, 3), (5, 6), (8, 1)])
def test_a_crop_and_its_affine_agree(size):
    affine = RNG.standard_normal((4, 4))
    i, j = np.meshgrid(np.arange(8), np.arange(6), indexing="ij")
    rows, columns = center_crop(i, size), center_crop(j, size)
    moved = crop_affine(affine, (8, 6), size) @ (0, 0, 2, 1)
    np.testing.assert_allclose(moved, affine @ (columns[0, 0], rows[0, 0], 2, 1))
    with pytest.raises(BadInput, match="must fit"):
        crop_affine(affine, (8, 6), (9, 6))


def test_an_impossible_scan_is_refused(tmp_path):
    for kind, shape in [("kspace", (3, 8, 6)), ("image", (0, 8, 6)), ("film", (1, 1, 1))]:
        with pytest.raises(BadInput, match="a scan is one of"):
            Scan(kind, shape, None, (tmp_path,), "test")


def test_crop_starts_where_fastmri_starts():
    image = torch.arange(7 * 8).reshape(1, 7, 8)
    assert center_crop(image, (4, 5))[0, 0, 0] == image[0, 1, 1]
    with pytest.raises(BadInput, match="a crop must fit into the image"):
        center_crop(image, (99, 5))
