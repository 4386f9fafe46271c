"""DICOM out: values, geometry, marks, identity, and no patient data unless asked for."""

import os
import subprocess
import sys
import warnings

import h5py
import numpy as np
import pydicom
import pytest

from inverse_score.errors import BadInput
from inverse_score.io.formats.dicom_writer import NOTICE, Derivation, write_dicom
from inverse_score.io.formats.nifti import write_nifti
from inverse_score.io.formats.parametric_map import write_parametric_map
from inverse_score.io.reading import read_scan
from inverse_score.io.scan import Scan, center_crop, crop_affine
from inverse_score.testing.formats import (
    brightest_place,
    marker_volume,
    mrd_header,
    mrd_lines,
    read_volume,
    write_dicom_series,
    write_mrd,
)

VOLUME = marker_volume(4, 9, 7)
MADE = Derivation("run-1", "Mean of 8 samples", "inverse_score 0.1, moment-matching, 8x", "mean")
AXIAL, CORONAL, SAGITTAL = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)
OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)
SECRETS = ("DOE", "JANE", "MRN00042", "19700102", "20200304", "St Elsewhere", "1.2.3.4")


def source(folder, orientation=AXIAL, volume=VOLUME, **tags):
    return read_scan(write_dicom_series(folder / "source", volume, orientation, **tags))


def ct_source(folder, volume=VOLUME):
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU", "Modality": "CT"}
    return source(folder, volume=volume, **tags)


def headers(files):
    return [pydicom.dcmread(path) for path in files]


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, OBLIQUE])
def test_a_marker_stays_in_place_through_dicom_and_nifti(tmp_path, orientation):
    """DICOM in -> DICOM out -> NIfTI out, at each step in the same place of the patient."""
    scan = source(tmp_path, orientation)
    along, down = np.reshape(orientation, (2, 3))
    lps = np.array([-30, -20, 10]) + 2 * 1.5 * along + 1 * 2.0 * down
    np.testing.assert_allclose(brightest_place(scan), lps * (-1, -1, 1), atol=1e-6)
    write_dicom(tmp_path / "out", read_volume(scan), scan, MADE)
    again = read_scan(tmp_path / "out")
    np.testing.assert_allclose(again.affine, scan.affine, atol=1e-9)
    np.testing.assert_array_equal(read_volume(again), VOLUME)
    nibabel = pytest.importorskip("nibabel")
    write_nifti(tmp_path / "out.nii", read_volume(again), again.affine)
    np.testing.assert_allclose(
        brightest_place(read_scan(tmp_path / "out.nii")), lps * (-1, -1, 1), atol=1e-4
    )
    image = nibabel.load(tmp_path / "out.nii")
    voxel = np.unravel_index(np.argmax(image.dataobj), image.shape)
    np.testing.assert_allclose((image.affine @ (*voxel, 1))[:3], lps * (-1, -1, 1), atol=1e-4)


def test_highdicom_sees_the_same_geometry(tmp_path):
    highdicom = pytest.importorskip("highdicom")
    scan = source(tmp_path, OBLIQUE)
    files = write_dicom(tmp_path / "out", VOLUME, scan, MADE)
    volume = highdicom.get_volume_from_series(headers(files))
    k, i, j = np.unravel_index(np.argmax(volume.array), volume.array.shape)
    lps = (volume.affine @ (k, i, j, 1))[:3]
    np.testing.assert_allclose(lps * (-1, -1, 1), brightest_place(scan), atol=1e-6)


def test_raw_data_becomes_dicom_where_the_scanner_would_put_it(tmp_path):
    images = marker_volume(3, 12, 10)[:, None].astype(complex)
    header = mrd_header((24, 10, 1), (12, 10, 1), (240, 100, 5), (120, 100, 5), 3)
    scan = read_scan(write_mrd(tmp_path / "a.h5", mrd_lines(images, 24), header))
    shown, size = np.abs(images[:, 0]), (8, 6)
    affine = crop_affine(scan.affine, scan.shape[-2:], size)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(affine, scan.affine)
    full = write_dicom(tmp_path / "full", shown, scan, MADE)
    write_dicom(tmp_path / "cut", center_crop(shown, size), scan, MADE, affine=affine)
    whole, cut = read_scan(tmp_path / "full"), read_scan(tmp_path / "cut")
    # Column 2 of 10 and row 1 of 12, pixels of 10 mm about (10, 20, 30) mm in LPS.
    np.testing.assert_allclose(brightest_place(whole), (20, 30, 30), atol=1e-6)
    k, i, j = 1, 3, 2
    inner = (cut.affine @ (j, i, k, 1))[:3]
    np.testing.assert_allclose((whole.affine @ (j + 2, i + 2, k, 1))[:3], inner, atol=1e-6)
    assert headers(full)[0].Modality == "MR"


def test_one_scale_serves_the_whole_series(tmp_path):
    """Slices 1000 times apart keep their ratio, to half a step of the scale."""
    rng = np.random.default_rng(0)
    volume = rng.random((4, 9, 7)) * np.array([1, 1e-3, 0.5, 2])[:, None, None]
    files = write_dicom(tmp_path / "out", volume, source(tmp_path), MADE)
    slopes = {float(made.RescaleSlope) for made in headers(files)}
    assert len(slopes) == 1
    back = read_volume(read_scan(tmp_path / "out"))
    assert np.abs(back - volume).max() <= 0.5001 * slopes.pop()


def test_hounsfield_units_are_whole_numbers_and_clipped_at_the_ends(tmp_path):
    volume = VOLUME - 1024.0
    volume[0, 0, :3] = 1e6, -1e6, 40.4
    scan = ct_source(tmp_path)
    made = headers(write_dicom(tmp_path / "out", volume, scan, MADE))[0]
    assert (made.SOPClassUID.name, made.RescaleType) == ("CT Image Storage", "HU")
    back = read_scan(tmp_path / "out")
    assert back.units == "HU"
    np.testing.assert_array_equal(back[0][0, :3], (31743, -33792, 40))
    np.testing.assert_array_equal(back[2], volume[2])


def test_the_series_says_that_it_is_derived_and_for_research(tmp_path):
    scan = source(tmp_path, PixelPaddingValue=0, WindowCenter=5, WindowWidth=2, SeriesNumber=3)
    for k, made in enumerate(headers(write_dicom(tmp_path / "out", VOLUME, scan, MADE))):
        assert list(made.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        assert made.ContentQualification == "RESEARCH"
        assert NOTICE in made.ImageComments
        assert "RESEARCH" in made.SeriesDescription
        assert len(made.SeriesDescription) <= 64
        assert made.DerivationDescription == MADE.text
        assert made.DerivationCodeSequence[0].CodeValue == "113051"
        assert made.BurnedInAnnotation == "NO"
        assert made.InstanceNumber == k + 1
        assert made.SeriesNumber == 9003
        assert "PixelPaddingValue" not in made
        assert made.WindowWidth > 100
        assert made.preamble == bytes(128)
        assert made.SOPInstanceUID == made.file_meta.MediaStorageSOPInstanceUID
        assert made.file_meta.TransferSyntaxUID.name == "Explicit VR Little Endian"
        assert made.ContributingEquipmentSequence[0].Manufacturer == "ACME"
        assert made.SoftwareVersions


def test_equal_runs_give_equal_bytes_and_others_new_identities(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    scan = source(tmp_path)
    first, again = (
        [path.read_bytes() for path in write_dicom(tmp_path / name, VOLUME, scan, MADE)]
        for name in ("a", "b")
    )
    assert first == again
    other = Derivation("run-2", MADE.label, MADE.text)
    seen = [
        {made[name].value for made in headers((tmp_path / "a").iterdir())}
        for name in ("SOPInstanceUID", "SeriesInstanceUID")
    ]
    assert [len(uids) for uids in seen] == [4, 1]
    for made in headers(write_dicom(tmp_path / "c", VOLUME, scan, other)):
        assert made.SOPInstanceUID not in seen[0]
        assert made.SeriesInstanceUID not in seen[1]


def test_no_patient_data_is_written_unless_asked_for(tmp_path):
    scan = source(tmp_path)
    files = write_dicom(tmp_path / "out", VOLUME, scan, MADE)
    for path in files:
        content = path.read_bytes()
        assert not [secret for secret in SECRETS if secret.encode() in content]
        assert pydicom.dcmread(path).PatientIdentityRemoved == "YES"
    kept = headers(write_dicom(tmp_path / "kept", VOLUME, scan, MADE, keep_phi=True))
    origin = {pydicom.dcmread(path).SOPInstanceUID for path in scan.files}
    assert {str(made.PatientName) for made in kept} == {"DOE^JANE"}
    assert {made.StudyInstanceUID for made in kept} == {"1.2.3.4"}
    assert {made.FrameOfReferenceUID for made in kept} == {"1.2.3.4.6"}
    assert {m.SourceImageSequence[0].ReferencedSOPInstanceUID for m in kept} == origin
    assert all(made.SeriesInstanceUID != "1.2.3.4.5" for made in kept)
    assert "InstitutionName" not in kept[0]


@pytest.mark.parametrize("form", ["dicom", "ismrmrd", "fastmri"])
def test_nothing_a_scan_says_of_itself_names_the_patient(tmp_path, form):
    if form == "dicom":
        scan = source(tmp_path)
    else:
        header = mrd_header((24, 10, 1), (12, 10, 1), (240, 100, 5), (120, 100, 5), 1)
        if form == "ismrmrd":
            images = marker_volume(1, 12, 10)[:, None]
            scan = read_scan(write_mrd(tmp_path / "a.h5", mrd_lines(images, 24), header))
        else:
            with h5py.File(tmp_path / "a.h5", "w") as file:
                file["kspace"] = np.ones((1, 2, 24, 10), "c8")
                file["ismrmrd_header"] = header
                file.attrs["patient_id"], file.attrs["acquisition"] = "MRN00042", "DOE^JANE"
            scan = read_scan(tmp_path / "a.h5")
    said = f"{scan.facts} {scan.notes} {scan.geometry} {scan.units} {scan.format} {scan.name}"
    assert not [secret for secret in SECRETS if secret in said]


def test_without_geometry_no_series_is_written_unless_allowed(tmp_path):
    scan = Scan("image", VOLUME.shape, VOLUME.__getitem__, (tmp_path / "x.h5",), "test")
    with pytest.raises(BadInput, match=r"x\.h5 has no geometry.*--allow-no-geometry"):
        write_dicom(tmp_path / "out", VOLUME, scan, MADE)
    assert not (tmp_path / "out").exists()
    files = write_dicom(tmp_path / "out", VOLUME, scan, MADE, allow_no_geometry=True)
    assert "Geometry unknown" in headers(files)[0].ImageComments


def test_a_series_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    scan = source(tmp_path)
    write_dicom(tmp_path / "out", VOLUME, scan, MADE)
    with pytest.raises(BadInput, match="out exists"):
        write_dicom(tmp_path / "out", VOLUME, scan, MADE)
    before = sorted((tmp_path / "out").iterdir())
    save = pydicom.Dataset.save_as

    def full(made, path, **options):
        if made.InstanceNumber == 3:
            raise OSError(28, "No space left on device")
        save(made, path, **options)

    monkeypatch.setattr(pydicom.Dataset, "save_as", full)
    with pytest.raises(OSError, match="No space"):
        write_dicom(tmp_path / "out", VOLUME, scan, MADE, overwrite=True)
    assert sorted((tmp_path / "out").iterdir()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


@pytest.mark.parametrize("bad", [VOLUME[0], VOLUME + 1j, np.where(VOLUME > 800, np.nan, VOLUME)])
def test_only_finite_real_volumes_are_written(tmp_path, bad):
    with pytest.raises(ValueError, match="must be real, finite"):
        write_dicom(tmp_path / "out", bad, source(tmp_path), MADE)


@pytest.mark.parametrize("units", ["", "HU"])
def test_a_std_map_keeps_its_floats_its_place_and_its_unit(tmp_path, units):
    pytest.importorskip("highdicom")
    scan = ct_source(tmp_path) if units else source(tmp_path, OBLIQUE)
    files = write_dicom(tmp_path / "out", VOLUME, scan, MADE)
    std = np.random.default_rng(0).random(VOLUME.shape).astype(np.float32) * 1e-3
    path = write_parametric_map(tmp_path / "std.dcm", std, files, MADE, units=units)
    back = read_scan(path)
    np.testing.assert_array_equal(read_volume(back), std)
    np.testing.assert_allclose(back.affine, scan.affine, atol=1e-9)
    made, image = pydicom.dcmread(path), pydicom.dcmread(files[0])
    assert made.SOPClassUID.name == "Parametric Map Storage"
    assert made.SeriesInstanceUID != image.SeriesInstanceUID
    assert made.StudyInstanceUID == image.StudyInstanceUID
    assert made.ContentQualification == "RESEARCH"
    mapping = made.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == ("[hnsf'U]" if units else "1")
    assert not [s for s in SECRETS if s.encode() in path.read_bytes()]


def test_reading_and_writing_say_nothing_on_either_stream(tmp_path):
    """pydicom warns with values in its words; a log must not hold a patient's name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_dicom_series(tmp_path / "s", VOLUME, PatientAge="DOE^JANE", StudyTime="MRN00042")
    code = (
        "import sys; from inverse_score.io.reading import read_scan;"
        "from inverse_score.io.formats.dicom_writer import Derivation, write_dicom;"
        f"scan = read_scan({str(tmp_path / 's')!r});"
        "import numpy as np; volume = np.stack([scan[k] for k in range(len(scan))]);"
        f"write_dicom({str(tmp_path / 'o')!r}, volume, scan, Derivation('r', 'l', 't'));"
        f"write_dicom({str(tmp_path / 'p')!r}, volume, scan, Derivation('r', 'l', 't'), "
        "keep_phi=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout == done.stderr == ""
