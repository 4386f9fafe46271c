"""The operators of the benchmark definitions, with each paper's own mask rule."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import operators.mri.kspace
from inverse_score.errors import BadInput

from .sources import Item


def forward_operator(spec: dict[str, Any], item: Item, x: Tensor, seed: int) -> Any:
    """The operator of a case for an item x (C, H, W); masks are drawn from (seed, item)."""
    spec = dict(spec)
    name = spec.pop("name", None)
    if name not in _OPERATORS:
        raise BadInput(f"operator must be one of {', '.join(_OPERATORS)}; got {name!r}")
    return _OPERATORS[name](x, item, seed, **spec)


def _mri(x: Tensor, item: Item, seed: int, **mask: Any) -> Any:
    size = (x.shape[-2], x.shape[-1])
    columns = paper_columns(size, seed=seed, **mask)
    if x.shape[0] == 1:
        return RealMRI(columns, size)
    return operators.CartesianMRI(columns, item.maps(), image_shape=size)


class RealMRI(operators.LinearOperator):
    """k-space of a real magnitude image: y = mask F x, x (B, 1, H, W), y complex (B, 1, H, W).

    The image is real, so A^T keeps the real part alone (Song et al. 2022 work on such images).
    """

    out_complex = True

    def __init__(self, mask: Tensor, size: tuple[int, int]):
        self._complex = operators.CartesianMRI(mask, image_shape=size)
        super().__init__((1, *size), self._complex.out_shape)
        self.mask = self._complex.mask

    @property
    def num_measured(self) -> int | Tensor:
        return self._complex.num_measured

    def forward(self, x: Tensor) -> Tensor:
        return self._complex.forward(torch.cat([x, torch.zeros_like(x)], dim=1))

    def adjoint(self, y: Tensor) -> Tensor:
        return self._complex.adjoint(y)[:, :1]


def _radon(x: Tensor, item: Item, seed: int, *, views: int, range: float) -> Any:
    """`views` equispaced angles over [0, range) degrees; detectors cover the diagonal."""
    angles = torch.arange(views, dtype=torch.float64) * math.radians(range) / views
    side = max(x.shape[-2:])
    detectors = math.ceil(math.sqrt(2) * side)
    return operators.Radon(side, angles, detectors)


def _inpaint(x: Tensor, item: Item, seed: int, *, mask: str, **where: Any) -> Any:
    height, width = x.shape[-2:]
    if mask == "half":
        keep = operators.half_mask(height, width, **where)
    elif mask == "box":
        size = where["size"]
        top, left = (height - size) // 2, (width - size) // 2
        keep = operators.box_mask(height, width, (top, left, top + size, left + size))
    else:
        raise BadInput(f"an inpainting mask is half or box; got {mask!r}")
    return operators.Mask(keep, image_shape=tuple(x.shape))


def _colorize(x: Tensor, item: Item, seed: int, *, weights: str) -> Any:
    if weights != "mean":
        raise BadInput(f"weights must be mean; got {weights!r}")
    return operators.Grayscale(tuple(x.shape))


_OPERATORS: dict[str, Callable[..., Any]] = {
    "mri": _mri,
    "radon": _radon,
    "inpaint": _inpaint,
    "colorize": _colorize,
}


def paper_columns(size: tuple[int, int], *, mask: str, seed: int, **rule: Any) -> Tensor:
    """A sampling mask (W,) or (H, W) by one of the field's rules; see `MASKS`."""
    if mask not in MASKS:
        raise BadInput(f"mask must be one of {', '.join(MASKS)}; got {mask!r}")
    return MASKS[mask](size, seed, **rule)


def song2022_mask(size: tuple[int, int], seed: int, *, lines: int) -> Tensor:
    """Song et al. 2022: equispaced columns of fixed offset; lines / 1000 of them in the centre.

    Of 240 columns, lines = 60 keeps 60, 30 keeps 31 (7.74x, called 8x) and 10 keeps 10.
    """
    width = size[1]
    acceleration, centre = width / lines, round(width * lines / 1000)
    adjusted = acceleration * (centre - width) / (centre * acceleration - width)
    columns = np.around(np.arange(round(adjusted) // 2, width - 1, adjusted)).astype(int)
    return _columns(width, columns, centre)


def lines_mask(
    size: tuple[int, int], seed: int, *, acc: int, center: float = 0.08, kind: str = "random"
) -> Tensor:
    """Jalal et al. 2021, InverseBench: floor(W / acc) columns with the calibration lines.

    "random" draws the outer columns without replacement, so the count is exact; "equispaced"
    takes every acc-th outer column and adds the centre, so that nominal 4x is about 3.2x.
    """
    width = size[1]
    centre = round(width * center)
    start = (width - centre + 1) // 2
    outer = np.array([c for c in range(width) if not start <= c < start + centre])
    if kind == "equispaced":
        return _columns(width, outer[:: int(acc)], centre)
    if width // acc < centre:
        raise BadInput(f"{centre} calibration lines exceed the {width // acc} lines of {acc}x")
    rng = np.random.Generator(np.random.Philox(seed))
    return _columns(width, rng.choice(outer, width // acc - centre, replace=False), centre)


def _from_operators(kind: str) -> Callable[..., Tensor]:
    """fastMRI's and the other rules of operators.mri.kspace, by their names there."""

    def rule(size: tuple[int, int], seed: int, *, acc: float, center: float = 0.08) -> Tensor:
        if kind in operators.mri.kspace.COLUMN_KINDS:
            return operators.column_mask(kind, size[1], acc, center, seed=seed).mask.float()
        return operators.grid_mask(kind, size, acc, center, seed=seed).mask.float()

    return rule


MASKS: dict[str, Callable[..., Tensor]] = {
    "song2022": song2022_mask,
    "lines-random": lines_mask,
    "lines-equispaced": functools.partial(lines_mask, kind="equispaced"),
    **{
        kind: _from_operators(kind)
        for kind in (*operators.mri.kspace.COLUMN_KINDS, *operators.mri.kspace.GRID_KINDS)
    },
}


def _columns(width: int, columns: np.ndarray, centre: int) -> Tensor:
    mask = torch.zeros(width)
    mask[torch.as_tensor(columns)] = 1
    start = (width - centre + 1) // 2
    mask[start : start + centre] = 1
    return mask
