"""Time outside the network and peak memory of every method at 256 x 256, batch 1, one thread."""

from __future__ import annotations

import ctypes
import functools
import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inverse_score import load_prior, solve
from inverse_score.io.checkpoints.presets import PRESETS
from inverse_score.networks import build_network
from inverse_score.posterior import METHODS
from inverse_score.posterior.covariance import pixel_variance
from inverse_score.prior import Prior
from operators import CartesianMRI, LinearOperator, Mask, Radon

EXAMPLES = Path(__file__).parents[2] / "examples" / "data"
SIZE, STEPS = 256, 20
PUBLISHED = "NCSN++ of FFHQ 256 (Song et al. 2021)"


@dataclass
class Clock:
    """Seconds spent in a network's forward, by hooks."""

    seconds: float = 0.0
    began: float = 0.0

    def attach(self, network: torch.nn.Module) -> list[Any]:
        """The hooks, to be removed again."""
        before = network.register_forward_pre_hook(self._start)
        return [before, network.register_forward_hook(self._stop)]

    def _start(self, *_: Any) -> None:
        self.began = time.perf_counter()

    def _stop(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self.began


def problems() -> dict[str, tuple[LinearOperator, str, str]]:
    """Masking, MRI at 4x of 1 and 15 coils, CT of 60 views, with a shipped prior and a slice."""
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(1, SIZE, SIZE, generator=generator) < 0.5).float()
    columns = torch.zeros(SIZE, dtype=torch.bool)
    columns[::4] = True
    columns[SIZE // 2 - 10 : SIZE // 2 + 10] = True
    return {
        "inpainting": (Mask(mask), "body-ct", "chest-ct"),
        "mri, 1 coil": (CartesianMRI(columns, image_shape=(SIZE, SIZE)), "brain-mri", "head-t1"),
        "mri, 15 coils": (CartesianMRI(columns, coil_maps(15)), "brain-mri", "head-t1"),
        "radon, 60 views": (Radon(SIZE, torch.arange(60) * math.pi / 60), "body-ct", "chest-ct"),
    }


def slice_for(prior: Prior, name: str) -> Tensor:
    """A slice of examples/data, (1, C, SIZE, SIZE), with the variance that the prior expects."""
    with np.load(EXAMPLES / f"{name}.npz") as file:
        image = torch.from_numpy(np.asarray(file["image"], dtype=np.float32))
    image = torch.nn.functional.interpolate(image[None, None], (SIZE, SIZE), mode="area")
    channels = (prior.event_shape or (1,))[0]
    image = torch.cat([image] + [0 * image] * (channels - 1), 1)
    wanted = pixel_variance(prior, tuple(image.shape[1:]))
    image = (image - image.mean()) * (wanted / image.var()) ** 0.5
    return prior.to_data(image)


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
    """The memory that a method takes at most, then seconds a step in and outside the network."""
    loaded = {}
    for name, (operator, prior_name, image) in problems().items():
        prior = load_prior(prior_name)
        y = operator(slice_for(prior, image))
        loaded[name] = (prior, y, operator, 0.02 * float(y.abs().std()))
    todo = [(k, n, options) for k, options in _choices().items() for n in loaded]
    # Memory first: what a solve frees its process keeps, for the solves after it.
    for label, name, options in todo:
        rows.measure("peak", name, label, functools.partial(_peak, *loaded[name], options))
    rows.measure("cost", PUBLISHED, "network alone", _published)
    for label, name, options in todo:
        rows.measure("cost", name, label, functools.partial(_time, *loaded[name], options))


def _published() -> dict[str, Any]:
    """Milliseconds of a call of the network that Song et al. 2021 trained for images of SIZE."""
    preset = PRESETS["ve/ffhq_256_ncsnpp_continuous"]
    network = build_network(preset.network, **preset.config).eval()
    x, t = torch.zeros(1, 3, SIZE, SIZE), torch.full((1,), 0.5)
    seconds = []
    with torch.no_grad():
        for _ in range(3):
            began = time.perf_counter()
            network(x, t)
            seconds.append(time.perf_counter() - began)
    return {"network_ms": 1e3 * min(seconds)}


def _time(
    prior: Prior,
    y: Tensor,
    operator: LinearOperator,
    noise_std: float,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Figures of one solve, of STEPS steps unless the options say otherwise."""
    clock, marks = Clock(), []
    hooks = clock.attach(prior.network)

    def watch(*_: Any) -> None:
        marks.append(time.perf_counter())

    began = time.perf_counter()
    options = {"steps": STEPS, **options}
    rec = solve(y, operator, prior, noise_std=noise_std, callback=watch, **options)
    total = time.perf_counter() - began
    for hook in hooks:
        hook.remove()
    return {
        "network_ms": 1e3 * clock.seconds / max(rec.nfe, 1),
        "step_ms": 1e3 * (marks[-1] - marks[0]) / max(len(marks) - 1, 1),
        "setup_ms": 1e3 * (marks[0] - began),
        "outside": 1 - clock.seconds / total,
        "nfe": rec.nfe,
        "vjps": rec.vjps,
        "items": rec.num_samples,
    }


def _peak(*problem: Any) -> dict[str, Any]:
    """Resident memory at most beyond what is there before, in a process of its own."""
    with ProcessPoolExecutor(
        1, multiprocessing.get_context("fork"), _PROBLEM.append, (problem,)
    ) as pool:
        return pool.submit(_peak_here).result()


_PROBLEM: list[Any] = []


def _peak_here() -> dict[str, Any]:
    """The peak of two steps: more take no more."""
    *problem, options = _PROBLEM[-1]
    prior, y, operator, noise_std = problem
    # What the parent freed would serve again and not show.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = _reset_peak()
    solve(y, operator, prior, noise_std=noise_std, **{**options, "steps": 2})
    return {"peak_mib": _memory("VmHWM") - before}


def completed(cost: list[dict[str, Any]], peak: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cost rows with `peak_mib`, and `outside_published`: `outside`, were NCSN++ the network."""
    call = next((r["network_ms"] for r in cost if r["problem"] == PUBLISHED), None)
    most = {(r["problem"], r["method"]): r.get("peak_mib") for r in peak}
    found = []
    for row in cost:
        row = {**row, "peak_mib": most.get((row["problem"], row["method"]))}
        if call is not None and "outside" in row:
            # Of one call a step, whatever share of the whole solve it was.
            own = row["network_ms"] * row["outside"] / (1 - row["outside"])
            row["outside_published"] = own / (own + call * row["items"])
        found.append(row)
    return found


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
        # What `reconstruct` runs: its own steps and tolerance.
        "auto, fast": {"budget": "fast", "steps": None},
    }
    for c in ("spectrum", "isotropic"):
        chosen[f"moment-matching, {c}"] = {"method": "moment-matching", "covariance": c}
    for name, method in METHODS.items():
        if not (method.deterministic or method.differentiates or name == "moment-matching"):
            chosen[name] = {"method": name}
    # All particles of a row are denoised one after the other: four show what sixteen cost.
    chosen["smc"]["num_particles"] = 4
    chosen["auto, fast, 8 samples"] = {"budget": "fast", "steps": None, "num_samples": 8}
    return chosen
