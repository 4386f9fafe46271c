"""The guided-diffusion U-Net (Dhariwal & Nichol 2021), "ADM", and EDM's DhariwalUNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .layers import NoiseEmbedding, Style
from .score_network import ScoreNetwork, config_of
from .score_unet import ScoreUNet, attention_levels

_VP = {"name": "vp", "beta_min": 0.1, "beta_max": 20.0}


class ADM(ScoreNetwork):
    """The U-Net of Dhariwal & Nichol 2021; images in [-1, 1].

    Defaults: the unconditional network of ImageNet 256x256 (552.8 M parameters). Attention at the
    levels whose size, image_size // 2^i, is in attention_resolutions, after every block, in heads
    of num_head_channels (or num_heads of them, if that is None). learn_sigma: F has as many
    channels again for the variance. min_group: smallest group of the norm (EDM's is 4).
    """

    def __init__(
        self,
        channels: int = 3,
        image_size: int = 256,
        *,
        num_channels: int = 256,
        channel_mult: Sequence[float] = (1, 1, 2, 2, 4, 4),
        num_res_blocks: int = 2,
        attention_resolutions: Sequence[int] = (32, 16, 8),
        num_head_channels: int | None = 64,
        num_heads: int | None = None,
        use_scale_shift_norm: bool = True,
        resblock_updown: bool = True,
        learn_sigma: bool = True,
        dropout: float = 0.0,
        min_group: int = 1,
        centered: bool = True,
        sde: dict[str, Any] | None = None,
        conditioning: dict[str, Any] | None = None,
    ):
        sde, conditioning = sde or _VP, conditioning or {"label": "schedule"}
        config = config_of(locals())
        widths = tuple(int(num_channels * m) for m in channel_mult)
        style = Style(
            min_group=min_group,
            eps=1e-5,
            dropout=dropout,
            skip_scale=1.0,
            scale_shift=use_scale_shift_norm,
            taps=(1, 1),
            project_resampled=False,
            head_channels=num_head_channels,
            num_heads=num_heads if num_head_channels is None else None,
        )
        net = ScoreUNet(
            channels, channels * (2 if learn_sigma else 1), widths[0], widths,
            num_res_blocks,
            attention_levels(image_size, len(widths), tuple(attention_resolutions)),
            style,
            NoiseEmbedding(num_channels, "positional", last=0, cosine_first=True),
            resample="block" if resblock_updown else "conv",
            conv_before=1,
            attend_up="all",
        )  # fmt: skip
        super().__init__(net, channels, centered, sde, conditioning, config)
