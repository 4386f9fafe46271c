"""The held-out loss, and the denoising error at each noise level."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..losses import noise_error
from ..prior import Prior
from ..randomness import OTHER, Noise
from .items import Items, collate

# Held-out noise is the same whenever it is measured, and is not the training's.
_SEED = 0x5EED
LEVELS = 12


def evaluate(
    prior: Prior, loss: Any, items: Items, count: int, batch_size: int, device: torch.device
) -> dict[str, Any]:
    """{"held_out": mean loss, "ratio": levels, "eps_error", "x0_error": one a level}.

    eps_error is |eps_hat - eps|^2 / d, x0_error the root mean square error of x0_hat in the
    prior's units, both at noise-to-signal `ratio`; all with one fixed noise an image.
    """
    total = torch.zeros((), dtype=torch.float64)
    ratios = level_ratios(prior)
    errors = torch.zeros(len(ratios), dtype=torch.float64)
    seen = 0
    for numbers, images in held_out_batches(items, count, batch_size, device):
        noise = Noise(_SEED, numbers)
        # The loss itself may need a gradient (sliced score matching does).
        total += loss(prior, images, noise).detach().double().sum().cpu()
        with torch.no_grad():
            errors += _errors(prior, images, noise, ratios)
        seen += len(images)
    eps_error = errors / seen
    x0_error = [math.sqrt(error) * ratio for error, ratio in zip(eps_error, ratios, strict=True)]
    return {
        "held_out": total.item() / seen,
        "ratio": ratios,
        "eps_error": eps_error.tolist(),
        "x0_error": x0_error,
    }


def _errors(prior: Prior, images: Tensor, noise: Noise, ratios: list[float]) -> Tensor:
    sums = []
    for level, ratio in enumerate(ratios):
        t = torch.full((len(images),), prior.sde.time(ratio), dtype=torch.float64)
        t = t.clamp(prior.t_min, prior.sde.T).to(images.device)
        error = noise_error(prior, images, noise(images, 1 + level, OTHER), t)
        sums.append(error.double().sum().cpu())
    return torch.stack(sums)


def level_ratios(prior: Prior, count: int = LEVELS) -> list[float]:
    """Noise-to-signal levels between t_min and T, geometric."""
    low, high = math.log(prior.sde.ratio(prior.t_min)), math.log(prior.sde.ratio(prior.sde.T))
    return [math.exp(low + k * (high - low) / (count - 1)) for k in range(count)]


def held_out_batches(items: Items, count: int, batch_size: int, device: torch.device):
    """(numbers, images) of the first `count` held-out images, unshuffled."""
    count = count if items.count is None else min(count, items.count)
    for first in range(0, count, batch_size):
        numbers = range(first, min(first + batch_size, count))
        images, _, _ = collate([items[number] for number in numbers])
        yield numbers, images.to(device)
