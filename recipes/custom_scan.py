"""Measurements of an operator of the user's own: y = A x + n, x in the prior's units."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inverse_score.errors import BadInput
from inverse_score.io import guard
from inverse_score.io.formats.npy import npy_array, npz_array, npz_names
from inverse_score.io.guard.sniff import sniff
from inverse_score.io.scan import OWN, Scan
from inverse_score.posterior.units import noise_level
from inverse_score.prior import Prior
from operators.linear import LinearOperator, as_complex

from .problem import Problem
from .scans import ScanRecipe

TRUTH = "ground_truth"


def open_measurements(path: Path, operator: LinearOperator, key: str | None, nan: str) -> Scan:
    """Array y (slices, *operator.out_shape) of an npz, npy or HDF5 file; one slice needs no axis.

    key: the array's name, default `y` or the only one. `ground_truth` (slices, H, W) beside it is
    a reference.
    """
    form = sniff(path)
    if form not in ("hdf5", "npz", "npy"):
        raise BadInput(f"{path.name} is {form}; measurements of one's own are npz, npy or HDF5")
    y = ArrayOf(path, form, _key(path, form, key), len(operator.out_shape))
    shape, is_complex = y.declared()
    if shape[1:] != operator.out_shape or is_complex != bool(operator.out_complex):
        want = "complex" if operator.out_complex else "real"
        raise BadInput(
            f"{path.name}: {y.key} must be {want} (slices, "
            f"{', '.join(map(str, operator.out_shape))}), as the operator's out_shape says; got "
            f"{'complex' if is_complex else 'real'} {shape}"
        )
    references = {}
    if form != "npy" and TRUTH in _names(path, form):
        references[TRUTH] = ArrayOf(path, form, TRUTH, 2)
    return Scan(
        OWN, shape, y, (path,), f"{form}, own operator", references=references, nan=nan  # type: ignore[arg-type]
    )  # fmt: skip


@dataclass(frozen=True)
class ArrayOf:
    """Reads slice k of an array whose slices have `axes` axes."""

    path: Path
    form: str
    key: str
    axes: int

    def __call__(self, k: int) -> np.ndarray:
        if self.form == "hdf5":
            with guard.open_hdf5(self.path) as file:
                data = guard.dataset(file, self.key)
                return (
                    guard.read_slice(data, k) if data.ndim > self.axes else guard.read_array(data)
                )
        array = self._loaded()
        return np.asarray(array[k] if array.ndim > self.axes else array)

    def declared(self) -> tuple[tuple[int, ...], bool]:
        """(shape with the slices first, complex?)."""
        if self.form == "hdf5":
            with guard.open_hdf5(self.path) as file:
                data = guard.dataset(file, self.key)
                shape, kind = data.shape, data.dtype.kind
        else:
            array = self._loaded()
            shape, kind = array.shape, array.dtype.kind
        if kind not in "iufc":
            raise BadInput(f"{self.path.name}: {self.key} must hold numbers; got dtype {kind!r}")
        return (shape if len(shape) > self.axes else (1, *shape)), kind == "c"

    def _loaded(self) -> np.ndarray:
        return npy_array(self.path) if self.form == "npy" else npz_array(self.path, self.key)


def _names(path: Path, form: str) -> list[str]:
    if form == "npz":
        return npz_names(path)
    with guard.open_hdf5(path) as file:
        return sorted(file)


def _key(path: Path, form: str, key: str | None) -> str:
    if key is not None or form == "npy":
        return key or path.stem
    names = [name for name in _names(path, form) if name != TRUTH]
    if "y" in names or len(names) == 1:
        return "y" if "y" in names else names[0]
    raise BadInput(
        f"{path.name} holds {names[:20]}: the measurements are `y`, or name them (--key)"
    )


class CustomScan(ScanRecipe):
    """Slices y of an operator; options: operator, noise_std (in units of y).

    Without noise_std the operator's own estimate_noise(y) is asked.
    """

    kind, needs = OWN, "an operator of one's own needs its measurements"
    first_look = "adjoint of the data, scaled"

    def __init__(self, scan: Scan, *, operator: LinearOperator, **options: Any):
        self.operator = operator
        super().__init__(scan, **options)

    def decide(self, mask: Any, seed: int) -> None:
        if mask is not None or self.asked is not None:
            raise BadInput("--acc and --mask belong to mri and ct: an own operator decides itself")
        if self.operator.in_complex or len(self.operator.in_shape) != 3:
            raise BadInput(
                "the operator's in_shape must be (channels, H, W), real; complex images are two "
                f"channels (operators.as_channels); got {self.operator.in_shape}"
            )
        self.channels, self.shape = self.operator.in_shape[0], self.operator.in_shape[1:]
        if self.channels > 3:
            raise BadInput(f"images of 1, 2 or 3 channels are written; got {self.channels}")

    def problem(self, k: int, prior: Prior, device: torch.device) -> Problem:
        y = torch.from_numpy(np.array(self.scan[k]))[None].to(device)
        A = self.operator.to(device)
        noise_std = noise_level(self.options.get("noise_std"), A, y).to(y.real)
        back = A.T(y)
        # The multiple of A^T y that explains the data best: a first look in the right units.
        again = A(back)
        size = (again.conj() * y).real.sum() / again.abs().square().sum().clamp(min=1e-30)
        facts = {"noise_std": float(noise_std.float().median()), "scale": 1.0}
        return Problem(A, y, noise_std, torch.ones(1), size * back, facts)

    def raw(self, x: Tensor) -> Tensor:
        if self.channels == 2:
            z = as_complex(x.reshape(-1, *x.shape[-3:]))
            return z.reshape(*x.shape[:-3], *x.shape[-2:])
        return x[..., 0, :, :] if self.channels == 1 else x

    def picture(self, x: Tensor) -> Tensor:
        return self.raw(x).abs() if self.channels == 2 else self.raw(x)
