"""Pictures of a run: loss over steps, error by noise level, a grid of samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..io.pictures import png, to_bytes
from ..io.runs.atomic import atomic_path

_COLOURS = ((31, 90, 160), (200, 80, 30), (60, 130, 60), (120, 120, 120), (130, 60, 150))
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 760, 440, 70, 46, 30, 20


@dataclass(frozen=True)
class Curve:
    """Points of positive coordinates where an axis is logarithmic."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False


def chart(
    curves: Sequence[Curve], x_label: str, y_label: str, *, log_x: bool = False, log_y: bool = True
) -> np.ndarray:
    """Curves in one frame with ticks and a legend, (H, W, 3) uint8."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    pen = ImageDraw.Draw(picture)
    xs = _Axis([v for c in curves for v in c.x], log_x, _LEFT, _WIDTH - _RIGHT)
    ys = _Axis([v for c in curves for v in c.y], log_y, _HEIGHT - _BOTTOM, _TOP)
    for value in xs.ticks():
        at = xs(value)
        pen.line([(at, _TOP), (at, _HEIGHT - _BOTTOM)], fill=(228, 228, 228))
        pen.text((at, _HEIGHT - _BOTTOM + 5), _number(value), fill="black", anchor="mt")
    for value in ys.ticks():
        at = ys(value)
        pen.line([(_LEFT, at), (_WIDTH - _RIGHT, at)], fill=(228, 228, 228))
        pen.text((_LEFT - 6, at), _number(value), fill="black", anchor="rm")
    pen.rectangle([_LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM], outline="black")
    pen.text(((_LEFT + _WIDTH) / 2, _HEIGHT - 6), x_label, fill="black", anchor="mb")
    pen.text((8, 8), y_label, fill="black")
    for number, curve in enumerate(curves):
        _draw(pen, curve, xs, ys, _COLOURS[number % len(_COLOURS)])
    _legend(pen, curves)
    return np.asarray(picture)


class _Axis:
    """Values to pixels between first and last, linear or logarithmic."""

    def __init__(self, values: Sequence[float], log: bool, first: float, last: float):
        finite = [v for v in values if math.isfinite(v) and (v > 0 or not log)] or [1.0]
        low, high = min(finite), max(finite)
        if log:
            low, high = math.log10(low), math.log10(high)
        gap = 0.03 * (high - low) or 0.5
        self.log, self.low, self.high = log, low - gap, high + gap
        self.first, self.last = first, last

    def __call__(self, value: float) -> float:
        value = math.log10(max(value, 1e-300)) if self.log else value
        return self.first + (value - self.low) / (self.high - self.low) * (self.last - self.first)

    def ticks(self) -> list[float]:
        if self.log and self.high - self.low > 1.2:
            step = math.ceil((self.high - self.low) / 8)
            powers = range(math.ceil(self.low), math.floor(self.high) + 1, step)
            return [10.0**power for power in powers]
        low, high = (10**self.low, 10**self.high) if self.log else (self.low, self.high)
        rough = (high - low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
        return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _number(value: float) -> str:
    return f"{value:.10g}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.0e}"


def _draw(pen: Any, curve: Curve, xs: _Axis, ys: _Axis, colour: tuple[int, int, int]) -> None:
    points = [
        (xs(x), ys(y))
        for x, y in zip(curve.x, curve.y, strict=True)
        if math.isfinite(y) and (y > 0 or not ys.log)
    ]
    for number, (a, b) in enumerate(pairwise(points)):
        if not curve.dashed or number % 2 == 0:
            pen.line([a, b], fill=colour, width=2)
    if len(points) <= 20 and not curve.dashed:
        for x, y in points:
            pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour)


def _legend(pen: Any, curves: Sequence[Curve]) -> None:
    right = _WIDTH - _RIGHT
    for number, curve in reversed(list(enumerate(curves))):
        right -= pen.textlength(curve.name)
        pen.text((right, 8), curve.name, fill=_COLOURS[number % len(_COLOURS)])
        right -= 16


def loss_chart(entries: Sequence[dict[str, Any]]) -> np.ndarray:
    """Training and held-out loss over steps, from a run's log."""
    training = [(e["step"], e["loss"]) for e in entries if "loss" in e]
    held_out = [(e["step"], e["held_out"]) for e in entries if "held_out" in e]
    curves = [
        Curve(name, [x for x, _ in points], [y for _, y in points])
        for name, points in (("training", training), ("held out (averaged weights)", held_out))
        if points
    ]
    positive = all(value > 0 for curve in curves for value in curve.y)
    return chart(curves, "step", "loss", log_y=positive)


def level_chart(entries: Sequence[dict[str, Any]], sigma_data: float) -> np.ndarray:
    """RMS error of x0_hat on held-out images by noise-to-signal: first, middle and last in the log.

    Dashed: the best that a linear denoiser does for white data of this variance,
    s r / sqrt(s^2 + r^2).
    """
    measured = [entry for entry in entries if "x0_error" in entry]
    chosen = {id(e): e for e in (measured[0], measured[len(measured) // 2], measured[-1])}
    curves = [Curve(f"step {e['step']}", e["ratio"], e["x0_error"]) for e in chosen.values()]
    low, high = measured[-1]["ratio"][0], measured[-1]["ratio"][-1]
    r = np.geomspace(low, high, 100)
    white = sigma_data * r / np.sqrt(sigma_data**2 + r**2)
    curves.append(Curve("white data", r.tolist(), white.tolist(), dashed=True))
    label = "root mean square error of x0_hat, held out, in the prior's units"
    return chart(curves, "noise-to-signal sigma / alpha", label, log_x=True)


def image_grid(images: Tensor, low: float, high: float, gap: int = 2) -> np.ndarray:
    """Images (B, C, H, W), C = 1 or 3, or 2 (shown as magnitude), tiled; uint8.

    low is black, high white.
    """
    if images.shape[1] == 2:
        images = images.square().sum(1, keepdim=True).sqrt()
    tiles = images.permute(0, 2, 3, 1).double().cpu().numpy()
    count, height, width, colours = tiles.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, colours)
    sheet = np.full(shape, high)
    for number, tile in enumerate(tiles):
        top, left = (gap + (size + gap) * k for size, k in
                     zip((height, width), divmod(number, columns), strict=True))  # fmt: skip
        sheet[top : top + height, left : left + width] = tile
    channels = [to_bytes(sheet[..., c], low, high) for c in range(colours)]
    return channels[0] if colours == 1 else np.stack(channels, axis=-1)


def write_png(path: Path, pixels: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(png(pixels))
