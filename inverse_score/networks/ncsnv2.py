"""NCSNv2 (Song & Ermon 2020): a RefineNet with instance norm++ whose output is over sigma."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .convolutions import Conv1x1, Conv3x3
from .score_network import ScoreNetwork, config_of

# Stages of residual blocks: (width in units of ngf, halves the size, dilation).
_STAGES = {
    "ncsnv2": ((1, False, 1), (2, True, 1), (2, True, 2), (2, True, 4)),
    "deeper": ((1, False, 1), (2, True, 1), (2, True, 1), (4, True, 2), (4, True, 4)),
    "deepest": (
        (1, False, 1), (2, True, 1), (2, True, 1), (2, True, 1), (4, True, 2), (4, True, 4),
    ),
}  # fmt: skip
# Widths of the refinement stages, lowest first.
_REFINE = {"ncsnv2": (2, 2, 1, 1), "deeper": (4, 2, 2, 1, 1), "deepest": (4, 2, 2, 2, 1, 1)}


class NCSNv2(ScoreNetwork):
    """score = F(2 x - 1) / sigma (Song & Ermon 2020, technique 3); F does not see the noise level.

    depth: "ncsnv2" (32 and 64 pixels), "deeper" (96 to 128), "deepest" (256; the MRI network of
    Jalal et al. 2021). H and W are any: the way up resizes to the sizes of the way down. The levels
    are geometric from sigma_max to sigma_min: a VE SDE.
    """

    def __init__(
        self,
        channels: int = 3,
        image_size: int = 32,
        *,
        ngf: int = 128,
        depth: str = "ncsnv2",
        nonlinearity: str = "elu",
        centered: bool = False,
        sde: dict[str, Any] | None = None,
        conditioning: dict[str, Any] | None = None,
    ):
        sde = sde or {"name": "ve", "sigma_min": 0.01, "sigma_max": 50.0}
        conditioning = conditioning or {"label": "none"}
        config = config_of(locals())
        if depth not in _STAGES:
            raise ValueError(f"depth must be one of {', '.join(_STAGES)}; got {depth!r}")
        net = RefineNet(channels, ngf, depth, nonlinearity)
        super().__init__(net, channels, centered, sde, conditioning, config)


class RefineNet(nn.Module):
    """F(x): residual stages down, multi-path refinement up (Lin et al. 2017)."""

    def __init__(self, channels: int, ngf: int, depth: str, nonlinearity: str):
        super().__init__()
        act = activation(nonlinearity)
        stages, refine = _STAGES[depth], _REFINE[depth]
        self.act = act
        self.stem = Conv3x3(channels, ngf)
        self.stages, width = nn.ModuleList(), ngf
        for units, halve, dilation in stages:
            first = ConvBlock(width, units * ngf, act, halve, dilation)
            width = units * ngf
            self.stages.append(
                nn.ModuleList([first, ConvBlock(width, width, act, False, dilation)])
            )
        self.refine, below = nn.ModuleList(), None
        for i, units in enumerate(refine):
            lateral = stages[-1 - i][0] * ngf
            inputs = [lateral] if below is None else [lateral, below]
            self.refine.append(RefineBlock(inputs, units * ngf, act, i == len(refine) - 1))
            below = units * ngf
        self.norm = InstanceNormPlus(ngf)
        self.last = Conv3x3(ngf, channels)

    def forward(self, x: Tensor, label: None = None) -> Tensor:
        h = self.stem(x.contiguous(memory_format=torch.channels_last))
        levels = []
        for stage in self.stages:
            for block in stage:  # type: ignore[attr-defined]
                h = block(h)
            levels.append(h)
        h = None
        for block, level in zip(self.refine, reversed(levels), strict=True):
            h = block([level] if h is None else [level, h], level.shape[2:])
        return self.last(self.act(self.norm(h)))


class ConvBlock(nn.Module):
    """S(x) + conv(act(norm(conv(act(norm x))))), the last convolution and S halving if asked."""

    def __init__(self, a: int, b: int, act, halve: bool, dilation: int):
        super().__init__()
        self.act = act
        # A dilated stage keeps its size; only the undilated ones halve it, by a mean.
        self.pool = halve and dilation == 1
        inner = a if halve else b
        self.norm1, self.conv1 = InstanceNormPlus(a), _conv(a, inner, dilation)
        self.norm2, self.conv2 = InstanceNormPlus(inner), _conv(inner, b, dilation)
        skip = Conv1x1(a, b) if dilation == 1 else _conv(a, b, dilation)
        self.skip = skip if halve or a != b else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(self.act(self.norm1(x)))
        h = self._pooled(self.conv2, self.act(self.norm2(h)))
        return h + (x if self.skip is None else self._pooled(self.skip, x))

    def _pooled(self, conv: nn.Module, x: Tensor) -> Tensor:
        return functional.avg_pool2d(conv(x), 2) if self.pool else conv(x)


class RefineBlock(nn.Module):
    """Residual units on each input, their sum at the larger size, chained pooling, a last unit."""

    def __init__(self, inputs: Sequence[int], width: int, act, end: bool):
        super().__init__()
        self.adapt = nn.ModuleList([ResidualUnits(c, 2, act) for c in inputs])
        merged = inputs if len(inputs) > 1 else ()
        self.merge = nn.ModuleList([Conv3x3(c, width) for c in merged])
        self.pooling = ChainedPooling(width, act)
        self.output = ResidualUnits(width, 3 if end else 1, act)

    def forward(self, xs: list[Tensor], size) -> Tensor:
        hs = [adapt(x) for adapt, x in zip(self.adapt, xs, strict=True)]
        h = hs[0]
        if len(self.merge) > 0:
            merged = zip(self.merge, hs, strict=True)
            h = sum(_resize(merge(x), size) for merge, x in merged)  # type: ignore[assignment]
        return self.output(self.pooling(h))


class ResidualUnits(nn.Module):
    """units times x + conv(act(conv(act x))), convolutions without bias."""

    def __init__(self, width: int, units: int, act):
        super().__init__()
        self.act = act
        self.convs = nn.ModuleList([_unbiased(width) for _ in range(2 * units)])

    def forward(self, x: Tensor) -> Tensor:
        for i in range(0, len(self.convs), 2):
            x = x + self.convs[i + 1](self.act(self.convs[i](self.act(x))))
        return x


class ChainedPooling(nn.Module):
    """act(x) + p_1 + p_2, each p the 5x5 maximum of the one before, convolved."""

    def __init__(self, width: int, act):
        super().__init__()
        self.act = act
        self.convs = nn.ModuleList([_unbiased(width) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        x = path = self.act(x)
        for conv in self.convs:
            path = conv(functional.max_pool2d(path, 5, stride=1, padding=2))
            x = x + path
        return x


class InstanceNormPlus(nn.Module):
    """gamma (norm(x) + alpha (mean - m) / sqrt(v + 1e-5)) + beta; m and v of the means over C.

    Instance norm that keeps how the channels' means differ (Song & Ermon 2019, app. A).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(1 + 0.02 * torch.randn(channels))
        self.gamma = nn.Parameter(1 + 0.02 * torch.randn(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3))
        spread = torch.var(means, dim=-1, keepdim=True)
        means = (means - means.mean(dim=-1, keepdim=True)) / torch.sqrt(spread + 1e-5)
        # gamma norm(x) + (gamma alpha means + beta), the second part one number a channel.
        shift = self.gamma * self.alpha * means + self.beta
        h = functional.instance_norm(x) * self.gamma[:, None, None]
        return h + shift[:, :, None, None]


def activation(name: str):
    """The nonlinearity of this name in the released configurations."""
    known = {
        "elu": functional.elu,
        "relu": functional.relu,
        "lrelu": lambda x: functional.leaky_relu(x, 0.2),
        "swish": functional.silu,
    }
    if name not in known:
        raise ValueError(f"nonlinearity must be one of {', '.join(known)}; got {name!r}")
    return known[name]


def _resize(x: Tensor, size) -> Tensor:
    if x.shape[2:] == size:
        return x
    return functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


def _conv(a: int, b: int, dilation: int) -> nn.Conv2d:
    if dilation == 1:
        return Conv3x3(a, b)
    return nn.Conv2d(a, b, 3, padding=dilation, dilation=dilation)


def _unbiased(width: int) -> nn.Conv2d:
    conv = Conv3x3(width, width)
    conv.bias = None
    return conv
