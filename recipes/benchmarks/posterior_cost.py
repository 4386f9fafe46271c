"""Time outside the network and peak memory of every method at 256 x 256, batch 1, one thread."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inverse_score import solve
from inverse_score.posterior import METHODS, error_spectrum
from inverse_score.prior import Prior
from inverse_score.sde import KarrasSDE
from operators import CartesianMRI, LinearOperator, Mask, Radon

SIZE, STEPS, WIDTH = 256, 6, 32


class ConvolutionalStandIn(torch.nn.Module):
    """Layers whose cost is that of a small U-Net (about 200 ms), output a shrunken input.

    Only its time matters: it is differentiable, and close to a denoiser of unit-scale images.
    """

    def __init__(self, channels: int):
        super().__init__()
        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(channels, WIDTH, 3, padding=1)]
        for _ in range(6):
            layers += [torch.nn.SiLU(), torch.nn.Conv2d(WIDTH, WIDTH, 3, padding=1)]
        layers += [torch.nn.SiLU(), torch.nn.Conv2d(WIDTH, channels, 3, padding=1)]
        self.layers = torch.nn.Sequential(*layers)
        self.seconds = 0.0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        began = time.perf_counter()
        r2 = t.reshape(-1, 1, 1, 1) ** 2
        out = x * 0.25 / (0.25 + r2) + 1e-3 * self.layers(x / (0.25 + r2).sqrt())
        self.seconds += time.perf_counter() - began
        return out


def problems() -> dict[str, tuple[LinearOperator, int]]:
    """Masking, 15-coil MRI at 4x and sparse-view CT, with their channels."""
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(1, SIZE, SIZE, generator=generator) < 0.5).float()
    columns = torch.zeros(SIZE, dtype=torch.bool)
    columns[::4] = True
    columns[SIZE // 2 - 10 : SIZE // 2 + 10] = True
    return {
        "inpainting": (Mask(mask), 1),
        "mri, 15 coils": (CartesianMRI(columns, coil_maps(15)), 2),
        "radon, 60 views": (Radon(SIZE, torch.arange(60) * math.pi / 60), 1),
    }


def coil_maps(coils: int) -> Tensor:
    """Smooth maps around the image with unit sum of squares."""
    at = torch.linspace(-1, 1, SIZE)
    maps = []
    for c in range(coils):
        angle = 2 * math.pi * c / coils
        d2 = (at[:, None] - math.sin(angle)) ** 2 + (at - math.cos(angle)) ** 2
        maps.append(torch.exp(-d2) * torch.exp(1j * (angle + at[:, None] * math.cos(angle))))
    stacked = torch.stack(maps)
    return stacked / stacked.abs().square().sum(0).sqrt()


def measure(rows: Any, samples: int) -> None:
    """Seconds a step in and outside the network, and the memory that a method takes at most."""
    for name, (operator, channels) in problems().items():
        network = ConvolutionalStandIn(channels)
        prior = Prior(network, KarrasSDE(20.0), output="x0", event_shape=(channels, SIZE, SIZE))
        images = torch.randn(4, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
        images = torch.nn.functional.avg_pool2d(images, 9, 1, 4) * 4
        prior.card["error_spectrum"] = error_spectrum(
            prior, images, sigma=[0.002, 0.02, 0.2, 2.0, 10.0], batch_size=2
        )
        y = operator(images[:1])
        noise_std = 0.02 * float(y.abs().std())
        for label, options in _choices().items():

            def run(operator=operator, prior=prior, y=y, noise_std=noise_std, options=options):
                return _time(prior, y, operator, noise_std, options)

            rows.measure("cost", name, label, run)


def _time(
    prior: Prior, y: Tensor, operator: LinearOperator, noise_std: float, options: dict[str, Any]
) -> dict[str, Any]:
    network = prior.network
    network.seconds = 0.0  # type: ignore[attr-defined]
    marks: list[float] = []

    def watch(*_: Any) -> None:
        marks.append(time.perf_counter())

    before = _reset_peak()
    began = time.perf_counter()
    rec = solve(y, operator, prior, noise_std=noise_std, steps=STEPS, callback=watch, **options)
    total = time.perf_counter() - began
    inside = network.seconds  # type: ignore[attr-defined]
    return {
        "network_ms": 1e3 * inside / max(rec.nfe, 1),
        "step_ms": 1e3 * (marks[-1] - marks[0]) / max(len(marks) - 1, 1),
        "setup_ms": 1e3 * (marks[0] - began),
        "outside": 1 - inside / total,
        "peak_mib": _memory("VmHWM") - before,
        "nfe": rec.nfe,
        "vjps": rec.vjps,
    }


def _reset_peak() -> float:
    """Sets the process's peak memory back to what it holds now, MiB (Linux: proc(5))."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(field: str) -> float:
    """A field of /proc/self/status in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 2**10
    raise RuntimeError(f"/proc/self/status has no {field}")


def _choices() -> dict[str, dict[str, Any]]:
    chosen: dict[str, dict[str, Any]] = {
        f"moment-matching, {c}": {"method": "moment-matching", "covariance": c}
        for c in ("spectrum", "isotropic")
    }
    scans = {"method": "moment-matching", "covariance": "spectrum", "tol": 0.02}
    chosen["moment-matching, spectrum, tol 0.02"] = scans
    for name, method in METHODS.items():
        if not (method.deterministic or method.differentiates or name == "moment-matching"):
            chosen[name] = {"method": name}
    # All particles of a row are denoised one after the other: four show what sixteen cost.
    chosen["smc"]["num_particles"] = 4
    return chosen
