"""Speed, memory and accuracy of CT and MRI operators beside other libraries.

python tests/studies/operator_speed.py [--quick] [--save]
Every library runs in one process, its calls interleaved with the others' in random order, on the
same float32 input; medians of the repeats in milliseconds, two threads. Each row is run three
times, its ratio given for each. A library that is not installed is left out. Set-up time and peak
memory are those of a process of its own, above what it holds before. --save writes
tests/studies/results/operators.md.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import math
import platform
import random
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import numpy as np
import torch

from operators import CartesianMRI, Radon, column_mask

Calls = dict[str, Callable[[], Any]]
Angles = np.ndarray
RUNS, ROW_SECONDS = 3, 4.0
RESULTS = Path(__file__).parent / "results" / "operators.md"


def interleaved(calls: Calls, repeats: int, seconds: float = ROW_SECONDS) -> dict[str, float]:
    """Median milliseconds of each call, the order of calls drawn anew in each repeat."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    order, started = list(calls), time.perf_counter()
    shuffle = random.Random(0)
    for repeat in range(repeats):
        if repeat >= 3 and time.perf_counter() - started > seconds:
            break
        shuffle.shuffle(order)
        for name in order:
            start = time.perf_counter()
            calls[name]()
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(values)) for name, values in times.items()}


def bandwidth() -> float:
    """GB/s of a copy of 256 MiB, read and write counted."""
    source = torch.ones(1 << 26)
    target = torch.empty_like(source)
    times = interleaved({"copy": lambda: target.copy_(source)}, 7)
    return 2 * source.numel() * 4 / times["copy"] / 1e6


def radon_calls(n: int, angles: Angles, batch: int, peers: bool) -> tuple[Calls, Radon]:
    """A and A^T of each library, and our operator."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, 1, n, n)).astype(np.float32)
    A, u = Radon(n, angles), torch.from_numpy(x)
    y = A(u)
    calls: Calls = {"ours A": lambda: A(u), "ours A^T": lambda: A.T(y)}
    if peers:
        for add in (astra_calls, deepinv_calls, skimage_calls):
            with contextlib.suppress(ImportError):
                calls |= add(x, y.numpy(), angles)
    return calls, A


def cost(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of work(), and MB by which it raises the peak memory, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, work).result()


def _measured(work: Callable[[], Any]) -> tuple[float, float]:
    torch.set_num_threads(2)
    # The first product of any kind loads its library.
    torch.ones(64, 64) @ torch.ones(64, 64)
    before = peak_megabytes()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start, peak_megabytes() - before


def peak_megabytes() -> float:
    """Of this process. On Linux ru_maxrss is inherited from the parent; VmHWM is not."""
    status = Path("/proc/self/status")
    if not status.exists():
        return getrusage(RUSAGE_SELF).ru_maxrss / 1024
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


def set_up(n: int, angles: Angles) -> None:
    Radon(n, angles).memory()


def project(n: int, angles: Angles, batch: int) -> None:
    """Set-up, then A and A^T."""
    A = Radon(n, angles)
    A.T(A(torch.ones(batch, 1, n, n)))


def apply_normal(coils: int, H: int, W: int) -> None:
    """Maps and image, then A^T A."""
    mri_calls(coils, H, W, peers=False)["ours A^T A"]()


def astra_calls(x: np.ndarray, y: np.ndarray, angles: np.ndarray) -> Calls:
    astra = importlib.import_module("astra")
    n, detectors = x.shape[-1], y.shape[-1]
    beam = astra.create_proj_geom("parallel", 1.0, detectors, angles)
    W = astra.OpTomo(astra.create_projector("linear", beam, astra.create_vol_geom(n, n)))
    images, sinograms = x.reshape(len(x), -1), y.reshape(len(y), -1)
    return {
        "ASTRA A": lambda: [W * image for image in images],
        "ASTRA A^T": lambda: [W.T * sinogram for sinogram in sinograms],
    }


def deepinv_calls(x: np.ndarray, y: np.ndarray, angles: np.ndarray) -> Calls:
    dinv = importlib.import_module("deepinv")
    if x.shape[-1] > 256:
        raise ImportError("seconds a call and gigabytes at this size")
    degrees = torch.from_numpy(np.rad2deg(angles)).float()
    A = dinv.physics.Tomography(degrees, x.shape[-1], circle=False, normalize=False)
    u = torch.from_numpy(x)
    with torch.no_grad():
        v = A.A(u)

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return A.A(u)

    return {"deepinv A": forward, "deepinv A^T": lambda: A.A_adjoint(v)}


def skimage_calls(x: np.ndarray, y: np.ndarray, angles: np.ndarray) -> Calls:
    from skimage.transform import iradon, radon

    if x.shape[-1] > 256 or len(x) > 1:
        raise ImportError("over a second a call at this size")
    degrees, n = np.rad2deg(angles), x.shape[-1]
    options = {"theta": degrees, "circle": False}
    sinogram = radon(x[0, 0], **options)
    return {
        "scikit-image A": lambda: radon(x[0, 0], **options),
        "scikit-image A^T": lambda: iradon(sinogram, filter_name=None, output_size=n, **options),
    }


def mri_calls(coils: int, H: int, W: int, peers: bool) -> Calls:
    """A^T A of each library for an 8-fold column mask."""
    g = torch.Generator().manual_seed(0)
    maps = torch.randn(coils, H, W, generator=g, dtype=torch.complex64)
    maps = maps / maps.abs().square().sum(0).sqrt()
    x = torch.randn(1, 2, H, W, generator=g)
    mask = column_mask("equispaced-fraction", W, 8, seed=0).mask
    A = CartesianMRI(mask, maps)
    calls: Calls = {"ours A^T A": lambda: A.normal(x)}
    if peers:
        for add in (mrpro_calls, sigpy_calls, deepinv_mri_calls):
            with contextlib.suppress(ImportError):
                calls |= add(maps, mask.float(), x)
    return calls


def mrpro_calls(maps: torch.Tensor, mask: torch.Tensor, x: torch.Tensor) -> Calls:
    ops = importlib.import_module("mrpro.operators")
    F, S = ops.FastFourierOp(dim=(-2, -1)), ops.SensitivityOp(maps[None, :, None])
    image = torch.complex(x[:, 0], x[:, 1])[:, None, None]

    def normal() -> torch.Tensor:
        with torch.no_grad():
            (k,) = F(*S(image))
            return S.adjoint(*F.adjoint(k * mask))[0]

    return {"mrpro A^T A": normal}


def sigpy_calls(maps: torch.Tensor, mask: torch.Tensor, x: torch.Tensor) -> Calls:
    linop = importlib.import_module("sigpy.mri").linop
    weights = mask.expand(maps.shape[-2:]).numpy()
    N = linop.Sense(maps.numpy(), weights=weights).N
    image = torch.complex(x[0, 0], x[0, 1]).numpy()
    return {"sigpy A^T A": lambda: N * image}


def deepinv_mri_calls(maps: torch.Tensor, mask: torch.Tensor, x: torch.Tensor) -> Calls:
    dinv = importlib.import_module("deepinv")
    A = dinv.physics.MultiCoilMRI(mask=mask, coil_maps=maps[None], img_size=x.shape[1:])

    def normal() -> torch.Tensor:
        with torch.no_grad():
            return A.A_adjoint_A(x)

    return {"deepinv A^T A": normal}


def equispaced(views: int) -> np.ndarray:
    return np.arange(views) * np.pi / views


def ratio(times: dict[str, float], peer: str, parts: tuple[str, ...]) -> float | None:
    """How many times faster ours is, geometric mean over the parts; None without the peer."""
    if f"{peer} {parts[0]}" not in times:
        return None
    logs = [math.log(times[f"{peer} {part}"] / times[f"ours {part}"]) for part in parts]
    return math.exp(sum(logs) / len(logs))


def runs(calls: Calls, repeats: int, peer: str, parts: tuple[str, ...]) -> tuple[str, str]:
    """The times of the median run, and the ratio of every run."""
    times = [interleaved(calls, repeats) for _ in range(RUNS)]
    ratios = [ratio(run, peer, parts) for run in times]
    if None in ratios:
        return shown(times[0]), f"{peer} not installed"
    order = sorted(range(RUNS), key=lambda run: ratios[run])
    faster = ", ".join(f"{value:.1f}" for value in ratios)
    return shown(times[order[RUNS // 2]]), f"{faster} x {peer}"


def lines(quick: bool) -> list[str]:
    """The table, row by row."""
    n, big, repeats = (32, 48, 2) if quick else (256, 512, 25)
    uneven = np.sort(np.random.default_rng(0).uniform(0, np.pi, 180))
    scans = [
        (f"Radon {n}^2, 60 views, batch 1", n, equispaced(60), 1, ">= 8x ASTRA"),
        (f"Radon {n}^2, 60 views, batch 8", n, equispaced(60), 8, ">= 25x ASTRA"),
        (f"Radon {big}^2, 180 views", big, equispaced(180), 1, ">= 8x ASTRA"),
        (f"Radon {big}^2, 180 arbitrary views", big, uneven, 1, ">= 4x ASTRA"),
    ]
    out = [
        "| work | median ms | ours is, in three runs | reach | stored | set-up | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, size, angles, batch, reach in scans:
        calls, A = radon_calls(size, angles, batch, peers=True)
        times, faster = runs(calls, repeats, "ASTRA", ("A", "A^T"))
        facts = A.memory()
        stored = f"{facts['bytes'] / 1e6:.0f} MB, {facts['stored']:.0%}, {facts['copies']} copies"
        del calls, A
        seconds, _ = cost(partial(set_up, size, angles))
        _, peak = cost(partial(project, size, angles, batch))
        out.append(
            f"| {title} | {times} | {faster} | {reach} | {stored} | {seconds:.1f} s | "
            f"{peak:.0f} MB |"
        )
    for coils, H, W, reach in ((15, 320, 320, ">= 3.5x mrpro"), (15, 640, 368, ">= 3x mrpro")):
        H, W = (H // 8, W // 8) if quick else (H, W)
        calls = mri_calls(coils, H, W, peers=True)
        times, faster = runs(calls, repeats, "mrpro", ("A^T A",))
        _, peak = cost(partial(apply_normal, coils, H, W))
        title = f"multi-coil A^T A, {coils} x {H} x {W}"
        out.append(f"| {title} | {times} | {faster} | {reach} | - | - | {peak:.0f} MB |")
    return out


def growth(quick: bool) -> list[str]:
    """How our times grow with views, size, batch and coils."""
    repeats, n = (2, 16) if quick else (7, 128)
    out = ["| grows with | ms |", "|---|---|"]
    rows = {
        "views 30, 60, 120": [(2 * n, 30, 1), (2 * n, 60, 1), (2 * n, 120, 1)],
        f"size {n}, {2 * n}, {4 * n}": [(n, 60, 1), (2 * n, 60, 1), (4 * n, 60, 1)],
        "batch 1, 4, 16": [(n, 60, 1), (n, 60, 4), (n, 60, 16)],
    }
    for title, cases in rows.items():
        parts = []
        for size, views, batch in cases:
            calls, _ = radon_calls(size, equispaced(views), batch, peers=False)
            times = interleaved(calls, repeats)
            parts.append(f"{times['ours A']:.2f} / {times['ours A^T']:.2f}")
        out.append(f"| Radon A / A^T, {title} | {', '.join(parts)} |")
    times = [
        interleaved(mri_calls(coils, 2 * n, 2 * n, peers=False), repeats)["ours A^T A"]
        for coils in (4, 8, 16)
    ]
    shown_times = ", ".join(f"{t:.2f}" for t in times)
    out.append(f"| A^T A of {2 * n}^2, coils 4, 8, 16 | {shown_times} |")
    return out


def shown(times: dict[str, float]) -> str:
    return "; ".join(f"{name} {value:.1f}" for name, value in times.items())


def report(quick: bool = False) -> str:
    """The whole page."""
    warnings.filterwarnings("ignore")
    head = [
        "# Operators: speed beside other libraries",
        "",
        "`python tests/studies/operator_speed.py --save`; medians of interleaved repeats in the "
        "median of three runs, float32, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}; "
        f"copying 256 MiB ran at {bandwidth():.1f} GB/s in the same run.",
        "",
    ]
    return "\n".join([*head, *lines(quick), "", *growth(quick), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a check that it runs")
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    page = report(arguments.quick)
    print(page)
    if arguments.save:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(page)


if __name__ == "__main__":
    main()
