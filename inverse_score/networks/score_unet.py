"""The U-Net that NCSN++, DDPM++, DDPM, guided-diffusion's and EDM's networks are cases of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from .convolutions import (
    Conv1x1,
    Conv3x3,
    FilteredConv,
    NearestConv,
    Resampling,
    StridedConv,
    downsample,
    initialise,
    upsample,
)
from .layers import Attention, NoiseEmbedding, ResBlock, Style, scaled_sum, silu


class Combine(nn.Module):
    """conv1x1(pyramid) + h, or both concatenated: progressive input of Song et al. 2021, app. H."""

    def __init__(self, in_channels: int, out_channels: int, method: str):
        super().__init__()
        self.conv = initialise(Conv1x1(in_channels, out_channels))
        self.method = method

    def forward(self, pyramid: Tensor, h: Tensor) -> Tensor:
        pyramid = self.conv(pyramid)
        return pyramid + h if self.method == "sum" else torch.cat([pyramid, h], dim=1)


class Head(nn.Module):
    """conv3x3(silu(norm h))."""

    def __init__(self, in_channels: int, out_channels: int, style: Style, scale: float = 0.0):
        super().__init__()
        self.norm = style.norm(in_channels)
        self.conv = initialise(Conv3x3(in_channels, out_channels), scale)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv(silu(self.norm(h)))


class Resolution(nn.Module):
    """Blocks of one resolution, their attention, and the way to the next resolution.

    blocks and attention run in turn; an entry of attention may be None. resample, pyramid and head
    may be None.
    """

    def __init__(
        self, blocks: Iterable[nn.Module], attention: Iterable[nn.Module | None],
        resample: Any = None, pyramid: Any = None, head: Any = None,
    ):  # fmt: skip
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attention = nn.ModuleDict(
            {str(i): layer for i, layer in enumerate(attention) if layer is not None}
        )
        self.resample: Any = resample
        self.pyramid: Any = pyramid
        self.head: Any = head

    def pairs(self) -> Iterator[tuple[nn.Module, nn.Module | None]]:
        for i, block in enumerate(self.blocks):
            name = str(i)
            yield block, self.attention[name] if name in self.attention else None  # noqa: SIM401

    def change_size(self, h: Tensor, emb: Tensor | None) -> Tensor:
        return self.resample(h, emb) if isinstance(self.resample, ResBlock) else self.resample(h)


class ScoreUNet(nn.Module):
    """F(x, label): x (B, channels, H, W), label (B,), to (B, out_channels, H, W).

    H and W are multiples of 2^(levels - 1). widths: channels a level, full size first; blocks: a
    level, and one more on the way up; attention: the levels (0 is full size) that have it, after
    every block on the way down, on the way up after "all" or only the "last" (`attend_up`).
    resample: "block" (a residual block that resamples), "conv" (a convolution that does,
    `conv_before`: see StridedConv) or "filter" (no weights). pyramid_in, pyramid_out: "none",
    "skip" or "residual" (progressive input and output of Song et al. 2021, app. H); combine:
    "sum" or "cat", for pyramid_in "skip". middle_attention: between the two lowest blocks.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        stem: int,
        widths: tuple[int, ...],
        blocks: int,
        attention: tuple[int, ...],
        style: Style,
        embedding: NoiseEmbedding | None,
        *,
        resample: str = "block",
        conv_before: int = 1,
        attend_up: str = "last",
        pyramid_in: str = "none",
        pyramid_out: str = "none",
        combine: str = "sum",
        middle_attention: bool = True,
    ):
        super().__init__()
        _one_of("resample", resample, ("block", "conv", "filter"))
        _one_of("attend_up", attend_up, ("all", "last"))
        _one_of("pyramid_in", pyramid_in, ("none", "skip", "residual"))
        _one_of("pyramid_out", pyramid_out, ("none", "skip", "residual"))
        _one_of("combine", combine, ("sum", "cat"))
        self.style, self.kind, self.conv_before = style, resample, conv_before
        self.pyramid_in, self.pyramid_out, self.combine = pyramid_in, pyramid_out, combine
        self.multiple = 2 ** (len(widths) - 1)
        self.embedding = embedding
        self.emb = None if embedding is None else embedding.linear1.out_features
        self.stem = initialise(Conv3x3(channels, stem))
        skips = self._build_down(channels, stem, widths, blocks, attention)
        self.mid0 = ResBlock(skips[-1], skips[-1], self.emb, style)
        self.mid_attention = Attention(skips[-1], style) if middle_attention else None
        self.mid1 = ResBlock(skips[-1], skips[-1], self.emb, style)
        self._build_up(out_channels, skips, widths, blocks, attention, attend_up)
        self.head = None if pyramid_out == "skip" else Head(widths[0], out_channels, style)

    def _build_down(self, channels, stem, widths, blocks, attention) -> list[int]:
        levels, skips, pyramid = [], [stem], channels
        for i, width in enumerate(widths):
            sizes = [skips[-1]] + blocks * [width]
            level = Resolution(
                [ResBlock(a, b, self.emb, self.style) for a, b in pairwise(sizes)],
                [Attention(width, self.style) if i in attention else None for _ in range(blocks)],
            )
            skips += sizes[1:]
            if i < len(widths) - 1:
                level.resample = self._resampler(width, "down")
                out = width
                if self.pyramid_in == "skip":
                    level.pyramid = Combine(pyramid, width, self.combine)
                    out = width if self.combine == "sum" else 2 * width
                elif self.pyramid_in == "residual":
                    level.pyramid = self._resampling_conv(pyramid, width, "down", 0)
                    pyramid = width
                skips.append(out)
            levels.append(level)
        self.down = nn.ModuleList(levels)
        return skips

    def _build_up(self, out_channels, skips, widths, blocks, attention, attend_up) -> None:
        levels, skips, pyramid = [], list(skips), None
        size = skips[-1]
        for i, width in reversed(list(enumerate(widths))):
            inputs = [size] + blocks * [width]
            attended = range(blocks + 1) if attend_up == "all" else (blocks,)
            level = Resolution(
                [ResBlock(a + skips.pop(), width, self.emb, self.style) for a in inputs],
                [
                    Attention(width, self.style) if i in attention and j in attended else None
                    for j in range(blocks + 1)
                ],
            )
            size = width
            if self.pyramid_out == "skip":
                level.head = Head(width, out_channels, self.style)
            elif self.pyramid_out == "residual":
                if pyramid is None:
                    level.head = Head(width, width, self.style, 1.0)
                else:
                    level.pyramid = self._resampling_conv(pyramid, width, "up", 0)
            pyramid = width
            if i > 0:
                level.resample = self._resampler(width, "up")
            levels.append(level)
        self.up = nn.ModuleList(levels)

    def _resampler(self, width: int, direction: Resampling) -> nn.Module | None:
        if self.kind == "block":
            return ResBlock(width, width, self.emb, self.style, direction)
        if self.kind == "conv":
            return self._resampling_conv(width, width, direction, self.conv_before)
        return Resample(direction, self.style.taps)

    def _resampling_conv(self, a: int, b: int, direction: Resampling, before: int) -> nn.Module:
        if self.style.taps != (1, 1):
            return FilteredConv(a, b, direction, self.style.taps)
        return NearestConv(a, b) if direction == "up" else StridedConv(a, b, before)

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.stem.in_channels or self._misfits(x):
            raise ValueError(
                f"x must be (B, {self.stem.in_channels}, H, W) with H and W multiples of "
                f"{self.multiple}; got {tuple(x.shape)}"
            )
        # Channels last: the layout of the fast convolutions, attention and norm.
        x = x.contiguous(memory_format=torch.channels_last)
        emb = None if self.embedding is None else self.embedding(label)
        skips = self.encode(x, emb)
        h = self.mid0(skips[-1], emb)
        h = h if self.mid_attention is None else self.mid_attention(h)
        return self.decode(self.mid1(h, emb), skips, emb)

    def _misfits(self, x: Tensor) -> bool:
        return x.shape[2] % self.multiple > 0 or x.shape[3] % self.multiple > 0

    def encode(self, x: Tensor, emb: Tensor | None) -> list[Tensor]:
        h = self.stem(x)
        skips, pyramid = [h], x
        for level in cast("Iterable[Resolution]", self.down):
            for block, attention in level.pairs():
                h = block(h, emb)
                h = h if attention is None else attention(h)
                skips.append(h)
            if level.resample is None:
                continue
            h = level.change_size(h, emb)
            if self.pyramid_in == "skip":
                pyramid = downsample(pyramid, self.style.taps)
                h = level.pyramid(pyramid, h)
            elif self.pyramid_in == "residual":
                h = pyramid = scaled_sum(level.pyramid(pyramid), h, self.style.skip_scale)
            skips.append(h)
        return skips

    def decode(self, h: Tensor, skips: list[Tensor], emb: Tensor | None) -> Tensor:
        pyramid = None
        for level in cast("Iterable[Resolution]", self.up):
            for block, attention in level.pairs():
                h = block(torch.cat([h, skips.pop()], dim=1), emb)
                h = h if attention is None else attention(h)
            if self.pyramid_out == "skip":
                below = 0 if pyramid is None else upsample(pyramid, self.style.taps)
                pyramid = level.head(h) + below
            elif self.pyramid_out == "residual":
                if pyramid is None:
                    pyramid = level.head(h)
                else:
                    h = pyramid = scaled_sum(level.pyramid(pyramid), h, self.style.skip_scale)
            if level.resample is not None:
                h = level.change_size(h, emb)
        return pyramid if self.head is None else self.head(h)  # type: ignore[return-value]


class Resample(nn.Module):
    """The resampling filter alone."""

    def __init__(self, direction: Resampling, taps: tuple[int, ...]):
        super().__init__()
        self.direction, self.taps = direction, taps

    def forward(self, x: Tensor) -> Tensor:
        return (upsample if self.direction == "up" else downsample)(x, self.taps)


def attention_levels(
    image_size: int, levels: int, resolutions: tuple[int, ...] | list[int]
) -> tuple[int, ...]:
    """The levels whose size, image_size // 2^level, is among the resolutions.

    Fixed at construction, so that an image of another size meets the same layers.
    """
    return tuple(i for i in range(levels) if image_size // 2**i in tuple(resolutions))


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")
