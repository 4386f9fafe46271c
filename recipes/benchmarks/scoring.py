"""Scores of one image under a definition's metric: data range, clipping, region, all explicit."""

from __future__ import annotations

import numpy as np

from inverse_score.metrics import nmse, psnr, ssim

from .definition import Metric

# The window of Hounsfield units that "hu" scores in: air to dense bone.
HU_RANGE = 2000.0


def scores(
    metric: Metric, target: np.ndarray, prediction: np.ndarray, inside: np.ndarray | None = None
) -> dict[str, float]:
    """The metric's numbers for one volume or image, target and prediction (slices, H, W).

    inside: the body mask of region "body", which adds "psnr body" and "psnr outside"; PSNR of a
    region is over its pixels alone, with the whole image's data range.
    """
    peak = data_range(metric, target)
    if metric.clip:
        prediction = prediction.clip(0.0, peak)
    if metric.region == "circle":
        target, prediction = (_circle(image) for image in (target, prediction))
    functions = {
        "psnr": lambda: psnr(target, prediction, data_range=peak),
        "ssim": lambda: ssim(target, prediction, data_range=peak),
        "nmse": lambda: nmse(target, prediction),
    }
    result = {name: functions[name]() for name in metric.names}
    if metric.region == "body" and inside is not None:
        result["psnr body"] = psnr(target[inside][None], prediction[inside][None], data_range=peak)
        outside = ~inside
        if outside.any():
            result["psnr outside"] = psnr(
                target[outside][None], prediction[outside][None], data_range=peak
            )
    return {name: float(value) for name, value in result.items()}


def data_range(metric: Metric, target: np.ndarray) -> float:
    """The peak of PSNR and SSIM; for one image the slice's and the volume's maximum agree."""
    if metric.data_range == "one":
        return 1.0
    return HU_RANGE if metric.data_range == "hu" else float(target.max())


def body_mask(target: np.ndarray, threshold: float) -> np.ndarray:
    """Pixels of the body: above threshold, holes filled, the largest piece of each slice."""
    from scipy.ndimage import binary_fill_holes, binary_opening, label

    mask = np.zeros(target.shape, dtype=bool)
    for k, image in enumerate(target):
        solid = binary_fill_holes(binary_opening(image > threshold, np.ones((5, 5))))
        pieces, count = label(solid)  # pyright: ignore[reportGeneralTypeIssues]
        if count:
            sizes = np.bincount(pieces.ravel())[1:]
            mask[k] = pieces == 1 + int(sizes.argmax())
    return mask


def _circle(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[-2:]
    rows, columns = np.ogrid[:height, :width]
    radius = min(height, width) / 2
    inside = (rows - (height - 1) / 2) ** 2 + (columns - (width - 1) / 2) ** 2 <= radius**2
    return image * inside
