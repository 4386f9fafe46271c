"""From a configuration and data to the network, SDE and prior that are trained."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BadInput
from ..io.config import check_keys
from ..io.priors import build_sde, describe_network, describe_sde, load_prior, load_strictly
from ..networks import NETWORKS, build_network
from ..prior import Prior
from ..sde import SDES
from .config import TrainConfig
from .items import Items
from .measure import largest_distance, stack

_LOOK = 512


@dataclass(frozen=True)
class TrainingPlan:
    """What was settled before the first step; kept in the checkpoint, so that resuming does not
    look at the data again.

    architecture: {"name", **config} of the network; image_shape: of the images trained on;
    sigma_data: their root mean square in the prior's units.
    """

    architecture: dict[str, Any]
    sde: dict[str, Any]
    output: str
    event_shape: list[int | None]
    image_shape: list[int]
    range: list[float]
    sigma_data: float
    t_min: float | None

    def prior(self, network: Any, card: Mapping[str, Any] | None = None) -> Prior:
        return Prior(
            network,
            build_sde(self.sde),
            output=self.output,
            event_shape=tuple(self.event_shape),  # type: ignore[arg-type]
            range=(self.range[0], self.range[1]),
            t_min=self.t_min,
            card=dict(card or {}),
        )


def make_plan(
    config: TrainConfig, items: Items, network: nn.Module | None
) -> tuple[TrainingPlan, nn.Module]:
    """The plan of a new run and its network, freshly initialised or from `init_from`."""
    first = stack(items, _LOOK)
    sigma_data = first.square().mean().sqrt().item()
    if not 0 < sigma_data < math.inf:
        raise BadInput(
            "the first training images must neither be all zero nor overflow in the prior's "
            f"units; their root mean square is {sigma_data}"
        )
    start = None if config.init_from is None else load_prior(config.init_from, network=network)
    sde, architecture, output = _described(config, start, first)
    if network is None:
        architecture = fill_network(architecture, sde, sigma_data, first.shape[1])
        network = initialised(architecture, config.seed)
    if start is not None:
        load_strictly(network, start.network.state_dict(), str(config.init_from))
    plan = TrainingPlan(
        architecture=describe_network(network),
        sde=sde,
        output=output or getattr(network, "output", _default_output(network)),
        event_shape=_event_shape(first),
        image_shape=list(first.shape[1:]),
        range=list(items.range),
        sigma_data=sigma_data,
        t_min=config.t_min if start is None else start.t_min,
    )
    return plan, network.requires_grad_(True).train()


def _described(config: TrainConfig, start: Prior | None, first: Tensor):
    """(sde, architecture, output) of the configuration, or of the prior that training starts from
    where the configuration leaves them at their defaults."""
    default = TrainConfig()
    sde, network, output = dict(config.sde), dict(config.network), config.output
    # Whoever sets a width alone means the default network.
    network.setdefault("name", default.network["name"])
    if start is not None:
        sde = describe_sde(start.sde) if sde == default.sde else sde
        if network == default.network:
            network = describe_network(start.network)  # type: ignore[arg-type]
        return sde, network, output or start.output
    name = sde.get("name")
    if name in SDES and "sigma_max" not in sde and name in ("ve", "karras"):
        sde["sigma_max"] = largest_distance(first)
    return describe_sde(build_sde(sde)), network, output


def fill_network(
    architecture: Mapping[str, Any], sde: dict[str, Any], sigma_data: float, channels: int
) -> dict[str, Any]:
    """architecture with channels, sde and sigma_data filled in where its class takes them."""
    arguments = dict(architecture)
    name = arguments.pop("name", None)
    if name not in NETWORKS:
        raise BadInput(f"network.name must be one of {', '.join(NETWORKS)}; got {name!r}")
    module, cls = NETWORKS[name].split(":")
    known = inspect.signature(getattr(import_module(f"...networks.{module}", __name__), cls))
    check_keys(arguments, known.parameters, "network")
    for key, value in (("channels", channels), ("sde", sde), ("sigma_data", sigma_data)):
        if key in known.parameters:
            arguments.setdefault(key, value)
    return {"name": name, **arguments}


def initialised(architecture: Mapping[str, Any], seed: int) -> nn.Module:
    """A network whose random weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(**architecture)


def _event_shape(images: Tensor) -> list[int | None]:
    shape = images.shape[1:]
    return [shape[0], None, None] if len(shape) == 3 else [*shape]


def _default_output(network: nn.Module) -> str:
    return "x0" if describe_network(network)["name"] == "unet" else "score"
