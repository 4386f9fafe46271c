"""NCSN++ and DDPM++ (Song et al. 2021, app. H), and EDM's SongUNet, which is the same network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .layers import NoiseEmbedding, Style
from .score_network import ScoreNetwork, config_of
from .score_unet import ScoreUNet, attention_levels

_VE = {"name": "ve", "sigma_min": 0.01, "sigma_max": 50.0}
_INPUTS = {"none": "none", "input_skip": "skip", "residual": "residual"}
_OUTPUTS = {"none": "none", "output_skip": "skip", "residual": "residual"}


class NCSNpp(ScoreNetwork):
    """The score network of Song et al. 2021, its arguments named as in their configurations.

    Defaults: NCSN++ of CIFAR-10 in continuous time. image_size says which levels have attention
    (those whose size is in attn_resolutions); any H, W divisible by 2^(levels - 1) may come in.
    embedding_channels: of the noise embedding's features, nf unless EDM's channel_mult_noise says
    otherwise. conditioning: {"label": ..., ...} of `conditioning.KINDS`.
    """

    def __init__(
        self,
        channels: int = 3,
        image_size: int = 32,
        *,
        nf: int = 128,
        ch_mult: Sequence[int] = (1, 2, 2, 2),
        num_res_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.1,
        resamp_with_conv: bool = True,
        conditional: bool = True,
        fir: bool = True,
        fir_kernel: Sequence[int] = (1, 3, 3, 1),
        skip_rescale: bool = True,
        resblock_type: str = "biggan",
        progressive: str = "none",
        progressive_input: str = "residual",
        progressive_combine: str = "sum",
        embedding_type: str = "fourier",
        embedding_channels: int | None = None,
        fourier_scale: float = 16.0,
        centered: bool = False,
        sde: dict[str, Any] | None = None,
        conditioning: dict[str, Any] | None = None,
    ):
        sde, conditioning = sde or _VE, conditioning or {"label": "log-sigma"}
        config = config_of(locals())
        _check(progressive, progressive_input, resblock_type)
        style = Style(
            dropout=dropout,
            skip_scale=math.sqrt(0.5) if skip_rescale else 1.0,
            taps=tuple(fir_kernel) if fir else (1, 1),
        )
        embedding = NoiseEmbedding(
            nf, embedding_type, scale=fourier_scale, channels=embedding_channels
        )
        net = ScoreUNet(
            channels, channels, nf,
            tuple(nf * m for m in ch_mult),
            num_res_blocks,
            attention_levels(image_size, len(ch_mult), tuple(attn_resolutions)),
            style,
            embedding if conditional else None,
            resample=_resample(resblock_type, resamp_with_conv),
            conv_before=0,
            pyramid_in=_INPUTS[progressive_input],
            pyramid_out=_OUTPUTS[progressive],
            combine=progressive_combine,
        )  # fmt: skip
        super().__init__(net, channels, centered, sde, conditioning, config)


def _resample(resblock_type: str, with_conv: bool) -> str:
    if resblock_type == "biggan":
        return "block"
    return "conv" if with_conv else "filter"


def _check(progressive: str, progressive_input: str, resblock_type: str) -> None:
    known = (
        ("progressive", progressive, _OUTPUTS),
        ("progressive_input", progressive_input, _INPUTS),
        ("resblock_type", resblock_type, ("biggan", "ddpm")),
    )
    for name, value, choices in known:
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
