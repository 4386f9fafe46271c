"""Masks and coil maps as the operators of MRI take them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def rows_columns(mask: Tensor) -> tuple[int, int]:
    return (1, mask.shape[0]) if mask.ndim == 1 else (mask.shape[0], mask.shape[1])


def image_size(
    mask: Tensor, maps: Tensor | None, image_shape: Sequence[int] | None
) -> tuple[int, int]:
    if image_shape is not None:
        shape = tuple(int(n) for n in image_shape)
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != 2):
            raise ValueError(f"image_shape must be (H, W) or (2, H, W); got {shape}")
        return shape[-2], shape[-1]
    if maps is not None and maps.ndim in (3, 4):
        return maps.shape[-2], maps.shape[-1]
    if mask.ndim < 2:
        raise ValueError("a mask (W,) without sens_maps needs image_shape=(H, W)")
    return mask.shape[-2], mask.shape[-1]


def checked_kspace_mask(mask: Tensor, H: int, W: int) -> tuple[Tensor, int | None]:
    shape = tuple(mask.shape)
    if shape == (1, W) and H != 1:
        mask, shape = mask[0], (W,)
    if shape not in ((W,), (H, W)) and not (mask.ndim == 3 and shape[1:] in ((H, W), (1, W))):
        raise ValueError(f"mask must be (W,), (H, W) or (B, H, W) with ({H}, {W}); got {shape}")
    if shape == (H, W) and bool((mask == mask[:1]).all()):
        mask = mask[0]  # whole columns, which take less work
    if mask.ndim < 3:
        return mask, None
    if not bool(mask.flatten(1).any(1).all()):
        raise ValueError("mask is empty for some item: it measures nothing")
    return mask.expand(-1, H, W), mask.shape[0]


def checked_maps(maps: Tensor | None, H: int, W: int) -> tuple[Tensor | None, int | None, int]:
    if maps is None:
        return None, None, 1
    if maps.ndim not in (3, 4) or tuple(maps.shape[-2:]) != (H, W):
        raise ValueError(
            f"sens_maps must be (coils, H, W) or (B, coils, H, W) with mask's ({H}, {W}); got "
            f"sens_maps {tuple(maps.shape)}"
        )
    if not maps.is_complex():
        raise ValueError(f"sens_maps must be complex; got {maps.dtype}")
    if not bool(torch.view_as_real(maps).isfinite().all()):
        raise ValueError("sens_maps hold NaN or infinite values")
    return maps, (maps.shape[0] if maps.ndim == 4 else None), maps.shape[-3]
