"""fastMRI HDF5: every layout is read to the same axes, and what is not fastMRI says so."""

import h5py
import numpy as np
import pytest

from inverse_score.errors import BadInput
from inverse_score.io.formats.fastmri import header_xml, open_fastmri, write_fastmri
from inverse_score.testing.scans import TINY, ellipse, fastmri_file, kspace, rss


def edited(path, change):
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replaced(path, key, value, **options):
    with h5py.File(path, "r+") as file:
        del file[key]
        file.create_dataset(key, data=value, **options)
    return path


def test_a_written_file_reads_back_as_it_was(tmp_path):
    k, truth = kspace()
    scan = open_fastmri(fastmri_file(tmp_path / "a.h5"))
    assert scan.shape == k.shape
    np.testing.assert_array_equal(scan[1], k[1])
    np.testing.assert_allclose(scan.references["ground_truth"](1), truth[1], rtol=1e-6)
    assert scan.mask is None
    assert scan.crop == TINY


def test_single_coil_has_one_coil(tmp_path):
    k, truth = kspace(coils=1)
    write_fastmri(tmp_path / "a.h5", k[:, 0], references={"reconstruction_esc": truth})
    scan = open_fastmri(tmp_path / "a.h5")
    assert scan.shape == (2, 1, *TINY)
    np.testing.assert_array_equal(scan[0], k[0])


def test_columns_outside_the_encoded_range_are_not_measured(tmp_path):
    path = fastmri_file(tmp_path / "a.h5")
    header = (
        header_xml(TINY, TINY)
        .replace("<maximum>31", "<maximum>25")
        .replace("<center>16", "<center>13")
    )
    k, _ = kspace()
    k[..., :3] = k[..., 29:] = 0
    replaced(path, "kspace", k)
    scan = open_fastmri(replaced(path, "ismrmrd_header", header))
    assert scan.mask.tolist() == [False] * 3 + [True] * 26 + [False] * 3
    assert (scan.facts["padding_left"], scan.facts["padding_right"]) == (3, 29)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_a_mask_of_any_type_is_read(tmp_path, dtype):
    mask = np.arange(32) % 3 == 0
    path = fastmri_file(tmp_path / "a.h5", mask=mask)
    scan = open_fastmri(replaced(path, "mask", mask.astype(dtype)))
    assert scan.mask.tolist() == mask.tolist()


def test_an_undersampled_file_without_mask_tells_by_its_zeros(tmp_path):
    mask = np.arange(32) % 3 == 0
    path = edited(fastmri_file(tmp_path / "a.h5", mask=mask), lambda f: f.__delitem__("mask"))
    scan = open_fastmri(path)
    assert scan.mask.tolist() == mask.tolist()
    assert "21 of 32 columns are zero" in scan.notes[0]


@pytest.mark.parametrize("odd", [(23, 31), (40, 25)])
def test_odd_sizes_and_oversampled_readout_keep_their_crop(tmp_path, odd):
    k, _ = kspace(shape=odd)
    target = np.zeros((2, 20, 20), np.float32) + 1
    write_fastmri(tmp_path / "a.h5", k, references={"reconstruction_rss": target})
    assert open_fastmri(tmp_path / "a.h5").crop == (20, 20)


def test_an_image_narrower_than_the_header_says_is_cropped_to_itself(tmp_path):
    path = fastmri_file(tmp_path / "a.h5")
    edited(path, lambda f: [f.__delitem__(k) for k in ("reconstruction_rss", "ground_truth")])
    scan = open_fastmri(replaced(path, "ismrmrd_header", header_xml(TINY, (24, 40))))
    assert scan.crop == (24, 32)
    assert "smaller than the header's crop" in scan.notes[0]


def as_pairs(k):
    return np.stack([k.real, k.imag], -1)


def as_compound(k):
    out = np.zeros(k.shape, [("real", "f4"), ("imag", "f4")])
    out["real"], out["imag"] = k.real, k.imag
    return out


@pytest.mark.parametrize(
    "convert",
    [as_pairs, as_compound, lambda k: k.astype(np.complex128), lambda k: k.astype(">c8")],
    ids=["pairs", "compound", "complex128", "big-endian"],
)
def test_complex_numbers_are_read_however_they_are_written(tmp_path, convert):
    k, _ = kspace()
    scan = open_fastmri(replaced(fastmri_file(tmp_path / "a.h5"), "kspace", convert(k)))
    np.testing.assert_array_equal(scan[1], k[1])
    assert scan[1].dtype == np.complex64


@pytest.mark.parametrize("text", ["AXT2", b"AXT2", np.bytes_("AXT2")])
def test_attributes_may_be_text_or_bytes(tmp_path, text):
    path = edited(fastmri_file(tmp_path / "a.h5"), lambda f: f.attrs.update(acquisition=text))
    assert open_fastmri(path).facts["acquisition"] == "AXT2"


def test_an_unknown_acquisition_and_a_patient_id_are_not_repeated(tmp_path):
    path = fastmri_file(tmp_path / "a.h5")
    edited(path, lambda f: f.attrs.update(acquisition="DOE^JANE", patient_id="123"))
    assert "DOE" not in repr(open_fastmri(path).facts)


def test_magnitudes_are_refused(tmp_path):
    k, _ = kspace()
    path = replaced(fastmri_file(tmp_path / "a.h5"), "kspace", np.abs(k))
    with pytest.raises(BadInput, match="magnitudes cannot be reconstructed"):
        open_fastmri(path)


def test_three_axes_without_a_hint_are_not_guessed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = kspace()[0][0]
    with pytest.raises(BadInput, match=r"could be .slices, H, W. or .coils, H, W.*--axes"):
        open_fastmri(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros(32), "zero everywhere"),
        (np.full(32, 0.5), "0 and 1 only"),
        (np.ones(31), r"must be \(32,\)"),
        (np.ones((32, 24)), r"must be \(32,\)"),
    ],
    ids=["empty", "soft", "short", "transposed"],
)
def test_a_bad_mask_says_what_is_wrong(tmp_path, mask, message):
    path = fastmri_file(tmp_path / "a.h5", mask=np.arange(32) % 2 == 0)
    with pytest.raises(BadInput, match=message):
        open_fastmri(replaced(path, "mask", mask))


def test_a_doctype_in_the_header_is_refused(tmp_path):
    bomb = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>'
    path = replaced(fastmri_file(tmp_path / "a.h5"), "ismrmrd_header", bomb)
    with pytest.raises(BadInput, match="DOCTYPE"):
        open_fastmri(path)


def test_references_of_other_slices_are_refused(tmp_path):
    path = replaced(fastmri_file(tmp_path / "a.h5"), "ground_truth", ellipse()[None])
    with pytest.raises(BadInput, match="has not kspace's 2 slices"):
        open_fastmri(path)


def test_a_nan_is_named_by_slice_and_coil(tmp_path):
    k, _ = kspace()
    k[1, 2, 3, 4] = np.nan
    path = replaced(fastmri_file(tmp_path / "a.h5"), "kspace", k)
    with pytest.raises(BadInput, match="slice 1, coil 2: 1 values"):
        open_fastmri(path)[1]
    assert open_fastmri(path, nan="zero")[1][2, 3, 4] == 0


def test_rss_of_the_written_file_is_the_images_magnitude(tmp_path):
    k, truth = kspace(noise=0.0)
    np.testing.assert_allclose(rss(k), truth, atol=1e-6)
