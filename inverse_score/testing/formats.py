"""Small scans in every format, written with the formats' own rules, for tests and fuzzing."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

IDX = [
    ("kspace_encode_step_1", "<u2"), ("kspace_encode_step_2", "<u2"), ("average", "<u2"),
    ("slice", "<u2"), ("contrast", "<u2"), ("phase", "<u2"), ("repetition", "<u2"),
    ("set", "<u2"), ("segment", "<u2"), ("user", "<u2", (8,)),
]  # fmt: skip
HEAD = np.dtype([
    ("version", "<u2"), ("flags", "<u8"), ("measurement_uid", "<u4"), ("scan_counter", "<u4"),
    ("acquisition_time_stamp", "<u4"), ("physiology_time_stamp", "<u4", (3,)),
    ("number_of_samples", "<u2"), ("available_channels", "<u2"), ("active_channels", "<u2"),
    ("channel_mask", "<u8", (16,)), ("discard_pre", "<u2"), ("discard_post", "<u2"),
    ("center_sample", "<u2"), ("encoding_space_ref", "<u2"), ("trajectory_dimensions", "<u2"),
    ("sample_time_us", "<f4"), ("position", "<f4", (3,)), ("read_dir", "<f4", (3,)),
    ("phase_dir", "<f4", (3,)), ("slice_dir", "<f4", (3,)), ("patient_table_position", "<f4", (3,)),
    ("idx", IDX), ("user_int", "<i4", (8,)), ("user_float", "<f4", (8,)),
])  # fmt: skip
ACQUISITION = np.dtype([
    ("head", HEAD), ("traj", h5py.vlen_dtype(np.float32)), ("data", h5py.vlen_dtype(np.float32))
])  # fmt: skip
NOISE, REVERSE, NAVIGATOR = 1 << 18, 1 << 21, 1 << 22


def marker_volume(slices: int = 3, rows: int = 12, columns: int = 10) -> np.ndarray:
    """(slices, rows, columns) where no flip, transposition or shift is a symmetry.

    One bright voxel near the first corner of the first slice, and a ramp along every axis.
    """
    k, i, j = np.meshgrid(
        np.arange(slices), np.arange(rows), np.arange(columns), indexing="ij", sparse=True
    )
    volume = 100.0 + 40.0 * k + 3.0 * i + 7.0 * j
    volume[0, 1, 2] = 900.0
    return volume


def centred_fft(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Centred orthonormal FFT."""
    shifted = np.fft.fftn(np.fft.ifftshift(values, axes=axes), axes=axes, norm="ortho")
    return np.fft.fftshift(shifted, axes=axes)


def centred_image(values: np.ndarray, axes: tuple[int, ...] = (-2, -1)) -> np.ndarray:
    """Centred orthonormal inverse FFT."""
    shifted = np.fft.ifftn(np.fft.ifftshift(values, axes=axes), axes=axes, norm="ortho")
    return np.fft.fftshift(shifted, axes=axes)


def mrd_header(encoded, recon, encoded_mm, recon_mm, slices, vendor="GE", extra="") -> str:
    """ISMRMRD XML; sizes (x, y, z)."""

    def space(tag, size, field):
        cells = "".join(f"<{a}>{v}</{a}>" for a, v in zip("xyz", size, strict=True))
        fields = "".join(f"<{a}>{v}</{a}>" for a, v in zip("xyz", field, strict=True))
        return (
            f"<{tag}><matrixSize>{cells}</matrixSize>"
            f"<fieldOfView_mm>{fields}</fieldOfView_mm></{tag}>"
        )

    def limit(tag, count, centre):
        return (
            f"<{tag}><minimum>0</minimum><maximum>{count - 1}</maximum>"
            f"<center>{centre}</center></{tag}>"
        )

    return (
        '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
        "<subjectInformation><patientName>DOE^JANE</patientName>"
        "<patientID>MRN00042</patientID></subjectInformation>"
        f"<acquisitionSystemInformation><systemVendor>{vendor}</systemVendor>"
        "<systemFieldStrength_T>3</systemFieldStrength_T></acquisitionSystemInformation>"
        f"<encoding>{space('encodedSpace', encoded, encoded_mm)}"
        f"{space('reconSpace', recon, recon_mm)}<trajectory>cartesian</trajectory>"
        "<encodingLimits>"
        f"{limit('kspace_encoding_step_1', encoded[1], encoded[1] // 2)}"
        f"{limit('kspace_encoding_step_2', encoded[2], encoded[2] // 2)}"
        f"{limit('slice', slices, 0)}</encodingLimits></encoding>"
        f"<sequenceParameters><TR>500</TR><TE>5</TE></sequenceParameters>{extra}</ismrmrdHeader>"
    )


def readout(samples: np.ndarray, flags: int = 0, **fields):
    """One acquisition: samples (coils, n); fields of the header, counters by their name."""
    head = np.zeros((), HEAD)
    head["version"], head["flags"] = 1, flags
    head["number_of_samples"] = samples.shape[1]
    head["active_channels"] = head["available_channels"] = samples.shape[0]
    head["center_sample"], head["sample_time_us"] = samples.shape[1] // 2, 5.0
    head["phase_dir"], head["read_dir"], head["slice_dir"] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
    for name, value in fields.items():
        if name in (HEAD.names or ()):
            head[name] = value
        else:
            head["idx"][name] = value
    interleaved = np.ascontiguousarray(samples, dtype=np.complex64).view(np.float32).ravel()
    return head, interleaved


def write_mrd(path: Path, readouts: list, header: str, group: str = "dataset") -> Path:
    """An ISMRMRD file of `readout`s; a further group where the file exists."""
    with h5py.File(path, "a") as file:
        there = file.create_group(group)
        there.create_dataset(
            "xml",
            data=np.array([header.encode()], dtype=object),
            dtype=h5py.special_dtype(vlen=bytes),
        )
        rows = np.empty(len(readouts), ACQUISITION)
        for k, (head, samples) in enumerate(readouts):
            rows["head"][k], rows["traj"][k], rows["data"][k] = head, np.zeros(0, "f4"), samples
        there.create_dataset("data", data=rows, dtype=ACQUISITION)
    return path


def mrd_lines(images: np.ndarray, oversampled: int, **fields) -> list:
    """Readouts of coil images (slices, coils, H, W), the readout's field of view widened by zeros.

    Slices 5 mm apart along z, the centre pixel of slice 0 at (10, 20, 30) mm (LPS).
    """
    slices, coils, height, width = images.shape
    wide = np.zeros((slices, coils, oversampled, width), complex)
    start = oversampled // 2 - height // 2
    wide[:, :, start : start + height] = images
    # Cutting an orthonormal transform's image keeps its scale.
    kspace = centred_fft(wide, (-2, -1))
    return [
        readout(
            kspace[s, :, :, line],
            kspace_encode_step_1=line,
            slice=s,
            position=(10, 20, 30 + 5 * s),
            **fields,
        )
        for s in range(slices)
        for line in range(width)
    ]


def dicom_slice(pixels: np.ndarray, position, orientation, spacing=(2.0, 1.5), **tags):
    """A classic MR (or, by Modality="CT", CT) image of 16-bit pixels as a pydicom dataset."""
    from pydicom.dataset import Dataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    made = Dataset()
    made.SOPClassUID = {
        "CT": "1.2.840.10008.5.1.4.1.1.2",
        "MR": "1.2.840.10008.5.1.4.1.1.4",
    }[tags.get("Modality", "MR")]
    made.SOPInstanceUID = generate_uid(entropy_srcs=[str(position), str(tags)])
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.3.4", "1.2.3.4.5"
    made.FrameOfReferenceUID, made.Modality = "1.2.3.4.6", "MR"
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.PatientName, made.PatientID, made.PatientBirthDate = "DOE^JANE", "MRN00042", "19700102"
    made.StudyDate, made.InstitutionName, made.Manufacturer = "20200304", "St Elsewhere", "ACME"
    made.ImagePositionPatient = [f"{value:.10g}" for value in position]
    made.ImageOrientationPatient = [f"{value:.10g}" for value in orientation]
    made.PixelSpacing, made.SliceThickness = list(spacing), 5.0
    made.Rows, made.Columns, made.SamplesPerPixel = *pixels.shape, 1
    made.PhotometricInterpretation, made.BitsAllocated = "MONOCHROME2", 16
    made.BitsStored, made.HighBit = 16, 15
    made.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    made.PixelData = np.ascontiguousarray(pixels).tobytes()
    for name, value in tags.items():
        setattr(made, name, value)
    made.ensure_file_meta()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def write_dicom_series(
    folder: Path, volume, orientation=(1, 0, 0, 0, 1, 0), origin=(-30, -20, 10), gap=4.0, **tags
) -> Path:
    """One file a slice along the normal, named in an order that has nothing to do with place."""
    folder.mkdir(parents=True, exist_ok=True)
    volume = np.asarray(volume)
    normal = np.cross(orientation[:3], orientation[3:])
    for k, image in enumerate(volume):
        pixels = image if image.dtype.kind in "iu" else np.rint(image).astype(np.uint16)
        made = dicom_slice(pixels, np.array(origin) + gap * k * normal, orientation, **tags)
        made.InstanceNumber = 101 - k
        made.save_as(folder / f"{(7 * k + 3) % 101}.dcm", enforce_file_format=True)
    return folder


def read_volume(scan) -> np.ndarray:
    """All slices of a scan."""
    return np.stack([scan[k] for k in range(len(scan))])


def brightest_place(scan) -> np.ndarray:
    """Where the brightest voxel of an image scan lies, RAS mm."""
    volume = np.abs(read_volume(scan))
    k, i, j = np.unravel_index(np.argmax(volume), volume.shape)
    return (scan.affine @ (j, i, k, 1))[:3]
