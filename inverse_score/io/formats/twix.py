"""Siemens raw data (.dat, "twix", VB and VD/VE) through twixtools, sorted as ISMRMRD is.

No orientation is taken: Siemens keeps it in ways that differ between versions. Where it matters,
convert with siemens_to_ismrmrd, whose result `read_ismrmrd` reads with its geometry.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...errors import BadInput
from ..guard import check_slice
from ..guard.worker import ask
from ..scan import Scan
from .mrd_grid import Readouts, grid_readouts
from .mrd_header import Grid
from .twix_blocks import check_blocks
from .whitening import noise_whitening

HEAD = np.dtype([
    ("flags", "u8"), ("number_of_samples", "i4"), ("active_channels", "i4"),
    ("discard_pre", "i4"), ("discard_post", "i4"), ("center_sample", "i4"),
    ("sample_time_us", "f4"), ("position", "f4", 3), ("read_dir", "f4", 3),
    ("phase_dir", "f4", 3), ("slice_dir", "f4", 3),
    ("idx", [("kspace_encode_step_1", "i4"), ("kspace_encode_step_2", "i4"), ("average", "i4"),
             ("slice", "i4"), ("contrast", "i4"), ("phase", "i4"), ("repetition", "i4"),
             ("set", "i4")]),
])  # fmt: skip
# In this order: a readout is dropped for the first flag that it has.
DROPPED = {
    "NOISEADJSCAN": "noise",
    "PHASCOR": "phase correction",
    "RTFEEDBACK": "real-time feedback",
    "HPFEEDBACK": "feedback",
    "REFPHASESTABSCAN": "phase stabilisation reference",
    "PHASESTABSCAN": "phase stabilisation",
    "PATREFSCAN": "calibration only",
    "SYNCDATA": "physiology",
    "noname60": "navigator",
}
COUNTERS = {"contrast": "Eco", "phase": "Phs", "repetition": "Rep", "set": "Set"}
_CARTESIAN = 1


def read_twix(path: str | Path, key: str | None = None, nan: str = "refuse") -> Scan:
    """One volume of a Siemens file as k-space, conjugated, whitened where a noise scan is in it.

    key: "measurement=1,contrast=0": the measurement of a multi-RAID file from 0 (the last by
    default: adjustments come first) and counters, as for `read_ismrmrd`.
    """
    path = Path(path)
    choice = _choice(key)
    wanted = choice.pop("measurement", -1)
    measurement = _measurement(path, wanted, _stamp(path))
    with _quiet(path.name):
        heads, reasons = _heads(measurement["mdb"])
        grid, dwell = _grid(measurement["hdr"]["MeasYaps"], heads, path.name)
    heads["sample_time_us"] = dwell
    kept, notes = _kept(heads, reasons, choice, path.name)
    readouts = TwixReadouts(path, str(wanted), heads, conjugate=True, kept=kept)
    noise = np.flatnonzero(reasons == "noise")
    if len(noise):
        whitening, note = noise_whitening(readouts, noise, heads[kept[0]], bandwidth=1.0)
        readouts, notes = replace(readouts, whitening=whitening), [*notes, note]
    grid = replace(grid, slices=len(np.unique(heads["idx"]["slice"][kept])))
    scan, more = grid_readouts(readouts, grid)
    notes += ["no orientation is read from Siemens files; siemens_to_ismrmrd keeps it"]
    facts = {"coils": int(heads["active_channels"][kept[0]])}
    return replace(
        scan,
        format="twix",
        facts=facts,
        notes=(*notes, *more),
        nan=nan,  # type: ignore[arg-type]
    )


@dataclass(frozen=True, eq=False)
class TwixReadouts(Readouts):
    """Readouts of one measurement; `group` is its number in the file."""

    @contextlib.contextmanager
    def opened(self) -> Iterator:
        yield _measurement(self.path, int(self.group), _stamp(self.path))["mdb"]

    def raw(self, index: int, data) -> np.ndarray:
        with _quiet(f"{self.path.name}, readout {index}"):
            return np.asarray(data[index].data)


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns


@lru_cache(maxsize=1)
def _measurement(path: Path, number: int, _version: int) -> dict:
    twixtools = _twixtools()
    with _quiet(path.name):
        check_blocks(path)
    # The parser of protocols follows lengths and indices without bounds: elsewhere first.
    size = path.stat().st_size
    bounds = {"seconds": 10 + size // 10_000_000, "memory": (512 << 20) + size}
    ask("parse_twix", path.name, **bounds, path=str(path.resolve()))
    with _quiet(path.name):
        # All headers are needed to count the measurements; samples stay on disk.
        found = twixtools.read_twix(
            str(path), parse_pmu=False, parse_geometry=False, verbose=False, keep_syncdata=False
        )
        found = [item for item in found if item.get("mdb")]
    if not -len(found) <= number < len(found):
        raise BadInput(
            f"{path.name} has {len(found)} measurements with data, 0 to {len(found) - 1} "
            f"(--key measurement=N); got {number}"
        )
    return found[number]


def _heads(blocks: list) -> tuple[np.ndarray, np.ndarray]:
    """(one record a readout in ISMRMRD's terms, why each is dropped or "")."""
    heads = np.zeros(len(blocks), HEAD)
    reasons = np.full(len(blocks), "", dtype=object)
    for k, block in enumerate(blocks):
        mdh, counter = block.mdh, block.mdh.Counter
        head = heads[k]
        head["number_of_samples"], head["active_channels"] = mdh.SamplesInScan, mdh.UsedChannels
        head["discard_pre"], head["discard_post"] = mdh.CutOff.Pre, mdh.CutOff.Post
        head["center_sample"] = mdh.CenterCol
        head["flags"] = 1 << 21 if block.is_flag_set("REFLECT") else 0
        index = head["idx"]
        # Relative to the centre line, which the grid puts in its middle.
        index["kspace_encode_step_1"] = int(counter.Lin) - int(mdh.CenterLin)
        index["kspace_encode_step_2"] = int(counter.Par) - int(mdh.CenterPar)
        index["average"], index["slice"] = counter.Ave, counter.Sli
        for name, field in COUNTERS.items():
            index[name] = getattr(counter, field)
        flags = set(block.get_active_flags())
        both = "PATREFANDIMASCAN" in flags
        found = (word for flag, word in DROPPED.items() if flag in flags)
        reasons[k] = next((w for w in found if not (both and w == "calibration only")), "")
    return heads, reasons


def _grid(protocol: dict, heads: np.ndarray, name: str) -> tuple[Grid, float]:
    """(the grid that the protocol encodes, dwell time in us, before oversampling is removed)."""
    kspace, first = protocol["sKSpace"], protocol["sSliceArray"]["asSlice"][0]
    if int(kspace["ucTrajectory"]) != _CARTESIAN:
        raise BadInput(f"{name}: only Cartesian scans are read, not trajectory "
                       f"{int(kspace['ucTrajectory'])}")  # fmt: skip
    base, lines = int(kspace["lBaseResolution"]), int(kspace["lPhaseEncodingLines"])
    is_3d = int(kspace["ucDimension"]) == 4
    partitions = int(kspace["lPartitions"]) if is_3d else 1
    if min(base, lines, partitions) < 1 or max(base, lines, partitions) > 16384:
        raise BadInput(f"{name}: the protocol encodes {base} x {lines} x {partitions}")
    check_slice(f"{name}, one slice", 16 * base * lines * int(heads["active_channels"].max()))
    oversampled = 1.0 + float(kspace.get("dPhaseOversamplingForDialog", 0.0))
    dwell = float(protocol.get("sRXSPEC", {}).get("alDwellTime", [0])[0]) / 1000
    field = tuple(float(first[n]) for n in ("dReadoutFOV", "dPhaseFOV", "dThickness"))
    return Grid(
        matrix=(2 * base, lines, partitions),
        readout=base,
        centre=(0, 0),
        field_mm=(field[0], field[1] * oversampled, field[2]),
        crop=(base, min(lines, max(1, round(lines / oversampled)))),
        slices=1,
    ), dwell


def _kept(heads: np.ndarray, reasons: np.ndarray, choice: dict, name: str):
    reasons = reasons.copy()
    for counter in COUNTERS:
        values = np.unique(heads["idx"][counter][reasons == ""])
        if counter not in choice and len(values) > 1:
            raise BadInput(
                f"{name} holds {len(values)} values of {counter} ({values[0]} to {values[-1]}): "
                f"choose one, as in --key {counter}={values[0]}"
            )
        if counter in choice:
            away = (reasons == "") & (heads["idx"][counter] != choice[counter])
            reasons[away] = f"other {counter}"
    kept = np.flatnonzero(reasons == "")
    counts = Counter(reasons[reasons != ""])
    dropped = ", ".join(f"{n} {word}" for word, n in sorted(counts.items())) or "none"
    if not len(kept):
        raise BadInput(f"{name}: no readout of {len(heads)} is image data; dropped: {dropped}")
    return kept, [f"{len(heads)} readouts: {len(kept)} kept; dropped: {dropped}"]


def _choice(key: str | None) -> dict[str, int]:
    choice = {}
    for part in filter(None, (key or "").split(",")):
        name, equals, value = (word.strip() for word in part.partition("="))
        name, value = (name, value) if equals else ("measurement", name)
        if name not in ("measurement", *COUNTERS) or not value.isdecimal():
            raise BadInput(f"--key reads measurement=N or one of {tuple(COUNTERS)} with =N; "
                           f"got {part!r}")  # fmt: skip
        choice[name] = int(value)
    return choice


@contextlib.contextmanager
def _quiet(what: str) -> Iterator[None]:
    """twixtools prints, which may name the patient; its failures become BadInput unquoted."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (BadInput, MemoryError):
        raise
    except Exception as error:
        kind = type(error).__name__
        raise BadInput(f"{what} is damaged or no Siemens raw data ({kind})") from None


def _twixtools():
    try:
        import twixtools  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise BadInput("Siemens raw data needs twixtools: pip install twixtools") from None
    return twixtools
