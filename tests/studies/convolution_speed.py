"""Winograd's filtering against PyTorch's own 3x3 convolution, one thread, float32.

    nice -n 10 python tests/studies/convolution_speed.py [--threads 1] [--repeats 15]

Medians of the processor time of calls in turn, by layer size: inference with kept kernels, and the
forward and backward pass of training. results/convolutions.md holds what it printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from inverse_score.networks import conv3x3
from inverse_score.networks.convolutions import Conv3x3

LAYERS = ((64, 128), (128, 64), (128, 32), (256, 32), (256, 16), (512, 8))


def seconds(run: Callable[[], object], repeats: int) -> dict[bool, float]:
    """Median processor time of run() with the switch on and off, in turn."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(repeats):
        for way, times in found.items():
            conv3x3.enabled = way
            began = time.process_time()
            run()
            times.append(time.process_time() - began)
    conv3x3.enabled = True
    return {way: statistics.median(times[1:]) for way, times in found.items()}


def row(channels: int, size: int, repeats: int) -> str:
    """Times in ms and ratios of one layer."""
    torch.manual_seed(0)
    layer, x = Conv3x3(channels, channels), torch.randn(1, channels, size, size)
    x = x.contiguous(memory_format=torch.channels_last)

    def infer() -> None:
        with torch.no_grad():
            layer(x)

    def step() -> None:
        layer.zero_grad()
        layer(x.requires_grad_()).square().sum().backward()

    cells = [f"{channels} channels, {size} x {size}"]
    for run in (infer, step):
        ms = seconds(run, repeats)
        cells += [f"{1e3 * ms[False]:.2f}", f"{1e3 * ms[True]:.2f}", f"{ms[False] / ms[True]:.2f}x"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print("| layer | conv2d, ms | Winograd, ms | gain | both passes | Winograd, ms | gain |")
    print("|---|---|---|---|---|---|---|")
    for channels, size in LAYERS:
        print(row(channels, size, chosen.repeats), flush=True)


if __name__ == "__main__":
    main()
