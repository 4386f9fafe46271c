"""The numeric and statistical tests on other kernels, threads and seeds; a line for each setting.

`python tests/studies/settings.py [KERNELS:THREADS:SHIFT ...]`, by default all of SETTINGS; KERNELS
is a value of ATEN_CPU_CAPABILITY or "native", SHIFT what `--seed-shift` adds. Ends with exit code 1
where a test failed. Ten minutes on two cores; a minute for one setting.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = (
    "baselines", "error_spectrum", "exact_limits", "fit", "further_methods", "gaussian",
    "last_draw", "likelihood", "local_scale", "losses", "posterior_samplers", "preconditioning",
    "randomness", "samplers", "solve", "spectral_restoration", "uncertainty", "walks", "winograd",
)  # fmt: skip
RECIPES = ("image_scale", "simulate", "spread_verdict")
FILES = [
    *(f"tests/inverse_score/test_{name}.py" for name in LIBRARY),
    "tests/operators/test_noise.py",
    *(f"tests/recipes/test_{name}.py" for name in RECIPES),
]
SETTINGS = [
    *(f"{kernels}:{threads}:0" for kernels in ("default", "avx2") for threads in (1, 2)),
    *(f"native:1:{shift}" for shift in range(1000, 11000, 1000)),
]


def main(settings: list[str]) -> int:
    return max([run(*setting.split(":")) for setting in settings or SETTINGS])


def run(kernels: str, threads: str, shift: str) -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    if kernels != "native":
        environment["ATEN_CPU_CAPABILITY"] = kernels
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider",
               "--threads", threads, "--seed-shift", shift, *FILES]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines() or [done.stderr]
    print(f"{kernels} kernels, {threads} threads, seeds + {shift}: {lines[-1]}", flush=True)
    if done.returncode:
        print(re.sub(r"(?s)^.*?(?=={5,} FAILURES|={5,} ERRORS)", "", done.stdout), flush=True)
    return int(done.returncode != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
