"""Open a released checkpoint of any known kind and name what is in it; no network is built here.

A pickle is opened only where the caller trusts it, and then by torch's restricted unpickler
(weights_only=True), which is safe from torch 2.10 on (CVE-2025-32434, CVE-2026-24747).
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import BadPrior
from ..priors import read_weights
from .parts import first

_MAX_JSON = 1 << 20
_PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
# Tensors that are constants of the released code and no weights.
_CONSTANTS = ("sigmas", "u")
_SIGNS = {
    "all_modules.0.": "score_sde",
    "begin_conv.weight": "ncsnv2",
    "input_blocks.0.0.weight": "guided-diffusion",
    "map_layer0.weight": "edm",
    "conv_in.weight": "diffusers",
}


@dataclass
class Released:
    """A checkpoint: its layout (a key of LAYOUTS), the averaged weights by released name, facts.

    levels: noise levels that the file holds; filters: EDM's resampling filters; config, scheduler:
    diffusers' JSON files; prefixed: the weights were held as `model` by a preconditioner (EDM,
    InverseBench); facts go to the card.
    """

    name: str
    layout: str
    tensors: dict[str, Tensor]
    levels: Tensor | None = None
    filters: list[Tensor] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    prefixed: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


def read_released(path: str | Path, *, trust: bool = False) -> Released:
    """The checkpoint at path: a .pth, .pt or .safetensors file, or a diffusers folder.

    BadPrior for a file that is missing, truncated, of an unknown kind, whose moving average is not
    of its model, or that is a pickle and not trusted.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, trust)
    return classify(_load(path, trust), path.name)


def _load(path: Path, trust: bool) -> Any:
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise BadPrior(f"{path.name} cannot be read: {error.strerror}") from None
    if start in _PICKLES:
        return _unpickle(path, trust)
    return read_weights(path)


def _unpickle(path: Path, trust: bool) -> Any:
    if not trust:
        raise BadPrior(
            f"{path.name} is a pickle, which can run code when it is opened; --trust (trust=True) "
            "opens it with torch's restricted unpickler, if you know where it comes from"
        )
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < (2, 10):
        raise BadPrior(f"to open a pickle needs torch >= 2.10; this is {torch.__version__}")
    try:
        with warnings.catch_warnings():
            # Pickles of other protocols than torch's own are as restricted.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f" (it names {named.group(1)})" if named else ""
        raise BadPrior(
            f"{path.name} holds objects beside tensors{what} and was not opened; with the code "
            "that made it, save the state_dict() of its network and convert that"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, IndexError) as error:
        raise BadPrior(f"{path.name} is truncated or damaged: {_line(error)}") from None


def classify(loaded: Any, name: str) -> Released:
    """What a loaded object is, by its structure and its tensors' names."""
    facts: dict[str, Any] = {}
    if isinstance(loaded, list | tuple):
        state = _averaged_by_name(loaded, name)
    elif not isinstance(loaded, Mapping):
        raise BadPrior(f"{name} must hold a dictionary or list of tensors; got {_kind(loaded)}")
    elif isinstance(loaded.get("model"), Mapping):
        state = _overlay_unnamed(loaded, name)
        facts = {"step": int(loaded["step"])} if isinstance(loaded.get("step"), int) else {}
    elif any(isinstance(loaded.get(key), Mapping) for key in ("ema", "net", "state_dict")):
        keys = [key for key in ("ema", "net", "state_dict") if isinstance(loaded.get(key), Mapping)]
        state, facts = dict(loaded[keys[0]]), {"weights": keys[0]}
    else:
        state = dict(loaded)
    return _named(state, name, facts)


def _named(state: dict[str, Any], name: str, facts: dict[str, Any]) -> Released:
    strangers = [str(k) for k, v in state.items() if not isinstance(v, Tensor)]
    if strangers or not state:
        raise BadPrior(
            f"{name} must hold tensors only"
            + (f"; not so {first(strangers)}" if strangers else "; it holds none")
        )
    state = _without_prefix(state, "module.")
    held = {key for key in state if key.startswith("model.")}
    prefixed = bool(held) and not any(key.startswith(sign) for sign in _SIGNS for key in state)
    state = {key.removeprefix("model.") if prefixed else key: v for key, v in state.items()}
    layout = _layout(state, name)
    levels = state.get("sigmas")
    constants = _constants(state)
    filters = _filters(state, name)
    tensors = {key: value for key, value in state.items() if key not in constants}
    stored = sorted({str(v.dtype).removeprefix("torch.") for v in tensors.values()})
    facts["stored as"] = ", ".join(stored)
    return Released(name, layout, tensors, levels, filters, prefixed=prefixed, facts=facts)


def _layout(state: Mapping[str, Tensor], name: str) -> str:
    for sign, layout in _SIGNS.items():
        if any(key.startswith(sign) for key in state):
            return layout
    raise BadPrior(
        f"{name} is of no known family: its tensors are {first(list(state))}; known are those of "
        "score_sde_pytorch, guided-diffusion, EDM, diffusers' UNet2DModel and ncsnv2"
    )


def _constants(state: Mapping[str, Tensor]) -> set[str]:
    filters = {key for key in state if key.endswith("resample_filter")}
    return filters | {key for key in _CONSTANTS if key in state}


def _filters(state: Mapping[str, Tensor], name: str) -> list[Tensor]:
    """EDM stores its resampling filters with the weights; two of different kinds fit no network."""
    filters = [value for key, value in state.items() if key.endswith("resample_filter")]
    if any(f.shape != filters[0].shape or not torch.equal(f, filters[0]) for f in filters):
        raise BadPrior(f"{name}: its resampling filters differ from one another")
    return filters


def _averaged_by_name(states: Any, name: str) -> dict[str, Tensor]:
    """ncsnv2's and csgm-mri's list [model, optimizer, ..., EMA by name]: the EMA over the model."""
    if not states or not isinstance(states[0], Mapping):
        raise BadPrior(f"{name} is a list that does not start with a state_dict")
    model = _without_prefix(dict(states[0]), "module.")
    average = states[-1]
    if not isinstance(average, Mapping) or "state" in average or len(states) == 1:
        return model
    average = _without_prefix(dict(average), "module.")
    strangers = [key for key in average if key not in model]
    missing = [key for key in model if key not in average and key not in _CONSTANTS]
    if strangers or missing:
        raise BadPrior(
            f"{name}: its moving average is not of its model: "
            f"unexpected {first(strangers) or 'none'}; missing {first(missing) or 'none'}"
        )
    return {**model, **average}


def _overlay_unnamed(loaded: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """score_sde's {"model", "ema", ...}: the nameless average laid over the trained tensors.

    The average leaves out the frozen Fourier frequencies (and the table of noise levels), which
    are in `model` alone: the average by itself would leave them random.
    """
    model = _without_prefix(dict(loaded["model"]), "module.")
    ema = loaded.get("ema")
    if ema is None:
        return model
    average = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not isinstance(average, list | tuple):
        raise BadPrior(f"{name}: its ema must hold a list shadow_params; got {_kind(ema)}")
    trained = [key for key in model if key not in _CONSTANTS and not _is_frozen(key)]
    if len(average) != len(trained):
        raise BadPrior(
            f"{name}: its moving average has {len(average)} tensors for {len(trained)} trained ones"
        )
    for key, tensor in zip(trained, average, strict=True):
        if not isinstance(tensor, Tensor) or tensor.shape != model[key].shape:
            shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else _kind(tensor)
            raise BadPrior(
                f"{name}: its moving average has {shape} where {key} is {tuple(model[key].shape)}"
            )
    return {**model, **dict(zip(trained, average, strict=True))}


def _is_frozen(key: str) -> bool:
    # all_modules.0.W are the Fourier frequencies; the other W belong to attention, as NIN_k.W.
    return key == "all_modules.0.W"


def _without_prefix(state: Mapping[Any, Any], prefix: str) -> dict[str, Any]:
    """Names without a prefix that all of them have, however often (nn.DataParallel's)."""
    state = {str(key): value for key, value in state.items()}
    while state and all(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _read_folder(folder: Path, trust: bool) -> Released:
    """A diffusers pipeline (unet/, scheduler/) or the folder of its UNet2DModel alone."""
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    config = _json(unet / "config.json", folder.name)
    stem = "diffusion_pytorch_model"
    files = [unet / f"{stem}.safetensors", unet / f"{stem}.bin"]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise BadPrior(f"{folder.name} has neither {stem}.safetensors nor {stem}.bin")
    kind = config.get("_class_name")
    if kind not in ("UNet2DModel", "NCSNpp"):
        raise BadPrior(f"{folder.name}: its network must be a UNet2DModel; got {kind!r}")
    released = classify(_load(file, trust), file.name)
    if released.layout != "diffusers":
        raise BadPrior(f"{folder.name} holds weights of {released.layout}, not of diffusers")
    released.name, released.config = folder.name, config
    released.tensors = {_modern(key): value for key, value in released.tensors.items()}
    schedulers = (folder / "scheduler", folder.parent / "scheduler", folder)
    found = [d / "scheduler_config.json" for d in schedulers]
    file = next((file for file in found if file.is_file()), None)
    released.scheduler = {} if file is None else _json(file, folder.name)
    return released


_OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.",
              ".proj_attn.": ".to_out.0."}  # fmt: skip


def _modern(key: str) -> str:
    """Names of attention before diffusers 0.15, and of its Fourier frequencies."""
    for old, new in _OLD_NAMES.items():
        key = key.replace(old, new)
    return "time_proj.weight" if key == "time_proj.W" else key


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON:
            raise BadPrior(f"{name}: {path.name} is larger than {_MAX_JSON} bytes")
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadPrior(f"{name}: no readable {path.name}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadPrior(f"{name}: {path.name} is not JSON: {_line(error)}") from None
    if not isinstance(loaded, dict):
        raise BadPrior(f"{name}: {path.name} must hold an object; got {_kind(loaded)}")
    return loaded


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
