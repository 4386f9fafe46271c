"""Fully sampled k-space as the complex images that the MRI recipe will ask a prior for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inverse_score.io.scan import Scan, center_crop
from operators.fourier import ifft2c
from operators.mri.coils import low_resolution, unit_norm

from . import calibration

# Of the width: the calibration region that an undersampled scan at 4x leaves for the phase.
CENTRE = 0.08


@dataclass(frozen=True)
class MRITrainingImages:
    """Slice k as sum_c conj(S_c) F^-1 y_c / scale, (h, w) complex64, by the recipe's own rules.

    Maps and phase come from the central 8 % of columns alone, as they do when the scan is
    undersampled: with all of k-space the phase would vanish, and the prior would never see the
    remainder that it meets later. scale is `calibration.image_scale`, one a slice.
    """

    scan: Scan

    def __call__(self, k: int) -> np.ndarray:
        kspace = calibration.as_kspace(torch.from_numpy(self.scan[k]))
        image = complex_image(kspace)[0].numpy()
        return image if self.scan.crop is None else center_crop(image, self.scan.crop)


def complex_image(kspace: Tensor) -> Tensor:
    """(B, H, W) complex over its scale, from (B, coils, H, W) fully sampled k-space."""
    H, W = kspace.shape[-2:]
    low = low_resolution(kspace, (H, max(4, round(CENTRE * W))))
    maps = calibration.real_phase(unit_norm(low), low)
    image = (maps.conj() * ifft2c(kspace)).sum(1)
    return image / calibration.image_scale(image).reshape(-1, 1, 1)
