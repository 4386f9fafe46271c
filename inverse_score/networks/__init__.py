"""Score networks. Each takes x (B, C, H, W) and t (B,), and keeps its constructor's arguments.

NETWORKS names those that a prior file may hold; values are "module:Class" below this package and
are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

NETWORKS = {
    "unet": "unet:UNet",
    "classifier": "classifier:NoiseClassifier",
    "mixture-unet": "mixture:MixtureUNet",
    "mixture-classifier": "mixture:MixtureClassifier",
    "ncsnpp": "ncsnpp:NCSNpp",
    "ddpm": "ddpm:DDPM",
    "adm": "adm:ADM",
    "ncsnv2": "ncsnv2:NCSNv2",
}


def build_network(name: str, **config: Any) -> nn.Module:
    """The network of this name with these constructor arguments; ValueError lists known names."""
    if name not in NETWORKS:
        raise ValueError(f"network must be one of {', '.join(NETWORKS)}; got {name!r}")
    module, cls = NETWORKS[name].split(":")
    return getattr(import_module(f"{__name__}.{module}"), cls)(**config)
