"""Which device to compute on: what was asked for, or the quickest that is there."""

from __future__ import annotations

import torch

from .errors import BadInput


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """ "auto" is CUDA, else MPS, else the CPU; a device that is named and absent is BadInput.

    local_rank: which CUDA device, where the name leaves it open.
    """
    mps = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BadInput(f"device must be auto, cpu, cuda, cuda:N or mps; got {name!r}") from None
    there = {"cpu": True, "mps": mps, "cuda": (device.index or 0) < torch.cuda.device_count()}
    if not there.get(device.type, False):
        raise BadInput(f"device {name}: there is no such device here; `doctor` lists them")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", local_rank or 0)
    return device
