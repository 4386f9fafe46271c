"""The Gaussian mixture of the shipped digits and their classifier: EM, in a minute of one core.

    inverse-score prepare digits --out data/digits
    python -m recipes.priors.mixture --data data/digits --out .
    inverse-score train digits.yaml --set data.path=data/digits --init-from digits-start.safetensors

The second line writes digits-classifier.safetensors, the mixture's p(class | x_t), and
digits-start.safetensors, the prior whose U-Net the third trains.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from inverse_score.io.config import load_yaml
from inverse_score.io.priors import build_sde, save_classifier, save_prior
from inverse_score.networks.mixture import ImageMixture, MixtureClassifier
from inverse_score.prior import Prior
from inverse_score.training.setup import initialised

from .digits import RANGE, load_digits

FOLDER = Path(__file__).parent
START, CLASSIFIER = "digits-start.safetensors", "digits-classifier.safetensors"
TITLE = "handwritten digits, classifier of noisy images"
LEVELS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0)
# Variances below this are rounding.
LEAST = 1e-8


def fit_mixture(
    u: Tensor,
    labels: Tensor,
    *,
    classes: int,
    components: int,
    dims: int,
    rank: int,
    rounds: int = 8,
    strength: float = 60.0,
    seed: int = 0,
) -> ImageMixture:
    """The `ImageMixture` of u (N, C, H, W) with labels (N,), by EM (Tipping & Bishop 1999, app. C).

    V: the first principal axes of all images. A component's covariance is that of its images and
    of `strength` more with the covariance within components of the class, so that few images
    suffice. It starts from k-means.
    """
    sizes = {"classes": classes, "components": components, "dims": dims, "rank": rank}
    mixture = ImageMixture(u.shape[1:], **sizes)
    draw = torch.Generator().manual_seed(seed)
    mean = u.flatten(1).mean(0)
    centred = u.flatten(1) - mean
    variances, axes = torch.linalg.eigh(centred.T @ centred / len(u))
    basis = axes[:, -dims:]
    z = centred @ basis
    parts = []
    for label in range(classes):
        own = z[labels == label]
        if len(own) < components:
            raise ValueError(f"class {label} has {len(own)} images for {components} components")
        share = one_hot(_k_means(own, components, draw), components).float()
        for _ in range(rounds):
            part = _maximize(own, share, rank, strength)
            share = _expect(own, part)
        part["log_weights"] += math.log(len(own) / len(u))
        parts.append(part)
    outside = variances[:-dims].mean() if dims < len(mean) else torch.ones(())
    together = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    whole = {"mean": mean, "basis": basis, "log_outside": outside.clamp_min(LEAST).log()}
    mixture.load_state_dict({**together, **whole})
    return mixture


def _k_means(z: Tensor, count: int, draw: torch.Generator, rounds: int = 8) -> Tensor:
    """The nearest of `count` centres, for each of z (N, d)."""
    centres = z[torch.randperm(len(z), generator=draw)[:count]]
    for _ in range(rounds):
        nearest = torch.cdist(z, centres).argmin(1)
        total = torch.zeros_like(centres).index_add(0, nearest, z)
        number = torch.bincount(nearest, minlength=count)[:, None]
        centres = torch.where(number > 0, total / number.clamp_min(1), centres)
    return torch.cdist(z, centres).argmin(1)


def _maximize(z: Tensor, share: Tensor, rank: int, strength: float) -> dict[str, Tensor]:
    """M-step: parameters from z (N, d) and shares (N, components)."""
    number = share.sum(0).clamp_min(1e-6)
    means = share.T @ z / number[:, None]
    scatter = []
    for k, m in enumerate(means):
        # Almost all shares are all but 0: their images are left out.
        some = share[:, k] > 1e-3
        off = (z[some] - m) * share[some, k, None].sqrt()
        scatter.append(off.T @ off)
    S = torch.stack(scatter)
    within = S.sum(0) / len(z)
    covariance = (S + strength * within) / (number + strength)[:, None, None]
    values, axes = torch.linalg.eigh(covariance)
    return {
        "means": means,
        "axes": axes[:, :, -rank:],
        "log_values": values[:, -rank:].clamp_min(LEAST).log(),
        "log_rest": values[:, :-rank].mean(1).clamp_min(LEAST).log(),
        "log_weights": (number / number.sum()).log(),
    }


def _expect(z: Tensor, part: dict[str, Tensor]) -> Tensor:
    """E-step: p(k | z), the shares (N, components)."""
    components, dims, rank = part["axes"].shape
    alone = ImageMixture((dims,), classes=1, components=components, dims=dims, rank=rank)
    plain = {"mean": torch.zeros(dims), "basis": torch.eye(dims), "log_outside": torch.zeros(())}
    alone.load_state_dict({**part, **plain})
    return alone.log_components(z, torch.zeros(len(z))).softmax(1)


def write(data: Path, out: Path, definition: Path = FOLDER / "digits.yaml") -> None:
    """START and the classifier of the digits under `data`, with the definition's sizes."""
    began = time.process_time()
    wanted = load_yaml(definition)
    sizes = wanted["network"]["mixture"]
    u, labels = load_digits(data / "train")
    u = (u - RANGE[1]) / RANGE[0]
    mixture = fit_mixture(u, labels, **sizes)
    facts = {**sizes, "images": len(u)}
    facts["processor_minutes"] = round((time.process_time() - began) / 60, 1)
    card = {**wanted["card"], "training": {"mixture": facts}}
    network = initialised({**wanted["network"], "sde": wanted["sde"]}, 0)
    network.mixture = mixture
    common = {"sde": build_sde(wanted["sde"]), "range": RANGE, "output": "x0"}
    start = Prior(network, event_shape=mixture.shape, card=card, **common)
    save_prior(start, out / START)
    classifier = MixtureClassifier(mixture.shape, sde=wanted["sde"], **sizes)
    classifier.mixture = mixture
    carrier = Prior(classifier, **common, card={**card, "title": TITLE})
    held, truth = (part[:2000] for part in load_digits(data / "held_out"))
    carrier.card["held_out_accuracy"] = accuracy(carrier, held, truth)
    save_classifier(carrier, out / CLASSIFIER, storage="float16")


def accuracy(classifier: Prior, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Share of right answers, and -log p(label | x_t) in nats, at noise levels from 0.005 to 20."""
    u = classifier.from_data(images)
    right, nats = {}, {}
    for s in LEVELS:
        noise = torch.randn(u.shape, generator=torch.Generator().manual_seed(0))
        t = torch.full((len(u),), float(classifier.sde.time(s)))
        with torch.no_grad():
            logits = classifier.network(u + s * noise, t)
        right[f"{s:g}"] = round(float((logits.argmax(1) == labels).float().mean()), 4)
        nats[f"{s:g}"] = round(float(cross_entropy(logits, labels)), 4)
    return {"by_sigma": right, "cross_entropy_nats": nats, "images": len(u)}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="what `prepare digits` wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the two files")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    write(arguments.data, arguments.out)


if __name__ == "__main__":
    main()
