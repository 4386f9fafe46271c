"""CT from sinograms: line integrals, transmission or counts in, Hounsfield units out.

A ray's line integral is p = int mu, mu = mu_water (1 + HU / 1000). So with x in HU
p = a R x + a R 1000, a = mu_water / 1000: one linear operator and an offset that is projected
through it. The mapping is fixed; nothing looks at the data to choose a scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inverse_score.errors import BadInput, BadPrior
from inverse_score.io.priors import load_prior
from inverse_score.prior import Prior
from inverse_score.solver import Reconstruction
from operators.ct import WATER, Radon, to_hounsfield
from operators.observed import Observed

from .metal import interpolated, kept_rays
from .problem import Problem

VALUES = ("line_integral", "transmission", "counts")


def ct(
    prior: Prior | str | Path,
    radon: Radon,
    *,
    value: str = "line_integral",
    I0: float | None = None,
    mu_water: float = WATER,
    noise_std: float | Tensor | None = None,
    metal: float | Tensor | None = None,
    **options: Any,
) -> CT:
    """A recipe to call with a sinogram: recipes.ct(prior, Radon(...))(sinogram, num_samples=8).

    prior: of CT images in HU (1 channel), a Prior, a path or a shipped name. radon: in mm, so that
    its values times mu_water (per mm) have no unit. value: what the sinogram holds; counts need
    I0, the counts of a ray that meets nothing, and weigh each ray by what reached it. noise_std:
    of the line integrals, a number or one a ray; None is 1 / sqrt(counts) for counts, else
    estimated from the sinogram. metal: a threshold in HU on the filtered back-projection (Song et
    al. 2022: 3300), or its mask (H, W): rays through it are left out as if not measured, and the
    image there is the prior's. options go to `inverse_score.solve`.
    """
    prior = load_prior(prior)
    if prior.channels not in (None, 1):
        raise BadPrior(f"CT needs a prior of 1 channel; this one has {prior.channels}")
    if value not in VALUES:
        raise ValueError(f"value must be one of {', '.join(VALUES)}; got {value!r}")
    if value == "counts" and not (I0 is not None and math.isfinite(I0) and I0 > 0):
        raise ValueError(f"counts need I0 > 0, the counts without an object; got {I0}")
    if not (math.isfinite(mu_water) and mu_water > 0):
        raise ValueError(f"mu_water must be positive, per mm; got {mu_water}")
    if metal is not None and not isinstance(metal, Tensor) and not math.isfinite(metal):
        raise ValueError(f"metal must be a finite threshold in HU or a mask; got {metal}")
    return CT(prior, radon, value, I0, mu_water, noise_std, metal, options)


@dataclass(frozen=True)
class CT:
    """A prior and a scanner; see `ct`."""

    prior: Prior
    radon: Radon
    value: str = "line_integral"
    I0: float | None = None
    mu_water: float = WATER
    noise_std: float | Tensor | None = None
    metal: float | Tensor | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self,
        sinogram: Tensor,
        num_samples: int | None = None,
        seed: int = 0,
        items: Sequence[int] | None = None,
        **options: Any,
    ) -> Reconstruction:
        """Samples (num_samples, B, 1, H, W) in HU of sinogram (B, 1, angles, detectors).

        num_samples: default 8, and 1 of a method with one answer.
        """
        options = {**self.options, **options}
        return self.prepare(sinogram).solve(
            self.prior, num_samples=num_samples, seed=seed, items=items, **options
        )

    def prepare(self, sinogram: Tensor) -> Problem:
        """The problem p - a R 1000 = (a R) HU + n, and the filtered back-projection in HU.

        With metal: of the rays that met none, and after linear interpolation across the others.
        """
        sinogram = self._checked(sinogram)
        p, noise_std = self._line_integrals(sinogram)
        A = (self.mu_water / 1000) * self.radon
        water = torch.full((1, *self.radon.in_shape), 1000.0, dtype=p.dtype, device=p.device)
        # FBP before the offset is taken away: the square of air outside the object has none.
        facts = {"noise_std": float(torch.as_tensor(noise_std).float().median()), "scale": 1.0}
        y = p - A(water)
        if self.metal is not None:
            keep, mask = kept_rays(self.radon, p, self.metal, self.mu_water)
            A, y, p = Observed(A, keep), torch.where(keep, y, 0.0), interpolated(p, ~keep)
            facts |= {"rays_kept": float(keep.float().mean()), "metal_pixels": int(mask.sum())}
        fbp = to_hounsfield(self.radon.fbp(p), self.mu_water)
        return Problem(A, y, noise_std, torch.ones(len(p)), fbp, facts)

    def _checked(self, sinogram: Tensor) -> Tensor:
        sinogram = torch.as_tensor(sinogram)
        sinogram = sinogram.to(torch.promote_types(sinogram.dtype, torch.float32))
        while sinogram.ndim < 4:
            sinogram = sinogram[None]
        if tuple(sinogram.shape[1:]) != tuple(self.radon.out_shape):
            raise BadInput(
                f"sinogram must be (B, {', '.join(map(str, self.radon.out_shape))}); "
                f"got {tuple(sinogram.shape)}"
            )
        if not bool(sinogram.isfinite().all()):
            raise BadInput("sinogram holds NaN or infinite values")
        return sinogram

    def _line_integrals(self, sinogram: Tensor) -> tuple[Tensor, float | Tensor]:
        """(p, noise_std): p = -ln(I / I0), whose variance is 1 / I for Poisson counts I."""
        if self.value == "line_integral":
            p = sinogram
        else:
            if bool((sinogram < 0).any()):
                raise BadInput(f"{self.value} must not be negative; got {float(sinogram.min())}")
            I0 = self.I0 or 1.0
            # A ray that lost every photon says "at least this much": half a count stands for it.
            floor = 0.5 if self.value == "counts" else 1e-6
            intensity = sinogram.clamp(min=floor)
            p = -(intensity / I0).log()
        if self.noise_std is not None:
            return p, self.noise_std
        if self.value == "counts":
            return p, intensity.rsqrt()
        return p, sinogram_noise_std(p)


def sinogram_noise_std(p: Tensor) -> Tensor:
    """Noise std (B,) of p (B, 1, angles, detectors) from second differences along the detector.

    d = p_k-1 - 2 p_k + p_k+1 has variance 6 s^2; its median absolute value is 0.6745 sqrt(6) s
    and shrugs off the edges of the object. Fine structure counts as noise, so that noise-free
    data are trusted less than they could be.
    """
    d = p[..., :-2] - 2 * p[..., 1:-1] + p[..., 2:]
    median = d.flatten(1).abs().median(dim=1).values
    scale = p.flatten(1).abs().amax(1)
    if not bool((scale > 0).all()):
        raise BadInput("sinogram is zero everywhere")
    # Rounding to float32 is the least noise there is.
    return (median / (0.6745 * math.sqrt(6))).clamp(min=1e-6 * float(scale.max()))
