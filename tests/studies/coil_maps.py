"""Coil maps from undersampled k-space beside their truth, and beside sigpy's ESPIRiT."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from torch import Tensor

from operators import column_mask, espirit, low_resolution_maps
from recipes.benchmarks.definition import FOLDER
from recipes.simulate import simulate_mri

HEADER = ["calibration lines", "method", "error, mean", "error, 95 %", "covered", "median s"]
SHIPPED = FOLDER / "data" / "mri" / "head-t1.npz"


def table(*, size: int, coils: int, repeats: int) -> list[list[str]]:
    """HEADER and a line a method, for 24 and 12 calibration lines of a scan at 4 times speed."""
    from skimage.transform import resize

    with np.load(SHIPPED) as file:
        image = file["images"][0].astype(np.float32)
    head = torch.from_numpy(resize(image / image.max(), (size, size), anti_aliasing=True))
    lines = [HEADER]
    for count in (24, 12):
        mask = column_mask("equispaced-fraction", size, 4, count / size, seed=0)
        scan = simulate_mri(head, mask, coils=coils, noise_level=0.005)
        body = scan.ground_truth[0] > 0.1 * scan.ground_truth.max()
        calls = methods(scan.kspace[0], scan.mask, count)
        times: dict[str, list[float]] = {name: [] for name in calls}
        maps: dict[str, Tensor] = {}
        for _ in range(repeats):
            for name, call in calls.items():
                began = time.perf_counter()
                maps[name] = call()
                times[name].append(time.perf_counter() - began)
        for name, found in maps.items():
            numbers = error(found, scan.sens_maps, body)
            lines.append([str(count), name, *numbers, f"{median(times[name]):.3f}"])
    return lines


def methods(kspace: Tensor, mask: Tensor, count: int) -> dict[str, Callable[[], Tensor]]:
    """name -> a call that gives maps (coils, H, W); sigpy's where it is installed."""
    calls: dict[str, Callable[[], Tensor]] = {
        "ESPIRiT": lambda: espirit(kspace, mask, crop=0.0, calibration=count),
        "low resolution": lambda: low_resolution_maps(kspace, mask),
    }
    try:
        from sigpy.mri.app import EspiritCalib
    except ImportError:
        return calls
    given = kspace.numpy()

    def peer() -> Tensor:
        return torch.from_numpy(
            EspiritCalib(given, calib_width=count, crop=0.0, show_pbar=False).run()
        )

    return {**calls, "sigpy's ESPIRiT": peer}


def error(found: Tensor, true: Tensor, body: Tensor) -> list[str]:
    """sin of the angle between found and true maps as vectors over coils, in the body: free of
    the phase and the size that no map estimate can know."""
    inner = (found.conj() * true).sum(0).abs()
    size = found.abs().square().sum(0).sqrt() * true.abs().square().sum(0).sqrt()
    covered = (size > 1e-6 * size.max()) & body
    sine = (1 - (inner[covered] / size[covered]).clamp(max=1) ** 2).sqrt()
    share = float(covered.sum() / body.sum())
    return [f"{float(sine.mean()):.4f}", f"{float(sine.quantile(0.95)):.4f}", f"{share:.0%}"]
