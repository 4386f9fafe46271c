"""A classifier of noisy images, p(c | x_t): the guide of class-conditional sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..prior import batch_time
from ..sde import SDES, Time, per_item
from .unet import Block, NoiseLevelEmbedding, pad_to_multiple


class Classifier(nn.Module):
    """Logits (B, classes) of x_t (B, *event) at t (B,); `.config["classes"]` says how many."""

    config: dict[str, Any]

    def log_prob(self, labels: Tensor | int) -> Callable[[Tensor, Time], Tensor]:
        """(x, t) -> log p(label | x_t) (B,), for `guide`; labels (B,) or one for all items."""
        classes = self.config["classes"]
        labels = torch.as_tensor(labels)
        if labels.is_floating_point() or labels.min() < 0 or labels.max() >= classes:
            raise ValueError(f"labels must be integers from 0 to {classes - 1}; got {labels}")

        def log_prob(x: Tensor, t: Time) -> Tensor:
            chosen = labels.to(x.device).expand(len(x))[:, None]
            logits = self(x, batch_time(t, x))
            return torch.log_softmax(logits.float(), dim=1).gather(1, chosen)[:, 0]

        return log_prob


class NoiseClassifier(Classifier):
    """Logits (B, classes) of x_t (B, channels, H, W) at t (B,), for any H, W.

    The downward half of the U-Net on c_in x_t / alpha (Karras et al. 2022, table 1), conditioned
    on ln s, s = sigma(t) / alpha(t) under `sde`; means over space of every level go to one linear
    layer, which starts at zero: all classes alike (Song et al. 2021, app. I.1; Dhariwal & Nichol
    2021, sec. 4.1). sde: {"name": a key of SDES, **its arguments}, that of the prior it guides.
    patch: pixels a side that the input folds into channels, as in the U-Net. In heavy noise a class
    is a matter of the whole image: the last level should be a few pixels wide.
    """

    def __init__(
        self,
        channels: int,
        *,
        classes: int,
        sde: dict[str, Any] | None = None,
        sigma_data: float = 0.5,
        widths: Sequence[int] = (32, 64, 128),
        blocks: int = 2,
        patch: int = 1,
        norm: str = "group",
        embedding: int = 128,
    ):
        super().__init__()
        sde = {"name": "karras", "sigma_max": 80.0} if sde is None else dict(sde)
        self.config = {
            "channels": channels, "classes": classes, "sde": sde, "sigma_data": sigma_data,
            "widths": list(widths), "blocks": blocks, "patch": patch, "norm": norm,
            "embedding": embedding,
        }  # fmt: skip
        if classes < 2 or min(channels, blocks, patch, *widths) < 1 or not sigma_data > 0:
            raise ValueError(
                "classes must be >= 2, channels, blocks, patch and widths >= 1, sigma_data > 0; "
                f"got {self.config}"
            )
        arguments = {key: value for key, value in sde.items() if key != "name"}
        self.sde, self.sigma_data = SDES[sde["name"]](**arguments), float(sigma_data)
        self.patch, self.multiple = patch, patch * 2 ** (len(widths) - 1)
        self.embed = NoiseLevelEmbedding(embedding)
        self.first = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            nn.ModuleList(Block(width, embedding, norm, 1) for _ in range(blocks))
            for width in widths
        )
        pairs = pairwise(widths)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.logits = nn.Linear(sum(widths), classes)
        nn.init.zeros_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        s = per_item(self.sde.ratio(t), x)
        x = x / per_item(self.sde.alpha(t), x) / (s**2 + self.sigma_data**2).sqrt()
        x = functional.pixel_unshuffle(pad_to_multiple(x, self.multiple), self.patch)
        x = self.first(x)
        embedding = self.embed(s.reshape(-1).to(x.dtype).log() / 4)
        means = []
        for depth, level in enumerate(self.levels):
            for block in cast("nn.ModuleList", level):
                x = block(x, embedding)
            means.append(x.mean((-2, -1)))
            if depth < len(self.shrink):
                x = self.shrink[depth](x)
        return self.logits(torch.cat(means, dim=1))
