"""Cartesian MRI, single- and multi-coil: from k-space to samples of the image, in its own units.

kspace = M F S x + n. The recipe finds what is not given: the mask (what is not zero), the noise
(border of k-space, or a noise scan), the coil maps (from all of the undersampled data, with or
without a calibration region) with a phase that makes the image nearly real, and one scale, which
is reported.
"""

from __future__ import annotations

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
from operators.linear import as_complex
from operators.mri import CartesianMRI
from operators.mri.coils import espirit, low_resolution, unit_norm

from . import calibration
from .coil_maps import fitted_maps, schedule
from .problem import Problem

MAPS = ("auto", "fitted", "espirit", "low-resolution", "refine")


def mri(
    prior: Prior | str | Path,
    mask: Tensor | None = None,
    sens_maps: Tensor | None = None,
    *,
    noise_std: float | None = None,
    noise_scan: Tensor | None = None,
    maps: str = "auto",
    scale: float | None = None,
    **options: Any,
) -> MRI:
    """A recipe to call with k-space: recipes.mri(prior, mask)(kspace, num_samples=8, seed=0).

    prior: of complex images (2 channels, real and imaginary), a Prior, a path or a shipped name.
    mask: (W,) or (H, W) of 0 and 1; None takes the columns of kspace that are not zero.
    sens_maps: (coils, H, W) complex, taken as given, or begun with where maps is "refine"; None
    estimates them as `maps` says: "fitted" ("auto") to all lines (`coil_maps.fitted_maps`),
    "espirit" or "low-resolution" from the calibration region. noise_std: per real and imaginary
    part, in units of kspace, the same in every coil; noise_scan: (coils, N) samples of noise to
    whiten the coils with; None of both takes each coil's from the border of k-space or from air
    beside the object (`calibration.noise_std`).
    scale: image units of the prior's 1; None takes the 99 % quantile of a quick reconstruction
    in blocks (`calibration.image_scale`).
    options go to `inverse_score.solve`.
    """
    prior = load_prior(prior)
    if prior.channels not in (None, 2):
        raise BadPrior(
            f"MRI needs a prior of complex images, 2 channels; this one has {prior.channels}"
        )
    if maps not in MAPS:
        raise ValueError(f"maps must be one of {', '.join(MAPS)}; got {maps!r}")
    if maps == "refine" and sens_maps is None:
        raise ValueError('maps="refine" needs sens_maps to begin with')
    if noise_std is not None and noise_scan is not None:
        raise ValueError("give noise_std or noise_scan, not both")
    return MRI(prior, mask, sens_maps, noise_std, noise_scan, maps, scale, options)


@dataclass(frozen=True)
class MRI:
    """A prior and what is known of a scan; see `mri`."""

    prior: Prior
    mask: Tensor | None = None
    sens_maps: Tensor | None = None
    noise_std: float | None = None
    noise_scan: Tensor | None = None
    maps: str = "auto"
    scale: float | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self,
        kspace: Tensor,
        num_samples: int | None = None,
        seed: int = 0,
        items: Sequence[int] | None = None,
        **options: Any,
    ) -> Reconstruction:
        """Samples (num_samples, B, 2, H, W) of the image, in the units of |ifft2c(kspace)|.

        num_samples: default 8, and 1 of a method with one answer.

        kspace: (coils, H, W) or (B, coils, H, W) complex, centred, zero where not measured.
        """
        options = {**self.options, **options}
        return self.prepare(kspace).solve(
            self.prior, num_samples=num_samples, seed=seed, items=items, **options
        )

    def prepare(self, kspace: Tensor) -> Problem:
        """Noise, maps and scale of this k-space, and the problem in the prior's units.

        c times kspace gives |c| times scale, noise and image, and the rest as it was.
        """
        kspace = calibration.as_kspace(kspace)
        mask = calibration.full_mask(self.mask, kspace)
        kspace = kspace * mask
        if not bool((kspace != 0).flatten(1).any(1).all()):
            raise BadInput("kspace is zero wherever the mask is 1: there is nothing to reconstruct")
        region = self._region(kspace, mask)
        weight, noise_std = self._whitening(kspace, mask)
        maps, facts = self._coil_maps(kspace, mask, region, weight, noise_std)
        A = CartesianMRI(mask, maps)
        first_look = A.T(kspace)
        if self.scale is None:
            # A quick SENSE reconstruction: sum |sens_maps|^2 = 1, so rho is one hundredth of A^T A.
            quick = A.solve_normal(first_look, 0.01, max_iter=15)
            scale = calibration.image_scale(as_complex(quick))
        else:
            scale = torch.full((len(kspace),), float(self.scale))
        white, white_maps = _mixed(weight, kspace), _mixed(weight, maps)
        facts |= {
            "scale": [float(s) for s in scale],
            "noise_std": [float(s) for s in noise_std],
            "acceleration_achieved": mask.numel() / int(mask.sum()),
        }
        return Problem(
            # One item's operator serves every sample of it; several carry a set of maps each.
            CartesianMRI(mask, white_maps[0] if len(white_maps) == 1 else white_maps),
            white / scale.to(white.real).reshape(-1, 1, 1, 1),
            noise_std / scale,
            scale,
            first_look,
            facts,
        )

    def _coil_maps(
        self,
        kspace: Tensor,
        mask: Tensor,
        region: tuple[int, int] | None,
        weight: Tensor | None,
        noise_std: Tensor,
    ) -> tuple[Tensor, dict[str, Any]]:
        """(coil maps with the image's phase, how they came about)."""
        kind = self._kind(kspace)
        facts = {"maps": kind} if region is None else {"calibration": list(region), "maps": kind}
        # The image's phase alone is asked of it where there is none: aliased data must do.
        low = low_resolution(kspace, region or (mask.shape[0], mask.shape[1]))
        if kind in ("fitted", "refined"):
            start = None
            if kind == "refined":
                start = _mixed(weight, calibration.real_phase(self._given_maps(kspace), low))
            maps = self._fitted_maps(kspace, mask, weight, noise_std, start)
            return maps, {**facts, "maps_rounds": schedule(mask).rounds}
        if kind == "given":
            maps = self._given_maps(kspace)
        elif kind == "espirit":
            box = calibration.central_box(mask.shape, region).to(mask.device)  # type: ignore[arg-type]
            # Maps for every pixel: a threshold would cut the body's rim.
            maps = torch.stack([espirit(k, box, crop=0.0) for k in kspace])
        else:
            maps = unit_norm(low)
        return calibration.real_phase(maps, low), facts

    def _fitted_maps(self, kspace: Tensor, mask: Tensor, weight: Tensor | None,
                     noise_std: Tensor, start: Tensor | None) -> Tensor:  # fmt: skip
        """`coil_maps.fitted_maps` of white coils, as maps of the coils as they are."""
        white = fitted_maps(_mixed(weight, kspace), mask, noise_std, start)
        if weight is None:
            return white
        back = torch.linalg.inv(weight) if weight.ndim == 2 else 1 / weight
        return torch.stack([unit_norm(maps) for maps in _mixed(back, white)])

    def _kind(self, kspace: Tensor) -> str:
        if self.sens_maps is not None:
            return "refined" if self.maps == "refine" else "given"
        if kspace.shape[1] == 1:
            return "low-resolution"
        return "fitted" if self.maps == "auto" else self.maps

    def _region(self, kspace: Tensor, mask: Tensor) -> tuple[int, int] | None:
        """The calibration region; BadInput where there is none and the maps need one."""
        kind = self._kind(kspace)
        periodic = kspace.shape[1] > 1 and kind in ("espirit", "low-resolution")
        if periodic or (kind != "given" and min(mask.shape) < calibration.LEAST_LINES):
            return calibration.calibration_lines(mask)
        return calibration.sampled_centre(mask)

    def _given_maps(self, kspace: Tensor) -> Tensor:
        maps = torch.as_tensor(self.sens_maps)
        maps = maps[None] if maps.ndim == 3 else maps
        if tuple(maps.shape[1:]) != tuple(kspace.shape[1:]) or len(maps) not in (1, len(kspace)):
            raise BadInput(
                f"sens_maps must be (coils, H, W) as kspace; got sens_maps "
                f"{tuple(self.sens_maps.shape)}, kspace {tuple(kspace.shape[1:])}"  # type: ignore[union-attr]
            )
        return maps.to(kspace)

    def _whitening(self, kspace: Tensor, mask: Tensor) -> tuple[Tensor | None, Tensor]:
        """(weight, noise_std (B,)): coils scaled, (B, coils, 1, 1), or mixed, (coils, coils), to
        one noise level an item; None where they have one."""
        if self.noise_scan is not None:
            mix = calibration.whitening(kspace, self.noise_scan.to(kspace))
            return mix, torch.ones(len(kspace))
        if self.noise_std is not None:
            return None, torch.full((len(kspace),), float(self.noise_std))
        per_coil = calibration.noise_std(kspace, mask)
        noise_std = per_coil.square().mean(1).sqrt()
        return (noise_std[:, None] / per_coil)[..., None, None], noise_std


def _mixed(weight: Tensor | None, coils: Tensor) -> Tensor:
    """weight times coils (B, coils, H, W)."""
    if weight is None:
        return coils
    if weight.ndim == 2:
        return torch.einsum("ij,bjhw->bihw", weight, coils)
    return coils * weight
