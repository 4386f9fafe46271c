"""Configurations that a checkpoint's own names, shapes and JSON files determine."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from ...errors import BadPrior
from ...networks.conditioning import Schedule
from ...sde import VPSDE
from .reading import Released

Tensors = Mapping[str, Tensor]


def edm_config(tensors: Tensors, name: str) -> tuple[str, dict[str, Any]]:
    """(network, arguments) of an EDM SongUNet or DhariwalUNet from enc.{size}x{size}_block{k}."""
    stems = [key for key in tensors if re.fullmatch(r"enc\.\d+x\d+_conv\.weight", key)]
    if len(stems) != 1:
        raise BadPrior(f"{name}: an EDM network has one enc.(size)_conv; got {stems}")
    size = int(re.findall(r"\d+", stems[0])[0])
    resolutions = sorted(
        {int(r) for key in tensors for r in re.findall(r"^enc\.(\d+)x\d+_block0\.conv1", key)},
        reverse=True,
    )
    widths = [len(tensors[f"enc.{r}x{r}_block0.conv1.bias"]) for r in resolutions]
    blocks = sum(f"enc.{size}x{size}_block{j}.conv1.bias" in tensors for j in range(100))
    attended = [r for r in resolutions if f"enc.{r}x{r}_block0.norm2.weight" in tensors]
    shared = {"channels": tensors[stems[0]].shape[1], "image_size": size, "num_res_blocks": blocks}
    if "out_conv.weight" in tensors:
        width = tensors["map_layer0.weight"].shape[1]
        return "adm", {
            **shared, "num_channels": width, "channel_mult": [w / width for w in widths],
            "attention_resolutions": attended, "num_head_channels": 64, "min_group": 4,
            "learn_sigma": len(tensors["out_conv.bias"]) == 2 * shared["channels"],
        }  # fmt: skip
    width = len(tensors[stems[0].replace("weight", "bias")])
    return "ncsnpp", {
        **shared, "nf": width, "ch_mult": [w // width for w in widths],
        "attn_resolutions": attended, "centered": True, **_edm_features(tensors, resolutions),
    }  # fmt: skip


def _edm_features(tensors: Tensors, resolutions: list[int]) -> dict[str, Any]:
    fourier, lower = "map_noise.freqs" in tensors, resolutions[1:2]
    residual = any(f"enc.{r}x{r}_aux_residual.weight" in tensors for r in lower)
    skip = any(f"enc.{r}x{r}_aux_skip.weight" in tensors for r in lower)
    heads = sum(f"dec.{r}x{r}_aux_conv.weight" in tensors for r in resolutions)
    features = tensors["map_layer0.weight"].shape[1]
    return {
        "embedding_type": "fourier" if fourier else "positional",
        "embedding_channels": features // 2 if fourier else features,
        "progressive_input": "residual" if residual else "input_skip" if skip else "none",
        "progressive": "output_skip" if heads > 1 else "none",
    }


def taps_of(filters: list[Tensor]) -> list[int]:
    """The separable filter's taps, from EDM's stored outer product; (1, 1) if none is stored."""
    if not filters:
        return [1, 1]
    line = filters[0].double().flatten(0, -2)[0]
    return [round(value) for value in (line / line[0]).tolist()]


def diffusers_config(released: Released) -> tuple[str, dict[str, Any]]:
    """(network, its arguments) of a UNet2DModel folder."""
    config, scheduler = released.config, released.scheduler
    kinds = [str(kind) for kind in _need(config, "down_block_types", released.name)]
    widths = _need(config, "block_out_channels", released.name)
    size = config.get("sample_size")
    if not isinstance(size, int):
        raise BadPrior(f"{released.name}: sample_size must be an integer; got {size!r}")
    shared = {
        "channels": config.get("in_channels", 3), "image_size": size,
        "num_res_blocks": config.get("layers_per_block", 2),
        "attn_resolutions": [size >> i for i, kind in enumerate(kinds) if "Attn" in kind],
        "dropout": config.get("dropout", 0.0), "centered": not config.get("center_input_sample"),
    }  # fmt: skip
    _supported(config, kinds, released.name)
    shared |= _noise(scheduler, released.name)
    if any("Skip" in kind for kind in kinds):
        multipliers = [width // widths[0] for width in widths]
        pyramids = {"progressive": "output_skip", "progressive_input": "input_skip"}
        return "ncsnpp", {**shared, **pyramids, "nf": widths[0], "ch_mult": multipliers,
                          **_embedding(config)}  # fmt: skip
    resnet = any("Resnet" in kind for kind in kinds) or config.get("downsample_type") == "resnet"
    return "ddpm", {
        **shared, "widths": widths, "attend_up": "all",
        "out_channels": config.get("out_channels", 3),
        "attention_head_dim": config.get("attention_head_dim", 8),
        "norm_num_groups": config.get("norm_num_groups", 32),
        "norm_eps": config.get("norm_eps", 1e-5),
        "scale_shift": config.get("resnet_time_scale_shift", "default") == "scale_shift",
        "resample": "block" if resnet else "conv",
        "downsample_padding": config.get("downsample_padding", 1),
        "freq_shift": config.get("freq_shift", 0),
        "flip_sin_to_cos": config.get("flip_sin_to_cos", True),
        "middle_attention": config.get("add_attention", True),
    }  # fmt: skip


def _embedding(config: Mapping[str, Any]) -> dict[str, Any]:
    fourier = config.get("time_embedding_type", "positional") == "fourier"
    return {"embedding_type": "fourier" if fourier else "positional"}


def _supported(config: Mapping[str, Any], kinds: list[str], name: str) -> None:
    """BadPrior for what a UNet2DModel may be and the networks here are not."""
    attended = ["Attn" in kind for kind in kinds]
    up = ["Attn" in str(kind) for kind in config.get("up_block_types", [])]
    skips = ["Skip" in kind for kind in kinds]
    wanted = {
        "up_block_types mirror down_block_types": up == attended[::-1],
        "every block a Skip block, or none": all(skips) or not any(skips),
        "no class embedding": not config.get("class_embed_type")
        and config.get("num_class_embeds") is None,
        "act_fn silu": config.get("act_fn", "silu") in ("silu", "swish"),
        "a middle block": config.get("mid_block_type", "UNetMidBlock2D") is not None,
        "time_embedding_type positional or fourier": config.get("time_embedding_type")
        in (None, "positional", "fourier"),
        "skip blocks with a fourier embedding only": all(skips)
        == (config.get("time_embedding_type") == "fourier"),
    }
    for rule, holds in wanted.items():
        if not holds:
            raise BadPrior(f"{name}: a UNet2DModel here has {rule}")


def _noise(scheduler: Mapping[str, Any], name: str) -> dict[str, Any]:
    """sde and conditioning from a scheduler's configuration."""
    kind = scheduler.get("_class_name")
    if kind == "ScoreSdeVeScheduler":
        sde = {"name": "ve", "sigma_min": scheduler.get("sigma_min", 0.01),
               "sigma_max": scheduler.get("sigma_max", 1348.0)}  # fmt: skip
        return {"sde": sde, "conditioning": {"label": "log-sigma"}}
    if "beta_start" not in scheduler and "beta_schedule" not in scheduler:
        raise BadPrior(
            f"{name}: the scheduler must be ScoreSdeVeScheduler or one with betas (DDPM, DDIM, "
            f"PNDM, DPM-Solver); got {kind!r}"
        )
    schedules = {"linear": "linear", "scaled_linear": "scaled-linear",
                 "squaredcos_cap_v2": "cosine"}  # fmt: skip
    schedule = scheduler.get("beta_schedule", "linear")
    predicts = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
    prediction = scheduler.get("prediction_type", "epsilon")
    if schedule not in schedules or prediction not in predicts or scheduler.get("trained_betas"):
        raise BadPrior(
            f"{name}: beta_schedule must be one of {', '.join(schedules)} and prediction_type one "
            f"of {', '.join(predicts)}, without trained_betas; got {schedule!r}, {prediction!r}"
        )
    chain = {"kind": schedules[schedule], "start": scheduler.get("beta_start", 1e-4),
             "end": scheduler.get("beta_end", 0.02),
             "steps": scheduler.get("num_train_timesteps", 1000)}  # fmt: skip
    conditioning = {"label": "schedule", **chain, "predicts": predicts[prediction]}
    return {"sde": spanning_sde(chain), "conditioning": conditioning}


def spanning_sde(chain: dict[str, Any]) -> dict[str, Any]:
    """A linear VP SDE that ends at the chain's largest noise-to-signal, at most 200.

    Which one does not matter: labels are matched by noise-to-signal.
    """
    largest = Schedule(VPSDE(), **chain).log_ratios[-1]
    # B(1) = ln(1 + r^2) = (beta_min + beta_max) / 2.
    integral = np.log1p(math.exp(2 * min(largest, math.log(200.0))))
    return {"name": "vp", "beta_min": 0.1, "beta_max": float(2 * integral - 0.1)}


def ncsnv2_config(released: Released) -> dict[str, Any]:
    """depth, ngf, channels, and the SDE of the levels that the file holds."""
    tensors = released.tensors
    deeper = "deeper" if any(key.startswith("res5.") for key in tensors) else "ncsnv2"
    depth = "deepest" if any(key.startswith("res31.") for key in tensors) else deeper
    stem = tensors["begin_conv.weight"]
    found: dict[str, Any] = {"ngf": stem.shape[0], "channels": stem.shape[1], "depth": depth}
    if released.levels is not None:
        levels = released.levels.double()
        steps = (levels[1:] / levels[:-1]).log()
        if len(levels) < 2 or not ((steps - steps.mean()).abs() < 1e-3 * steps.abs()).all():
            raise BadPrior(f"{released.name}: its noise levels (sigmas) must be geometric")
        found["sde"] = {"name": "ve", "sigma_min": float(f"{levels.min():.6g}"),
                        "sigma_max": float(f"{levels.max():.6g}")}  # fmt: skip
    return found


def _need(config: Mapping[str, Any], key: str, name: str) -> Any:
    if not isinstance(config.get(key), list):
        raise BadPrior(f"{name}: config.json must have a list {key}; got {config.get(key)!r}")
    return config[key]
