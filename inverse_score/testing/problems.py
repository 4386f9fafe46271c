"""Inverse problems whose posterior is known in closed form, for every posterior sampler's table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from operators import CartesianMRI, GaussianBlur, LinearOperator, Mask, Radon

from ..gaussian import GaussianMixturePrior, GaussianPrior
from ..posterior import error_spectrum
from ..randomness import MEASUREMENT, Noise
from ..sde import SDE, VPSDE
from . import toys

OPERATORS = ("inpainting", "blur", "mri", "radon")
NOISES = (0.5, 0.1, 0.01)
COVARIANCES = ("stationary", "nonstationary")
HELD_OUT = 2048


@dataclass(frozen=True)
class ToyProblem:
    """A toy prior, an operator and a noise level; the truth and its data follow from the seed."""

    operator_name: str
    covariance: str
    noise_std: float
    seed: int = 77

    @property
    def name(self) -> str:
        return f"{self.operator_name}, {self.covariance}, noise {self.noise_std:g}"

    @cached_property
    def prior(self) -> GaussianMixturePrior:
        """With its error spectrum measured on HELD_OUT images, as a trained prior's would be."""
        prior = make_prior(self.covariance, complex_=self.operator_name == "mri")
        if len(prior.event_shape or ()) == 3:
            images = prior.sample(HELD_OUT, seed=5, dtype=torch.float32)
            prior.card["error_spectrum"] = error_spectrum(prior, images, batch_size=512)
        return prior

    @cached_property
    def operator(self) -> LinearOperator:
        return make_operator(self.operator_name)

    @cached_property
    def truth(self) -> Tensor:
        return self.prior.sample(1, seed=self.seed, dtype=torch.float32)

    @cached_property
    def y(self) -> Tensor:
        return measured(self.operator, self.truth, self.noise_std, self.seed)

    @cached_property
    def posterior(self) -> Any:
        return self.prior.posterior(self.y, self.operator, self.noise_std)

    def exact_samples(self, count: int, seed: int = 3) -> Tensor:
        """Draws of the true posterior, (count, *event), float64."""
        post = self.posterior
        if hasattr(post, "cov"):
            exact = GaussianPrior(post.mean[0], post.cov[0], self.prior.sde)
        else:
            exact = GaussianMixturePrior(
                post.weights[0], post.means[0], post.covs[0], self.prior.sde
            )
        return exact.sample(count, seed=seed)


def make_prior(covariance: str, *, complex_: bool = False, sde: SDE | None = None) -> Any:
    """A toy prior; complex_ gives two independent channels, the second about 0."""
    sde = VPSDE() if sde is None else sde
    if covariance == "modes-2d":
        return toys.grid_of_modes(sde)
    if covariance == "modes-64d":
        return image_modes(sde)
    prior = toys.TOYS[covariance](sde)
    if not complex_:
        return prior
    mean = torch.cat([prior.mean, torch.zeros_like(prior.mean)])
    return GaussianPrior(mean, torch.block_diag(prior.cov, prior.cov), sde)


def image_modes(sde: SDE) -> GaussianMixturePrior:
    """Four 8x8 patterns (constant, ramp, stripes, blob) about 0.5, each with a small stationary
    covariance 0.05^2 exp(-distance / 4); weights 1 to 4 over 10."""
    i = torch.linspace(-1, 1, 8, dtype=torch.float64)
    down, across = torch.meshgrid(i, i, indexing="ij")
    patterns = [0 * down, 0.3 * across, 0.3 * torch.sign(torch.sin(2 * math.pi * down)),
                0.5 * torch.exp(-4 * (down**2 + across**2))]  # fmt: skip
    means = torch.stack([0.5 + p for p in patterns])[:, None]
    cov = 0.05**2 * torch.exp(-toys.pixel_distances() / 4)
    weights = torch.arange(1, 5, dtype=torch.float64)
    return GaussianMixturePrior(weights, means, cov.expand(4, 64, 64), sde)


def make_operator(name: str) -> LinearOperator:
    """The operators on 8x8 images, and the sum of a point's coordinates ("sum")."""
    if name == "inpainting":
        return Mask(toys.random_half())
    if name == "corner":
        mask = torch.zeros(1, 8, 8)
        mask[:, :2, 2:5] = 1
        return Mask(mask)
    if name == "blur":
        return GaussianBlur((1, 8, 8), std=1.0)
    if name == "mri":
        mask = torch.tensor([0, 1, 0, 1, 1, 0, 0, 1], dtype=torch.bool)
        return CartesianMRI(mask, image_shape=(8, 8))
    if name == "radon":
        return Matrix(Radon(8, torch.arange(5) * math.pi / 5))
    if name == "sum":
        return LinearOperator.from_function(lambda x: x.sum(1, keepdim=True), (2,))
    raise ValueError(f"unknown operator {name!r}")


class Matrix(LinearOperator):
    """A small real operator as its matrix: the same map, 30 times quicker for thousands of rows."""

    def __init__(self, operator: LinearOperator):
        super().__init__(operator.in_shape, operator.out_shape)
        d = math.prod(self.in_shape)
        basis = torch.eye(d, dtype=torch.float64).reshape(d, *self.in_shape)
        self.matrix = operator(basis).flatten(1)  # (d, numbers of y): the transpose

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.matrix.to(x)).unflatten(1, self.out_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        return (y.flatten(1) @ self.matrix.to(y).T).unflatten(1, self.in_shape)


def measured(operator: LinearOperator, x: Tensor, noise_std: float, seed: int) -> Tensor:
    """y = A x + noise_std n; unmeasured entries stay 0."""
    y = operator(x)
    noise = Noise(seed, range(len(x)))
    n = noise(y.real, 0, MEASUREMENT)
    if y.is_complex():
        n = torch.complex(n, noise(y.real, 1, MEASUREMENT))
    seen = operator(torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) + 0.5) != 0
    return y + noise_std * n * seen


def gaussian_problems() -> list[ToyProblem]:
    """All operators, covariances and noise levels."""
    return [
        ToyProblem(operator, covariance, noise)
        for operator in OPERATORS
        for covariance in COVARIANCES
        for noise in NOISES
    ]


def mixture_problems() -> list[ToyProblem]:
    """Posteriors with several modes: points by their sum, images by six pixels of a corner."""
    return [ToyProblem("sum", "modes-2d", 0.5), ToyProblem("corner", "modes-64d", 0.2)]
