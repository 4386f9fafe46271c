"""DDPM's U-Net (Ho et al. 2020, app. B), and diffusers' UNet2DModel, which generalises it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .layers import NoiseEmbedding, Style
from .score_network import ScoreNetwork, config_of
from .score_unet import ScoreUNet, attention_levels

_VP = {"name": "vp", "beta_min": 0.1, "beta_max": 20.0}


class DDPM(ScoreNetwork):
    """The U-Net of Ho et al. 2020 as released in score_sde; images in [-1, 1] if `centered`.

    Defaults: CIFAR-10 (35.7 M parameters). Attention at the levels whose size, image_size // 2^i,
    is in attn_resolutions, on the way up after "all" blocks or only the "last" (`attend_up`: Ho et
    al.'s and diffusers' networks "all", score_sde's "last"). The other arguments are diffusers':
    heads of attention_head_dim channels (None: one head), resnet_time_scale_shift (`scale_shift`),
    downsample_padding, freq_shift, flip_sin_to_cos, and downsample_type "resnet"
    (`resample="block"`).
    """

    def __init__(
        self,
        channels: int = 3,
        image_size: int = 32,
        *,
        out_channels: int | None = None,
        widths: Sequence[int] = (128, 256, 256, 256),
        num_res_blocks: int = 2,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.1,
        attend_up: str = "last",
        attention_head_dim: int | None = None,
        norm_num_groups: int = 32,
        norm_eps: float = 1e-6,
        scale_shift: bool = False,
        resample: str = "conv",
        downsample_padding: int = 0,
        freq_shift: int = 1,
        flip_sin_to_cos: bool = False,
        middle_attention: bool = True,
        centered: bool = True,
        sde: dict[str, Any] | None = None,
        conditioning: dict[str, Any] | None = None,
    ):
        sde, conditioning = sde or _VP, conditioning or {"label": "schedule"}
        config = config_of(locals())
        style = Style(
            groups=norm_num_groups,
            min_group=1,
            eps=norm_eps,
            dropout=dropout,
            skip_scale=1.0,
            scale_shift=scale_shift,
            taps=(1, 1),
            project_resampled=False,
            head_channels=attention_head_dim,
        )
        embedding = NoiseEmbedding(
            widths[0], "positional", last=freq_shift, cosine_first=flip_sin_to_cos
        )
        net = ScoreUNet(
            channels, out_channels or channels, widths[0], tuple(widths),
            num_res_blocks,
            attention_levels(image_size, len(widths), tuple(attn_resolutions)),
            style, embedding,
            resample=resample,
            conv_before=downsample_padding,
            attend_up=attend_up,
            middle_attention=middle_attention,
        )  # fmt: skip
        super().__init__(net, channels, centered, sde, conditioning, config)
