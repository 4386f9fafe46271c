"""What `reconstruct` costs and survives: time and memory by part, and kills at random moments.

python -m recipes.benchmarks.reconstruct cost SCAN       shares of wall time, peak memory
python -m recipes.benchmarks.reconstruct soak            memory over a file of many slices
python -m recipes.benchmarks.reconstruct kills --count 20   SIGKILL, then --resume: same bytes?
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from inverse_score.io.commits import sha256_file

COMMAND = [sys.executable, "-m", "inverse_score"]


def reconstruct(scan: Path, out: Path, *options: str) -> subprocess.Popen:
    arguments = [*COMMAND, "reconstruct", str(scan), "-o", str(out), "--json", *options]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def summary_of(scan: Path, out: Path, *options: str) -> dict:
    """summary.json of a run to its end, with its wall time; RuntimeError with what it said."""
    began = time.perf_counter()
    run = reconstruct(scan, out, *options)
    text, errors = run.communicate()
    if run.returncode != 0:
        raise RuntimeError(f"exit {run.returncode}: {errors.strip()}")
    return {**json.loads(text), "wall": time.perf_counter() - began}


def simulated(folder: Path, slices: int, size: int) -> Path:
    """A simulated multi-coil scan of the held-out head in examples/data."""
    image = Path(__file__).parents[2] / "examples" / "data" / "head-t1.npz"
    scan = folder / "scan.h5"
    arguments = [*COMMAND, "simulate", *[str(image)] * slices, "-o", str(scan)]
    subprocess.run([*arguments, "--size", str(size)], check=True, capture_output=True)
    return scan


def cost(scan: Path, options: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        done = summary_of(scan, Path(folder) / "out", *options)
    slices = sum(len(entry["slices"]) for entry in done["scans"])
    print(f"{slices} slice(s), {done['wall']:.1f} s wall, "
          f"{done['peak_memory_bytes'] / 2**30:.2f} GiB peak")  # fmt: skip
    for part, seconds in done["seconds"].items():
        print(f"  {part:12} {seconds:8.2f} s  {100 * seconds / done['wall']:5.1f} %")
    for name, scores in done["scans"][0].get("scores", {}).items():
        print(f"  {name:16} PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}")


def soak(counts: tuple[int, ...] = (10, 200)) -> None:
    """Peak memory of files of few and many slices; equal where slices are read one at a time."""
    options = ("--acc", "4", "--samples", "2", "--steps", "1", "--baseline", "none", "--no-pages")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            scan = simulated(Path(folder), count, 96)
            done = summary_of(scan, Path(folder) / "out", *options)
        print(f"{count} slices: {done['peak_memory_bytes'] / 2**20:.0f} MiB, {done['wall']:.0f} s")


def digests(out: Path) -> dict[str, str]:
    kept = (".h5", ".html", ".png")
    return {str(p.relative_to(out)): sha256_file(p)
            for p in sorted(out.rglob("*")) if p.is_file() and p.suffix in kept}  # fmt: skip


def kills(count: int, seed: int = 0) -> int:
    """Kill a run `count` times at random moments, resume it; how often the bytes differed."""
    rng = random.Random(seed)
    options = ("--acc", "4", "--samples", "8", "--steps", "3")
    with tempfile.TemporaryDirectory() as folder:
        scan = simulated(Path(folder), 3, 96)
        done = summary_of(scan, Path(folder) / "whole", *options)
        expected, wrong, cut = digests(Path(folder) / "whole"), 0, 0
        for k in range(count):
            out = Path(folder) / f"killed-{k}"
            run = reconstruct(scan, out, *options)
            try:
                run.wait(rng.uniform(0.1, 1.0) * done["wall"])
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
            run.communicate()
            cut += run.returncode == -signal.SIGKILL
            if run.returncode != 0:
                began = (out / "manifest.json").exists()
                summary_of(scan, out, *options, *(["--resume"] if began else []))
            wrong += digests(out) != expected
        print(f"{count} runs, {cut} killed, {count - wrong} ended in the bytes of the whole run")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=("cost", "soak", "kills"))
    parser.add_argument("scan", nargs="?", type=Path)
    parser.add_argument("--count", type=int, default=20)
    arguments, options = parser.parse_known_args()
    if arguments.study == "kills":
        sys.exit(1 if kills(arguments.count) else 0)
    if arguments.study == "soak":
        return soak()
    if arguments.scan is None:
        parser.error("cost needs a scan")
    return cost(arguments.scan, options)


if __name__ == "__main__":
    main()
