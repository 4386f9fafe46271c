"""What a training run carries from step to step, and the file it is kept in between runs."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BadPrior
from ..io.priors import load_strictly, read_any_header, read_weights, write_weights

CHECKPOINT = "checkpoint.safetensors"


class EMA:
    """theta_ema <- d theta_ema + (1 - d) theta, d = min(decay, (1 + n) / (10 + n)) at update n.

    Buffers are copied. The warm-up keeps the first steps' weights from lingering (as in
    TensorFlow's ExponentialMovingAverage with num_updates, which Song et al. 2021 used).
    """

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.tensors = self.network.state_dict()

    @torch.no_grad()
    def update(self, network: nn.Module, n: int) -> None:
        decay = min(self.decay, (1 + n) / (10 + n))
        averaged, current = [], []
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                averaged.append(self.tensors[name])
                current.append(tensor)
            else:
                self.tensors[name].copy_(tensor)
        torch._foreach_lerp_(averaged, current, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]


def save_checkpoint(
    folder: Path, header: dict[str, Any], network: nn.Module, ema: EMA, optimizer: Any
) -> None:
    """Weights, their average and the optimizer's moments in one safetensors file, atomically.

    All randomness is a function of the seed and the step, so the header's step is all its state.
    """
    groups = {"network": network.state_dict(), "ema": ema.tensors}
    tensors = {f"{g}/{name}": value for g, part in groups.items() for name, value in part.items()}
    for name, state in _moments(network, optimizer):
        tensors |= {f"optimizer/{key}/{name}": value for key, value in state.items()}
    write_weights(folder / CHECKPOINT, tensors, {"kind": "training", **header})


def load_checkpoint(
    folder: Path, network: nn.Module, ema: EMA, optimizer: torch.optim.Optimizer
) -> None:
    """Put a checkpoint's tensors back where they were; BadPrior if they do not fit."""
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "ema": {}, "optimizer": {}}
    for name, tensor in read_weights(folder / CHECKPOINT).items():
        group, _, key = name.partition("/")
        parts.setdefault(group, {})[key] = tensor
    load_strictly(network, parts["network"], CHECKPOINT)
    if parts["ema"].keys() != ema.tensors.keys():
        raise BadPrior(f"{CHECKPOINT}: its averaged weights are not this network's")
    for name, tensor in parts["ema"].items():
        ema.tensors[name].copy_(tensor)
    for name, parameter in network.named_parameters():
        state = {
            key.partition("/")[0]: tensor
            for key, tensor in parts["optimizer"].items()
            if key.partition("/")[2] == name
        }
        if state:
            optimizer.state[parameter] = _placed(state, parameter)


def _placed(state: dict[str, Tensor], parameter: Tensor) -> dict[str, Tensor]:
    """Moments in the parameter's own layout: a sum's order, so its last bit, depends on it."""
    placed = {}
    for key, tensor in state.items():
        like = tensor.shape == parameter.shape and tensor.ndim > 0
        placed[key] = torch.empty_like(parameter).copy_(tensor) if like else tensor
    return placed


def _moments(
    network: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterable[tuple[str, dict[str, Tensor]]]:
    for name, parameter in network.named_parameters():
        if parameter in optimizer.state:
            yield name, optimizer.state[parameter]


def read_progress(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The header of a run's checkpoint: {"step", "config", ...}."""
    path = Path(folder) / CHECKPOINT
    header = read_any_header(path)
    if header.get("kind") != "training":
        raise BadPrior(f"{path} is not a training checkpoint")
    return header
