"""Result volumes: HDF5 that the fastMRI leaderboard reads, written slice by slice, and scored.

reconstruction (slices, [3,] H, W) float32, and beside it whatever maps there are, of the same
shape: std, residual, prior_share, zero_filled, the baseline, the reference; samples (n, slices,
...) complex or real; mask. `slices` holds one JSON text a slice (scale, noise, misfit, nfe),
attributes the provenance. Equal results give equal bytes: nothing here tells the time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import BadInput
from ...metrics import ssim
from .. import guard
from .commits import committing

if TYPE_CHECKING:
    import h5py

# In the order of the report; the key is the dataset, the value what people call it.
IMAGES = {
    "zero_filled": "Zero-filled",
    "baseline": "Baseline",
    "reconstruction": "Mean of the samples",
    "reference": "Reference",
}
MAPS = {
    "std": "Std over the samples",
    "residual": "Data residual",
    "prior_share": "Share of the prior",
    "error": "Error against the reference",
}
NOTICE = "research use only, not for diagnosis"


@dataclass
class SliceResult:
    """What one slice contributes: images and maps ([3,] H, W) by name, samples (n, ...), facts."""

    images: dict[str, np.ndarray]
    samples: np.ndarray | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def write_volume(
    path: str | Path,
    results: Iterable[SliceResult],
    count: int,
    *,
    attributes: Mapping[str, Any],
    mask: np.ndarray | None = None,
) -> None:
    """Write `count` slices one by one; the file appears whole, after it was read back.

    attributes: text and numbers as they are, anything else as JSON. Values must be finite but
    for slices whose facts say status "failed", which are NaN.
    """
    import h5py

    with committing(path) as temporary:
        with h5py.File(temporary, "w") as file:
            texts: list[str] = []
            made: dict[str, h5py.Dataset] = {}
            for k, result in enumerate(results):
                for name, image in _arrays(result).items():
                    sample_axis = name == "samples"
                    if k == 0:
                        made[name] = _create(file, name, image, count, sample_axis)
                    made[name][(slice(None), k) if sample_axis else k] = image
                texts.append(json.dumps(result.facts, sort_keys=True))
            if len(texts) != count:
                raise ValueError(f"expected {count} slices, got {len(texts)}")
            file["slices"] = texts
            if mask is not None:
                file["mask"] = np.asarray(mask, dtype=bool)
            for key, value in {"status": "complete", "use": NOTICE, **attributes}.items():
                file.attrs[key] = value if isinstance(value, (str, int, float)) else _json(value)
        _read_back(temporary, count)


def _arrays(result: SliceResult) -> dict[str, np.ndarray]:
    arrays = {name: image.astype(np.float32) for name, image in result.images.items()}
    if result.samples is not None:
        arrays["samples"] = result.samples
    failed = result.facts.get("status") == "failed"
    for name, array in arrays.items():
        if not failed and not np.isfinite(array).all():
            raise ValueError(f"{name} has non-finite values")
    return arrays


def _create(
    file: h5py.File, name: str, image: np.ndarray, count: int, sample_axis: bool
) -> h5py.Dataset:
    if sample_axis:
        shape, chunks = (len(image), count, *image.shape[1:]), (1, 1, *image.shape[1:])
    else:
        shape, chunks = (count, *image.shape), (1, *image.shape)
    # The checksum finds flipped bits, which plain HDF5 reads without a word.
    return file.create_dataset(name, shape, image.dtype, chunks=chunks, fletcher32=True)


def _read_back(path: Path, count: int) -> None:
    """A full disk can leave a file that h5py closed in silence: read it before it is named."""
    import h5py

    with h5py.File(path, "r") as file:
        for name, data in file.items():
            if name not in ("slices", "mask") and data.size:
                data[-1] if name != "samples" else data[:, count - 1]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@dataclass(frozen=True)
class ResultFile:
    """A result file, read slice by slice."""

    path: Path
    names: tuple[str, ...]
    count: int
    num_samples: int
    attributes: dict[str, Any]
    facts: list[dict[str, Any]]

    def __getitem__(self, key: tuple[str, int]) -> np.ndarray:
        name, k = key
        if name == "error":
            return np.abs(self["reconstruction", k] - self["reference", k])
        with guard.open_hdf5(self.path) as file:
            return guard.read_slice(guard.dataset(file, name), k)

    def sample(self, index: int, k: int) -> np.ndarray:
        """|sample| of slice k."""
        with guard.open_hdf5(self.path) as file, guard.reading(self.path.name):
            return np.abs(guard.dataset(file, "samples")[index, k])

    def good(self) -> list[int]:
        """Numbers of the slices that were reconstructed."""
        return [k for k, fact in enumerate(self.facts) if fact.get("status", "ok") == "ok"]

    def shown(self, limit: int = 48) -> list[int]:
        """At most `limit` good slices, evenly spaced: for previews and pages."""
        good = self.good()
        return [good[round(i)] for i in np.linspace(0, len(good) - 1, min(len(good), limit))]

    def top(self, name: str, slices: list[int]) -> float:
        """Upper end of a display of these slices: just above all but a few pixels; 1 for shares."""
        if name == "prior_share":
            return 1.0
        quantile, room = (0.998, 1.0) if name in MAPS else (0.999, 1.1)
        tops = [float(np.quantile(self[name, k], quantile)) for k in slices]
        return room * max(tops, default=0.0) or 1.0


def open_volume(path: str | Path) -> ResultFile:
    """A file written by `write_volume`; BadInput for any other."""
    path = Path(path)
    with guard.open_hdf5(path) as file:
        if not guard.has(file, "reconstruction") or not guard.has(file, "slices"):
            raise BadInput(f"{path.name} is not a reconstruction of this package")
        shape = guard.dataset(file, "reconstruction", ndim=(3, 4)).shape
        names = [n for n in (*IMAGES, *MAPS) if guard.has(file, n)]
        num_samples = guard.dataset(file, "samples").shape[0] if guard.has(file, "samples") else 0
        texts = guard.read_array(guard.dataset(file, "slices", ndim=1, kinds="O"))
        attributes = {key: guard.attribute(file, key) for key in file.attrs}
        with guard.reading(path.name):
            facts = [json.loads(text) for text in texts]
    if "reference" in names:
        names.append("error")
    return ResultFile(path, tuple(names), shape[0], num_samples, attributes, facts)


def score(volume: ResultFile, name: str) -> dict[str, float]:
    """fastMRI's NMSE, PSNR and SSIM of one image stack against the file's reference.

    Slice by slice with the volume's maximum as data range, so that memory does not grow; equal to
    metrics.volume_scores of the whole stack. CT is scored as HU + 1000, which is 0 in air.
    """
    offset = 1000.0 if volume.attributes.get("units") == "HU" else 0.0

    def pair(k: int) -> tuple[np.ndarray, np.ndarray]:
        # In double precision, as sums over a volume of float32 lose digits.
        images = (volume[key, k].astype(np.float64) for key in ("reference", name))
        return tuple(image + offset for image in images)  # type: ignore[return-value]

    good = volume.good()
    peak = max((float(pair(k)[0].max()) for k in good), default=0.0)
    if peak <= 0:
        raise BadInput(f"{volume.path.name}: the reference is nowhere positive")
    error = power = similarity = 0.0
    size = 0
    for target, image in map(pair, good):
        difference = target - image
        error, power = error + float((difference**2).sum()), power + float((target**2).sum())
        size += target.size
        similarity += ssim(target, image, data_range=peak) if min(target.shape[-2:]) >= 7 else 0
    mse = error / size
    return {
        "nmse": error / power,
        "psnr": 10 * float(np.log10(peak**2 / mse)) if mse > 0 else float("inf"),
        "ssim": similarity / len(good),
        "data_range": peak,
    }
