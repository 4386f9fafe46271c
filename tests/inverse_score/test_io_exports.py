"""A reconstruction in other formats: at its place in the patient, and only when whole."""

import json

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from inverse_score.cli import app
from inverse_score.errors import BadInput
from inverse_score.io.formats.exports import check_exports, export, export_all
from inverse_score.io.reading import read_scan
from inverse_score.io.runs.volume import SliceResult, open_volume, write_volume
from inverse_score.testing.formats import (
    brightest_place,
    centred_image,
    marker_volume,
    mrd_header,
    mrd_lines,
    read_volume,
    write_dicom_series,
    write_mrd,
)

IMAGES = marker_volume(4, 12, 10)
CROP = (8, 6)
ATTRIBUTES = {"run": "abc", "software": "inverse_score 0", "method": "dds", "units": "", "seed": 0}


@pytest.fixture
def scan(tmp_path):
    """Raw data whose scanner would show the central 8 x 6 of 12 x 10 pixels."""
    header = mrd_header((24, 10, 1), (8, 6, 1), (240, 100, 5), (80, 60, 5), 4)
    lines = mrd_lines(IMAGES[:, None].astype(complex), 24)
    found = read_scan(write_mrd(tmp_path / "raw.h5", lines, header))
    assert found.crop == CROP
    return found


def result(path, scan, numbers=range(4), failed=(), **more):
    """A volume as reconstruct writes it, of the slices of this scan."""
    results = []
    for k in numbers:
        image = scan.references["fully_sampled_rss"](k)
        if k in failed:
            image = np.full_like(image, np.nan)
        facts = {"slice": k, "status": "failed" if k in failed else "ok"}
        results.append(SliceResult({"reconstruction": image, "std": 0.01 * image}, None, facts))
    write_volume(path, results, len(results), attributes={**ATTRIBUTES, **more})
    return open_volume(path)


def test_complete_raw_data_is_its_own_reference(scan):
    for k in range(4):
        whole = np.abs(centred_image(scan[k]))[0]
        np.testing.assert_allclose(scan.references["fully_sampled_rss"](k),
                                   whole[-CROP[0]:, 2:8], rtol=1e-5)  # fmt: skip


@pytest.mark.parametrize("form", ["dicom", "nifti"])
@pytest.mark.parametrize("numbers", [range(4), range(1, 3)])
def test_every_voxel_keeps_its_place(tmp_path, scan, form, numbers):
    """Pixels of 10 mm about (10, 20, 30 + 5 k) mm in LPS, for the whole stack and for a part."""
    paths = export(result(tmp_path / "x.h5", scan, numbers), form, tmp_path / "x", scan=scan)
    again = read_scan(paths[0])
    # Row 3, column 2 of the cut-out of the first slice is row 5, column 4 of the full image.
    lps = np.array([10 + 10 * (4 - 5), 20 + 10 * (5 - 6), 30 + 5 * numbers[0]])
    volume = read_volume(again)
    ras = lps * (-1, -1, 1)
    j, i, k, _ = np.round(np.linalg.inv(again.affine) @ (*ras, 1)).astype(int)
    expected = scan.references["fully_sampled_rss"](numbers[0])[3, 2]
    np.testing.assert_allclose(volume[k, i, j], expected, rtol=1e-4)
    std = read_scan(paths[1])
    np.testing.assert_allclose(std.affine, again.affine, atol=1e-6)


def test_bart_holds_both_maps_as_they_are(tmp_path, scan):
    volume = result(tmp_path / "x.h5", scan)
    for path, name in zip(export(volume, "bart", tmp_path / "x", scan=scan),
                          ("reconstruction", "std"), strict=True):  # fmt: skip
        back = read_volume(read_scan(path, kind="image"))
        np.testing.assert_array_equal(back, np.stack([volume[name, k] for k in range(4)]))


def test_a_series_from_dicom_goes_back_to_its_study_only_when_asked(tmp_path):
    series = read_scan(write_dicom_series(tmp_path / "in", IMAGES))
    results = [SliceResult({"reconstruction": IMAGES[k]}, None, {"slice": k}) for k in range(4)]
    write_volume(tmp_path / "x.h5", results, 4, attributes=ATTRIBUTES)
    volume = open_volume(tmp_path / "x.h5")
    for keep, study in ((True, True), (False, False)):
        path = export(volume, "dicom", tmp_path / f"{keep}", scan=series, keep_phi=keep)[0]
        made = pydicom.dcmread(path / "00001.dcm")
        assert (made.StudyInstanceUID == "1.2.3.4") == study
        assert (str(made.PatientName) == "DOE^JANE") == study
        np.testing.assert_allclose(brightest_place(read_scan(path)), brightest_place(series))


def test_the_sidecar_tells_how_it_was_made(tmp_path, scan):
    export(result(tmp_path / "x.h5", scan), "nifti", tmp_path / "x", scan=scan)
    told = json.loads((tmp_path / "x-std.json").read_text())
    assert (told["image"], told["method"], told["run"]) == ("std", "dds", "abc")
    assert "not for diagnosis" in told["use"]


def test_nothing_partial_is_written_and_nothing_replaced_unasked(tmp_path, scan):
    with pytest.raises(BadInput, match=r"slices \[2\] failed"):
        export(result(tmp_path / "bad.h5", scan, failed=(2,)), "nifti", tmp_path / "x", scan=scan)
    volume = result(tmp_path / "x.h5", scan)
    export_all(volume, ("nifti", "bart", "dicom"), tmp_path / "x", scan=scan)
    for form in ("nifti", "bart", "dicom"):
        with pytest.raises(BadInput, match="exists"):
            export(volume, form, tmp_path / "x", scan=scan)
        export(volume, form, tmp_path / "x", scan=scan, overwrite=True)


def test_an_input_is_never_the_output(tmp_path, scan):
    volume = result(tmp_path / "x.h5", scan)
    export(volume, "bart", tmp_path / "x", scan=scan)
    source = read_scan(tmp_path / "x", kind="image")
    with pytest.raises(BadInput, match="would overwrite the input"):
        export(volume, "bart", tmp_path / "x", scan=source, overwrite=True)


def test_what_cannot_be_written_is_said_before_the_work(tmp_path, scan):
    flat = read_scan(write_mrd(tmp_path / "flat.h5", no_geometry(), mrd_header(
        (12, 10, 1), (12, 10, 1), (120, 100, 5), (120, 100, 5), 1)))  # fmt: skip
    check_exports(scan, ["dicom", "nifti"], False)
    check_exports(flat, ["dicom"], True)
    with pytest.raises(BadInput, match="no geometry"):
        check_exports(flat, ["dicom"], False)
    with pytest.raises(BadInput, match="must be one of dicom, nifti, bart"):
        check_exports(scan, ["jpeg"], False)


def no_geometry():
    lines = mrd_lines(IMAGES[:1, None].astype(complex), 12)
    for head, _ in lines:
        head["read_dir"] = 0
    return lines


def test_the_export_command_names_what_it_wrote(tmp_path, scan):
    result(tmp_path / "x.h5", scan)
    arguments = ["export", str(tmp_path / "x.h5"), "--to", "nifti", "--to", "dicom"]
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, BadInput)
    done = CliRunner().invoke(app, [*arguments, "--source", str(scan.files[0]), "--overwrite"])
    assert done.exit_code == 0, done.output
    assert {line.rsplit("/")[-1] for line in done.output.split()} >= {"x.nii.gz", "x-dicom"}
