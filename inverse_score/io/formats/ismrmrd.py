"""ISMRMRD (MRD) HDF5 raw data (Inati et al. 2017), Cartesian, read-only and fully accounted for.

Readouts are sorted into the encoded grid by their counters, so that partial Fourier and partial
echoes land where they belong and the rest stays zero. Every readout is either kept or dropped for
a reason that `notes` counts.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import BadInput
from .. import guard
from ..scan import Scan
from .mrd_grid import Readouts, grid_readouts
from .mrd_header import Grid, header_facts, header_number, header_text, read_header
from .whitening import noise_whitening

if TYPE_CHECKING:
    import h5py

# Flags are numbered from 1. A readout with one of these is no k-space line of the image.
DROPPED = {
    19: "noise",
    20: "calibration only",
    23: "navigator",
    24: "phase correction",
    26: "feedback",
    27: "dummy",
    28: "real-time feedback",
    30: "phase stabilisation reference",
    31: "phase stabilisation",
}
NOISE = 19
_HEAD = {
    "flags", "number_of_samples", "active_channels", "discard_pre", "discard_post",
    "center_sample", "encoding_space_ref", "sample_time_us", "position", "read_dir", "phase_dir",
    "slice_dir", "idx",
}  # fmt: skip
COUNTERS = ("contrast", "phase", "repetition", "set")
_INDEX = {"kspace_encode_step_1", "kspace_encode_step_2", "slice", *COUNTERS}
_BANDWIDTH = "acquisitionSystemInformation/relativeReceiverNoiseBandwidth"
_VENDOR_TEXT = "acquisitionSystemInformation/systemVendor"


def read_ismrmrd(path: str | Path, key: str | None = None, nan: str = "refuse") -> Scan:
    """One volume of Cartesian k-space, whitened where the file has a noise scan.

    key: "group=dataset_2,contrast=1": the group and the values of the counters contrast, phase,
    repetition and set, needed where there are several. Readout oversampling is removed (as the
    field of view says); reversed readouts are turned; Siemens data is conjugated, because there
    k-space is defined with the other sign. Averages are averaged. 3-D scans are transformed along
    the second phase encoding where every line has all its partitions, else along the readout.
    """
    path = Path(path)
    choice = _choice(key)
    with guard.open_hdf5(path) as file:
        groups = _groups(file, path.name)
        group = _chosen_group(groups, choice.pop("group", None), path.name)
        stored = guard.group(file, group)
        header = read_header(guard.read_text(stored, "xml"), path.name)
        heads = read_heads(guard.dataset(stored, "data", ndim=1, kinds="V"), path.name)
        noise_group, noise_heads = _noise_heads(file, groups, group, heads, path.name)
    kept, notes = keep(heads, choice, path.name)
    grid = Grid.from_header(header, heads[kept], path.name)
    conjugate = "siemens" in header_text(header, _VENDOR_TEXT, "").lower()
    whitening = None
    if noise_group is not None:
        # Conjugated as the scan is: the coils' covariance is complex.
        source = Readouts(path, noise_group, noise_heads, conjugate)
        chosen = np.flatnonzero(flagged(noise_heads, NOISE))
        bandwidth = header_number(header, _BANDWIDTH, path.name, 1.0)
        whitening, note = noise_whitening(source, chosen, heads[kept[0]], bandwidth)
        notes.append(note)
    readouts = Readouts(path, group, heads, conjugate, kept, whitening)
    scan, more = grid_readouts(readouts, grid)
    return replace(
        scan,
        facts=header_facts(header, heads[kept]),
        notes=(*notes, *more),
        nan=nan,  # type: ignore[arg-type]
    )


def is_ismrmrd(path: str | Path) -> bool:
    """Whether an HDF5 file has a group with `xml` and `data`."""
    with guard.open_hdf5(path) as file:
        return bool(_groups(file, Path(path).name, required=False))


def read_heads(data, name: str) -> np.ndarray:
    """The acquisition headers, one a readout, without their samples."""
    fields = data.dtype.names or ()
    there = set(data.dtype["head"].names or ()) if "head" in fields else set()
    counters = set(data.dtype["head"]["idx"].names or ()) if "idx" in there else set()
    if "data" not in fields or not there >= _HEAD or not counters >= _INDEX:
        raise BadInput(f"{name}: 'data' must hold ISMRMRD acquisitions, its fields are {fields}")
    guard.check_slice(f"{name}, headers", data.size * data.dtype["head"].itemsize)
    with guard.reading(f"{name}, acquisition headers"):
        return np.asarray(data.fields("head")[()])


def flagged(heads: np.ndarray, flag: int) -> np.ndarray:
    """Which headers carry a flag, numbered from 1 as in the standard."""
    return (heads["flags"] >> np.uint64(flag - 1)) & np.uint64(1) == 1


def keep(heads: np.ndarray, choice: dict[str, int], name: str) -> tuple[np.ndarray, list[str]]:
    """(indices of the readouts of one image, notes that account for all of them)."""
    reason = np.full(len(heads), "", dtype=object)
    for flag, word in DROPPED.items():
        reason[(reason == "") & flagged(heads, flag)] = word
    other = (reason == "") & (heads["encoding_space_ref"] != 0)
    reason[other] = "other encoding space"
    for counter in COUNTERS:
        values = np.unique(heads["idx"][counter][reason == ""])
        if counter not in choice and len(values) > 1:
            raise BadInput(
                f"{name} holds {len(values)} values of {counter} ({values[0]} to {values[-1]}): "
                f"choose one, as in --key {counter}={values[0]}"
            )
        if counter in choice:
            if choice[counter] not in values:
                raise BadInput(f"{name} has {counter} {values.tolist()[:20]}, not "
                               f"{choice[counter]}")  # fmt: skip
            away = (reason == "") & (heads["idx"][counter] != choice[counter])
            reason[away] = f"other {counter}"
    kept = np.flatnonzero(reason == "")
    words, counts = np.unique(reason[reason != ""].astype(str), return_counts=True)
    dropped = ", ".join(f"{n} {word}" for word, n in zip(words, counts, strict=True)) or "none"
    if not len(kept):
        raise BadInput(f"{name}: no readout of {len(heads)} is image data; dropped: {dropped}")
    return kept, [f"{len(heads)} readouts: {len(kept)} kept; dropped: {dropped}"]


def _choice(key: str | None) -> dict:
    choice: dict = {}
    for part in filter(None, (key or "").split(",")):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            name, value = "group", name
        if name != "group" and (name not in COUNTERS or not value.isdecimal()):
            raise BadInput(
                f"--key reads group=NAME, or =N after one of {COUNTERS}, by commas; got {part!r}"
            )
        choice[name] = value if name == "group" else int(value)
    return choice


def _groups(file, name: str, required: bool = True) -> list[str]:
    import h5py

    with guard.reading(name):
        found = [
            key
            for key in sorted(file)
            if isinstance(file.get(key, getlink=True), h5py.HardLink)
            and isinstance(file.get(key), h5py.Group)
            and {"xml", "data"} <= set(file[key])
        ]
    if required and not found:
        raise BadInput(f"{name} has no group with `xml` and `data`: it is not ISMRMRD raw data")
    return found


def _chosen_group(groups: list[str], wanted: str | None, name: str) -> str:
    """The group asked for, the only one, or the last: converters put noise scans first."""
    if wanted is None:
        return groups[-1]
    if wanted not in groups:
        raise BadInput(f"{name} has the groups {groups}, not {wanted!r}")
    return wanted


def _noise_heads(
    file: h5py.File, groups: list[str], group: str, heads: np.ndarray, name: str
) -> tuple[str | None, np.ndarray]:
    """(group, its headers with only noise flagged) of the noise scan, here or in another group."""
    if flagged(heads, NOISE).any():
        return group, heads
    for other in groups:
        if other != group:
            data = guard.dataset(guard.group(file, other), "data", ndim=1, kinds="V")
            there = read_heads(data, name)
            if flagged(there, NOISE).any():
                return other, there
    return None, heads[:0]
