"""Handwritten digits on demand: a row a class, guided by a classifier at scale 0, 1 and 3.

    python examples/digits_by_class.py [--classes 10] [--samples 4] [--steps 35]

Scale 0 is the prior alone, so its rows mean nothing. Scale 1 samples p(x | class); 3 is surer and
less diverse. "Agree" is the share that the guiding classifier itself, asked about the finished
digit, puts into the class: an upper bound on what another one would say.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from panels import arguments, picture, quick, sheet
from torch import Tensor
from torch.nn import functional

import recipes
from inverse_score.io.priors import load_classifier

SCALES = (0, 1, 3)


class Found(NamedTuple):
    # scale -> (classes, samples, 1, H, W), and the share that the classifier agrees with.
    digits: dict[int, Tensor]
    agree: dict[int, float]


def agreement(prior, classifier, x: Tensor) -> float:
    """The share of x (classes, samples, 1, H, W) whose likeliest class is their own row's."""
    u = prior.from_data(x.flatten(0, 1))
    with torch.no_grad():
        logits = classifier(u, torch.full((len(u),), prior.t_min))
    own = torch.arange(len(x)).repeat_interleave(x.shape[1])
    return float((logits.argmax(1) == own).float().mean())


def main(
    classes: int = 10,
    samples: int = 4,
    steps: int = 35,
    seed: int = 0,
    prior: object = "digits",
    classifier: object = "digits-classifier",
) -> Found:
    prior = quick(prior)
    guide = load_classifier(classifier) if isinstance(classifier, str) else classifier
    # The shipped digits are 28 x 28, though their network would take any size.
    size = None if None not in prior.event_shape else (28, 28)
    digits, agree = {}, {}
    for scale in SCALES:
        each = []
        for label in range(classes):
            recipe = recipes.class_conditional(prior, guide, label, scale=scale, size=size)
            # A class has the same noise at every scale, and its own.
            names = range(label * samples, (label + 1) * samples)
            rec = recipe(samples, seed=seed, items=names, steps=steps)
            each.append(rec.samples[:, 0])
        digits[scale] = torch.stack(each)
        agree[scale] = agreement(prior, getattr(guide, "network", guide), digits[scale])
    return Found(digits, agree)


def mosaic(digits: Tensor) -> Tensor:
    """(classes, samples, 1, H, W) as one picture (1, classes H + lines, samples W + lines)."""
    framed = functional.pad(digits, (0, 1, 0, 1), value=0.35)
    classes, samples, _, H, W = framed.shape
    return framed[:, :, 0].transpose(1, 2).reshape(1, classes * H, samples * W)


if __name__ == "__main__":
    chosen = vars(arguments(__doc__, "digits_by_class.png", classes=10, samples=4, steps=35))
    out = chosen.pop("out")
    digits, agree = main(**chosen)
    row = []
    for scale, x in digits.items():
        print(f"guidance {scale}: agree {agree[scale]:.0%}")
        title = f"guidance {scale}" if scale else "guidance 0: the prior alone"
        row.append((title, picture(mosaic(x.float()))))
    sheet([row], out, zoom=2, gap=12)
