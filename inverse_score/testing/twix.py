"""A small Siemens raw data file (VD), made from images, for tests and fuzzing.

Layout as twixtools 0.24 reads it: a header of 10240 bytes that lists the measurements, and for each
a protocol text and its readouts, every one a scan header and, a channel, a header and samples.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from .formats import centred_fft

_START = 10240
_DWELL_NS = 5000


def write_twix(
    path: Path, images: np.ndarray, *, noise: np.ndarray | None = None, adjustments: bool = False
) -> Path:
    """Coil images (slices, coils, H, W) as a twofold oversampled scan, W the phase encoding.

    Siemens defines k-space with the other sign, so that the file holds the conjugate. noise
    (coils, samples) is a noise scan before it; adjustments puts another measurement first.
    """
    slices, coils, height, width = images.shape
    wide = np.zeros((slices, coils, 2 * height, width), complex)
    wide[:, :, height // 2 + height % 2 :][:, :, :height] = images
    kspace = centred_fft(wide, (-2, -1)).conj()
    lines = [
        _readout(kspace[s, :, :, line], Lin=line, Sli=s, centre=width // 2)
        for s in range(slices)
        for line in range(width)
    ]
    if noise is not None:
        lines.insert(0, _readout(noise, centre=0, flags=("NOISEADJSCAN",)))
    scan = _protocol(height, width) + b"".join(lines) + _readout(None, flags=("ACQEND",))
    first = _protocol(height, width) + _readout(kspace[0, :, :, 0]) + _readout(None, ("ACQEND",))
    path.write_bytes(_file([first, scan] if adjustments else [scan]))
    return path


def _file(measurements: list[bytes]) -> bytes:
    header, body, at = struct.pack("<II", 0, len(measurements)), b"", _START
    for number, content in enumerate(measurements):
        header += struct.pack("<IIQQ64s64s", 7 + number, 9, at, len(content), b"DOE^JANE", b"gre")
        padded = content + bytes(-len(content) % 512)
        body, at = body + padded, at + len(padded)
    return header.ljust(_START, b"\0") + body


def _protocol(height: int, width: int) -> bytes:
    lines = {
        "sKSpace.lBaseResolution": height,
        "sKSpace.lPhaseEncodingLines": width,
        "sKSpace.lPartitions": 1,
        "sKSpace.ucDimension": 2,
        "sKSpace.ucTrajectory": 1,
        "sSliceArray.asSlice[0].dThickness": 5.0,
        "sSliceArray.asSlice[0].dPhaseFOV": 10.0 * width,
        "sSliceArray.asSlice[0].dReadoutFOV": 10.0 * height,
        "sRXSPEC.alDwellTime[0]": _DWELL_NS,
    }
    text = "".join(f"{name} = {value}\n" for name, value in lines.items())
    text = f"### ASCCONV BEGIN ###\n{text}\n### ASCCONV END ###\n"
    buffer = b"MeasYaps\0" + struct.pack("<I", len(text)) + text.encode()
    length = (8 + len(buffer) + 511) // 512 * 512
    return (struct.pack("<II", length, 1) + buffer).ljust(length, b"\0")


def _readout(
    samples: np.ndarray | None, flags: tuple[str, ...] = (), centre: int = 0, **counters: int
) -> bytes:
    """One readout of samples (coils, n); the block that ends a measurement for None."""
    from twixtools import mdh_def  # pyright: ignore[reportMissingImports]

    head, body = mdh_def.Scan_header(), bytes(160)
    for flag in flags:
        mdh_def.add_flag(head, flag)
    if samples is not None:
        head.UsedChannels, head.SamplesInScan = samples.shape
        head.CenterCol, head.CenterLin = samples.shape[1] // 2, centre
        for name, value in counters.items():
            setattr(head.Counter, name, value)
        channel = bytes(mdh_def.Channel_header())
        body = b"".join(channel + row.astype(np.complex64).tobytes() for row in samples)
    mdh_def.set_dma_len(head, 192 + len(body))
    return bytes(head) + body
