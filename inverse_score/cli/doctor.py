"""`inverse-score doctor`: what this installation can do, fit to paste into a bug report."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import typer

from .application import app

_PACKAGES = (
    "torch", "numpy", "h5py", "pydicom", "scikit-image", "scipy", "torchdiffeq", "safetensors",
    "typer", "pyyaml",
)  # fmt: skip
_EXTRAS = {
    "mrd": "ismrmrd", "dicom": "highdicom", "dicom (JPEG)": "pylibjpeg-libjpeg",
    "dicom (JPEG 2000)": "pylibjpeg-openjpeg", "nifti": "nibabel", "twix": "twixtools",
    "nufft": "pytorch-finufft",
}  # fmt: skip


@app.command()
def doctor(json_: bool = typer.Option(False, "--json", help="One JSON object.")) -> None:
    """Versions, processor, devices, priors, disk and HDF5 locking. Names no host, user or path.

    Exits 1 if something that reconstruction needs does not work.
    """
    facts = examine()
    if json_:
        print(json.dumps(facts, indent=1))
    else:
        for section, values in facts.items():
            print(section)
            for key, value in values.items() if isinstance(values, dict) else [("", values)]:
                print(f"  {key:22} {value}")
    if facts["problems"]:
        raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """Facts by section; `problems` maps what does not work to the remedy."""
    problems: dict[str, str] = {}
    packages = {name: _version(name) for name in _PACKAGES}
    for name, found in packages.items():
        if found == "missing":
            problems[name] = f"pip install {name}"
    facts: dict[str, Any] = {
        "software": {
            "inverse-score": _version("inverse-score"),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            **packages,
        },
        "extras": {extra: _version(name) for extra, name in _EXTRAS.items()},
        "processor": _processor(),
        "devices": _devices(problems),
        "priors": _priors(problems),
        "disk": _disk(problems),
        "hdf5": _hdf5(problems),
    }
    return {**facts, "problems": problems}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _processor() -> dict[str, Any]:
    from ..device import available_cpus, total_memory

    flags = ""
    if Path("/proc/cpuinfo").exists():
        flags = Path("/proc/cpuinfo").read_text()
    return {
        "usable cores": available_cpus(),
        "of": os.cpu_count(),
        "memory (GiB)": round(total_memory() / 2**30, 1),
        "bfloat16": "amx_bf16" in flags or "avx512_bf16" in flags or "bf16" in flags,
    }


def _devices(problems: dict[str, str]) -> dict[str, Any]:
    try:
        import torch
    except Exception as error:
        problems["torch import"] = type(error).__name__
        return {}
    from ..device import choose_device

    devices: dict[str, Any] = {"cuda": torch.cuda.device_count()}
    for k in range(torch.cuda.device_count()):
        devices[f"cuda:{k}"] = torch.cuda.get_device_name(k)
    devices["mps"] = torch.backends.mps.is_available()
    devices["auto chooses"] = str(choose_device("auto"))
    return devices


def _priors(problems: dict[str, str]) -> dict[str, str]:
    from ..io.priors import read_header, shipped_priors

    found = {}
    for name in shipped_priors():
        try:
            card = read_header(name)["card"]
            found[name] = str(card.get("domain", "ok"))
        except ValueError as error:
            problems[f"prior {name}"] = str(error)
    return found or {"shipped": "none"}


def _disk(problems: dict[str, str]) -> dict[str, str]:
    try:
        free = shutil.disk_usage(Path.cwd()).free
    except OSError as error:
        problems["working folder"] = error.strerror or "not readable"
        return {}
    if not os.access(Path.cwd(), os.W_OK):
        problems["working folder"] = "not writable: name another with --out"
    return {"free here (GiB)": f"{free / 2**30:.1f}"}


def _hdf5(problems: dict[str, str]) -> dict[str, str]:
    """Whether HDF5 can lock a file here: NFS and Lustre often cannot."""
    try:
        import tempfile

        import h5py

        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            with h5py.File(Path(folder) / "t.h5", "w") as file:
                file.attrs["x"] = 1.0
            with h5py.File(Path(folder) / "t.h5", "r", locking=True) as file:
                locking = "works" if file.attrs["x"] == 1.0 else "reads wrong values"
    except Exception as error:
        locking = type(error).__name__
        problems["hdf5 locking"] = "set HDF5_USE_FILE_LOCKING=FALSE, or work in another folder"
        return {"locking here": locking}
    return {"library": h5py.version.hdf5_version, "locking here": locking,
            "HDF5_USE_FILE_LOCKING": os.environ.get("HDF5_USE_FILE_LOCKING", "not set"),
            "interpreter": sys.implementation.name}  # fmt: skip
