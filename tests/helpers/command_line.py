"""Run the command line inside the test, and the tiny priors that its runs take."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from inverse_score import KarrasSDE, Prior
from inverse_score.io.priors import save_prior
from inverse_score.networks.unet import UNet
from inverse_score.posterior import error_spectrum


@dataclass
class Done:
    code: int
    out: str
    err: str


def command(capsys, *arguments: object) -> Done:
    """Exit code and output of `inverse-score ARGUMENTS`, in this process."""
    from inverse_score.cli import main

    capsys.readouterr()
    before = sys.argv, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    sys.argv = ["inverse-score", *map(str, arguments)]
    # Two threads that wait for each other beside a neighbour's load take a hundred times longer.
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = before[0]
        signal.signal(signal.SIGINT, before[1])
        signal.signal(signal.SIGTERM, before[2])
    captured = capsys.readouterr()
    return Done(code, captured.out, captured.err)


def tiny_prior(path: Path, channels: int = 2, size: int | None = None, scale: float = 1.0) -> Path:
    """A prior file: an untrained U-Net, whose zero last layer makes it a Gaussian of 0.5^2."""
    torch.manual_seed(0)
    sde = {"name": "karras", "sigma_max": 10.0}
    network = UNet(channels, sde=sde, widths=(8,), blocks=1, embedding=16)
    shape = (channels, size, size)
    prior = Prior(network, KarrasSDE(10.0), output="x0", event_shape=shape, range=(scale, 0.0))
    images = scale * 0.5 * torch.randn(4, channels, size or 16, size or 16)
    domain = "mri" if channels == 2 else "ct"
    card = {"domain": domain, "error_spectrum": error_spectrum(prior, images)}
    save_prior(prior, path, card=card)
    return path
