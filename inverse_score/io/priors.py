"""Prior files: one safetensors with the weights, and one JSON in its header with all the rest.

The header's key "inverse_score" holds {"format", "version", "kind", "architecture": {"name",
**config}, "sde": {"name", **fields}, "output", "range", "event_shape", "t_min", "card"}. Nothing
in a file is executed: the architecture and the SDE are looked up by name.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import BadPrior
from ..networks import NETWORKS, build_network
from ..prior import Prior
from ..sde import SDE, SDES
from ..version import __version__
from .runs.atomic import atomic_path

FORMAT = 1
CUSTOM = "custom"
KEY = "inverse_score"
SPECTRA = "error_spectra.json"
_MAX_HEADER = 100 << 20
_REQUIRED = ("architecture", "sde", "output", "range", "event_shape", "t_min", "card")
_STORAGE = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ASSETS = Path(__file__).parent.parent / "assets"


def save_prior(
    prior: Prior,
    path: str | os.PathLike[str],
    architecture: Mapping[str, Any] | None = None,
    card: Mapping[str, Any] | None = None,
    *,
    storage: str = "float32",
) -> None:
    """Write prior to one safetensors file, which appears whole or not at all.

    architecture: {"name": a key of networks.NETWORKS, **constructor arguments}; by default it is
    found from the network's class and its `.config`, and a class that is not in NETWORKS is
    written as "custom", which `load_prior(path, network=...)` reads into a network of yours.
    storage: "float32", or "float16" / "bfloat16" for half the size (computed in float32 again).
    """
    network = prior.network
    if not isinstance(network, nn.Module):
        raise BadPrior(f"only a torch.nn.Module can be saved; got {type(network).__name__}")
    header = {
        "kind": "prior",
        "architecture": dict(architecture or describe_network(network)),
        "sde": describe_sde(prior.sde),
        "output": prior.output,
        "range": list(prior.range),
        "event_shape": None if prior.event_shape is None else list(prior.event_shape),
        "t_min": prior.t_min,
        "card": dict(prior.card if card is None else card),
    }
    write_weights(path, network.state_dict(), header, storage=storage)


def load_prior(
    source: str | os.PathLike[str] | Prior,
    device: str | torch.device | None = None,
    *,
    network: nn.Module | None = None,
) -> Prior:
    """The prior in this file, or the shipped one of this name; its network is in eval mode.

    network: one to load the weights into, for files written from a network that is not in
    networks.NETWORKS. Raises BadPrior, with what was expected, for a file that is damaged, is not
    a prior, names an unknown architecture or SDE, whose tensors are not exactly the network's, or
    whose weights are not finite. A Prior is returned as it is.
    """
    if isinstance(source, Prior):
        return source if device is None else source.to(device)
    path = find_prior(source)
    header = read_header(path)
    tensors = read_weights(path)
    try:
        module = _network_for(header["architecture"], tensors, network, path.name)
        sde = build_sde(header["sde"])
        event_shape = header["event_shape"]
        prior = Prior(
            module.eval().requires_grad_(False),
            sde,
            output=header["output"],
            event_shape=None if event_shape is None else tuple(event_shape),
            range=tuple(header["range"]),
            t_min=header["t_min"],
            card=header["card"],
        )
    except BadPrior:
        raise
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise BadPrior(f"{path.name}: its header does not describe a prior: {error}") from error
    return prior if device is None else prior.to(device)


def update_card(path: str | os.PathLike[str], entries: Mapping[str, Any]) -> None:
    """Set entries of a prior file's card; weights and storage stay as they are, bit for bit."""
    header = read_header(path)
    header["card"] = {**header["card"], **entries}
    with safe_open(Path(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del header["format"], header["version"]
    write_weights(path, tensors, header)


def save_classifier(
    carrier: Prior,
    path: str | os.PathLike[str],
    architecture: Mapping[str, Any] | None = None,
    card: Mapping[str, Any] | None = None,
    *,
    storage: str = "float32",
) -> None:
    """Write a noise-conditional classifier: carrier.network, with the SDE, range and t_min of the
    prior it guides, in the layout of a prior file; storage as in `save_prior`."""
    header = {
        "kind": "classifier",
        "architecture": dict(architecture or describe_network(carrier.network)),  # type: ignore[arg-type]
        "sde": describe_sde(carrier.sde),
        "range": list(carrier.range),
        "t_min": carrier.t_min,
        "card": dict(carrier.card if card is None else card),
    }
    tensors = carrier.network.state_dict()  # type: ignore[union-attr]
    write_weights(path, tensors, header, storage=storage)


def load_classifier(
    source: str | os.PathLike[str], device: str | torch.device | None = None
) -> nn.Module:
    """The classifier in this file or of this shipped name, in eval mode; BadPrior otherwise.

    Its `.log_prob(labels)` is what `guide` takes.
    """
    path = find_prior(source)
    header = read_any_header(path)
    if header.get("kind") != "classifier":
        raise BadPrior(f"{path.name} holds a {header.get('kind', 'prior')}, not a classifier")
    try:
        network = _network_for(header["architecture"], read_weights(path), None, path.name)
    except (TypeError, ValueError, KeyError) as error:
        raise BadPrior(f"{path.name}: its header describes no classifier: {error}") from error
    return network.eval().requires_grad_(False).to(device)


def shipped_priors() -> list[str]:
    """Names of the priors that come with the package."""
    files = sorted(ASSETS.glob("*.safetensors"))
    return [file.stem for file in files if read_any_header(file).get("kind", "prior") == "prior"]


def find_prior(source: str | os.PathLike[str]) -> Path:
    """The file of a prior given by path or by shipped name; BadPrior if there is none."""
    path = Path(source)
    if path.is_file():
        return path
    named = ASSETS / f"{path}.safetensors"
    if path.name == str(path) and named.is_file():
        return named
    names = ", ".join(shipped_priors()) or "none"
    raise BadPrior(f"no prior file {str(source)!r}, and no shipped prior of that name ({names})")


def read_header(source: str | os.PathLike[str]) -> dict[str, Any]:
    """The header's JSON alone; no tensor is read. `source` is a path or a shipped name."""
    path = find_prior(source)
    header = read_any_header(path)
    _check_header(header, path.name)
    return header


@functools.lru_cache(maxsize=1)
def _measured_again() -> dict[str, Any]:
    return json.loads((ASSETS / SPECTRA).read_text(encoding="utf-8"))


def read_any_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON in the header of a file of any kind that `write_weights` wrote.

    A shipped prior's error spectrum is that of assets/error_spectra.json where it has an entry:
    measured again (`python -m recipes.priors.spectra`), with the weights as they are.
    """
    path = Path(path)
    text = _metadata(path).get(KEY)
    if text is None:
        raise BadPrior(f"{path.name} is a safetensors file without inverse_score's header")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadPrior(f"{path.name}: its header is not JSON: {error}") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        got = header.get("format") if isinstance(header, dict) else type(header).__name__
        raise BadPrior(
            f"{path.name} has header format {got!r}; this version ({__version__}) reads {FORMAT}"
        )
    if path.resolve().parent == ASSETS.resolve() and path.stem in _measured_again():
        header["card"] = {**header["card"], "error_spectrum": _measured_again()[path.stem]}
    return header


def _check_header(header: dict[str, Any], name: str) -> None:
    if header.get("kind", "prior") != "prior":
        raise BadPrior(f"{name} holds a {header['kind']}, not a prior")
    missing = [key for key in _REQUIRED if key not in header]
    if missing:
        raise BadPrior(f"{name}: its header lacks {', '.join(missing)}")
    for key in ("architecture", "sde", "card"):
        if not isinstance(header[key], dict):
            raise BadPrior(f"{name}: {key} must be an object; got {header[key]!r}")


def write_weights(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    header: Mapping[str, Any],
    *,
    storage: str = "float32",
) -> None:
    """Write tensors and a header of JSON atomically; BadPrior if a tensor is not finite."""
    if storage not in _STORAGE:
        raise ValueError(f"storage must be one of {', '.join(_STORAGE)}; got {storage!r}")
    stored = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu()
        if tensor.dtype == torch.float32:
            tensor = tensor.to(_STORAGE[storage])
        # Clones, because safetensors refuses tensors that share memory.
        stored[name] = tensor.clone(memory_format=torch.contiguous_format)
    _check_finite(stored, f"{Path(path).name} ({storage})")
    text = json.dumps({"format": FORMAT, "version": __version__, **header}, allow_nan=False)
    with atomic_path(path) as temporary:
        try:
            save_file(stored, temporary, metadata={KEY: text})
        except SafetensorError as error:
            raise _as_os_error(error) from error


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, halves as float32; BadPrior if one is not finite."""
    path = Path(path)
    _metadata(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise BadPrior(f"{path.name} is truncated or damaged: {error}") from None
    halves = (torch.float16, torch.bfloat16)
    tensors = {k: v.float() if v.dtype in halves else v for k, v in tensors.items()}
    _check_finite(tensors, path.name)
    return tensors


def describe_sde(sde: SDE) -> dict[str, Any]:
    """{"name": ..., **fields}, which `build_sde` turns back."""
    if SDES.get(getattr(sde, "name", "")) is not type(sde):
        raise BadPrior(f"an SDE to save is one of {', '.join(SDES)}; got {type(sde).__name__}")
    return {"name": sde.name, **asdict(sde)}  # type: ignore[call-overload]


def build_sde(description: Mapping[str, Any]) -> SDE:
    """The SDE that {"name": ..., **fields} describes."""
    fields = dict(description)
    name = fields.pop("name", None)
    if name not in SDES:
        raise BadPrior(f"the SDE must be one of {', '.join(SDES)}; got {name!r}")
    try:
        return SDES[name](**fields)
    except TypeError as error:
        raise BadPrior(f"the SDE {name!r} does not take {fields}: {error}") from None


def describe_network(network: nn.Module) -> dict[str, Any]:
    """{"name": its key in NETWORKS, **its .config}, or {"name": "custom", "class": ...}."""
    target = f"{type(network).__module__.rpartition('.')[2]}:{type(network).__name__}"
    for name, known in NETWORKS.items():
        if known == target and hasattr(network, "config"):
            return {"name": name, **network.config}  # type: ignore[dict-item]
    return {"name": CUSTOM, "class": type(network).__name__}


def load_strictly(network: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Put tensors into network; BadPrior unless names and shapes are exactly the network's."""
    want = network.state_dict()
    missing, extra = sorted(want.keys() - tensors.keys()), sorted(tensors.keys() - want.keys())
    if missing or extra:
        raise BadPrior(
            f"{name} does not fit {type(network).__name__}: "
            f"missing {_first(missing)}; unexpected {_first(extra)}"
        )
    for key, tensor in tensors.items():
        if tensor.shape != want[key].shape:
            raise BadPrior(
                f"{name}: {key} must be {tuple(want[key].shape)} for {type(network).__name__}; "
                f"got {tuple(tensor.shape)}"
            )
    network.load_state_dict(dict(tensors), strict=True, assign=_is_meta(network))


def _network_for(
    architecture: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    network: nn.Module | None,
    name: str,
) -> nn.Module:
    config = dict(architecture)
    kind = config.pop("name", None)
    if network is None:
        if kind == CUSTOM:
            raise BadPrior(
                f"{name} was written from a network of class {config.get('class')!r}; pass "
                "load_prior(..., network=...) one of that class"
            )
        # On the meta device first: a header's sizes are compared before memory is taken for them.
        with torch.device("meta"):
            network = build_network(kind, **config)  # type: ignore[arg-type]
    load_strictly(network, tensors, name)
    if _is_meta(network):
        # Buffers that are not stored are computed by the constructor.
        network = build_network(kind, **config)  # type: ignore[arg-type]
        load_strictly(network, tensors, name)
    return network


def _is_meta(network: nn.Module) -> bool:
    return any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))


def _metadata(path: Path) -> dict[str, str]:
    """The text metadata of a safetensors file, after a check of what the file is."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise BadPrior(f"{path} cannot be read: {error.strerror}") from None
    if start[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        raise BadPrior(
            f"{path.name} is a pickled checkpoint and a prior is a safetensors file; "
            "`inverse-score convert` reads the known ones"
        )
    length = int.from_bytes(start[:8], "little")
    if size < 10 or start[8:] != b"{" or length > min(_MAX_HEADER, size - 8):
        raise BadPrior(f"{path.name} is not a safetensors file, or is truncated ({size} bytes)")
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise BadPrior(f"{path.name} is truncated or damaged: {error}") from None


def _check_finite(tensors: Mapping[str, Tensor], name: str) -> None:
    bad = [k for k, v in tensors.items() if v.is_floating_point() and not v.isfinite().all()]
    if bad:
        raise BadPrior(f"{name}: weights must be finite; not so {_first(bad)}")


def _as_os_error(error: SafetensorError) -> Exception:
    """safetensors wraps the system's error in its text: `... (os error 28)`."""
    number = str(error).rpartition("os error ")[2].partition(")")[0]
    return OSError(int(number), os.strerror(int(number))) if number.isdigit() else error


def _first(names: list[str], count: int = 5) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
