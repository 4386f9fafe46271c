"""Image quality as the fastMRI challenge defines it, by volume and by slice.

Nothing here guesses a data range: PSNR and SSIM change by several dB with it (the slice's maximum
against the volume's: 27.0 against 32.3 dB for one and the same U-Net), so it is an argument.
Arrays are real magnitudes (slices, H, W), or (H, W) for one slice, numpy or torch, on any scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

Array = np.ndarray | Tensor


def nmse(target: Array, prediction: Array) -> float:
    """|target - prediction|^2 / |target|^2 over the whole volume (fastMRI evaluate.py)."""
    target, prediction = _pair(target, prediction)
    power = float((target**2).sum())
    if power == 0:
        raise ValueError("nmse divides by |target|^2, and the target is zero everywhere")
    return float(((target - prediction) ** 2).sum()) / power


def psnr(target: Array, prediction: Array, *, data_range: float) -> float:
    """10 log10(data_range^2 / mean squared error) in dB over the whole array."""
    target, prediction = _pair(target, prediction)
    _check_range(data_range)
    mse = float(((target - prediction) ** 2).mean())
    return float("inf") if mse == 0 else 10 * float(np.log10(data_range**2 / mse))


def ssim(target: Array, prediction: Array, *, data_range: float) -> float:
    """Structural similarity (Wang et al. 2004), the mean over slices.

    As fastMRI: 7x7 uniform window, K = (0.01, 0.03), sample covariance, borders cropped.
    """
    from skimage.metrics import structural_similarity

    target, prediction = _pair(target, prediction)
    _check_range(data_range)
    if min(target.shape[-2:]) < 7:
        raise ValueError(f"ssim's window is 7x7; got slices of {target.shape[-2:]}")
    return float(
        np.mean(
            [
                structural_similarity(a, b, data_range=float(data_range))
                for a, b in zip(_slices(target), _slices(prediction), strict=True)
            ]
        )
    )


def volume_scores(target: Array, prediction: Array) -> dict[str, float]:
    """The fastMRI numbers of one volume: NMSE, and PSNR and SSIM with the target volume's maximum.

    The fastMRI table is the mean of these over volumes.
    """
    target, prediction = _pair(target, prediction)
    peak = float(target.max())
    return {
        "nmse": nmse(target, prediction),
        "psnr": psnr(target, prediction, data_range=peak),
        "ssim": ssim(target, prediction, data_range=peak),
        "data_range": peak,
    }


def slice_scores(
    target: Array, prediction: Array, *, data_range: float | str
) -> list[dict[str, float]]:
    """The same three numbers slice by slice.

    data_range: a number, "volume" (the maximum of the target volume) or "slice" (each target
    slice's own maximum). Not comparable with `volume_scores`; say which one a table holds.
    """
    target, prediction = _pair(target, prediction)
    if isinstance(data_range, str) and data_range not in ("volume", "slice"):
        raise ValueError(f'data_range is a number, "volume" or "slice"; got {data_range!r}')
    scores = []
    for a, b in zip(_slices(target), _slices(prediction), strict=True):
        peak = {"volume": target.max(), "slice": a.max()}.get(str(data_range), data_range)
        scores.append(
            {
                "nmse": nmse(a, b),
                "psnr": psnr(a, b, data_range=float(peak)),
                "ssim": ssim(a, b, data_range=float(peak)),
                "data_range": float(peak),
            }
        )
    return scores


def _pair(target: Array, prediction: Array) -> tuple[np.ndarray, np.ndarray]:
    arrays = [_as_float64(target, "target"), _as_float64(prediction, "prediction")]
    if arrays[0].shape != arrays[1].shape or arrays[0].ndim not in (2, 3):
        raise ValueError(
            "target and prediction must both be (slices, H, W) or (H, W); got "
            f"{arrays[0].shape} and {arrays[1].shape}"
        )
    return arrays[0], arrays[1]


def _as_float64(image: Any, name: str) -> np.ndarray:
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if np.iscomplexobj(array):
        raise ValueError(f"{name} is complex; metrics compare magnitudes, so pass its absolute")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} has a non-finite value, first at {where}")
    return array


def _slices(volume: np.ndarray) -> np.ndarray:
    return volume if volume.ndim == 3 else volume[None]


def _check_range(data_range: float) -> None:
    if not (np.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range must be positive and finite; got {data_range}")
