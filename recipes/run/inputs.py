"""Scans as they are named: files, folders and patterns, opened by what they are.

An operator of the user's own is named package.module:factory, factory(path) -> LinearOperator, path
the file of measurements (which may hold what the operator needs beside them). It serves every
slice of the file: batch None, in_shape (channels, H, W) as the prior's, out_shape one slice of `y`;
y = A x + n with x in the prior's data units. Nothing else in the package - no YAML, no prior, no
recipe file - can name code.
"""

from __future__ import annotations

import glob
import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inverse_score.errors import BadInput
from inverse_score.io import guard
from inverse_score.io.formats.npy import npy_array, npz_array
from inverse_score.io.guard.sniff import sniff
from inverse_score.io.reading import read_scan
from operators import check_adjoint
from operators.linear import LinearOperator

from ..simulated_scan import picture_scan, simulated_scan

if TYPE_CHECKING:
    from inverse_score.io.scan import Scan

    from .request import Request

_SUFFIXES = (".h5", ".hdf5", ".mrd", ".npz", ".npy", ".cfl", ".ra", ".dat", ".nii", ".nii.gz")
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


def expand(arguments: Sequence[str]) -> list[Path]:
    """Files and series of the arguments, in order: patterns by name, folders by what they hold.

    A folder of scan files is all of them; any other folder is one DICOM series. BadInput for what
    does not exist.
    """
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


def read_pattern(path: Path) -> np.ndarray:
    """A sampling pattern of 0 and 1 from .npy, .npz or the `mask` of an HDF5 file."""
    kind = sniff(path)
    if kind == "npy":
        return np.asarray(npy_array(path))
    if kind == "npz":
        return npz_array(path, None)
    if kind == "hdf5":
        with guard.open_hdf5(path) as file:
            return guard.read_array(guard.dataset(file, "mask", ndim=(1, 2), kinds="biuf"))
    raise BadInput(f"{path.name}: a mask is .npy, .npz, or an HDF5 file with `mask`; got {kind}")


@dataclass(frozen=True)
class Factory:
    """A user's factory; sha256 is of the source that it was read from, None for compiled code."""

    name: str
    make: Callable[[Path], Any]
    sha256: str | None

    def __call__(self, path: Path) -> LinearOperator:
        """The checked operator of this file; BadInput unless it is one, and A.T its adjoint."""
        operator = self.make(path)
        if not isinstance(operator, LinearOperator):
            raise BadInput(
                f"{self.name}({path.name}) must return a LinearOperator; got "
                f"{type(operator).__name__} (LinearOperator.from_function makes one of a function)"
            )
        if operator.batch is not None:
            raise BadInput(
                f"{self.name}: one operator serves every slice (batch None); got batch "
                f"{operator.batch}"
            )
        check_adjoint(operator, dtype=torch.float32, tol=1e-4)
        return operator


def own_factory(name: str) -> Factory:
    """The factory of "package.module:factory", also of a module in the working folder."""
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise BadInput(
            f"--operator {name}: there is no module {error.name!r}, neither installed nor in the "
            "working folder"
        ) from None
    except ValueError:
        raise BadInput(f"--operator must be package.module:factory; got {name!r}") from None
    finally:
        sys.path.remove(here)
    make = getattr(module, attribute, None)
    if not callable(make):
        raise BadInput(f"--operator {name}: {module_name} has no function {attribute!r}")
    source = inspect.getsourcefile(module)
    sha256 = hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else None
    return Factory(name, make, sha256)
