"""One door for every format: what a file is decides who reads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import BadInput
from .guard.sniff import sniff
from .scan import RootSumOfSquares, Scan


def read_scan(
    path: str | Path,
    *,
    key: str | int | None = None,
    axes: str | None = None,
    kind: str | None = None,
    nan: str = "refuse",
) -> Scan:
    """The scan in a file or folder, whatever its format; see `Scan` for what comes.

    key chooses within a file: an HDF5 or npz array, a DICOM series (number or UID), an ISMRMRD
    group and counters, a NIfTI volume or plane's volume, a Siemens measurement. axes names the
    axes of a plain array ("slice,coil,y,x"), or the plane of NIfTI slices. kind is what the caller
    needs ("kspace", "sinogram", "image"); files that cannot tell are read as that, and any other
    result is BadInput. nan: "refuse" or "zero".
    """
    if nan not in ("refuse", "zero"):
        raise BadInput(f"nan must be 'refuse' or 'zero', got {nan!r}")
    path = Path(path)
    form = sniff(path)
    scan = _read(path, form, None if key is None else str(key), axes, kind, nan)
    if kind is not None and scan.kind != kind:
        raise BadInput(f"{scan.name} holds {scan.kind} data ({scan.format}); needed is {kind}")
    if scan.kind == "kspace" and scan.mask is None and not scan.references:
        whole = RootSumOfSquares(scan.read, scan.crop or scan.shape[-2:])  # type: ignore[arg-type]
        return replace(scan, references={"fully_sampled_rss": whole})
    return scan


def _read(path: Path, form: str, key: str | None, axes: str | None, kind: str | None, nan: str):
    if form in ("hdf5", "npz", "npy"):
        return _read_arrays(path, form, key, axes, kind, nan)
    if form == "nifti":
        from .formats.nifti import read_nifti

        return read_nifti(path, key, axes, nan)
    if axes is not None:
        raise BadInput(f"{path.name} is {form}, whose axes are fixed; --axes is for plain arrays")
    if form == "dicom":
        from .formats.dicom import read_dicom

        return read_dicom(path, key, nan)
    if form == "bart":
        from .formats.bart import read_bart

        return read_bart(path, kind, nan)
    if form == "twix":
        from .formats.twix import read_twix

        return read_twix(path, key, nan)
    raise BadInput(f"{path.name} is a picture, not a scan: simulate measurements from it first")


def _read_arrays(path: Path, form: str, key, axes, kind, nan: str):
    from . import guard

    if form == "hdf5" and axes is None:
        from .formats.ismrmrd import is_ismrmrd

        with guard.open_hdf5(path) as file:
            fastmri = key in (None, "kspace") and guard.has(file, "kspace")
            sinogram = key in (None, "sinogram") and guard.has(file, "sinogram")
        if fastmri and kind in (None, "kspace"):
            from .formats.fastmri import open_fastmri

            return open_fastmri(path, nan=nan)
        if sinogram and kind in (None, "sinogram"):
            from .formats.sinogram import open_sinogram

            return open_sinogram(path, nan=nan)
        if not fastmri and not sinogram and is_ismrmrd(path):
            from .formats.ismrmrd import read_ismrmrd

            return read_ismrmrd(path, key, nan)
    from .formats.arrays import read_array

    return read_array(path, key, axes, kind, nan)
