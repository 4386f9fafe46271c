"""A small valid file of every format that is read, to be mutated."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import h5py
import numpy as np

from .formats import (
    centred_fft,
    dicom_slice,
    marker_volume,
    mrd_header,
    mrd_lines,
    write_dicom_series,
    write_mrd,
)
from .fuzz import Target, read_prior_header, read_wholly, read_yaml

AXIAL = (1, 0, 0, 0, 1, 0)
RNG = np.random.default_rng(0)
IMAGES = marker_volume(2, 12, 10)[:, None] * np.array([1, 1j])[:, None, None]
KSPACE = centred_fft(IMAGES, (-2, -1)).astype(np.complex64)


def make_targets(folder: Path) -> list[Target]:
    """Targets of all formats whose optional packages are installed."""
    makers = (_fastmri, _ismrmrd, _sinogram, _plain_hdf5, _npz, _npy, _cfl, _ra, _nifti, _dicom,
              _compressed_dicom, _yaml, _prior, _twix)  # fmt: skip
    return [target for make in makers for target in make(folder)]


def _fastmri(folder: Path) -> list[Target]:
    from ..io.formats.fastmri import write_fastmri

    path = folder / "fastmri.h5"
    rss = np.abs(IMAGES[:, 0])
    write_fastmri(path, KSPACE, references={"reconstruction_rss": rss}, mask=np.ones(10, bool))
    return [Target("fastMRI HDF5", path.read_bytes(), "a.h5", read_wholly)]


def _ismrmrd(folder: Path) -> list[Target]:
    header = mrd_header((24, 10, 1), (12, 10, 1), (240, 100, 5), (120, 100, 5), 2)
    path = write_mrd(folder / "mrd.h5", mrd_lines(IMAGES, 24), header)
    return [Target("ISMRMRD HDF5", path.read_bytes(), "a.h5", read_wholly)]


def _sinogram(folder: Path) -> list[Target]:
    from ..io.formats.sinogram import write_sinogram

    path = folder / "sinogram.h5"
    values = RNG.random((2, 6, 17)).astype(np.float32)
    geometry = {"type": "parallel", "image_shape": [12, 12]}
    write_sinogram(path, values, np.linspace(0, 3, 6), geometry)
    return [Target("sinogram HDF5", path.read_bytes(), "a.h5", read_wholly)]


def _plain_hdf5(folder: Path) -> list[Target]:
    path = folder / "plain.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=marker_volume(2, 12, 10), compression="gzip")
    read = functools.partial(read_wholly, kind="image")
    return [Target("plain HDF5, gzip", path.read_bytes(), "a.h5", read)]


def _npz(folder: Path) -> list[Target]:
    stream = io.BytesIO()
    np.savez_compressed(stream, kspace=KSPACE, mask=np.ones(10, bool))
    return [Target("npz", stream.getvalue(), "a.npz", read_wholly)]


def _npy(folder: Path) -> list[Target]:
    stream = io.BytesIO()
    np.save(stream, KSPACE)
    return [Target("npy", stream.getvalue(), "a.npy", read_wholly)]


def _cfl(folder: Path) -> list[Target]:
    from ..io.formats.bart import write_bart

    write_bart(folder / "k", KSPACE, ("SLICE", "COIL", "READ", "PHS1"))
    header, values = (folder / "k.hdr").read_bytes(), (folder / "k.cfl").read_bytes()
    return [
        Target("BART .hdr", header, "a.hdr", read_wholly, {"a.cfl": values}),
        Target("BART .cfl", values, "a.cfl", read_wholly, {"a.hdr": header}),
    ]


def _ra(folder: Path) -> list[Target]:
    head = np.array([0x7961727261776172, 0, 4, 8, KSPACE[0].nbytes, 4, 12, 10, 1, 2], "<u8")
    values = KSPACE[0].transpose(1, 2, 0)[:, :, None]
    content = head.tobytes() + values.tobytes(order="F")
    return [Target("BART .ra", content, "a.ra", read_wholly)]


def _nifti(folder: Path) -> list[Target]:
    from ..io.formats.nifti import write_nifti

    targets = []
    for suffix in (".nii", ".nii.gz"):
        try:
            write_nifti(folder / f"n{suffix}", marker_volume(3, 8, 6), np.diag([-1, -1, 2, 1]))
        except ValueError:  # nibabel is not installed
            return []
        content = (folder / f"n{suffix}").read_bytes()
        targets.append(Target(f"NIfTI {suffix}", content, f"a{suffix}", read_wholly))
    return targets


def _dicom(folder: Path) -> list[Target]:
    series = write_dicom_series(folder / "series", marker_volume(1, 12, 10), RescaleSlope=2,
                                RescaleIntercept=-1024, Modality="CT")  # fmt: skip
    classic = next(series.iterdir()).read_bytes()
    targets = [Target("DICOM CT", classic, "a.dcm", read_wholly)]
    path = folder / "multi.dcm"
    multi_frame(marker_volume(3, 12, 10)).save_as(path, enforce_file_format=True)
    return [*targets, Target("DICOM multi-frame", path.read_bytes(), "a.dcm", read_wholly)]


def multi_frame(volume: np.ndarray):
    """A multi-frame MR image: positions a frame, orientation and spacing shared."""
    from pydicom.dataset import Dataset

    flat = volume.astype(np.uint16).reshape(-1, volume.shape[2])
    made = dicom_slice(flat, (0, 0, 0), AXIAL)
    made.Rows, made.NumberOfFrames = volume.shape[1], len(volume)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(made, name)
    shared, measures, turn = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, turn.ImageOrientationPatient = [2.0, 1.5], list(AXIAL)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turn]
    made.SharedFunctionalGroupsSequence, frames = [shared], []
    for k in range(len(volume)):
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, 4 * k]
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    made.PerFrameFunctionalGroupsSequence = frames
    return made


def _compressed_dicom(folder: Path) -> list[Target]:
    """Files that come with pydicom: RLE, JPEG 2000 and JPEG-LS of one MR image."""
    from pydicom.data import get_testdata_file

    targets = []
    for name, words in (("RLE", "RLE"), ("jp2klossless", "JPEG 2000"),
                        ("jpeg_ls_lossless", "JPEG-LS")):  # fmt: skip
        content = Path(str(get_testdata_file(f"MR_small_{name}.dcm", download=False))).read_bytes()
        targets.append(Target(f"DICOM {words}", content, "a.dcm", read_wholly))
    return targets


def _yaml(folder: Path) -> list[Target]:
    text = (
        "data:\n  path: images\n  size: [64, 64]\nnetwork: {name: unet, width: 32}\n"
        "training:\n  steps: 1000\n  learning_rate: 1e-4\n  levels:\n    - 0.01\n    - 50.0\n"
        'note: "one: two"\nlong: |\n  several\n  lines\n'
    )
    return [Target("YAML", text.encode(), "a.yaml", read_yaml)]


def _prior(folder: Path) -> list[Target]:
    """The header of a real prior and two small tensors."""
    import torch

    from .. import VESDE, Prior, save_prior

    path = folder / "a.safetensors"
    save_prior(Prior(torch.nn.Linear(2, 2), VESDE(), output="eps", event_shape=(2,)), path)
    return [Target("prior .safetensors", path.read_bytes(), "a.safetensors", read_prior_header)]


def _twix(folder: Path) -> list[Target]:
    """Half of the file is a header of zeros, whose mutations find little; the rest is parsed."""
    try:
        from .twix import write_twix

        path = write_twix(folder / "a.dat", IMAGES)
    except ImportError:
        return []
    return [Target("Siemens .dat", path.read_bytes(), "a.dat", read_wholly)]
