"""Small and odd configurations of every released network family, with weights by a formula.

A case is one of our networks, the released layout of its weights, and inputs. Weights and inputs
are a function of name and shape, so that anyone can give the reference implementation the same.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..io.checkpoints.layouts import LAYOUTS
from ..io.checkpoints.parts import assemble, released_shapes
from ..networks import build_network

_MASK = np.uint64(0xFFFFFFFF)


def formula(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of this name and shape.

    u_j in [-1, 1): bits of j and crc32(name), mixed by two rounds of multiply and shift in 32 bits.
    Matrices and kernels: u sqrt(3 / fan in); vectors called weight, gamma or alpha: 1 + u / 10; the
    Fourier frequencies W, freqs and time_proj.weight: 4 u; other vectors: u / 10.
    """
    bits = np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()))
    for factor in (0x9E3779B1, 0x85EBCA77):
        bits = (bits * np.uint64(factor)) & _MASK
        bits ^= bits >> np.uint64(15)
    u = (bits.astype(np.float64) / 2**31 - 1).reshape(shape)
    last = name.rpartition(".")[2]
    if (last in ("W", "freqs") and len(shape) == 1) or name.endswith("time_proj.weight"):
        u = 4 * u
    elif len(shape) >= 2:
        # NIN layers of score_sde hold (in, out), all others (out, in, ...).
        fan_in = shape[0] if last == "W" else math.prod(shape[1:])
        u = u * math.sqrt(3 / fan_in)
    else:
        u = (1.0 if last in ("weight", "gamma", "alpha") else 0.0) + 0.1 * u
    return u.astype(np.float32)


@dataclass(frozen=True)
class ReleasedCase:
    """network(**config) in a released layout, at size (H, W) and these times; batch len(times)."""

    layout: str
    network: str
    config: dict[str, Any]
    size: tuple[int, int]
    times: tuple[float, ...] = (0.13, 0.9)
    reference: dict[str, Any] = field(default_factory=dict)

    def build(self) -> torch.nn.Module:
        """Our network with the formula's weights, by the import of its released layout."""
        network = build_network(self.network, **self.config)
        parts = LAYOUTS[self.layout](network)  # type: ignore[operator]
        released = {
            key: torch.from_numpy(formula(key, shape))
            for key, shape in released_shapes(parts).items()
        }
        network.load_state_dict(assemble(parts, released, self.layout))
        return network.eval()

    def released_names(self) -> list[str]:
        """ "name shape" of every tensor of the released layout."""
        with torch.device("meta"):
            network = build_network(self.network, **self.config)
        shapes = released_shapes(LAYOUTS[self.layout](network))  # type: ignore[operator]
        return [f"{key} {tuple(shape)}" for key, shape in shapes.items()]

    def inputs(self) -> tuple[Tensor, Tensor]:
        """x (B, C, H, W) in about [-1, 1] and t (B,)."""
        shape = (len(self.times), self.config["channels"], *self.size)
        x = formula("inputs.0", shape) * math.sqrt(math.prod(shape[1:]) / 3)
        return torch.from_numpy(x), torch.tensor(self.times)

    @torch.no_grad()
    def ours(self) -> Tensor:
        """Our network's output."""
        return self.build()(*self.inputs())


_VE = {"name": "ve", "sigma_min": 0.01, "sigma_max": 50.0}
_VP = {"name": "vp", "beta_min": 0.1, "beta_max": 20.0}
_KARRAS = {"name": "karras", "sigma_max": 80.0}
_SONG = {"channels": 3, "image_size": 16, "nf": 12, "ch_mult": (1, 2, 3), "num_res_blocks": 1,
         "attn_resolutions": (8,), "sde": _VE}  # fmt: skip
_POSITIONAL = {"embedding_type": "positional", "centered": True, "sde": _VP,
               "conditioning": {"label": "time"}}  # fmt: skip
_SKIP = {"progressive": "output_skip", "progressive_input": "input_skip"}
_DDPM = {"channels": 1, "image_size": 12, "widths": (32, 64), "num_res_blocks": 2,
         "attn_resolutions": (6,), "sde": _VP}  # fmt: skip
_ADM = {"channels": 2, "image_size": 24, "num_channels": 32, "channel_mult": (1, 2, 3),
        "num_res_blocks": 1, "attention_resolutions": (12, 6), "num_head_channels": 16,
        "sde": _VP, "conditioning": {"label": "time"}}  # fmt: skip
_EDM_ADM = {**_ADM, "num_channels": 64, "channel_mult": (1, 1), "num_head_channels": 64,
            "learn_sigma": False, "min_group": 4, "image_size": 10, "attention_resolutions": (5,),
            "sde": _KARRAS, "conditioning": {"label": "karras", "sigma_data": 0.5}}  # fmt: skip
_NCSNV2 = {"channels": 2, "ngf": 8, "sde": _VE}
_ACROSS = {"label": "time", "steps": 1000}

CASES: dict[str, ReleasedCase] = {
    "NCSN++, CIFAR-10's (Fourier, residual input)": ReleasedCase(
        "score_sde", "ncsnpp", _SONG, (24, 16)
    ),
    "NCSN++, 256's (input and output skips)": ReleasedCase(
        "score_sde", "ncsnpp", {**_SONG, **_SKIP, "channels": 1}, (8, 16)
    ),
    "NCSN++, concatenated skips, DDPM blocks, filtered convolutions": ReleasedCase(
        "score_sde", "ncsnpp",
        {**_SONG, **_SKIP, "progressive_combine": "cat", "resblock_type": "ddpm"}, (16, 16),
    ),
    "NCSN++, residual output": ReleasedCase(
        "score_sde", "ncsnpp", {**_SONG, "progressive": "residual"}, (16, 16)
    ),
    "NCSN++, discrete (positional)": ReleasedCase(
        "score_sde", "ncsnpp",
        {**_SONG, "embedding_type": "positional", "nf": 20, "ch_mult": (1, 1),
         "conditioning": {"label": "level", "steps": 1000}}, (16, 16),
    ),
    "DDPM++": ReleasedCase(
        "score_sde", "ncsnpp",
        {**_SONG, **_POSITIONAL, "fir": False, "progressive_input": "none"}, (20, 16),
    ),
    "DDPM++, VP NCSN++ blocks without skip rescaling": ReleasedCase(
        "score_sde", "ncsnpp",
        {**_SONG, **_POSITIONAL, "skip_rescale": False, "resblock_type": "ddpm", "fir": False,
         "resamp_with_conv": False}, (16, 16),
    ),
    "DDPM of score_sde": ReleasedCase(
        "score_sde", "ddpm", {**_DDPM, "conditioning": _ACROSS}, (16, 12)
    ),
    "guided-diffusion, resblock_updown": ReleasedCase("guided-diffusion", "adm", _ADM, (24, 12)),
    "guided-diffusion, convolutions, shifts only, 4 heads": ReleasedCase(
        "guided-diffusion", "adm",
        {**_ADM, "resblock_updown": False, "use_scale_shift_norm": False, "learn_sigma": False,
         "num_head_channels": None, "num_heads": 4}, (12, 24),
    ),
    "EDM DhariwalUNet, EDM preconditioning": ReleasedCase(
        "edm", "adm", _EDM_ADM, (10, 14), times=(0.05, 7.0)
    ),
    "EDM SongUNet (DDPM++), VP preconditioning": ReleasedCase(
        "edm", "ncsnpp",
        {**_SONG, **_POSITIONAL, "fir": False, "progressive_input": "none"}, (16, 8),
    ),
    "EDM SongUNet (NCSN++), VE preconditioning": ReleasedCase(
        "edm", "ncsnpp",
        {**_SONG, "centered": True, "conditioning": {"label": "log-sigma", "gain": 0.5}}, (16, 24),
    ),
    "EDM SongUNet, skips, EDM preconditioning": ReleasedCase(
        "edm", "ncsnpp",
        {**_SONG, **_SKIP, "centered": True, "embedding_channels": 12, "sde": _KARRAS,
         "conditioning": {"label": "karras"}}, (16, 16), times=(0.05, 7.0),
    ),
    "diffusers UNet2DModel, DDPM": ReleasedCase(
        "diffusers", "ddpm",
        {**_DDPM, "channels": 3, "attend_up": "all", "conditioning": _ACROSS}, (12, 20),
    ),
    "diffusers UNet2DModel, resnet resampling, scale and shift": ReleasedCase(
        "diffusers", "ddpm",
        {**_DDPM, "channels": 3, "attend_up": "all", "scale_shift": True, "resample": "block",
         "attention_head_dim": 8, "norm_num_groups": 16, "norm_eps": 1e-5, "freq_shift": 0,
         "flip_sin_to_cos": True, "conditioning": _ACROSS}, (12, 8),
    ),
    "diffusers UNet2DModel, NCSN++": ReleasedCase(
        "diffusers", "ncsnpp",
        {**_SONG, **_SKIP, "nf": 128, "ch_mult": (1, 1), "image_size": 8, "attn_resolutions": (4,)},
        (8, 8),
    ),
    "NCSNv2": ReleasedCase("ncsnv2", "ncsnv2", _NCSNV2, (14, 18)),
    "NCSNv2 Deeper": ReleasedCase("ncsnv2", "ncsnv2", {**_NCSNV2, "depth": "deeper"}, (20, 12)),
    "NCSNv2 Deepest (csgm-mri)": ReleasedCase(
        "ncsnv2", "ncsnv2", {**_NCSNV2, "depth": "deepest"}, (24, 40)
    ),
}  # fmt: skip


def diffusers_config(c: dict[str, Any]) -> dict[str, Any]:
    """UNet2DModel's configuration of one of our networks."""
    channels = {"sample_size": c["image_size"], "in_channels": c["channels"],
                "out_channels": c["channels"], "layers_per_block": c["num_res_blocks"]}  # fmt: skip
    if "nf" in c:
        kinds = ["Attn" if c["image_size"] >> i in c["attn_resolutions"] else ""
                 for i in range(len(c["ch_mult"]))]  # fmt: skip
        return {
            **channels, "time_embedding_type": "fourier", "center_input_sample": True,
            "block_out_channels": [c["nf"] * m for m in c["ch_mult"]],
            "down_block_types": [f"{kind}SkipDownBlock2D" for kind in kinds],
            "up_block_types": [f"{kind}SkipUpBlock2D" for kind in reversed(kinds)],
            "norm_eps": 1e-6, "norm_num_groups": None, "mid_block_scale_factor": 2**0.5,
            "attention_head_dim": None,
        }  # fmt: skip
    resnet = c.get("resample") == "block"
    kinds = [
        "Attn{}Block2D" if c["image_size"] >> i in c["attn_resolutions"]
        else "Resnet{}sampleBlock2D" if resnet else "{}Block2D"
        for i in range(len(c["widths"]))
    ]  # fmt: skip
    return {
        **channels, "block_out_channels": list(c["widths"]),
        "down_block_types": [kind.format("Down") for kind in kinds],
        "up_block_types": [kind.format("Up") for kind in reversed(kinds)],
        "downsample_padding": c.get("downsample_padding", 0),
        "downsample_type": "resnet" if resnet else "conv",
        "upsample_type": "resnet" if resnet else "conv",
        "freq_shift": c.get("freq_shift", 1), "flip_sin_to_cos": c.get("flip_sin_to_cos", False),
        "norm_num_groups": c.get("norm_num_groups", 32), "norm_eps": c.get("norm_eps", 1e-6),
        "attention_head_dim": c.get("attention_head_dim"),
        "resnet_time_scale_shift": "scale_shift" if c.get("scale_shift") else "default",
        "attn_norm_num_groups": c.get("norm_num_groups", 32),
    }  # fmt: skip
