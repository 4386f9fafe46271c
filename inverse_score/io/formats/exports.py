"""A reconstruction in other formats: DICOM series and std map, NIfTI, BART."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BadInput
from ..runs.volume import NOTICE, ResultFile
from ..scan import Scan, crop_affine
from .bart import write_bart
from .dicom_writer import Derivation, write_dicom
from .nifti import write_nifti
from .parametric_map import highdicom_missing, write_parametric_map

FORMATS = ("dicom", "nifti", "bart")


def export(
    volume: ResultFile,
    form: str,
    stem: str | Path,
    *,
    scan: Scan | None = None,
    keep_phi: bool = False,
    allow_no_geometry: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Write the mean, and the std where there is one, of a result volume; returns the paths.

    stem: path without ending; "x" gives x-dicom/ and x-std.dcm, x.nii.gz and x-std.nii.gz (with
    sidecar JSON), or x.cfl and x-std.cfl (with .hdr). scan: what was reconstructed, for geometry
    and, with keep_phi, the patient's study. Volumes with failed slices are refused.
    """
    if form not in FORMATS:
        raise BadInput(f"a reconstruction is written as one of {FORMATS}, got {form!r}")
    stem = Path(stem)
    images = _maps(volume)
    affine = None if scan is None else result_affine(volume, scan, images["reconstruction"].shape)
    paths = _paths(form, stem, images)
    _check_free(paths, scan, overwrite)
    if form == "dicom":
        return _dicom(volume, images, paths, scan, affine, keep_phi, allow_no_geometry, overwrite)
    for name, path in paths.items():
        if form == "nifti":
            text = f"{name}, {volume.attributes.get('method', '')}, {NOTICE}"
            sidecar = {**_provenance(volume), "image": name}
            write_nifti(path, images[name], affine, description=text, sidecar=sidecar)
        else:
            write_bart(path.with_suffix(""), images[name], ("SLICE", "READ", "PHS1"))
    return list(paths.values())


def check_exports(scan: Scan, forms: Sequence[str], allow_no_geometry: bool) -> None:
    """What would fail after the work, said before it."""
    for form in forms:
        if form not in FORMATS:
            raise BadInput(f"--format-out must be one of {', '.join(FORMATS)}; got {form!r}")
    if "dicom" in forms and scan.affine is None and not allow_no_geometry:
        raise BadInput(
            f"{scan.name} has no geometry, so no DICOM series can say where its slices lie; "
            "write nifti or bart, or --allow-no-geometry"
        )
    if "nifti" in forms and importlib.util.find_spec("nibabel") is None:
        raise BadInput("NIfTI needs nibabel: pip install nibabel")


def result_affine(volume: ResultFile, scan: Scan, shape: tuple[int, ...]) -> np.ndarray | None:
    """RAS+ affine of the result's voxels: the scan's, moved to the first slice and cut to size."""
    if scan.affine is None:
        return None
    numbers = [int(fact.get("slice", k)) for k, fact in enumerate(volume.facts)]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise BadInput(f"{volume.path.name}: slices {numbers[:8]} are no stack")
    part = scan.select(range(numbers[0], numbers[-1] + 1))
    # The affine of projections is that of the image they are of.
    whole = scan.geometry["image_shape"] if scan.kind == "sinogram" else scan.shape[-2:]
    return crop_affine(part.affine, tuple(whole), shape[-2:])  # type: ignore[arg-type]


def derivation(volume: ResultFile, label: str, code: str | None) -> Derivation:
    """What a DICOM series says of how it was made."""
    a = volume.attributes
    text = (
        f"{a.get('software', 'inverse_score')}; method {a.get('method', '?')}; prior "
        f"{a.get('prior', '?')} {str(a.get('prior_sha256', ''))[:12]}; {volume.num_samples or '?'} "
        f"samples, seed {a.get('seed', '?')}; acceleration {a.get('acceleration_achieved', 1)}; "
        f"{NOTICE}"
    )
    return Derivation(str(a.get("run", volume.path.name)), label, text, code)


def _maps(volume: ResultFile) -> dict[str, np.ndarray]:
    """The mean, and the std of more than one sample, (slices, H, W)."""
    bad = sorted(set(range(volume.count)) - set(volume.good()))
    if bad:
        raise BadInput(
            f"{volume.path.name}: slices {bad[:8]} failed; only whole volumes are written in "
            "other formats"
        )
    names = [name for name in ("reconstruction", "std") if name in volume.names]
    maps = {name: np.stack([volume[name, k] for k in range(volume.count)]) for name in names}
    if maps["reconstruction"].ndim != 3:
        raise BadInput(f"{volume.path.name} is in colour; other formats are for MRI and CT")
    return maps


def _paths(form: str, stem: Path, images: dict[str, np.ndarray]) -> dict[str, Path]:
    if form == "dicom":
        paths = {"reconstruction": stem.with_name(f"{stem.name}-dicom")}
        # A look-alike grey series of the std could be taken for an image of the patient.
        if "std" in images and not highdicom_missing():
            paths["std"] = stem.with_name(f"{stem.name}-std.dcm")
        return paths
    ending = {"nifti": ".nii.gz", "bart": ".cfl"}[form]
    middle = {"reconstruction": "", "std": "-std"}
    return {name: stem.with_name(f"{stem.name}{middle[name]}{ending}") for name in images}


def _check_free(paths: dict[str, Path], scan: Scan | None, overwrite: bool) -> None:
    for path in paths.values():
        if not path.exists():
            continue
        if scan is not None and any(path.samefile(source) for source in scan.files):
            raise BadInput(f"{path.name} would overwrite the input; choose another folder (--out)")
        if not overwrite:
            raise BadInput(f"{path.name} exists: --overwrite replaces it")


def _dicom(
    volume: ResultFile,
    images: dict[str, np.ndarray],
    paths: dict[str, Path],
    scan: Scan | None,
    affine: np.ndarray | None,
    keep_phi: bool,
    allow_no_geometry: bool,
    overwrite: bool,
) -> list[Path]:
    if scan is None:
        units = str(volume.attributes.get("units", ""))
        shape = images["reconstruction"].shape
        scan = Scan("image", shape, volume_read, (volume.path,), "result", units=units)
    elif volume.attributes.get("units") == "HU" and scan.units != "HU":
        scan = replace(scan, units="HU")
    series = write_dicom(
        paths["reconstruction"],
        images["reconstruction"],
        scan,
        derivation(volume, "Mean of posterior samples", "mean"),
        affine=affine,
        keep_phi=keep_phi,
        allow_no_geometry=allow_no_geometry,
        overwrite=overwrite,
    )
    if "std" in paths:
        made = derivation(volume, "Std of posterior samples", None)
        write_parametric_map(paths["std"], images["std"], series, made, units=scan.units)
    return list(paths.values())


def volume_read(k: int) -> np.ndarray:
    """A result without its scan lends only its name and units."""
    raise BadInput(f"slice {k} of a result is read from its volume")


def _provenance(volume: ResultFile) -> dict[str, Any]:
    plain = (str, int, float, bool)
    return {key: value for key, value in volume.attributes.items() if isinstance(value, plain)}


def export_all(volume: ResultFile, forms: Sequence[str], stem: Path, **options: Any) -> list[Path]:
    """`export` in each of these formats."""
    return [path for form in forms for path in export(volume, form, stem, **options)]
