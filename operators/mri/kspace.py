"""Sampling masks of Cartesian k-space: fastMRI's, Gaussian, Poisson disc, radial, spiral.

Masks are centred: frequency zero is entry n // 2. Every mask reports the acceleration asked for
and the one achieved, which differ for some definitions by design.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .trajectories import poisson_disc, radial, spiral

Seed = int | str | Sequence[int]


@dataclass(frozen=True)
class SamplingMask:
    """mask: bool (W,) for whole columns or (H, W); nominal: the acceleration asked for;
    num_center: fully sampled columns (or side of the central square) of the calibration region;
    kind: the definition's name. Columns that the scanner never acquires count as unsampled.
    """

    mask: Tensor
    nominal: float
    num_center: int
    kind: str

    @property
    def achieved(self) -> float:
        """Entries of the grid per sampled entry."""
        return self.mask.numel() / int(self.mask.sum())


def file_seed(name: str) -> tuple[int, ...]:
    """The seed that fastMRI derives from a volume's file name (extension included)."""
    return tuple(map(ord, name))


def random_state(seed: Seed) -> np.random.RandomState:
    # fastMRI's masks are defined by this legacy generator; no other gives the same ones.
    return np.random.RandomState(file_seed(seed) if isinstance(seed, str) else seed)


def column_mask(
    kind: str,
    width: int,
    acceleration: float | Sequence[float],
    center_fraction: float | Sequence[float] | None = None,
    *,
    seed: Seed = 0,
    offset: int | None = None,
    acquired: tuple[int, int] | None = None,
) -> SamplingMask:
    """Whole columns (W,), kind one of COLUMN_KINDS.

    "random", "equispaced", "equispaced-fraction", "magic" and "magic-fraction" are the five of
    the fastMRI package (0.3), the same mask for the same seed; a seed may be a file's name.
    acceleration and center_fraction may be two lists of one length, of which fastMRI draws one
    pair; center_fraction defaults to 0.32 / acceleration (0.08 at 4, 0.04 at 8). "gaussian" draws
    exactly W / R columns, its centre included, with a normal density of std W / 4. offset: of
    the equispaced kinds, default drawn. acquired: (first, end) columns of partial or zero-padded
    k-space; the others are 0.
    """
    if kind not in COLUMN_KINDS:
        raise ValueError(f"kind must be one of {', '.join(COLUMN_KINDS)}; got {kind!r}")
    rng = random_state(seed)
    fraction, nominal = _chosen(acceleration, center_fraction, rng)
    center = round(width * fraction)
    if kind == "magic-fraction":
        center = max(min(center, round(width / nominal)), 1)
    if not 0 <= center <= width or nominal < 1:
        raise ValueError(
            f"acceleration must be >= 1 and center_fraction in [0, 1]; got {nominal}, {fraction}"
        )
    mask = COLUMN_KINDS[kind](rng, width, nominal, center, offset)
    first = (width - center + 1) // 2
    mask[first : first + center] = True
    if acquired is not None:
        if not 0 <= acquired[0] < acquired[1] <= width:
            raise ValueError(f"acquired columns must lie in 0 .. {width}; got {acquired}")
        mask[: acquired[0]] = False
        mask[acquired[1] :] = False
    return SamplingMask(torch.from_numpy(mask), float(nominal), center, kind)


def _chosen(
    acceleration: float | Sequence[float],
    center_fraction: float | Sequence[float] | None,
    rng: np.random.RandomState,
) -> tuple[float, float]:
    rates = list(acceleration) if isinstance(acceleration, Sequence) else [acceleration]
    if center_fraction is None:
        fractions = [0.32 / rate for rate in rates]
    else:
        many = isinstance(center_fraction, Sequence)
        fractions = list(center_fraction) if many else [center_fraction]
    if len(rates) != len(fractions) or not rates:
        raise ValueError(
            f"acceleration and center_fraction must be of one length; got {rates}, {fractions}"
        )
    choice = rng.randint(len(rates))
    return fractions[choice], rates[choice]


def _random(
    rng: np.random.RandomState, width: int, rate: float, center: int, offset: int | None
) -> np.ndarray:
    chance = (width / rate - center) / (width - center) if width > center else 1.0
    return rng.uniform(size=width) < chance


def _equispaced(
    rng: np.random.RandomState, width: int, rate: float, center: int, offset: int | None
) -> np.ndarray:
    if rate != int(rate):
        raise ValueError(f"equispaced columns need a whole acceleration; got {rate}")
    mask = np.zeros(width, bool)
    mask[rng.randint(0, high=round(rate)) if offset is None else offset :: int(rate)] = True
    return mask


def _equispaced_fraction(
    rng: np.random.RandomState, width: int, rate: float, center: int, offset: int | None
) -> np.ndarray:
    # The spacing grows so that centre and outer columns together are W / R.
    if center * rate >= width:
        raise ValueError(
            f"the {center} central columns alone exceed width / acceleration = {width / rate:.1f}"
        )
    spacing = rate * (center - width) / (center * rate - width)
    start = rng.randint(0, high=round(spacing)) if offset is None else offset
    mask = np.zeros(width, bool)
    mask[np.around(np.arange(start, width - 1, spacing)).astype(int)] = True
    return mask


def _magic(
    rng: np.random.RandomState, width: int, rate: float, center: int, offset: int | None
) -> np.ndarray:
    """Equispaced with an offset of the other half: the conjugates fill the gaps (Defazio 2019)."""
    if rate != int(rate):
        raise ValueError(f"magic columns need a whole acceleration; got {rate}")
    offset = rng.randint(0, high=int(rate)) if offset is None else offset
    above, below = (offset + 1, offset + 2) if offset % 2 == 0 else (offset + 2, offset - 1)
    positive, negative = np.zeros((width + 1) // 2, bool), np.zeros(width // 2, bool)
    positive[above :: int(rate)] = True
    negative[below :: int(rate)] = True
    return np.fft.fftshift(np.concatenate([positive, negative[::-1]]))


def _magic_fraction(
    rng: np.random.RandomState, width: int, rate: float, center: int, offset: int | None
) -> np.ndarray:
    outer = round(width / rate) - center
    if outer <= 0:
        return np.zeros(width, bool)
    return _magic(rng, width, round(width / outer), center, offset)


def _gaussian(
    rng: np.random.RandomState, width: int, rate: float, center: int, offset: int | None
) -> np.ndarray:
    mask = np.zeros(width, bool)
    first = (width - center + 1) // 2
    outer = np.delete(np.arange(width), np.s_[first : first + center])
    density = np.exp(-(((outer - width // 2) / (width / 4)) ** 2) / 2)
    count = min(max(round(width / rate) - center, 0), len(outer))
    if count:
        mask[rng.choice(outer, size=count, replace=False, p=density / density.sum())] = True
    return mask


COLUMN_KINDS: dict[str, Callable[..., np.ndarray]] = {
    "random": _random,
    "equispaced": _equispaced,
    "equispaced-fraction": _equispaced_fraction,
    "magic": _magic,
    "magic-fraction": _magic_fraction,
    "gaussian": _gaussian,
}


def grid_mask(
    kind: str,
    size: tuple[int, int],
    acceleration: float,
    center_fraction: float = 0.04,
    *,
    seed: Seed = 0,
) -> SamplingMask:
    """Entries (H, W), kind one of GRID_KINDS, with a central square of side center_fraction.

    "gaussian-2d": exactly H W / R entries drawn with normal density, std a quarter of the sides;
    "poisson-disc": variable density, no two samples closer than a distance that grows with |k|;
    "radial": golden-angle spokes on the grid; "spiral": interleaves of a variable-density spiral.
    The last three add samples until H W / R is reached as nearly as they can.
    """
    H, W = size
    if kind not in GRID_KINDS:
        raise ValueError(f"kind must be one of {', '.join(GRID_KINDS)}; got {kind!r}")
    if acceleration < 1 or not 0 <= center_fraction < 1:
        raise ValueError(
            f"acceleration must be >= 1 and center_fraction in [0, 1); got {acceleration}, "
            f"{center_fraction}"
        )
    rng, target = random_state(seed), round(H * W / acceleration)
    middle = np.zeros((H, W), bool)
    tall, wide = round(H * center_fraction), round(W * center_fraction)
    top, left = (H - tall + 1) // 2, (W - wide + 1) // 2
    middle[top : top + tall, left : left + wide] = True
    mask = GRID_KINDS[kind](rng, size, target, middle)
    return SamplingMask(torch.from_numpy(mask), float(acceleration), min(tall, wide), kind)


def _gaussian_2d(
    rng: np.random.RandomState, size: tuple[int, int], target: int, middle: np.ndarray
) -> np.ndarray:
    H, W = size
    row, column = np.ogrid[:H, :W]
    density = np.exp(-(((row - H // 2) / (H / 4)) ** 2 + ((column - W // 2) / (W / 4)) ** 2) / 2)
    outer = np.flatnonzero(~middle)
    count = min(max(target - int(middle.sum()), 0), len(outer))
    chance = density.ravel()[outer]
    mask = middle.copy()
    chosen = rng.choice(outer, size=count, replace=False, p=chance / chance.sum())
    mask.ravel()[chosen] = True
    return mask


GRID_KINDS: dict[str, Callable[..., np.ndarray]] = {
    "gaussian-2d": _gaussian_2d,
    "poisson-disc": poisson_disc,
    "radial": radial,
    "spiral": spiral,
}
