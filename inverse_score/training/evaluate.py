"""The held-out loss, and the denoising error at each noise level."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..losses import ClassifierLoss, noise_error
from ..prior import Prior
from ..randomness import OTHER, Noise
from .items import Items, collate

# Held-out noise is the same whenever it is measured, and is not the training's.
_SEED = 0x5EED
LEVELS = 12


def evaluate(
    prior: Prior, loss: Any, items: Items, count: int, batch_size: int, device: torch.device
) -> dict[str, Any]:
    """{"held_out": mean loss, "ratio": levels, and for each level what was measured there}.

    "eps_error" is |eps_hat - eps|^2 / d and "x0_error" the root mean square error of x0_hat in
    the prior's units; for a classifier it is "accuracy". All at noise-to-signal `ratio`, with one
    fixed noise an image.
    """
    total, seen = 0.0, 0
    ratios = level_ratios(prior)
    sums = torch.zeros(len(ratios), dtype=torch.float64)
    for numbers, images, labels in held_out_batches(items, count, batch_size, device):
        noise = Noise(_SEED, numbers)
        # The loss itself may need a gradient (sliced score matching does).
        total += item_losses(loss, prior, images, labels, noise).detach().double().sum().item()
        with torch.no_grad():
            sums += _by_level(loss, prior, images, labels, noise, ratios)
        seen += len(images)
    found = {"held_out": total / seen, "ratio": ratios}
    means = (sums / seen).tolist()
    if isinstance(loss, ClassifierLoss):
        return {**found, "accuracy": means}
    rms = [math.sqrt(mean) * ratio for mean, ratio in zip(means, ratios, strict=True)]
    return {**found, "eps_error": means, "x0_error": rms}


def item_losses(loss: Any, prior: Prior, images: Tensor, labels: Tensor, noise: Noise) -> Tensor:
    """(B,): a classifier's loss takes labels, the others do not."""
    if isinstance(loss, ClassifierLoss):
        return loss(prior, images, labels, noise)
    return loss(prior, images, noise)


def _by_level(
    loss: Any, prior: Prior, images: Tensor, labels: Tensor, noise: Noise, ratios: list[float]
) -> Tensor:
    """Sums over the batch, one a level, of the error in eps or of right answers."""
    sums = []
    for level, ratio in enumerate(ratios):
        t = torch.full((len(images),), prior.sde.time(ratio), dtype=torch.float64)
        t = t.clamp(prior.t_min, prior.sde.T).to(images.device)
        eps = noise(images, 1 + level, OTHER)
        if isinstance(loss, ClassifierLoss):
            each = loss.logits(prior, images, t, eps).argmax(1) == labels
        else:
            each = noise_error(prior, images, eps, t)
        sums.append(each.double().sum().cpu())
    return torch.stack(sums)


def level_ratios(prior: Prior, count: int = LEVELS) -> list[float]:
    """Noise-to-signal levels between t_min and T, geometric."""
    low, high = math.log(prior.sde.ratio(prior.t_min)), math.log(prior.sde.ratio(prior.sde.T))
    return [math.exp(low + k * (high - low) / (count - 1)) for k in range(count)]


def held_out_batches(items: Items, count: int, batch_size: int, device: torch.device):
    """(numbers, images, labels) of the first `count` held-out images, unshuffled."""
    count = count if items.count is None else min(count, items.count)
    for first in range(0, count, batch_size):
        numbers = range(first, min(first + batch_size, count))
        images, labels, _ = collate([items[number] for number in numbers])
        yield numbers, images.to(device), labels.to(device)
