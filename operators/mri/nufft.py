"""Non-Cartesian MRI by the nonuniform FFT of pytorch-finufft (the extra `nufft`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..linear import LinearOperator, as_channels, as_complex
from .parameters import checked_maps


class NonCartesianMRI(LinearOperator):
    """y = F(k) S x: samples (B, coils, K) of the spectrum at frequencies k (K, 2).

    x: (B, 2, H, W). trajectory: (K, 2), frequencies along rows (H) and columns (W) in radians
    per pixel, within [-pi, pi). Scaled by 1 / sqrt(H W) so that on the Cartesian grid it equals
    the centred orthonormal transform. `accuracy`: of the NUFFT, default 1e-6 (float64: 1e-13);
    the adjoint holds to about that. An operator for Python: scan files and the command line are
    Cartesian. Needs `pip install inverse-score[nufft]`.
    """

    out_complex = True

    def __init__(
        self,
        trajectory: Tensor,
        image_shape: Sequence[int],
        sens_maps: Tensor | None = None,
        *,
        accuracy: float | None = None,
    ):
        try:
            import pytorch_finufft  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
        except ImportError as error:
            raise ImportError("NonCartesianMRI needs pip install inverse-score[nufft]") from error
        H, W = tuple(image_shape)[-2:]
        if trajectory.ndim != 2 or trajectory.shape[1] != 2:
            raise ValueError(f"trajectory must be (K, 2); got {tuple(trajectory.shape)}")
        if not bool((trajectory.abs() <= math.pi + 1e-6).all()):
            raise ValueError("trajectory must be finite, in radians per pixel within [-pi, pi]")
        self.sens_maps, batch, coils = checked_maps(sens_maps, H, W)
        super().__init__((2, H, W), (coils, len(trajectory)), batch)
        self._per_item = () if batch is None else ("sens_maps",)
        self.trajectory, self.accuracy = trajectory, accuracy

    def _options(self, like: Tensor) -> tuple[Tensor, dict[str, Any]]:
        points = self.trajectory.to(device=like.device, dtype=like.real.dtype).T.contiguous()
        double = like.real.dtype == torch.float64
        return points, {"eps": self.accuracy or (1e-13 if double else 1e-6)}

    def forward(self, x: Tensor) -> Tensor:
        import pytorch_finufft  # pyright: ignore[reportMissingImports]

        image = as_complex(x)[:, None]
        if self.sens_maps is not None:
            image = self.sens_maps.to(image) * image
        points, options = self._options(x)
        y = pytorch_finufft.functional.finufft_type2(
            points, image.contiguous(), isign=-1, modeord=0, **options
        )
        return y / math.sqrt(math.prod(self.in_shape[1:]))

    def adjoint(self, y: Tensor) -> Tensor:
        import pytorch_finufft  # pyright: ignore[reportMissingImports]

        points, options = self._options(y)
        image = pytorch_finufft.functional.finufft_type1(
            points, y.contiguous(), self.in_shape[1:], isign=1, modeord=0, **options
        )
        if self.sens_maps is not None:
            image = self.sens_maps.to(image).conj() * image
        return as_channels(image.sum(1) / math.sqrt(math.prod(self.in_shape[1:])))
