"""The blocks that NCSN++, DDPM++, DDPM, the guided-diffusion U-Net and EDM's networks share.

One residual block, one attention block, one pair of resampling functions; what differs between
the networks is a `Style`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .convolutions import Conv1x1, Conv3x3, Resampling, downsample, initialise, upsample

_DROPOUT_LEVELS = 2**16


@dataclass(frozen=True)
class Style:
    """What distinguishes the blocks of one published network from another's.

    groups, min_group: group norm has min(groups, C // min_group) groups. eps: of group norm.
    skip_scale: of a sum with its skip (sqrt(1/2): Karras et al. 2018's unit variance).
    scale_shift: the embedding scales and shifts (adaptive group norm) or only shifts.
    taps: one axis of the separable resampling filter; (1, 1): mean down, nearest up.
    project_resampled: a 1x1 convolution in the skip of every block that resamples.
    head_channels: width of an attention head; None: one head.
    """

    groups: int = 32
    min_group: int = 4
    eps: float = 1e-6
    dropout: float = 0.0
    skip_scale: float = math.sqrt(0.5)
    scale_shift: bool = False
    taps: tuple[int, ...] = (1, 3, 3, 1)
    project_resampled: bool = True
    head_channels: int | None = None
    num_heads: int | None = None

    def norm(self, channels: int) -> nn.GroupNorm:
        groups = min(self.groups, max(1, channels // self.min_group))
        if channels % groups:
            raise ValueError(f"{channels} channels do not divide into {groups} groups of the norm")
        return nn.GroupNorm(groups, channels, eps=self.eps)

    def heads(self, channels: int) -> int:
        heads = self.num_heads or channels // (self.head_channels or channels)
        if heads == 0 or channels % heads:
            raise ValueError(
                f"{channels} channels do not divide into heads of {self.head_channels} "
                f"(num_heads {self.num_heads})"
            )
        return heads


def add(h: Tensor, x: Tensor) -> Tensor:
    """h + x, in h's memory where nothing needs the old h: h must be a result of its caller's."""
    return h + x if torch.is_grad_enabled() else h.add_(x)


def scaled_sum(h: Tensor, x: Tensor, scale: float) -> Tensor:
    """scale (h + x), in h's memory as in `add`."""
    h = add(h, x)
    return h if scale == 1.0 else h.mul_(scale)


def silu(h: Tensor) -> Tensor:
    """h sigmoid(h), in h's memory as in `add`."""
    return functional.silu(h, inplace=not torch.is_grad_enabled())


def dropout(h: Tensor, share: float) -> Tensor:
    """h (B, C, H, W) with a random `share` of its entries 0, and the others divided by 1 - share.

    On a CPU by 16 random bits an entry, `share` being rounded to them: a third of the time.
    """
    if h.device.type != "cpu" or share == 0.0:
        return functional.dropout(h, share)
    kept = round((1 - share) * _DROPOUT_LEVELS)
    batch, channels, height, width = h.shape
    bits = torch.empty(-(-h.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    mask = bits.view(torch.int16)[: h.numel()] < kept - _DROPOUT_LEVELS // 2
    mask = mask.view(batch, height, width, channels).permute(0, 3, 1, 2)
    return h * mask.to(h.dtype).mul_(_DROPOUT_LEVELS / max(1, kept))


class ResBlock(nn.Module):
    """skip_scale (S(R x) + conv1(silu(norm1(conv0(R silu(norm0 x)) + W emb)))); R resamples.

    Residual block of BigGAN (Brock et al. 2019) as in Song et al. 2021, app. H, and, without R,
    of DDPM (Ho et al. 2020). emb (B, embedding) comes activated.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding: int | None,
        style: Style,
        resample: Resampling | None = None,
    ):
        super().__init__()
        self.style, self.resampling = style, resample
        self.norm0 = style.norm(in_channels)
        self.conv0 = initialise(Conv3x3(in_channels, out_channels))
        features = out_channels * (2 if style.scale_shift else 1)
        self.dense = None if embedding is None else initialise(nn.Linear(embedding, features))
        self.norm1 = style.norm(out_channels)
        self.conv1 = initialise(Conv3x3(out_channels, out_channels), 0.0)
        project = in_channels != out_channels or (resample and style.project_resampled)
        self.skip = initialise(Conv1x1(in_channels, out_channels)) if project else None

    def forward(self, x: Tensor, emb: Tensor | None) -> Tensor:
        h = self.conv0(self.resample(silu(self.norm0(x))))
        h = silu(self.modulate(h, emb))
        h = dropout(h, self.style.dropout) if self.training else h
        return scaled_sum(self.conv1(h), self.shortcut(x), self.style.skip_scale)

    def modulate(self, h: Tensor, emb: Tensor | None) -> Tensor:
        if self.dense is None or emb is None:
            return self.norm1(h)
        features = self.dense(emb)[:, :, None, None]
        if not self.style.scale_shift:
            return self.norm1(add(h, features))
        scale, shift = features.chunk(2, dim=1)
        return torch.addcmul(shift, self.norm1(h), 1 + scale)

    def resample(self, x: Tensor) -> Tensor:
        if self.resampling is None:
            return x
        return (upsample if self.resampling == "up" else downsample)(x, self.style.taps)

    def shortcut(self, x: Tensor) -> Tensor:
        if self.skip is None or self.resampling != "up":
            x = self.resample(x)
            return x if self.skip is None else self.skip(x)
        # A 1x1 convolution commutes with the filter; before it, it has a quarter of the pixels.
        x = self.resample(self.skip(x, bias=False))
        return add(x, self.skip.bias[:, None, None])  # type: ignore[index]


class Attention(nn.Module):
    """skip_scale (x + W softmax(q^T k / sqrt(d)) v): attention of all pixels to all pixels."""

    def __init__(self, channels: int, style: Style):
        super().__init__()
        self.heads, self.skip_scale = style.heads(channels), style.skip_scale
        self.norm = style.norm(channels)
        self.qkv = initialise(nn.Linear(channels, 3 * channels), 0.1)
        self.proj = initialise(nn.Linear(channels, channels), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        h = self.qkv(self.norm(x).permute(0, 2, 3, 1).reshape(batch, -1, channels))
        q, k, v = h.reshape(batch, -1, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        h = self.proj(attend(q, k, v).transpose(1, 2).reshape(batch, -1, channels))
        h = h.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        return scaled_sum(h, x, self.skip_scale)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, each (B, heads, pixels, d)."""
    # The fused kernel has neither a forward derivative nor a second one.
    if not torch.is_grad_enabled():
        return functional.scaled_dot_product_attention(q, k, v)
    return torch.softmax(q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2), dim=-1) @ v


class NoiseEmbedding(nn.Module):
    """silu(W1 silu(W0 features(label))): label (B,) to (B, 4 width).

    kind "fourier": sin and cos of 2 pi W label, W ~ N(0, scale^2) and never trained (Tancik et al.
    2020); "positional": sin and cos of label 10^(-4 k / (width / 2 - last)) (Vaswani et al. 2017),
    last 1 (DDPM) or 0 (guided-diffusion), cosines first if `cosine_first`.
    """

    W: Tensor
    frequencies: Tensor

    def __init__(
        self,
        width: int,
        kind: str,
        *,
        scale: float = 16.0,
        last: int = 1,
        cosine_first: bool = False,
        channels: int | None = None,
    ):
        super().__init__()
        self.kind, self.cosine_first = kind, cosine_first
        size = channels or width
        if kind == "fourier":
            self.register_buffer("W", torch.randn(size) * scale)
        elif kind == "positional":
            step = -math.log(1e4) / max(1, size // 2 - last)
            frequencies = torch.exp(torch.arange(size // 2, dtype=torch.float32) * step)
            self.register_buffer("frequencies", frequencies, persistent=False)
        else:
            raise ValueError(f"embedding must be 'fourier' or 'positional'; got {kind!r}")
        features = 2 * size if kind == "fourier" else size
        self.linear0 = initialise(nn.Linear(features, 4 * width))
        self.linear1 = initialise(nn.Linear(4 * width, 4 * width))

    def forward(self, label: Tensor) -> Tensor:
        features = self.features(label)
        return functional.silu(self.linear1(functional.silu(self.linear0(features))))

    def features(self, label: Tensor) -> Tensor:
        if self.kind == "fourier":
            # This order of the factors, because phases of hundreds of radians amplify rounding.
            phase = label[:, None] * self.W[None, :] * 2 * math.pi
        else:
            phase = label[:, None] * self.frequencies[None, :]
        pair = (phase.cos(), phase.sin()) if self.cosine_first else (phase.sin(), phase.cos())
        features = torch.cat(pair, dim=1)
        return functional.pad(features, (0, self.linear0.in_features - features.shape[1]))
