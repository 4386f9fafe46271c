"""From a scan as a file holds it to problems a slice at a time, and from samples to its images.

A scan recipe decides once for the volume (sampling pattern, crop, acceleration asked and
achieved), so that every slice can be worked on alone, in any order, by any process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inverse_score.errors import BadInput
from inverse_score.io.scan import Scan, center_crop
from inverse_score.prior import Prior
from operators.ct import Radon
from operators.linear import as_complex
from operators.mri.kspace import COLUMN_KINDS, GRID_KINDS, column_mask, grid_mask

from .calibration import central_box, crop_readout, sampled_centre
from .ct import ct
from .mri import mri
from .problem import Problem

DEFAULT = "equispaced-fraction"


class ScanRecipe:
    """What a volume needs beyond its data; subclasses are MRIScan, CTScan and CustomScan.

    acc, mask: the acceleration to undersample by, or the pattern, by name or as an array; seed:
    of the pattern; options go to the recipe of a slice. channels and shape (H, W): of the image
    that is solved for. mask: what of the file's data is used. asked, achieved: acceleration (1
    where everything is used). notes: what was decided and why, for people. references: name ->
    slice number -> image in the output's geometry. lines: (axis of y, lines never withheld) for
    the check of withheld lines, None where y has none.
    """

    kind, needs = "", ""
    channels = 1
    units, first_look = "", "zero-filled"
    mask: np.ndarray | None = None
    achieved = 1.0
    shape: tuple[int, int]

    def __init__(
        self,
        scan: Scan,
        *,
        acc: float | None = None,
        mask: str | np.ndarray | None = None,
        seed: int = 0,
        **options: Any,
    ):
        if scan.kind != self.kind:
            raise BadInput(f"{scan.name} holds {scan.kind} data; {self.needs}")
        self.scan, self.asked, self.options = scan, acc, options
        self.references: Mapping[str, Callable[[int], np.ndarray]] = scan.references
        self.notes: list[str] = []
        self.decide(mask, seed)

    def decide(self, mask: str | np.ndarray | None, seed: int) -> None:
        """Set shape, mask and achieved for the whole volume."""
        raise NotImplementedError

    @property
    def lines(self) -> tuple[int, Sequence[int]] | None:
        return None

    def problem(self, k: int, prior: Prior, device: torch.device) -> Problem:
        """Slice k as y = A u + n on this device."""
        raise NotImplementedError

    def picture(self, x: Tensor) -> Tensor:
        """Images (..., channels, H, W) as people see them: (..., h, w)."""
        raise NotImplementedError

    def raw(self, x: Tensor) -> Tensor:
        """Images (..., channels, H, W) as they are stored: complex or real (..., h, w)."""
        raise NotImplementedError


class MRIScan(ScanRecipe):
    """k-space, undersampled here (`acc` or a mask `kind`) or by the scanner.

    acc on an undersampled file must agree with the file; a fully sampled one without acc is
    reconstructed from all of its data. options: of recipes.mri (noise_std, maps, ...).
    """

    kind, needs = "kspace", "--operator mri needs k-space"
    channels = 2

    def decide(self, mask: str | np.ndarray | None, seed: int) -> None:
        scan, (H, W) = self.scan, self.scan.shape[-2:]
        self.shape = (H, W)
        encoded = self._encoded(W)
        self.mask = self._choose(mask, encoded, seed)
        self.achieved = float(H * W / np.broadcast_to(self.mask, (H, W)).sum())
        self.crop = scan.crop
        if self.mask.ndim == 1 and scan.crop is not None and scan.crop[0] < H:
            self.shape = (scan.crop[0], W)
            self.notes.append(f"readout oversampling removed: {H} to {scan.crop[0]} rows")

    @property
    def lines(self) -> tuple[int, Sequence[int]] | None:
        """Columns of k-space, but those of the calibration region, if there is one (of its central
        quarter of all, where nearly everything was measured)."""
        H, W = self.scan.shape[-2:]
        assert self.mask is not None
        mask = torch.from_numpy(np.broadcast_to(self.mask, (H, W)).copy())
        rows, columns = sampled_centre(mask) or (0, 0)
        box = central_box((H, W), (rows, min(columns, W // 4)))
        return -1, box.any(0).nonzero().flatten().tolist()

    def problem(self, k: int, prior: Prior, device: torch.device) -> Problem:
        kspace = torch.from_numpy(self.scan[k]) * torch.from_numpy(self.mask)
        dead = (kspace == 0).all(-1).all(-1)
        if bool(dead.any()):
            coils = "" if bool(dead.all()) else f", coil {int(dead.nonzero()[0])}"
            raise BadInput(f"{self.scan.name}, slice {k}{coils}: every k-space value is zero")
        kspace = crop_readout(kspace[None], self.shape[0]).to(device)
        options = dict(self.options)
        if self.scan.noise_std is not None:
            options.setdefault("noise_std", self.scan.noise_std)
        mask = torch.from_numpy(self.mask).to(device)
        return mri(prior, mask, **options).prepare(kspace)

    def raw(self, x: Tensor) -> Tensor:
        z = as_complex(x.reshape(-1, *x.shape[-3:])).reshape(*x.shape[:-3], *x.shape[-2:])
        return center_crop(z, self.crop) if self.crop is not None else z  # type: ignore[arg-type]

    def picture(self, x: Tensor) -> Tensor:
        return self.raw(x).abs()

    def _encoded(self, width: int) -> np.ndarray:
        """Columns that the scanner encoded, the others are zero-filled."""
        facts, encoded = self.scan.facts, np.zeros(width, bool)
        encoded[int(facts.get("padding_left", 0)) : int(facts.get("padding_right", width))] = True
        return encoded

    def _choose(self, wanted: str | np.ndarray | None, encoded: np.ndarray, seed: int):
        own, (H, W) = self.scan.mask, self.scan.shape[-2:]
        if own is not None and not bool((own == encoded).all()):
            self._compare(own)
            return self._keep(own, wanted)
        if isinstance(wanted, np.ndarray):
            kept = _fitting(wanted, self.scan) & encoded
            all_kept = bool((kept == encoded).all())
            self.notes.append("the given mask keeps everything: nothing is undersampled"
                              if all_kept else "undersampled here with the given mask")  # fmt: skip
            return kept
        if self.asked is None and wanted is None:
            self.notes.append("fully sampled, and no --acc: all of its data are used")
            return encoded
        if self.asked is None:
            raise BadInput(f"--mask {wanted} needs --acc, the acceleration")
        self.notes.append(f"undersampled here: {wanted or DEFAULT}, seed {seed}")
        return undersample(wanted or DEFAULT, (H, W), encoded, self.asked, seed)

    def _compare(self, own: np.ndarray) -> None:
        """Note what the middle slice measured outside the file's mask, which is left out."""
        try:
            energy = np.abs(self.scan[len(self.scan) // 2]) ** 2
        except BadInput:  # told where that slice is reconstructed
            return
        share = float((energy * ~own).sum() / max(float(energy.sum()), 1e-300))
        if share > 1e-6:
            self.notes.append(
                f"the file's mask disagrees with its k-space: {share:.1%} of the energy lies "
                "outside it and is left out"
            )

    def _keep(self, own: np.ndarray, wanted: str | np.ndarray | None) -> np.ndarray:
        if isinstance(wanted, np.ndarray):
            mask = _fitting(wanted, self.scan)
            if (np.broadcast_to(mask, np.broadcast_shapes(mask.shape, own.shape)) & ~own).any():
                raise BadInput(
                    f"{self.scan.name}: --mask asks for k-space that the file has not measured"
                )
            return mask
        if wanted is not None:
            raise BadInput(
                f"{self.scan.name} is undersampled already: --mask {wanted} cannot be applied"
            )
        told = self.scan.facts.get("acceleration")
        found = own.shape[-1] / own.sum() if own.ndim == 1 else own.size / own.sum()
        known = [float(found)] + ([float(told)] if told is not None else [])
        if self.asked is not None and all(abs(r / self.asked - 1) > 0.25 for r in known):
            raise BadInput(
                f"{self.scan.name} is undersampled already, by {found:.3g}: leave out --acc "
                f"{self.asked:g}"
            )
        self.asked = self.asked or (float(told) if told is not None else None)
        return own


def _fitting(mask: np.ndarray, scan: Scan) -> np.ndarray:
    H, W = scan.shape[-2:]
    if mask.shape not in {(W,), (H, W)}:
        raise BadInput(f"{scan.name}: the mask must be ({W},) or ({H}, {W}); got {mask.shape}")
    if not np.isin(mask, (0, 1)).all() or not mask.any():
        raise BadInput(f"{scan.name}: the mask must hold 0 and 1, and at least one 1")
    return mask.astype(bool)


def undersample(
    kind: str, shape: tuple[int, int], encoded: np.ndarray, acc: float, seed: int
) -> np.ndarray:
    """A pattern of operators.mri.kspace, (W,) or (H, W), within the encoded columns."""
    columns = np.flatnonzero(encoded)
    acquired = (int(columns[0]), int(columns[-1]) + 1)
    if kind in COLUMN_KINDS:
        made = column_mask(kind, shape[1], acc, seed=seed, acquired=acquired)
    elif kind in GRID_KINDS:
        made = grid_mask(kind, shape, acc, seed=seed)
    else:
        known = ", ".join([*COLUMN_KINDS, *GRID_KINDS])
        raise BadInput(f"--mask must be a file that exists or one of {known}; got {kind!r}")
    return made.mask.numpy() & encoded


class CTScan(ScanRecipe):
    """A sinogram; acc keeps every acc-th view. options: of recipes.ct (noise_std)."""

    kind, needs = "sinogram", "--operator ct needs a sinogram"
    units, first_look = "HU", "filtered back-projection"

    def decide(self, mask: str | np.ndarray | None, seed: int) -> None:
        scan = self.scan
        if isinstance(mask, str):
            raise BadInput(f"CT is thinned out by views: --acc N keeps every N-th; got {mask!r}")
        if "image_shape" not in scan.geometry:
            raise BadInput(
                f"{scan.name} does not say its geometry, as a sinogram HDF5 does: datasets "
                "`sinogram`, `angles` and `geometry` (JSON: type, detector_spacing_mm, pixel_mm, "
                "image_shape)"
            )
        self.shape = tuple(scan.geometry["image_shape"])  # type: ignore[assignment,arg-type]
        views = len(scan.angles)  # type: ignore[arg-type]
        self.mask = _views(mask, views, self.asked, scan.name)
        self.achieved = views / int(self.mask.sum())
        if self.achieved > 1:
            self.notes.append(f"{self.mask.sum()} of {views} views are used")
        self._radon: dict[str, Any] = {}

    @property
    def lines(self) -> tuple[int, Sequence[int]] | None:
        """Views, any of them."""
        return -2, ()

    def problem(self, k: int, prior: Prior, device: torch.device) -> Problem:
        geometry, kept = self.scan.geometry, torch.from_numpy(self.mask)
        sinogram = torch.from_numpy(self.scan[k])[kept][None, None].to(device)
        recipe = ct(
            prior,
            self.radon(),
            value=geometry["value"],
            I0=geometry.get("I0"),
            mu_water=geometry["mu_water_per_mm"],
            **self.options,
        )
        return recipe.prepare(sinogram)

    def radon(self) -> Any:
        """The projector of the views that are used; built once a process."""
        if "of these views" not in self._radon:
            geometry = self.scan.geometry
            angles = torch.from_numpy(self.scan.angles[self.mask])  # type: ignore[index]
            self._radon["of these views"] = Radon(
                self.shape,
                angles,
                self.scan.shape[-1],
                geometry["type"],
                pixel_size=geometry["pixel_mm"],
                detector_spacing=geometry["detector_spacing_mm"],
                detector_offset=float(geometry.get("center_offset", 0.0))
                * geometry["detector_spacing_mm"],
                source_distance=geometry.get("source_origin_mm"),
                detector_distance=geometry.get("origin_detector_mm"),
            )
        return self._radon["of these views"]

    def raw(self, x: Tensor) -> Tensor:
        return x[..., 0, :, :]

    picture = raw


def _views(mask: np.ndarray | None, views: int, acc: float | None, name: str) -> np.ndarray:
    if mask is not None:
        if mask.shape != (views,) or not np.isin(mask, (0, 1)).all() or not mask.any():
            raise BadInput(f"{name}: the mask must be ({views},), a 0 or 1 a view; {mask.shape}")
        return mask.astype(bool)
    step = 1 if acc is None else int(acc)
    if acc is not None and (step != acc or not 1 <= step <= views):
        raise BadInput(f"{name}: --acc must be a whole number up to {views} views; got {acc:g}")
    kept = np.zeros(views, bool)
    kept[::step] = True
    return kept
