"""DICOM series in: values, order, geometry, selection, and what is refused."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from inverse_score.errors import BadInput
from inverse_score.io.formats import dicom_pixels
from inverse_score.io.formats.dicom import list_series, read_dicom, read_series
from inverse_score.io.formats.dicom_frames import frames_of
from inverse_score.io.formats.dicom_pixels import stream_size
from inverse_score.io.reading import read_scan
from inverse_score.testing.formats import (
    dicom_slice,
    marker_volume,
    read_volume,
    write_dicom_series,
)

VOLUME = marker_volume(5, 9, 7)
OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)


def save(made, path):
    made.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), OBLIQUE])
def test_slices_are_ordered_by_position_and_the_affine_holds_it(tmp_path, orientation):
    origin = np.array([-30.0, -20.0, 10.0])
    scan = read_dicom(write_dicom_series(tmp_path / "s", VOLUME, orientation, origin))
    np.testing.assert_array_equal(read_volume(scan), VOLUME)
    along, down = np.reshape(orientation, (2, 3))
    for k, i, j in [(0, 0, 0), (4, 8, 6), (2, 3, 1)]:
        # PS3.3 C.7.6.2.1.1: PixelSpacing is (between rows, between columns).
        place = origin + 1.5 * j * along + 2.0 * i * down + 4.0 * k * np.cross(along, down)
        np.testing.assert_allclose((scan.affine @ (j, i, k, 1))[:3], place * (-1, -1, 1), atol=1e-5)


def test_ct_is_in_hounsfield_units_whatever_each_file_scales(tmp_path):
    hu = np.stack([VOLUME[0] - 1000, VOLUME[1] - 1000]).round()
    for k, (slope, intercept) in enumerate([(1, -1024), (2, -2000)]):
        stored = ((hu[k] - intercept) / slope).astype(np.int16)
        hu[k] = stored * slope + intercept
        tags = {"RescaleSlope": slope, "RescaleIntercept": intercept, "RescaleType": "HU"}
        made = dicom_slice(stored, (0, 0, 4 * k), (1, 0, 0, 0, 1, 0), Modality="CT", **tags)
        save(made, tmp_path / f"{k}.dcm")
    scan = read_dicom(tmp_path)
    assert scan.units == "HU"
    np.testing.assert_array_equal(read_volume(scan), hu)


def test_padding_becomes_air_in_ct_and_zero_in_mr(tmp_path):
    stored = np.array([[-2000, 0], [24, -1999]], np.int16)
    tags = {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1999}
    scale = {"RescaleSlope": 1, "RescaleIntercept": -1024, "Modality": "CT"}
    axes = (1, 0, 0, 0, 1, 0)
    ct = save(dicom_slice(stored, (0, 0, 0), axes, **tags, **scale), tmp_path / "ct.dcm")
    mr = save(dicom_slice(stored, (0, 0, 0), axes, **tags), tmp_path / "mr.dcm")
    np.testing.assert_array_equal(read_dicom(ct)[0], [[-1000, -1024], [-1000, -1000]])
    np.testing.assert_array_equal(read_dicom(mr)[0], [[0, 0], [24, 0]])


def test_monochrome1_is_turned_bright_unless_values_are_physical(tmp_path):
    stored = np.array([[0, 1], [4094, 4095]], np.uint16)
    tags = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    axes = (1, 0, 0, 0, 1, 0)
    mr = save(dicom_slice(stored, (0, 0, 0), axes, **tags), tmp_path / "mr.dcm")
    scale = {"RescaleSlope": 1, "RescaleIntercept": -1024, "Modality": "CT"}
    ct = save(dicom_slice(stored, (0, 0, 0), axes, **tags, **scale), tmp_path / "ct.dcm")
    np.testing.assert_array_equal(read_dicom(mr)[0], 4095 - stored.astype(float))
    np.testing.assert_array_equal(read_dicom(ct)[0], stored.astype(float) - 1024)


@pytest.mark.parametrize(
    "name", ["bigendian", "implicit", "expb", "padded", "RLE", "jp2klossless", "jpeg_ls_lossless"]
)
def test_every_transfer_syntax_gives_the_same_values(name):
    path = get_testdata_file(f"MR_small_{name}.dcm", download=False)
    frame = frames_of(path)[0]
    if not pydicom.uid.UID(frame.syntax).is_compressed or _available(frame.syntax):
        reference = read_dicom(get_testdata_file("MR_small.dcm", download=False))[0]
        np.testing.assert_array_equal(read_dicom(path)[0], reference)
    else:
        with pytest.raises(BadInput, match="pip install"):
            read_dicom(path)


def _available(syntax):
    return pydicom.pixels.get_decoder(syntax).is_available


def test_a_missing_decoder_is_named_with_the_line_to_install(monkeypatch):
    class Absent:
        is_available = False

    monkeypatch.setattr(pydicom.pixels, "get_decoder", lambda syntax: Absent())
    path = get_testdata_file("MR_small_jp2klossless.dcm", download=False)
    with pytest.raises(BadInput, match=r"JPEG 2000.*pip install pylibjpeg pylibjpeg-openjpeg"):
        read_dicom(path)


def enhanced(volume, positions, drop_positions=False):
    """A multi-frame MR image with shared orientation and spacing."""
    from pydicom.dataset import Dataset

    made = dicom_slice(volume.astype(np.uint16).reshape(-1, volume.shape[2]), (0, 0, 0), OBLIQUE)
    made.Rows, made.NumberOfFrames = volume.shape[1], len(volume)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(made, name)
    shared, measures, turn, mapping = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [2.0, 1.5]
    turn.ImageOrientationPatient = list(OBLIQUE)
    mapping.RescaleSlope, mapping.RescaleIntercept, mapping.RescaleType = 0.5, 10, "US"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turn]
    shared.PixelValueTransformationSequence = [mapping]
    made.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for position in positions:
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = [f"{value:.10g}" for value in position]
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    if not drop_positions:
        made.PerFrameFunctionalGroupsSequence = frames
    return made


def test_frames_of_a_multi_frame_image_are_slices_by_their_positions(tmp_path):
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    order = [3, 0, 4, 1, 2]
    made = enhanced(VOLUME[order], [4.0 * k * normal for k in order])
    scan = read_dicom(save(made, tmp_path / "e.dcm"))
    np.testing.assert_array_equal(read_volume(scan), 0.5 * VOLUME + 10)
    classic = read_dicom(write_dicom_series(tmp_path / "c", VOLUME, OBLIQUE, (0, 0, 0)))
    np.testing.assert_allclose(scan.affine, classic.affine, atol=1e-6)


def test_frames_without_positions_are_no_volume(tmp_path):
    made = enhanced(VOLUME, np.zeros((5, 3)), drop_positions=True)
    with pytest.raises(BadInput, match="no PerFrameFunctionalGroupsSequence"):
        read_dicom(save(made, tmp_path / "cine.dcm"))


def test_a_tilted_gantry_shears_the_affine(tmp_path):
    for k in range(3):
        made = dicom_slice(VOLUME[k].astype("u2"), (0, 0.7 * k, 4 * k), (1, 0, 0, 0, 1, 0))
        save(made, tmp_path / f"{k}")
    np.testing.assert_allclose(read_dicom(tmp_path).affine[:3, 2], (0, -0.7, 4), atol=1e-9)


@pytest.mark.parametrize(
    ("places", "message"),
    [([0, 4, 12], "irregular, 4 to 8 mm.*follows slice 1"), ([0, 4, 4], "at the same place")],
)
def test_missing_and_repeated_slices_are_refused(tmp_path, places, message):
    for k, z in enumerate(places):
        made = dicom_slice(VOLUME[k].astype("u2"), (0, 0, z), (1, 0, 0, 0, 1, 0), InstanceNumber=k)
        save(made, tmp_path / f"{k}")
    with pytest.raises(BadInput, match=message):
        read_dicom(tmp_path)


def test_several_series_must_be_chosen_from_a_list_without_patient_data(tmp_path):
    write_dicom_series(tmp_path / "a", VOLUME, EchoTime=10)
    write_dicom_series(tmp_path / "b", VOLUME + 1, EchoTime=90)
    with pytest.raises(BadInput, match=r"several series.*1: MR, 5 slices.*TE 10.*2: MR.*TE 90"):
        read_dicom(tmp_path)
    np.testing.assert_array_equal(read_volume(read_dicom(tmp_path, 2)), VOLUME + 1)
    np.testing.assert_array_equal(read_scan(tmp_path, key="1")[3], VOLUME[3])
    assert len(list_series(tmp_path)) == len(read_series(tmp_path)) == 2
    with pytest.raises(BadInput, match="no single series 3"):
        read_dicom(tmp_path, 3)
    assert "DOE" not in str(list_series(tmp_path))


def test_localizers_reports_and_strangers_are_passed_over_and_counted(tmp_path):
    write_dicom_series(tmp_path / "a", VOLUME)
    localizer = dicom_slice(
        VOLUME[0].astype("u2"), (0, 0, 0), OBLIQUE, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    save(localizer, tmp_path / "localizer")
    (tmp_path / "notes.txt").write_text("not DICOM")
    report = dicom_slice(VOLUME[0].astype("u2"), (0, 0, 0), OBLIQUE)
    for name in ("PixelData", "Rows", "Columns", "SamplesPerPixel"):
        delattr(report, name)
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    save(report, tmp_path / "report.dcm")
    scan = read_dicom(tmp_path)
    assert scan.shape == VOLUME.shape
    assert {"1 files skipped: not DICOM", "1 files skipped: DICOM without image"} <= set(scan.notes)


def test_a_link_in_a_folder_is_not_followed(tmp_path):
    write_dicom_series(tmp_path / "away", VOLUME)
    write_dicom_series(tmp_path / "s", VOLUME)
    (tmp_path / "s" / "more").symlink_to(tmp_path / "away")
    assert len(read_dicom(tmp_path / "s")) == 5


def one(tmp_path, **tags):
    made = dicom_slice(VOLUME[0].astype("u2"), (0, 0, 0), (1, 0, 0, 0, 1, 0), **tags)
    return save(made, tmp_path / "one.dcm")


@pytest.mark.parametrize("length", [140, 300, 500])
def test_a_cut_header_is_no_empty_dataset(tmp_path, length):
    path = one(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(BadInput, match=r"one\.dcm is (DICOM without Rows|damaged)"):
        read_dicom(path)


def test_cut_pixels_are_counted(tmp_path):
    path = one(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadInput, match="cut off; they need 126 bytes"):
        read_dicom(path)


def test_two_million_frames_are_refused_unallocated(tmp_path):
    with pytest.raises(BadInput, match="2000000 frames"):
        read_dicom(one(tmp_path, NumberOfFrames=2_000_000))


def test_a_deflated_file_is_refused_before_it_inflates(tmp_path):
    made = dicom_slice(np.zeros((4096, 4096), "u2"), (0, 0, 0), (1, 0, 0, 0, 1, 0))
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save(made, tmp_path / "bomb.dcm")
    assert path.stat().st_size < 100_000
    with pytest.raises(BadInput, match="deflated"):
        read_dicom(path)


def test_a_stream_larger_than_its_header_never_reaches_the_decoder(tmp_path, monkeypatch):
    path = get_testdata_file("MR_small_jp2klossless.dcm", download=False)
    frame = frames_of(path)[0]
    monkeypatch.setattr(dicom_pixels, "check_decodable", lambda frame: None)
    monkeypatch.setattr(dicom_pixels, "stream_size", lambda stream: (60000, 60000))
    with pytest.raises(BadInput, match="the stream is"):
        dicom_pixels.read_frame(frame)


def test_the_size_in_a_jpeg_stream_is_found():
    sof = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xf7\x00\x0b\x10\x12\x34\x56\x78"
    assert stream_size(sof) == (0x1234, 0x5678)
    siz = b"\xff\x4f\xff\x51\x00\x29\x00\x00" + bytes.fromhex("00000140 000000f0 00000040 00000010")
    assert stream_size(siz) == (0xE0, 0x100)
    assert stream_size(b"RLE has no size") is None


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_damaged_compressed_pixels_are_one_sentence(tmp_path, syntax):
    names = {RLELossless: "RLE", JPEG2000Lossless: "jp2klossless"}
    path = get_testdata_file(f"MR_small_{names[syntax]}.dcm", download=False)
    content = bytearray(Path(path).read_bytes())
    content[-800:-100] = bytes(range(7)) * 100
    (tmp_path / "bad.dcm").write_bytes(content)
    with pytest.raises(BadInput, match=r"bad\.dcm"):
        read_dicom(tmp_path / "bad.dcm")[0]


def test_a_program_in_the_preamble_is_only_a_preamble(tmp_path):
    path = one(tmp_path)
    content = bytearray(path.read_bytes())
    content[:2] = b"MZ"
    path.write_bytes(content)
    np.testing.assert_array_equal(read_dicom(path)[0], VOLUME[0])


def test_colour_and_lookup_tables_are_refused(tmp_path):
    with pytest.raises(BadInput, match="colour picture"):
        read_dicom(one(tmp_path, SamplesPerPixel=3))
    item = pydicom.Dataset()
    with pytest.raises(BadInput, match="ModalityLUTSequence"):
        read_dicom(one(tmp_path, ModalityLUTSequence=[item]))


def test_errors_never_quote_values_of_the_file(tmp_path):
    path = one(tmp_path)
    content = path.read_bytes().replace(b"30", b"30")
    made = pydicom.dcmread(path)
    made.add_new(0x00180050, "LO", "DOE^JANE")
    made.save_as(path)
    content = path.read_bytes().replace(b"\x18\x00\x50\x00LO", b"\x18\x00\x50\x00DS")
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read_dicom(path)
    assert "DOE" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
