"""Scans named on the command line: files, folders and patterns, each opened by what it is."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from ..io.scan import Scan
    from .request import Request

_SUFFIXES = (".h5", ".hdf5", ".mrd", ".npz", ".npy", ".cfl", ".ra", ".dat", ".nii", ".nii.gz")
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


def expand(arguments: Sequence[str]) -> list[Path]:
    """Files and series of the arguments, in order: patterns by name, folders by what they hold.

    A folder of scan files is all of them; any other folder is one DICOM series. BadInput for what
    does not exist.
    """
    from ..errors import BadInput

    found: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if not path.exists() and glob.has_magic(argument):
            matches = sorted(Path(name) for name in glob.glob(argument, recursive=True))  # noqa: PTH207
            if not matches:
                raise BadInput(f"no file matches {argument}")
        else:
            matches = [path]
        for match in matches:
            inside = scans_in(match) if match.is_dir() else []
            found += inside or [match]
    return found


def scans_in(folder: Path) -> list[Path]:
    """Scan files directly in a folder, by name."""
    names = _SUFFIXES + _PICTURES
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name.lower().endswith(names))


def open_scan(path: Path, request: Request) -> Scan:
    """The measurements in a file, or for a picture, DICOM or NIfTI those simulated from it."""
    from recipes.simulated_scan import picture_scan, simulated_scan

    from ..io.guard.sniff import sniff
    from ..io.reading import read_scan

    form = sniff(path)
    if form == "picture":
        return simulated_scan(picture_scan(path), request.operator, seed=request.seed)
    kind = {"mri": "kspace", "ct": "sinogram"}[request.operator]
    if form in ("dicom", "nifti"):
        kind = "image"
    scan = read_scan(path, key=request.key, axes=request.axes, kind=kind, nan=request.nan)
    if kind == "image":
        return simulated_scan(scan, request.operator, seed=request.seed)
    return scan


def read_mask(path: Path) -> np.ndarray:
    """A mask of 0 and 1 from .npy, .npz, a picture (bright is 1) or the `mask` of an HDF5 file."""
    import numpy as np

    from ..errors import BadInput
    from ..io import guard
    from ..io.formats.npy import npy_array, npz_array
    from ..io.guard.sniff import sniff

    kind = sniff(path)
    if kind == "npy":
        return np.asarray(npy_array(path))
    if kind == "npz":
        return npz_array(path, None)
    if kind == "hdf5":
        with guard.open_hdf5(path) as file:
            return guard.read_array(guard.dataset(file, "mask", ndim=(1, 2), kinds="biuf"))
    raise BadInput(f"{path.name}: a mask is .npy, .npz, or an HDF5 file with `mask`; got {kind}")
