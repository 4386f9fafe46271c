"""Class-conditional checkpoints with the class fixed: exactly another bias of the embedding."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...errors import BadPrior
from .reading import Released

_CLASSES = {"guided-diffusion": "label_emb.weight", "edm": "map_label.weight"}


def fold_label(released: Released, label: int | None) -> dict[str, Tensor]:
    """The tensors of the network at this class; those of an unconditional one are returned as is.

    guided-diffusion adds label_emb[y] after the second layer; EDM's ADM W_label one_hot(y) there,
    its NCSN++ W_label one_hot(y) sqrt(n) + b_label before the first. EDM's map_augment acts on
    augmentation labels, which are zero when sampling, and is left out.
    """
    tensors = {k: v for k, v in released.tensors.items() if k != "map_augment.weight"}
    name = _CLASSES.get(released.layout)
    if name is None or name not in tensors:
        if label is not None:
            raise BadPrior(f"{released.name} has no classes; label must not be given")
        return tensors
    table = tensors.pop(name).float()
    classes = table.shape[0] if released.layout == "guided-diffusion" else table.shape[1]
    if label is None or not 0 <= int(label) < classes:
        raise BadPrior(
            f"{released.name} is class-conditional: label must be in [0, {classes}), and the prior "
            f"is of that class; got {label}"
        )
    if released.layout == "guided-diffusion":
        return _add(tensors, "time_embed.2.bias", table[int(label)])
    bias = tensors.pop("map_label.bias", None)
    if bias is None:
        return _add(tensors, "map_layer1.bias", table[:, int(label)])
    features = table[:, int(label)] * math.sqrt(classes) + bias.float()
    return _add(tensors, "map_layer0.bias", tensors["map_layer0.weight"].float() @ features)


def _add(tensors: dict[str, Tensor], key: str, value: Tensor) -> dict[str, Tensor]:
    return {**tensors, key: tensors[key].float() + value.to(torch.float32)}
