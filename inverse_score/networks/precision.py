"""Networks in bfloat16 inside, float32 outside: several times quicker where hardware has it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class InBfloat16(nn.Module):
    """network(x, t) under autocast: convolutions and products in bfloat16, x and result in theirs.

    Changes an estimate by about 2^-9 of what the network adds to c_skip x (Karras et al. 2022), far
    below its own error; results of other batch sizes then agree to 1e-3 rather than 1e-5.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.network(x, t).to(x.dtype)


def has_quick_bfloat16(device: torch.device | str) -> bool:
    """Whether bfloat16 is computed in hardware there: CUDA by its own word, CPUs with AMX."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # AVX-512's bfloat16 instructions gain little; tiles (AMX) gain a factor of three to eight.
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()
