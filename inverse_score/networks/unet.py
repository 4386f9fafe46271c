"""A compact U-Net denoiser that is quick on a CPU in bfloat16, for images of any size.

Pixel-unshuffled input (Shi et al. 2016) moves the work to channels, where matrix units are fast;
skips are added, not concatenated; the noise level enters every block as a scale and a shift.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..sde import SDES, per_item

_NORMS = ("group", "none")


class UNet(nn.Module):
    """x0_hat = c_skip(s) x + c_out(s) F(c_in(s) x, ln s)  (Karras et al. 2022, eq. 7, table 1).

    x (B, channels, H, W) of any H, W is x_t; s = sigma(t) / alpha(t) is its noise-to-signal under
    `sde` ({"name": a key of SDES, **its arguments}), t (B,), and x above stands for x_t / alpha(t).
    What comes back is E[x_0 | x_t] in x's dtype. sigma_data: standard deviation of the images.
    widths: channels a level, each at half the resolution of the one before; blocks: residual
    blocks a level, on the way down and again on the way up; patch: pixels a side that the input
    folds into channels; norm: "group" or "none"; groups: of the 3x3 convolutions ("depthwise"
    where it equals the width); attention: self-attention at the lowest level; hints: channels of a
    second input of x's size, such as another denoiser's estimate, that F sees beside x.
    Preconditioning and first convolution run in float32 whatever autocast says: bfloat16 rounds x
    by 2^-9 of its size, a noise that matters at the small levels that end a sampler.
    """

    def __init__(
        self,
        channels: int,
        *,
        sde: dict[str, Any] | None = None,
        sigma_data: float = 0.5,
        widths: tuple[int, ...] = (64, 128, 192),
        blocks: int = 2,
        patch: int = 2,
        norm: str = "none",
        groups: int = 1,
        attention: bool = False,
        embedding: int = 128,
        hints: int = 0,
    ):
        super().__init__()
        sde = {"name": "karras", "sigma_max": 80.0} if sde is None else dict(sde)
        self.config = {
            "channels": channels, "sde": sde, "sigma_data": sigma_data, "widths": list(widths),
            "blocks": blocks, "patch": patch, "norm": norm, "groups": groups,
            "attention": attention, "embedding": embedding, "hints": hints,
        }  # fmt: skip
        _check(self.config)
        self.sde = _build_sde(sde)
        self.sigma_data, self.patch = float(sigma_data), patch
        self.multiple = patch * 2 ** (len(widths) - 1)
        self.embed = NoiseLevelEmbedding(embedding)
        self.first = nn.Conv2d((channels + hints) * patch**2, widths[0], 3, padding=1)
        self.last = _zeroed(nn.Conv2d(widths[0], channels * patch**2, 3, padding=1))

        def level(width: int) -> nn.ModuleList:
            return nn.ModuleList(Block(width, embedding, norm, groups) for _ in range(blocks))

        self.down = nn.ModuleList(level(width) for width in widths)
        self.up = nn.ModuleList(level(width) for width in widths[:-1])
        pairs = list(itertools.pairwise(widths))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        self.attend = PixelAttention(widths[-1]) if attention else nn.Identity()
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor, t: Tensor, hint: Tensor | None = None) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        alpha = per_item(self.sde.alpha(t), x).to(dtype)
        s = per_item(self.sde.sigma(t), x).to(dtype) / alpha
        x0_plus_noise = x.to(dtype) / alpha
        c_skip, c_out, c_in = self.preconditioning(s)
        raw = self.raw(c_in * x0_plus_noise, s.reshape(-1).log() / 4, hint)
        return (c_skip * x0_plus_noise + c_out * raw.to(dtype)).to(x.dtype)

    def preconditioning(self, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(c_skip, c_out, c_in) of Karras et al. 2022, table 1, at noise level s."""
        total = s**2 + self.sigma_data**2
        return self.sigma_data**2 / total, s * self.sigma_data / total.sqrt(), total.rsqrt()

    def raw(self, x: Tensor, c_noise: Tensor, hint: Tensor | None = None) -> Tensor:
        """F(x, c_noise): the network proper, on unit-variance x of any size."""
        height, width = x.shape[-2:]
        x = x if hint is None else torch.cat([x, hint.to(x.dtype)], dim=1)
        x = pad_to_multiple(x.to(self.first.weight.dtype), self.multiple)
        x = functional.pixel_unshuffle(x, self.patch).contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, enabled=False):
            features = self.first(x)
            embedding = self.embed(c_noise.to(x.dtype))
        if torch.is_autocast_enabled(x.device.type):
            features = features.to(torch.get_autocast_dtype(x.device.type))
        features = self.last(self._levels(features, embedding))
        return functional.pixel_shuffle(features, self.patch)[..., :height, :width]

    def _levels(self, x: Tensor, embedding: Tensor) -> Tensor:
        skips = []
        for depth, level in enumerate(self.down):
            for block in cast("nn.ModuleList", level):
                x = block(x, embedding)
            if depth < len(self.shrink):
                skips.append(x)
                x = self.shrink[depth](x)
        x = self.attend(x)
        for depth in reversed(range(len(self.up))):
            x = skips[depth] + functional.interpolate(self.grow[depth](x), scale_factor=2.0)
            for block in cast("nn.ModuleList", self.up[depth]):
                x = block(x, embedding)
        return x


class NoiseLevelEmbedding(nn.Module):
    """MLP of sines and cosines of c_noise = ln(s) / 4 (B,): (B, width)."""

    frequencies: Tensor

    def __init__(self, width: int):
        super().__init__()
        # ln(s) / 4 spans about 2.7 from s = 0.002 to 80: periods from 8 times that to a 25th of it.
        frequencies = torch.logspace(math.log10(0.3), math.log10(60.0), width // 4)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.mlp = nn.Sequential(
            nn.Linear(2 * (width // 4), width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )

    def forward(self, c_noise: Tensor) -> Tensor:
        phase = c_noise[:, None] * self.frequencies
        return self.mlp(torch.cat([phase.cos(), phase.sin()], dim=1))


class Block(nn.Module):
    """x + conv(silu((1 + scale) norm(conv(silu(norm x))) + shift)), scale and shift of the noise.

    The last convolution starts at zero: the block starts as the identity (He et al. 2016).
    """

    def __init__(self, width: int, embedding: int, norm: str, groups: int):
        super().__init__()
        groups = math.gcd(groups, width)
        self.norm1, self.norm2 = _norm(norm, width), _norm(norm, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, groups=groups)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=groups)
        # Grouped convolutions never mix their groups; a pointwise one after them does.
        self.mix = nn.Conv2d(width, width, 1) if groups > 1 else nn.Identity()
        self.film = _zeroed(nn.Linear(embedding, 2 * width))
        _zeroed(self.mix if groups > 1 else self.conv2)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.norm2(self.conv1(functional.silu(self.norm1(x))))
        scale, shift = self.film(embedding)[:, :, None, None].to(h.dtype).chunk(2, dim=1)
        h = functional.silu(torch.addcmul(shift, h, 1 + scale))
        return x + self.mix(self.conv2(h))


class PixelAttention(nn.Module):
    """x + W softmax(q^T k / sqrt(d)) v over all pixels (Vaswani et al. 2017), heads of 32."""

    def __init__(self, width: int):
        super().__init__()
        self.heads = max(1, width // 32)
        self.norm = _norm("group", width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = _zeroed(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, width, height, columns = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, 3, self.heads, width // self.heads, -1)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(mixed.transpose(-1, -2).reshape(batch, width, height, columns))


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """x (B, C, H, W) reflected at the lower right until H and W are multiples; repeated where the
    image is too small to reflect."""
    below, right = (-x.shape[-2] % multiple), (-x.shape[-1] % multiple)
    if below == right == 0:
        return x
    fits = below < x.shape[-2] and right < x.shape[-1]
    return functional.pad(x, (0, right, 0, below), mode="reflect" if fits else "replicate")


def _norm(kind: str, width: int) -> nn.Module:
    return nn.GroupNorm(math.gcd(width, 8), width) if kind == "group" else nn.Identity()


def _zeroed(module: nn.Module) -> Any:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def _build_sde(sde: dict[str, Any]):
    arguments = dict(sde)
    name = arguments.pop("name", None)
    if name not in SDES:
        raise ValueError(f"sde's name must be one of {', '.join(SDES)}; got {name!r}")
    return SDES[name](**arguments)


def _check(config: dict[str, Any]) -> None:
    if config["norm"] not in _NORMS:
        raise ValueError(f"norm must be one of {', '.join(_NORMS)}; got {config['norm']!r}")
    sizes = [*config["widths"], config["channels"], config["blocks"], config["patch"]]
    sizes += [config["groups"], config["hints"] + 1]
    if not config["widths"] or min(sizes) < 1 or config["embedding"] < 8:
        raise ValueError(
            "widths (at least one), channels, blocks, patch and groups must be >= 1, hints >= 0 "
            f"and embedding >= 8; got {config}"
        )
    if not (math.isfinite(config["sigma_data"]) and config["sigma_data"] > 0):
        raise ValueError(f"sigma_data must be positive and finite; got {config['sigma_data']}")
