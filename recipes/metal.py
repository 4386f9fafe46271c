"""Metal in CT: where it is, which rays met it, and what to put in their place.

Rays through metal are hardened, scattered and starved, so that no linear model holds for them.
Song, Shen, Xing & Ermon (2022) leave them out as if they had not been measured; the classical ways
write something into their place.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inverse_score.errors import BadInput
from operators.ct import WATER, Radon, from_hounsfield, to_hounsfield

# Tissue of a prior image for NMAR, in Hounsfield units (Meyer et al. 2010 segment likewise).
AIR, BONE = -500.0, 300.0
# More than this share of the rays through metal leaves no image to reconstruct.
MOST = 0.5


def metal_mask(image: Tensor, threshold: float) -> Tensor:
    """Where the image (B, 1, H, W) exceeds threshold (HU), grown by a pixel on every side."""
    found = (image > threshold).to(image.dtype)
    return torch.nn.functional.max_pool2d(found, 3, stride=1, padding=1) > 0


def metal_trace(radon: Radon, metal: Tensor) -> Tensor:
    """Rays (B, 1, angles, detectors), bool, that cross metal (B, 1, H, W) by half a pixel."""
    return radon(metal.to(torch.float32)) > 0.5 * radon.pixel_size


def kept_rays(radon: Radon, p: Tensor, metal: float | Tensor, mu_water: float = WATER):
    """(keep, mask): rays of p that met no metal, and the metal's pixels (B, 1, H, W).

    metal: a threshold in HU on the filtered back-projection, or the mask itself, (H, W) or
    (B, 1, H, W). Raises BadInput where no ray, or more than half, of some item are left out.
    """
    if isinstance(metal, Tensor):
        mask = (metal != 0).expand(len(p), *radon.in_shape)
    else:
        mask = metal_mask(to_hounsfield(radon.fbp(p), mu_water), float(metal))
    trace = metal_trace(radon, mask)
    share = trace.flatten(1).double().mean(1)
    if not bool(((share > 0) & (share < MOST)).all()):
        raise BadInput(
            f"metal {metal if not isinstance(metal, Tensor) else 'mask'} leaves out "
            f"{100 * float(share.min()):.0f} to {100 * float(share.max()):.0f} % of the rays: "
            "give a threshold in HU between bone and metal, or a mask"
        )
    return ~trace, mask


def interpolated(p: Tensor, trace: Tensor) -> Tensor:
    """Linear interpolation along the detector across the trace (Kalender et al. 1987)."""
    out = p.clone()
    place = np.arange(p.shape[-1])
    rows, bad = out.reshape(-1, p.shape[-1]), trace.expand(p.shape).reshape(-1, p.shape[-1])
    for row, gap in zip(rows, bad, strict=True):
        good = ~gap.numpy()
        if gap.any() and good.any():
            filled = np.interp(place[~good], place[good], row.numpy()[good])
            row[gap] = torch.from_numpy(filled).to(row)
    return out


def normalized(radon: Radon, p: Tensor, trace: Tensor, mu_water: float = WATER) -> Tensor:
    """NMAR-like (Meyer et al. 2010): p / p_0 interpolated across the trace, times p_0.

    p_0: line integrals of a prior image: the interpolated reconstruction with air set to air, soft
    tissue to water and bone as it is.
    """
    image = to_hounsfield(radon.fbp(interpolated(p, trace)), mu_water)
    tissue = torch.where(image < AIR, -1000.0, torch.where(image < BONE, 0.0, image))
    p0 = radon(from_hounsfield(tissue, mu_water))
    # Outside the body both are zero; a tenth of a millimetre of water keeps the ratio finite.
    floor = 0.1 * mu_water
    ratio = (p + floor) / (p0 + floor)
    return torch.where(trace, interpolated(ratio, trace) * (p0 + floor) - floor, p)
