"""The study behind `inverse-score verify`: images, operator, samples, verdict, plots."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import operators
from inverse_score.errors import BadInput
from inverse_score.io.formats.npy import npz_array
from inverse_score.io.pictures import png
from inverse_score.io.priors import find_prior, load_prior, update_card
from inverse_score.io.runs.commits import commit_bytes, commit_json
from inverse_score.prior import Prior
from inverse_score.randomness import TEST, Noise
from inverse_score.sampling import sample
from inverse_score.uncertainty import ranks, tarp

from .spread_verdict import Verdict, conformal_by_person, draw, judge


@dataclass(frozen=True)
class Study:
    """What is simulated. noise_std is in units of the prior's u, so 1 is its full scale."""

    operator: str
    acc: float = 4.0
    views: int = 30
    noise_std: float = 0.02
    num_samples: int = 16
    size: int = 96
    method: str = "auto"
    budget: str = "fast"
    level: float = 1e-3
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """Verdict, samples and truth of a study; people is whose image each is, and conformal the
    factor learnt on all of them; both None for self-drawn images."""

    study: Study
    verdict: Verdict
    samples: Tensor
    truth: Tensor
    source: str
    conformal: dict[str, Any] | None
    people: list[str] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            **self.verdict.to_json(),
            "source": self.source,
            "study": self.study.__dict__,
            "conformal": self.conformal,
        }

    def write(self, folder: Path) -> None:
        """verdict.json, ranks.png (histogram of pixel ranks) and tarp.png (coverage curve)."""
        folder.mkdir(parents=True, exist_ok=True)
        commit_json(folder / "verdict.json", self.to_json())
        commit_bytes(folder / "ranks.png", png(_rank_picture(self.samples, self.truth)))
        commit_bytes(folder / "tarp.png", png(_tarp_picture(self.samples, self.truth)))

    def store(self, prior: str) -> None:
        """The conformal factor into the prior's file, under the operator's name, with the study."""
        if self.conformal is None:
            raise BadInput("self-drawn images give no conformal factor; use held-out --data")
        path = find_prior(prior)
        card = dict(load_prior(path).card)
        entry = {**self.conformal, "study": asdict(self.study)}
        # The card's name for conformal factors; coil calibration is another thing.
        factors = {**card.get("calibration", {}), self.study.operator: entry}
        update_card(path, {"calibration": factors})


def run(
    study: Study,
    prior: str | Path | Prior,
    *,
    data: Path | None = None,
    self_drawn: int | None = None,
    count: int | None = None,
) -> Outcome:
    """Images from `data` (one npz a person) or drawn from the prior; then samples and verdict."""
    loaded = prior if isinstance(prior, Prior) else load_prior(prior)
    if (data is None) == (self_drawn is None):
        raise BadInput("give held-out images (--data DIR) or --self-drawn N, one of the two")
    channels = loaded.channels or 1
    if self_drawn is not None:
        shape = (self_drawn, channels, study.size, study.size)
        truth, people, source = sample(loaded, shape, seed=study.seed + 1), None, "self-drawn"
    else:
        truth, people = held_out(data, channels, study, count, loaded)
        source = f"held-out, {len(set(people))} people"
    operator, noise_std = build(study, loaded, tuple(truth.shape[1:]))
    samples = draw(
        loaded,
        operator,
        truth,
        noise_std=noise_std,
        num_samples=study.num_samples,
        seed=study.seed,
        method=study.method,
        budget=study.budget,
    )
    verdict = judge(samples, truth, level=study.level, seed=study.seed)
    conformal = None
    if people is not None:
        conformal = conformal_by_person(samples.mean(0), samples.std(0), truth, people)
    return Outcome(study, verdict, samples, truth, source, conformal, people)


def held_out(
    folder: Path | None, channels: int, study: Study, count: int | None, prior: Prior
) -> tuple[Tensor, list[str]]:
    """Square cuts (N, channels, size, size) of the images, and whose each is.

    Cuts are drawn around the middle of an image; with a count above the number of images, several
    a slice. A magnitude image is given a smooth random phase for a prior of two channels, and
    scaled so that its 99 % quantile is 1, as the MRI recipe scales.
    """
    files = sorted(Path(folder or ".").glob("*.npz"))
    if not files:
        raise BadInput(f"--data {folder} holds no npz file with `images` (N, H, W)")
    stacks = [(path.stem, npz_array(path, "images")) for path in files]
    images = [(person, image) for person, stack in stacks for image in stack]
    cuts, people = [], []
    for k in range(count or len(images)):
        person, image = images[k % len(images)]
        cut = _cut(torch.from_numpy(np.asarray(image, dtype=np.float32)), study, k)
        cuts.append(_as_event(cut, channels, k, study.seed, prior))
        people.append(person)
    return torch.stack(cuts), people


def _cut(image: Tensor, study: Study, k: int) -> Tensor:
    """A square of side `size`, its corner uniform over where it covers the image's middle half."""
    if image.ndim != 2 or min(image.shape) < study.size:
        raise BadInput(f"an image of {tuple(image.shape)} has no square of side {study.size}")
    u = Noise(study.seed, [k]).uniform(torch.empty(1, 2), 5, TEST)[0]
    corner = []
    for axis in (0, 1):
        room = image.shape[axis] - study.size
        corner.append(round(float(room * (0.25 + 0.5 * u[axis]))))
    top, left = corner
    return image[top : top + study.size, left : left + study.size]


def _as_event(cut: Tensor, channels: int, k: int, seed: int, prior: Prior) -> Tensor:
    if channels == 1:
        return cut[None]
    if channels != 2:
        raise BadInput(f"held-out npz slices are grey; the prior has {channels} channels")
    cut = cut / cut.flatten().quantile(0.99).clamp(min=1e-6) * prior.range[0]
    noise = Noise(seed, [k])(torch.empty(1, 1, 4, 4), 6, TEST)
    phase = 0.1 * torch.nn.functional.interpolate(noise, size=cut.shape, mode="bicubic")[0, 0]
    return torch.stack([cut * phase.cos(), cut * phase.sin()])


def build(study: Study, prior: Prior, event: tuple[int, ...]) -> tuple[Any, float]:
    """The operator of this study for this event, and the noise in y's units."""
    if study.operator not in _OPERATORS:
        raise BadInput(f"--operator must be one of {', '.join(_OPERATORS)}; got {study.operator!r}")
    operator = _OPERATORS[study.operator](study, event)
    return operator, study.noise_std * prior.range[0] * float(getattr(operator, "gain", 1.0))


def _mri(study: Study, event: tuple[int, ...]) -> Any:
    if event[0] != 2:
        raise BadInput(f"mri needs a prior of complex images, 2 channels; this one has {event[0]}")
    mask = operators.column_mask("equispaced-fraction", event[-1], study.acc, seed=study.seed).mask
    return operators.CartesianMRI(mask, image_shape=event[-2:])


def _ct(study: Study, event: tuple[int, ...]) -> Any:
    angles = torch.arange(study.views, dtype=torch.float64) * math.pi / study.views
    radon = operators.Radon(event[-1], angles, channels=event[0])
    # Rays are sums over a side of pixels: noise relative to that sum.
    return (1.0 / event[-1]) * radon


_OPERATORS: dict[str, Callable[[Study, tuple[int, ...]], Any]] = {
    "mri": _mri,
    "ct": _ct,
    "inpaint": lambda study, event: operators.Mask(
        operators.box_mask(event[-2], event[-1]), image_shape=event
    ),
    "colorize": lambda study, event: operators.Grayscale(event),
    "deblur": lambda study, event: operators.GaussianBlur(event, 1.5),
    "denoise": lambda study, event: operators.Identity(event),
}


def _rank_picture(samples: Tensor, truth: Tensor, height: int = 160) -> np.ndarray:
    """Histogram of the pixels' ranks: flat is right, a U too narrow, a heap too wide."""
    n = len(samples)
    counts = torch.bincount(ranks(samples, truth).flatten(), minlength=n + 1).double()
    share = (counts / counts.mean() / 2).clamp(max=1.0)
    width = max(4, 320 // (n + 1))
    canvas = np.full((height, (n + 1) * width), 255, dtype=np.uint8)
    for k, value in enumerate(share.tolist()):
        canvas[height - round(value * height) :, k * width : (k + 1) * width - 1] = 120
    canvas[height // 2] = 0
    return canvas


def _tarp_picture(samples: Tensor, truth: Tensor, side: int = 240) -> np.ndarray:
    """Expected coverage against credibility; the diagonal is right."""
    curve = tarp(samples, truth).coverage.numpy()
    canvas = np.full((side, side), 255, dtype=np.uint8)
    for column in range(side):
        canvas[side - 1 - column, column] = 190
        value = float(np.interp(column / (side - 1), np.linspace(0, 1, len(curve)), curve))
        row = side - 1 - round(value * (side - 1))
        canvas[max(row - 1, 0) : row + 2, column] = 0
    return canvas
