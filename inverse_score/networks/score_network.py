"""A released network as the function of (x, t) that a Prior calls."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..sde import per_item
from .conditioning import Conditioning, build_conditioning


class ScoreNetwork(nn.Module):
    """skip x + out F(scale (2 x - 1), label), with (scale, label, skip, out) by the conditioning.

    x (B, C, H, W) and t (B,), the SDE's time. 2 x - 1 only if not `centered`: networks of images in
    [0, 1] do it themselves. F's channels beyond the first `channels` (a learned variance) are not
    part of the score and are dropped. `output` names what comes back, as Prior reads it.
    """

    def __init__(
        self,
        net: nn.Module,
        channels: int,
        centered: bool,
        sde: dict[str, Any],
        conditioning: dict[str, Any],
        config: dict[str, Any],
    ):
        super().__init__()
        self.net, self.channels, self.centered = net, channels, centered
        self.conditioning: Conditioning = build_conditioning(conditioning, sde)
        self.config = config

    @property
    def output(self) -> str:
        return self.conditioning.output

    @property
    def sde(self):
        return self.conditioning.sde

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        scale, label, skip, out = self.conditioning(t)
        dtype = next(self.parameters()).dtype
        h = x.to(dtype)
        if not isinstance(scale, float) or scale != 1.0:
            h = per_item(scale, h) * h
        if not self.centered:
            h = 2 * h - 1
        raw = self.net(h, None if label is None else label.to(dtype))[:, : self.channels]
        raw = per_item(out, raw) * raw
        if isinstance(skip, float) and skip == 0.0:
            return raw.to(x.dtype)
        return (raw + per_item(skip, x) * x).to(x.dtype)


def config_of(arguments: dict[str, Any]) -> dict[str, Any]:
    """The constructor's arguments (its locals()) as JSON keeps them: tuples become lists."""
    kept = {k: v for k, v in arguments.items() if k not in ("self", "__class__")}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()}


def parameter_count(network: torch.nn.Module) -> int:
    """Parameters and stored buffers; buffers hold the frozen Fourier frequencies."""
    return sum(tensor.numel() for tensor in network.state_dict().values())
