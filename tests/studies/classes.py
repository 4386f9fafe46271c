"""Digits of a class: what a classifier that guided nothing reads, at three guidance scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from inverse_score.io.priors import load_classifier
from inverse_score.prior import Prior
from recipes.class_conditional import class_conditional
from recipes.priors.digits import load_digits

SCALES = (0.0, 1.0, 3.0)
HEADER = ["digits", "guidance", "read as the class", "distance within a class", "calls", "s"]


class Reader(nn.Module):
    """A small convolutional classifier of clean digits, unrelated to the one that guides."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 24, 5, stride=2, padding=2), nn.ReLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(48, 64, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * 16, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def reader(folder: Path, *, steps: int, seed: int = 0) -> tuple[Reader, float]:
    """(classifier, its share of right answers on 2000 held-out digits), trained on folder/train."""
    images, labels = load_digits(folder / "train")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Reader()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    draw = np.random.default_rng(seed)
    for k in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - k / steps)
        batch = torch.from_numpy(draw.integers(len(images), size=128))
        loss = nn.functional.cross_entropy(net(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    held, truth = (v[:2000] for v in load_digits(folder / "held_out"))
    with torch.no_grad():
        return net.eval(), float((net(held).argmax(1) == truth).float().mean())


def table(prior: Prior, folder: Path, *, samples: int, steps: int, training: int):
    """(HEADER and a line a scale and one of real digits, the reader's held-out accuracy)."""
    net, accuracy = reader(folder, steps=training)
    guiding = load_classifier("digits-classifier")
    lines = [HEADER]
    for scale in SCALES:
        drawn, calls, seconds = [], 0, 0.0
        for label in range(10):
            recipe = class_conditional(prior, guiding, label, scale=scale, size=(28, 28))
            names = range(label * samples, (label + 1) * samples)
            rec = recipe(samples, items=names, steps=steps)
            drawn.append(rec.samples[:, 0].float())
            calls, seconds = rec.nfe, seconds + rec.seconds
        lines.append(
            [
                "Ten classes",
                f"{scale:g}",
                *read(net, torch.stack(drawn)),
                str(calls),
                f"{seconds:.0f}",
            ]
        )
    images, labels = load_digits(folder / "held_out")
    real = torch.stack([images[labels == label][:samples] for label in range(10)])
    lines.append(["Ten classes", "real digits", *read(net, real), "-", "-"])
    return lines, accuracy


def read(net: Reader, digits: Tensor) -> list[str]:
    """(classes, samples, 1, 28, 28): share read as their class; RMS distance within a class."""
    labels = torch.arange(len(digits)).repeat_interleave(digits.shape[1])
    with torch.no_grad():
        right = net(digits.flatten(0, 1)).argmax(1) == labels
    flat = digits.flatten(2)
    pairs = torch.cdist(flat, flat)
    n = digits.shape[1]
    within = pairs.sum((1, 2)) / (n * (n - 1)) / flat.shape[-1] ** 0.5
    return [f"{float(right.float().mean()):.0%}", f"{float(within.mean()):.3f}"]
