"""A released checkpoint as a Prior of ours, with the paper's settings in its card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ...errors import BadPrior
from ...networks import build_network
from ...networks.score_network import ScoreNetwork
from ...prior import Prior
from .fold import fold_label
from .infer import diffusers_config, edm_config, ncsnv2_config, taps_of
from .layouts import LAYOUTS
from .parts import assemble, released_shapes
from .presets import PRESETS, SIGNED, UNIT, Preset
from .reading import Released, read_released

# Fields of a prior, beside the network's arguments, that an override may name.
_OWN_FIELDS = ("range", "t_min", "label")


def import_checkpoint(
    path: str | Path,
    *,
    trust: bool = False,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Prior:
    """The prior that a released file or folder holds, its averaged weights in float32.

    preset: a key of PRESETS; by default the one that the tensors' names and shapes leave, and an
    error that lists them where there are several, because files do not say their noise schedule.
    overrides: arguments of the network by name ("sde", "conditioning", "nf", ...), and "range"
    (scale, offset), "t_min", "label" (the class of a class-conditional network, fixed from then
    on). The prior takes images of any size that halves as often as the network does; the size it
    was trained on is in its card. Raises BadPrior for whatever does not fit.
    """
    released = read_released(path, trust=trust)
    overrides = dict(overrides or {})
    chosen, name = _choose(released, preset, overrides)
    own = {key: overrides.pop(key) for key in _OWN_FIELDS if key in overrides}
    network, tensors = _fill(released, chosen, overrides, own.get("label"))
    card = {
        "checkpoint": {"file": released.name, "layout": released.layout, "preset": name,
                       **released.facts},
        "domain": chosen.domain,
        "published_sampling": chosen.sampling,
    }  # fmt: skip
    try:
        return _prior(network, chosen, own, {**card, "tensors": len(tensors)})
    except (TypeError, ValueError) as error:
        raise BadPrior(f"{released.name}: {error}") from error


def _prior(network: ScoreNetwork, chosen: Preset, own: dict[str, Any], card: dict) -> Prior:
    t_min = own.get("t_min", chosen.t_min)
    size = network.config["image_size"]
    return Prior(
        network.eval().requires_grad_(False),
        network.sde,
        output=network.output,
        event_shape=(network.channels, None, None),  # type: ignore[arg-type]
        range=tuple(own.get("range", chosen.range)),  # type: ignore[arg-type]
        t_min=network.conditioning.smallest_time() if t_min is None else float(t_min),
        card={**card, "training": {"image_shape": [network.channels, size, size]}},
    )


def _fill(
    released: Released, chosen: Preset, overrides: dict[str, Any], label: int | None
) -> tuple[ScoreNetwork, dict[str, Tensor]]:
    config = merged(chosen.config, overrides)
    tensors = fold_label(released, label)
    with torch.device("meta"):
        shell = _build(chosen.network, config, released.name)
    state = assemble(LAYOUTS[released.layout](shell), tensors, released.name)  # type: ignore[operator]
    network = _build(chosen.network, config, released.name)
    network.load_state_dict(state)
    return network, tensors


def _build(name: str, config: dict[str, Any], file: str) -> ScoreNetwork:
    try:
        return cast("ScoreNetwork", build_network(name, **config))
    except (TypeError, ValueError) as error:
        raise BadPrior(f"{file}: no such network {name}: {error}") from error


def _choose(
    released: Released, preset: str | None, overrides: dict[str, Any]
) -> tuple[Preset, str]:
    """The preset, completed by what the file itself says, and its name."""
    if preset is not None and preset not in PRESETS:
        raise BadPrior(f"preset must be one of {', '.join(PRESETS)}; got {preset!r}")
    if released.layout == "diffusers":
        return _from_diffusers(released), "diffusers"
    if preset is None:
        preset = _only(fitting(released, overrides), released)
    chosen = PRESETS[preset]
    if chosen.layout != released.layout:
        raise BadPrior(
            f"{released.name} is a checkpoint of {released.layout}, and the preset {preset} is "
            f"for {chosen.layout}"
        )
    return complete(chosen, released), preset


def complete(chosen: Preset, released: Released) -> Preset:
    """The preset with the arguments that this file determines."""
    config, network = dict(chosen.config), chosen.network
    if released.layout == "edm":
        network, found = edm_config(released.tensors, released.name)
        if network == "ncsnpp":
            found |= {"fir_kernel": taps_of(released.filters), "fir": bool(released.filters)}
        config = {**found, **config} if chosen.network == "" else config
    elif released.layout == "ncsnv2":
        config = {**config, **ncsnv2_config(released)}
    fields = {**chosen.__dict__, "network": network, "config": config}
    return Preset(**fields)


def fitting(released: Released, overrides: Mapping[str, Any] | None = None) -> list[str]:
    """Names of the presets whose network has exactly the file's tensors."""
    network = {k: v for k, v in (overrides or {}).items() if k not in _OWN_FIELDS}
    return [name for name in PRESETS if _fits(name, released, network)]


def _fits(name: str, released: Released, overrides: dict[str, Any]) -> bool:
    preset = PRESETS[name]
    if preset.layout != released.layout:
        return False
    if preset.layout == "guided-diffusion" and preset.prefixed != released.prefixed:
        return False
    try:
        chosen = complete(preset, released)
        if not _same_levels(preset.config, chosen.config):
            return False
        if chosen.config == preset.config and not overrides:
            want = _published_shapes(name)
        else:
            want = _shapes(preset.layout, chosen.network, merged(chosen.config, overrides))
    except (TypeError, ValueError):
        return False
    held = released.tensors
    return all(key in held and tuple(held[key].shape) == want[key] for key in want)


@cache
def _published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    preset = PRESETS[name]
    return _shapes(preset.layout, preset.network, preset.config)


def _shapes(layout: str, network: str, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Released names and shapes of a network, without taking memory for its weights."""
    with torch.device("meta"):
        built = build_network(network, **config)
    return released_shapes(LAYOUTS[layout](built))  # type: ignore[operator]


def merged(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """config with overrides; entries of a mapping (sde, conditioning) one by one."""
    result = dict(config)
    for key, value in overrides.items():
        old = result.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        # Another kind of SDE or label takes none of the old one's arguments.
        keep = both and not ({"name", "label"} & value.keys())
        result[key] = {**old, **value} if keep else value  # type: ignore[dict-item]
    return result


def _same_levels(published: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether the file's largest noise level, depth and channels are the published ones."""
    same = math.isclose(
        published["sde"].get("sigma_max", 1.0), found["sde"].get("sigma_max", 1.0), rel_tol=0.01
    )
    alike = (published.get(k) in (None, found.get(k)) for k in ("depth", "channels"))
    return same and all(alike)


def _different(names: list[str]) -> list[str]:
    """One name for each set of presets that make the same prior."""
    kinds: dict[str, str] = {}
    for name in names:
        preset = PRESETS[name]
        config = {k: v for k, v in preset.config.items() if k != "dropout"}
        kinds.setdefault(repr((sorted(config.items(), key=str), preset.range)), name)
    return list(kinds.values())


def _only(names: list[str], released: Released) -> str:
    names = _different(names)
    if len(names) == 1:
        return names[0]
    family = [name for name, preset in PRESETS.items() if preset.layout == released.layout]
    if not names:
        raise BadPrior(
            f"{released.name} ({released.layout}) has the tensors of no published checkpoint; "
            f"name the nearest preset ({', '.join(family)}) and override its arguments"
        )
    raise BadPrior(
        f"{released.name} fits several checkpoints, which differ in what the file does not say; "
        f"choose the preset: {', '.join(names)}"
    )


def _from_diffusers(released: Released) -> Preset:
    if not released.config:
        raise BadPrior(
            f"{released.name} is the weights of a UNet2DModel without its config.json; give the "
            "folder that holds both"
        )
    network, config = diffusers_config(released)
    signed = config["centered"]
    t_min = None if config["conditioning"]["label"] == "schedule" else 1e-5
    sampling: dict[str, Any] = {}
    if not signed:
        sampling = {"predictor": "reverse-diffusion", "corrector": "langevin",
                    "snr": released.scheduler.get("snr", 0.15), "t_end": 1e-5,
                    "steps": released.scheduler.get("num_train_timesteps", 2000)}  # fmt: skip
    return Preset("diffusers", network, config, SIGNED if signed else UNIT, sampling, t_min)
