"""Picture files in and out: PNG, JPEG and TIFF as tensors in [0, 1]."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inverse_score.errors import BadInput
from inverse_score.io.pictures import png
from inverse_score.io.runs.commits import commit_bytes

# A picture's pixels at most: 16 times a 4K frame.
_MAX_PIXELS = 128 << 20


def read_picture(path: str | Path, channels: int | None = None) -> Tensor:
    """(C, H, W) in [0, 1], turned upright as EXIF says; 8-bit, 16-bit, or float in [0, 1].

    channels 1 makes grey of colour (Rec. 601 luma), 3 repeats grey; alpha must be opaque.
    """
    image = _loaded(Path(path))
    colours, alpha = _split_alpha(image, Path(path).name)
    if alpha is not None and float(alpha.min()) < 1.0:
        raise BadInput(
            f"{Path(path).name} has transparent pixels, whose colour means nothing; flatten it, "
            "or inpaint it with its own alpha as the mask"
        )
    return _in_channels(colours, channels, Path(path).name)


def read_colours(path: str | Path, channels: int | None = None) -> Tensor:
    """`read_picture` whose transparent pixels are read as they are stored."""
    colours, _ = _split_alpha(_loaded(Path(path)), Path(path).name)
    return _in_channels(colours, channels, Path(path).name)


def _in_channels(colours: Tensor, channels: int | None, name: str) -> Tensor:
    if channels is None or channels == colours.shape[0]:
        return colours
    if channels == 1:
        weights = torch.tensor([0.299, 0.587, 0.114])
        return (weights[:, None, None] * colours).sum(0, keepdim=True)
    if channels == 3:
        return colours.expand(3, -1, -1).clone()
    raise BadInput(f"{name} is a picture of 1 or 3 channels; the prior has {channels}")


def read_mask(path: str | Path) -> Tensor:
    """(H, W) of 0 and 1 from a picture (white is known) or an npy file of 0 and 1."""
    path = Path(path)
    if path.suffix == ".npy":
        from inverse_score.io.formats.npy import npy_array

        values = torch.from_numpy(np.asarray(npy_array(path), dtype=np.float32))
    else:
        values = _split_alpha(_loaded(path), path.name)[0].mean(0)
    binary = (values > 0.5).float()
    between = ((values > 0.02) & (values < 0.98)).float().mean()
    if float(between) > 0.05:
        raise BadInput(
            f"{path.name} is no mask: {float(between):.0%} of its pixels are neither black "
            "nor white"
        )
    if not bool(binary.any()):
        raise BadInput(f"{path.name} is black everywhere: nothing would be known")
    return binary


def alpha_of(path: str | Path) -> Tensor | None:
    """(H, W) of 0 and 1: where a picture with an alpha channel is opaque; None without one."""
    alpha = _split_alpha(_loaded(Path(path)), Path(path).name)[1]
    return None if alpha is None else (alpha > 0.5).float()


def write_picture(path: str | Path, image: Tensor) -> None:
    """(C, H, W) in [0, 1], clipped to it, as an 8-bit PNG."""
    values = image.detach().cpu().float().clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    commit_bytes(path, png(values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)))


def grid(images: Tensor, columns: int | None = None, gap: int = 2) -> Tensor:
    """(N, C, H, W) as one picture (C, ...) of rows and columns, white between."""
    count, channels, height, width = images.shape
    columns = columns or max(1, round(count**0.5))
    rows = -(-count // columns)
    sheet = torch.ones(channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for k, image in enumerate(images):
        top, left = (k // columns) * (height + gap), (k % columns) * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def _loaded(path: Path) -> np.ndarray:
    """(H, W) or (H, W, channels) float32 in [0, 1]."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > _MAX_PIXELS:
                raise BadInput(f"{path.name} has {opened.width} x {opened.height} pixels: too many")
            upright = ImageOps.exif_transpose(opened)
            if upright.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "1"):
                upright = upright.convert("RGBA" if "transparency" in opened.info else "RGB")
            values = np.asarray(upright)
    except BadInput:
        raise
    except FileNotFoundError:
        raise BadInput(f"{path.name} does not exist") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise BadInput(f"{path.name} cannot be read as a picture: {error}") from None
    return _unit_range(values, path.name)


def _unit_range(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype == np.uint8:
        return values.astype(np.float32) / 255
    if values.dtype in (np.uint16, np.int32) and values.min() >= 0 and values.max() <= 65535:
        return values.astype(np.float32) / 65535
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise BadInput(f"{name} holds NaN or infinite values")
        if values.min() >= 0 and values.max() <= 1:
            return values.astype(np.float32)
    raise BadInput(
        f"{name} holds {values.dtype} from {values.min()} to {values.max()}; expected 8 or 16 "
        "bits, or floats in [0, 1]"
    )


def _split_alpha(values: np.ndarray, name: str) -> tuple[Tensor, Tensor | None]:
    image = torch.from_numpy(np.ascontiguousarray(values))
    if image.ndim == 2:
        return image[None], None
    channels = image.movedim(-1, 0)
    if len(channels) in (2, 4):
        return channels[:-1].contiguous(), channels[-1]
    if len(channels) in (1, 3):
        return channels.contiguous(), None
    raise BadInput(f"{name} has {len(channels)} channels; expected grey or colour")
