"""Class-conditional samples: a prior guided by a classifier of noisy images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from inverse_score.errors import BadInput
from inverse_score.io.priors import load_classifier
from inverse_score.posterior import guide
from inverse_score.prior import Prior
from inverse_score.sampling import sample
from inverse_score.solver import Reconstruction

from .image_recipe import image_prior


def class_conditional(
    prior: Prior | str | Path,
    classifier: Any,
    label: int,
    *,
    scale: float = 1.0,
    size: tuple[int, int] | None = None,
    **options: Any,
) -> ClassConditional:
    """p(x | c) from p(x) p(c | x): recipes.class_conditional(prior, classifier, 3)(16).

    classifier: a noise-conditional one (of networks.classifier or networks.mixture), its file, or a
    shipped name.
    scale multiplies grad log p(c | x_t): 1 samples p(x | c), more is sharper and less diverse, 0
    is the prior (Song et al. 2021, app. I.1; Dhariwal & Nichol 2021). size: (H, W) of the images,
    needed where the prior leaves it open. options go to `sample`.
    """
    prior = image_prior(prior)
    if isinstance(classifier, (str, Path)):
        classifier = load_classifier(classifier)
    network = getattr(classifier, "network", classifier)
    classes = network.config["classes"]
    if not (isinstance(label, int) and 0 <= label < classes):
        raise BadInput(f"label must be an integer from 0 to {classes - 1}; got {label!r}")
    if scale < 0:
        raise ValueError(f"scale must be >= 0; got {scale}")
    return ClassConditional(prior, network, label, scale, size, options)


@dataclass(frozen=True)
class ClassConditional:
    """A prior, its guide and a class; see `class_conditional`."""

    prior: Prior
    classifier: Any
    label: int
    scale: float = 1.0
    size: tuple[int, int] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self,
        num_samples: int = 16,
        seed: int = 0,
        items: Sequence[int] | None = None,
        **options: Any,
    ) -> Reconstruction:
        """Samples (num_samples, 1, *event) of the class; there are no data, so misfit is NaN."""
        shape = self._shape()
        guided = self.prior
        if self.scale > 0:
            guided = guide(self.prior, self.classifier.log_prob(self.label), scale=self.scale)
        began = time.perf_counter()
        x, info = sample(
            guided,
            (num_samples, *shape),
            seed=seed,
            items=items,
            return_info=True,
            **{**self.options, **options},
        )
        nan = torch.full((num_samples, 1), torch.nan)
        return Reconstruction(
            samples=x[:, None],
            misfit=nan,
            misfit_mean=nan[0],
            misfit_kind="none",
            prior_share=torch.ones(1),
            num_samples=num_samples,
            nfe=info["nfe"],
            vjps=info["vjps"],
            seconds=time.perf_counter() - began,
            method=f"class {self.label}, guidance {self.scale:g}, {info['method']}",
            seed=seed,
        )

    def _shape(self) -> tuple[int, ...]:
        """The prior's event_shape, its open places filled by size."""
        shape = self.prior.event_shape
        if shape is not None and self.size is not None:
            fits = (shape[0] or 0, *self.size)
            if len(shape) == 3 and all(a in (None, b) for a, b in zip(shape, fits, strict=True)):
                return fits
            raise BadInput(f"size {self.size} does not fit the prior's event_shape {shape}")
        if self.prior.fixed_shape is None:
            raise BadInput(
                f"the prior does not say its images' size (event_shape {shape}): give size=(H, W)"
            )
        return self.prior.fixed_shape
