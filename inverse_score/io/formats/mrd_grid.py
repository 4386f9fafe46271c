"""ISMRMRD readouts sorted into the Cartesian grid, and the grid cut into slices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BadInput
from .. import guard
from ..scan import Scan
from .geometry import plane_affine, slice_step, unit_axes
from .mrd_header import STEPS, Grid

REVERSE = 22


@dataclass(frozen=True, eq=False)
class Readouts:
    """Readouts of one group: kept are the indices of the image's; samples come whitened."""

    path: Path
    group: str
    heads: np.ndarray
    conjugate: bool
    kept: np.ndarray | None = None
    whitening: np.ndarray | None = None

    @property
    def image(self) -> np.ndarray:
        """Indices of the image's readouts."""
        if self.kept is None:
            raise ValueError(f"{self.path.name}: which readouts are the image's was not said")
        return self.kept

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The data of all readouts, for `samples`; the file is open only meanwhile."""
        with guard.open_hdf5(self.path) as file:
            yield guard.dataset(guard.group(file, self.group), "data", ndim=1, kinds="V")

    def raw(self, index: int, data) -> np.ndarray:
        """(coils, samples) of one readout as stored."""
        head, what = self.heads[index], f"{self.path.name}, readout {index}"
        with guard.reading(what):
            values = np.asarray(data[index]["data"], dtype=np.float32).reshape(-1)
        coils, count = int(head["active_channels"]), int(head["number_of_samples"])
        if values.size != 2 * coils * count:
            raise BadInput(
                f"{what} must hold {coils} x {count} complex samples, it has {values.size} numbers"
            )
        return values.view(np.complex64).reshape(coils, count)

    def samples(self, index: int, data) -> np.ndarray:
        """(coils, samples) of one readout in ascending k, discarded samples cut, whitened."""
        head, values = self.heads[index], self.raw(index, data)
        if (int(head["flags"]) >> (REVERSE - 1)) & 1:
            values = values[:, ::-1]
        values = values[:, int(head["discard_pre"]) : values.shape[1] - int(head["discard_post"])]
        values = values.conj() if self.conjugate else values
        return values if self.whitening is None else self.whitening @ values


def grid_readouts(readouts: Readouts, grid: Grid) -> tuple[Scan, list[str]]:
    """The scan of these readouts, and notes on averages, partial echoes and missing lines."""
    heads, name = readouts.heads[readouts.kept], readouts.path.name
    _check_readouts(heads, grid, name)
    lines = [heads["idx"][s].astype(int) - c + n // 2
             for s, c, n in zip(STEPS, grid.centre, grid.matrix[1:], strict=True)]  # fmt: skip
    for axis, (line, size) in enumerate(zip(lines, grid.matrix[1:], strict=True)):
        if line.min() < 0 or line.max() >= size:
            raise BadInput(f"{name}: {STEPS[axis]} reaches {line.min()} to {line.max()} of a grid "
                           f"of {size}")  # fmt: skip
    order = np.unique(heads["idx"]["slice"])
    _check_counts(heads, order, grid, name)
    first = _first_samples(heads, grid)
    rows, partial = _sampled_rows(heads, first, grid, name)
    places = Places(readouts, grid, (lines[0], lines[1]), first, rows, len(order))
    notes, noise_std = _averages(heads, order, readouts.whitening is not None)
    notes += [f"partial echo: {int(rows.sum())} of {len(rows)} samples measured"] if partial else []
    if grid.matrix[2] > 1:
        return _volume_scan(places, noise_std, name), notes
    order, affine = _geometry(heads, order, grid, name)
    filled = np.zeros(grid.matrix[1], bool)
    filled[lines[0]] = True
    missing = int((~filled).sum())
    notes += [f"{missing} of {grid.matrix[1]} phase encodings not measured"] if missing else []
    mask = filled if not partial else rows[:, None] & filled
    return Scan(
        kind="kspace",
        shape=(len(order), int(heads["active_channels"][0]), grid.readout, grid.matrix[1]),
        read=SliceReader(places, tuple(int(s) for s in order)),
        files=(readouts.path,),
        format="ismrmrd",
        mask=None if mask.all() else mask,
        noise_std=noise_std,
        crop=grid.crop,
        affine=affine,
    ), notes


@dataclass(frozen=True, eq=False)
class Places:
    """Where each kept readout goes: its lines (phase 1, phase 2) and its first sample."""

    readouts: Readouts
    grid: Grid
    lines: tuple[np.ndarray, np.ndarray]
    first: np.ndarray
    rows: np.ndarray
    slices: int

    def fill(self, chosen: np.ndarray, partitions: int) -> np.ndarray:
        """(partitions, coils, H, W): the mean of the readouts at each place, zero elsewhere."""
        readouts, matrix = self.readouts, self.grid.matrix
        heads = readouts.heads[readouts.kept]
        coils = int(heads["active_channels"][0])
        total = np.zeros((partitions, coils, self.grid.readout, matrix[1]), np.complex64)
        count = np.zeros((partitions, matrix[1]), np.float32)
        kept = readouts.image
        with readouts.opened() as data:
            for k in chosen:
                line, part = self.lines[0][k], self.lines[1][k] if partitions > 1 else 0
                samples = readouts.samples(int(kept[k]), data)
                full = np.zeros((coils, matrix[0]), np.complex64)
                full[:, self.first[k] : self.first[k] + samples.shape[1]] = samples
                total[part, :, :, line] += without_oversampling(full, self.grid.readout)
                count[part, line] += 1
        total *= self.rows[:, None]
        return total / np.maximum(count, 1)[:, None, None, :]


@dataclass(frozen=True, eq=False)
class SliceReader:
    """Slice k of a 2-D multi-slice scan."""

    places: Places
    slices: tuple[int, ...]

    def __call__(self, k: int) -> np.ndarray:
        heads = self.places.readouts.heads[self.places.readouts.kept]
        return self.places.fill(np.flatnonzero(heads["idx"]["slice"] == self.slices[k]), 1)[0]


@dataclass(frozen=True, eq=False)
class VolumeReader:
    """Slice k of a 3-D scan after the inverse FFT along the partitions or along the readout."""

    places: Places
    axis: int

    def __call__(self, k: int) -> np.ndarray:
        return _hybrid(self)[k]


@lru_cache(maxsize=1)
def _hybrid(reader: VolumeReader) -> np.ndarray:
    places = reader.places
    everything = np.arange(len(places.readouts.image))
    volume = places.fill(everything, places.grid.matrix[2])
    hybrid = centred_ifft(volume, axis=reader.axis)
    # (partition, coil, readout, phase) -> readout positions as slices of (partition, phase).
    return hybrid if reader.axis == 0 else np.moveaxis(hybrid, 2, 0).swapaxes(1, 2)


def centred_ifft(values: np.ndarray, axis: int) -> np.ndarray:
    """Centred orthonormal inverse FFT along one axis."""
    shifted = np.fft.ifft(np.fft.ifftshift(values, axes=axis), axis=axis, norm="ortho")
    return np.fft.fftshift(shifted, axes=axis).astype(np.complex64)


def without_oversampling(line: np.ndarray, size: int) -> np.ndarray:
    """The readout (..., N) with its field of view cut to `size` pixels; white noise stays as is."""
    count = line.shape[-1]
    if size == count:
        return line
    # The centre of n samples is n // 2; cutting must keep it there.
    start = count // 2 - size // 2
    image = centred_ifft(line, -1)[..., start : start + size]
    shifted = np.fft.fft(np.fft.ifftshift(image, axes=-1), axis=-1, norm="ortho")
    return np.fft.fftshift(shifted, axes=-1).astype(np.complex64)


def _check_readouts(heads: np.ndarray, grid: Grid, name: str) -> None:
    coils = np.unique(heads["active_channels"])
    if len(coils) > 1 or coils[0] < 1:
        raise BadInput(
            f"{name}: readouts have {coils.tolist()} coils; body and surface coil are mixed"
        )
    used = heads["number_of_samples"].astype(int) - heads["discard_pre"] - heads["discard_post"]
    if used.min() < 1 or used.max() > grid.matrix[0]:
        raise BadInput(
            f"{name}: readouts keep {used.min()} to {used.max()} samples, the header encodes "
            f"{grid.matrix[0]}"
        )


def _check_counts(heads: np.ndarray, order: np.ndarray, grid: Grid, name: str) -> None:
    """Every slice the header promises is there, and all have the same lines."""
    if len(order) != grid.slices:
        raise BadInput(f"{name}: the header promises {grid.slices} slices, readouts fill "
                       f"{len(order)}: readouts were lost")  # fmt: skip
    lines = {
        int(s): np.unique(heads["idx"][list(STEPS)][heads["idx"]["slice"] == s]) for s in order
    }
    counts = {s: len(found) for s, found in lines.items()}
    most = max(counts.values())
    short = {s: n for s, n in counts.items() if n < most}
    if short:
        where = ", ".join(f"slice {s}: {n}" for s, n in list(short.items())[:8])
        raise BadInput(f"{name}: slices have up to {most} phase encodings, but {where}: readouts "
                       "were lost")  # fmt: skip


def _first_samples(heads: np.ndarray, grid: Grid) -> np.ndarray:
    """Place of a readout's first kept sample: its centre sample goes to the grid's centre."""
    return grid.matrix[0] // 2 - heads["center_sample"].astype(int) + heads["discard_pre"]


def _sampled_rows(heads: np.ndarray, first: np.ndarray, grid: Grid, name: str):
    """(rows of the grid without oversampling that all readouts measured, whether some are not)."""
    used = heads["number_of_samples"].astype(int) - heads["discard_pre"] - heads["discard_post"]
    start, stop = int(first.max()), int((first + used).min())
    if int(first.min()) < 0 or int((first + used).max()) > grid.matrix[0] or start >= stop:
        raise BadInput(f"{name}: centre samples put readouts outside the encoded "
                       f"{grid.matrix[0]} samples")  # fmt: skip
    if start == 0 and stop == grid.matrix[0]:
        return np.ones(grid.readout, bool), False
    # Frequencies keep their number when the field of view is cut: spacing grows, extent shrinks.
    scale = grid.matrix[0] / grid.readout
    k = (np.arange(grid.readout) - grid.readout // 2) * scale + grid.matrix[0] // 2
    return (k >= start) & (k <= stop - 1), True


def _averages(heads: np.ndarray, order: np.ndarray, white: bool) -> tuple[list[str], float | None]:
    """Notes and the noise std after averaging, None where it differs between lines."""
    places = heads["idx"][["slice", *STEPS]]
    _, counts = np.unique(places, return_counts=True)
    if counts.max() == 1:
        return [], 1.0 if white else None
    note = f"{counts.min()} to {counts.max()} readouts averaged at each place"
    even = counts.min() == counts.max()
    return [note], float(1 / np.sqrt(counts[0])) if white and even else None


def _geometry(heads: np.ndarray, order: np.ndarray, grid: Grid, name: str):
    """(slice numbers along the slice direction, affine); as numbered without geometry."""
    first = [int(np.flatnonzero(heads["idx"]["slice"] == s)[0]) for s in order]
    read, phase, across = (heads[d][first[0]].astype(float)
                           for d in ("read_dir", "phase_dir", "slice_dir"))  # fmt: skip
    if not (np.any(read) and np.any(phase) and np.any(across)):
        return order, None
    axes = unit_axes([*phase, *read], f"{name}, read_dir and phase_dir")
    along, down = np.reshape(axes, (2, 3))
    across = across / np.linalg.norm(across)
    centres = heads["position"][first].astype(float)
    if not np.isfinite(centres).all():
        raise BadInput(f"{name}: positions of slices must be numbers")
    rank = np.argsort(centres @ across, kind="stable")
    step = slice_step(name, centres[rank], across, grid.field_mm[2])
    size = grid.readout, grid.matrix[1]
    spacing = grid.field_mm[0] / size[0], grid.field_mm[1] / size[1]
    corner = centres[rank[0]] - down * spacing[0] * (size[0] // 2)
    corner = corner - along * spacing[1] * (size[1] // 2)
    return order[rank], plane_affine(along, down, spacing, step, corner)


def _volume_scan(places: Places, noise_std: float | None, name: str) -> Scan:
    """A 3-D scan: partitions as slices where each line has all of them, else readout positions."""
    grid, heads = places.grid, places.readouts.heads[places.readouts.kept]
    if places.slices > 1:
        raise BadInput(f"{name} has {places.slices} slabs of 3-D data; one is read")
    coils, (_, phases, partitions) = int(heads["active_channels"][0]), grid.matrix
    guard.check_slice(f"{name} (3-D, transformed at once)",
                      8 * coils * grid.readout * phases * partitions)  # fmt: skip
    filled = np.zeros((partitions, phases), bool)
    filled[places.lines[1], places.lines[0]] = True
    columns = filled.any(axis=0)
    whole = np.array_equal(filled, np.broadcast_to(columns, filled.shape))
    size = (grid.readout, phases) if whole else (partitions, phases)
    mask = columns & places.rows[:, None] if whole else filled
    return Scan(
        kind="kspace",
        shape=(partitions if whole else grid.readout, coils, *size),
        read=VolumeReader(places, 0 if whole else 2),
        files=(places.readouts.path,),
        format="ismrmrd",
        mask=None if mask.all() else mask,
        noise_std=noise_std,
        crop=grid.crop if whole else None,
        affine=_volume_affine(heads[0], grid, whole, name),
    )


def _volume_affine(head: np.ndarray, grid: Grid, whole: bool, name: str) -> np.ndarray | None:
    read, phase, across = (head[d].astype(float) for d in ("read_dir", "phase_dir", "slice_dir"))
    if not (np.any(read) and np.any(phase) and np.any(across)):
        return None
    unit_axes([*read, *across], f"{name}, read_dir and slice_dir")
    sizes = np.array([grid.readout, *grid.matrix[1:]])
    steps = np.array([read, phase, across]) * (np.array(grid.field_mm) / sizes)[:, None]
    corner = head["position"].astype(float) - (sizes // 2) @ steps
    rows, slices = (0, 2) if whole else (2, 0)
    affine = np.eye(4)
    affine[:3] = np.stack([steps[1], steps[rows], steps[slices], corner], axis=1)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
