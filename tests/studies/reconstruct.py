"""What `reconstruct` costs and survives: time and memory by part, sharing, kills.

python tests/studies/reconstruct.py cost [SCAN]   wall time and its shares, peak memory
python tests/studies/reconstruct.py soak          peak memory over 10 and over 200 slices
python tests/studies/reconstruct.py two           two processes against one
python tests/studies/reconstruct.py torchrun      two workers, one of them killed
python tests/studies/reconstruct.py kills         20 SIGKILLs at random moments, then --resume
--save writes the study's section of tests/studies/results/reconstruct.md. Every process has
one thread. Scans are simulated from the head in examples/data, which no shipped prior has seen.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from inverse_score.io.runs.commits import commit_bytes, sha256_file

RESULTS = Path(__file__).parent / "results" / "reconstruct.md"
HEAD = Path(__file__).parents[2] / "examples" / "data" / "head-t1.npz"
COMMAND = [sys.executable, "-m", "inverse_score"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "-m", "inverse_score"]  # fmt: skip
TITLE = "<!-- python tests/studies/reconstruct.py STUDY --save; one thread a process -->\n"


def started(scan: Path, out: Path, *options: str, command: list[str] = COMMAND) -> subprocess.Popen:
    """A running `reconstruct` at 4x, in a process group of its own."""
    arguments = [*command, "reconstruct", str(scan), "-o", str(out), "--acc", "4", "--json"]
    return subprocess.Popen(
        [*arguments, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def finished(run: subprocess.Popen) -> dict:
    """What it prints as summary, {} for a process that leaves the end to others."""
    text, errors = run.communicate()
    if run.returncode != 0:
        raise RuntimeError(f"exit {run.returncode}: {errors.strip()}")
    return json.loads(text) if text.strip().startswith("{") else {}


def simulated(folder: Path, slices: int, size: int) -> Path:
    """A simulated 8-coil scan of so many slices, size x size."""
    scan = folder / "scan.h5"
    arguments = [*COMMAND, "simulate", *[str(HEAD)] * slices, "-o", str(scan)]
    subprocess.run([*arguments, "--size", str(size)], check=True, capture_output=True)
    return scan


def small_prior(folder: Path) -> str:
    """An untrained network of 8 channels, where bytes and memory are looked at and no image is."""
    import torch

    from inverse_score import KarrasSDE, Prior
    from inverse_score.io.priors import save_prior
    from inverse_score.networks.unet import UNet
    from inverse_score.posterior import error_spectrum

    torch.manual_seed(0)
    sde = {"name": "karras", "sigma_max": 10.0}
    network = UNet(2, sde=sde, widths=(8,), blocks=1, embedding=16)
    prior = Prior(network, KarrasSDE(10.0), output="x0", event_shape=(2, None, None))
    card = {"domain": "mri", "error_spectrum": error_spectrum(prior, torch.randn(4, 2, 16, 16))}
    save_prior(prior, folder / "small.safetensors", card=card)
    return str(folder / "small.safetensors")


def digests(out: Path) -> dict[str, str]:
    """Hashes of volume, page and pictures: all that may not depend on the way there."""
    kept = (".h5", ".html", ".png")
    return {str(p.relative_to(out)): sha256_file(p)
            for p in sorted(out.rglob("*")) if p.is_file() and p.suffix in kept}  # fmt: skip


def cost(folder: Path, scan: Path | None) -> list[str]:
    """A whole run with 8 samples and every output: where its time goes."""
    scan = scan or simulated(folder, 1, 128)
    began = time.perf_counter()
    done = finished(started(scan, folder / "out"))
    wall = time.perf_counter() - began
    slices = sum(len(entry["slices"]) for entry in done["scans"])
    parts = {**done["seconds"], "start of Python and imports": wall - sum(done["seconds"].values())}
    memory = done["peak_memory_bytes"] / 2**30
    lines = [f"{slices} slice(s) of 128 x 128, 8 coils, 8 samples, all outputs: {wall:.1f} s wall, "
             f"{memory:.2f} GiB peak.", "", "| part | s | share |", "|---|---|---|"]  # fmt: skip
    return lines + [f"| {p} | {s:.2f} | {100 * s / wall:.1f} % |" for p, s in parts.items()]


def soak(folder: Path, _scan: Path | None) -> list[str]:
    """Peak memory of files of few and many slices; equal where slices are read one at a time."""
    options = ("--samples", "1", "--steps", "2", "--baseline", "none", "--no-pages", "--prior",
               small_prior(folder), "--maps", "low-resolution")  # fmt: skip
    lines = ["| slices of 64 x 64, 8 coils | peak memory (MiB) | s |", "|---|---|---|"]
    for count in (10, 200):
        scan = simulated(folder, count, 64)
        began = time.perf_counter()
        done = finished(started(scan, folder / f"out-{count}", *options))
        wall = time.perf_counter() - began
        lines.append(f"| {count} | {done['peak_memory_bytes'] / 2**20:.0f} | {wall:.1f} |")
        scan.unlink()
    return lines


def two(folder: Path, _scan: Path | None) -> list[str]:
    """One process, then two shards at once, three times in turn."""
    scan = simulated(folder, 4, 64)
    options = ("--samples", "4", "--steps", "10", "--baseline", "none", "--no-pages")
    times: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(3):
        for count in (1, 2):
            out = folder / f"out-{turn}-{count}"
            began = time.perf_counter()
            shards = [f"{k + 1}/{count}" for k in range(count)]
            for run in [started(scan, out, *options, "--shard", shard) for shard in shards]:
                finished(run)
            times[count].append(time.perf_counter() - began)
    one, both = (sorted(times[count])[1] for count in (1, 2))
    same = digests(folder / "out-0-1") == digests(folder / "out-0-2")
    return [f"4 slices of 64 x 64, 4 samples, medians of 3: one process {one:.1f} s, two shards "
            f"{both:.1f} s ({one / both:.2f} times as fast), start of Python included; "
            f"{'the same bytes' if same else 'OTHER BYTES'}."]  # fmt: skip


def torchrun(folder: Path, _scan: Path | None) -> list[str]:
    """Two workers of torchrun make one process's bytes, also after one of them is killed."""
    scan = simulated(folder, 3, 64)
    options = ("--samples", "8", "--steps", "4")
    finished(started(scan, folder / "one", *options))
    finished(started(scan, folder / "workers", *options, command=TORCHRUN))
    out = folder / "killed"
    run = started(scan, out, *options, "--quiet", command=TORCHRUN)
    os.kill(_worker(run, out), signal.SIGKILL)
    began = time.perf_counter()
    run.communicate(timeout=120)
    noticed = time.perf_counter() - began
    left = 6 - len(list((out / ".units").glob("[0-9]*.npz")))
    finished(started(scan, out, *options, "--resume", command=TORCHRUN))
    expected = digests(folder / "one")
    words = ["the same bytes" if digests(folder / name) == expected else "OTHER BYTES"
             for name in ("workers", "killed")]  # fmt: skip
    return [f"`torchrun --nproc-per-node 2`: {words[0]} as one process. A worker killed after the "
            f"first unit: torchrun ended {noticed:.1f} s later with exit code {run.returncode}, "
            f"{left} of 6 units left; resumed to {words[1]}."]  # fmt: skip


def _worker(run: subprocess.Popen, out: Path) -> int:
    """Process number of a worker once the first unit is committed: the holder of a shard's lock."""
    while run.poll() is None:
        if any((out / ".units").glob("[0-9]*.npz")):
            locks = sorted(out.glob(".shard-*.lock"))
            return json.loads(locks[-1].read_text())["pid"]
        time.sleep(0.02)
    raise RuntimeError(f"torchrun ended before a unit: {run.communicate()[1].strip()[-500:]}")


def forked(scan: Path, out: Path, *options: str) -> multiprocessing.Process:
    """A running `reconstruct` in a process forked with the imports done: all it does is work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["recipes.custom_scan", "recipes.run.driver"])
    arguments = ["reconstruct", str(scan), "-o", str(out), "--acc", "4", "--quiet", *options]
    run = context.Process(target=_main, args=(arguments,))
    run.start()
    return run


def _main(arguments: list[str]) -> None:
    import runpy

    sys.argv = ["inverse-score", *arguments]
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    runpy.run_module("inverse_score", run_name="__main__")


def kills(folder: Path, _scan: Path | None, count: int = 20) -> list[str]:
    """Kill a run at random moments and resume it; how often the bytes differed."""
    os.environ["OMP_NUM_THREADS"] = "1"
    draw = random.Random(0)
    options = ("--samples", "5", "--steps", "2", "--prior", small_prior(folder))
    scan = simulated(folder, 2, 64)
    # The first starts the server that the others are forked from.
    for name in ("first", "whole"):
        began = time.perf_counter()
        forked(scan, folder / name, *options).join()
        wall = time.perf_counter() - began
    expected, same, units = digests(folder / "whole"), 0, []
    for k in range(count):
        out = folder / f"killed-{k}"
        run = forked(scan, out, *options)
        run.join(draw.uniform(0.05, 0.95) * wall)
        run.kill()
        run.join()
        if run.exitcode == -signal.SIGKILL:
            units.append(len(list((out / ".units").glob("[0-9]*.npz"))))
            again = ["--resume"] if (out / "manifest.json").exists() else []
            forked(scan, out, *options, *again).join()
        same += len(expected) > 0 and digests(out) == expected
    found = ", ".join(f"{units.count(n)} with {n}" for n in sorted(set(units)))
    return [f"{count} runs of 4 units (2 slices of 64 x 64, an untrained network, all outputs), "
            f"{len(units)} killed (units committed by then: {found}); "
            f"{same} of {count} ended in the bytes of the uninterrupted run"
            f"{'.' if same == count else ': OTHER BYTES.'}"]  # fmt: skip


STUDIES: dict[str, Callable[..., list[str]]] = {
    "cost": cost, "soak": soak, "two": two, "torchrun": torchrun, "kills": kills,
}  # fmt: skip


def save(study: str, lines: list[str]) -> None:
    """Put the study's section into the results, the others as they are, in the order above."""
    text = RESULTS.read_text() if RESULTS.exists() else ""
    sections = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=\n## |\Z)", text, re.S | re.M))
    sections[study] = "\n".join(lines) + "\n"
    parts = [f"## {name}\n\n{sections[name]}" for name in STUDIES if name in sections]
    commit_bytes(RESULTS, "\n".join([TITLE, *parts]).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=tuple(STUDIES))
    parser.add_argument("scan", nargs="?", type=Path)
    parser.add_argument("--save", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = STUDIES[chosen.study](Path(folder), chosen.scan)
    print("\n".join(lines))
    if chosen.save:
        save(chosen.study, lines)
    if any("OTHER BYTES" in line for line in lines):
        sys.exit(1)


if __name__ == "__main__":
    main()
