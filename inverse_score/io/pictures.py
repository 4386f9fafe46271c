"""Grey and coloured previews: window, level, colour map and a PNG writer without dependencies."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

# Anchors of a perceptually even dark-to-bright map, interpolated linearly in sRGB.
_HEAT = np.array(
    [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21],
     [250, 193, 39], [252, 255, 164]]
)  # fmt: skip


def to_bytes(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """image (H, W) as uint8: low is 0, high is 255, linear between and clipped outside.

    Raises ValueError on a value that is not finite: a cast would make it black in silence.
    """
    if not np.isfinite(image).all():
        raise ValueError(f"picture has {np.count_nonzero(~np.isfinite(image))} non-finite pixels")
    span = max(high - low, np.finfo(np.float32).tiny)
    return np.rint(np.clip((image - low) / span, 0, 1) * 255).astype(np.uint8)


def colour(grey: np.ndarray) -> np.ndarray:
    """(H, W) uint8 through the heat map: (H, W, 3) uint8."""
    at = np.linspace(0, 255, len(_HEAT))
    table = np.stack([np.interp(np.arange(256), at, _HEAT[:, c]) for c in range(3)], axis=-1)
    return np.rint(table).astype(np.uint8)[grey]


def png(pixels: np.ndarray, text: dict[str, str] | None = None) -> bytes:
    """A PNG (ISO 15948) of uint8 pixels (H, W) or (H, W, 3), with Latin-1 tEXt entries."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise ValueError(f"png takes uint8 (H, W) or (H, W, 3); got {pixels.dtype} {pixels.shape}")
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    rows = pixels.reshape(height, -1)
    # Every scan line starts with its filter: 2, the difference to the line above.
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    lines = np.hstack([np.full((height, 1), 2, np.uint8), rows - above])
    chunks = [_chunk(b"IHDR", header)]
    for key, value in (text or {}).items():
        chunks.append(_chunk(b"tEXt", f"{key}\0{value}".encode("latin-1", "replace")))
    chunks += [_chunk(b"IDAT", zlib.compress(lines.tobytes(), 6)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def data_uri(pixels: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
