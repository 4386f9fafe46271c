"""Gaussian mixtures of images as networks: a classifier in closed form, and a U-Net's other half.

In heavy noise an image is a matter of few, coarse alternatives, which a mixture fitted to the
images in seconds tells apart better than a network trained for minutes; in light noise it is the
other way round. So each works where it is the better, as experts of their noise levels do
(Balaji et al. 2022, eDiff-I), and the network is told what the mixture sees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..sde import SDES
from .classifier import Classifier
from .unet import UNet


class ImageMixture(nn.Module):
    """x_0 ~ sum_k w_k N(mean + V m_k, V C_k V^T + q (1 - V V^T)) on images of `shape` = (C, H, W),

    C_k = U_k diag(l_k) U_k^T + p_k (1 - U_k U_k^T): a mixture of probabilistic principal components
    (Tipping & Bishop 1999). V (pixels, dims): one orthonormal basis for all; U_k (dims, rank): a
    component's own axes in it. Each class has `components` of them, class after class, so that
    p(class, x_t) is a sum over these. Variances and weights are kept as logarithms.
    """

    mean: Tensor
    basis: Tensor
    means: Tensor
    axes: Tensor
    log_values: Tensor
    log_rest: Tensor
    log_weights: Tensor
    log_outside: Tensor

    def __init__(
        self, shape: Sequence[int], *, classes: int, components: int, dims: int, rank: int
    ):
        super().__init__()
        self.shape, pixels, K = tuple(shape), math.prod(shape), classes * components
        if min(*shape, classes, components) < 1 or not 0 < rank < dims <= pixels:
            raise ValueError(
                "sizes must be >= 1 and 0 < rank < dims <= pixels; got "
                f"shape {self.shape}, {classes=}, {components=}, {dims=}, {rank=}"
            )
        self.classes, self.dims, self.rank = classes, dims, rank
        sizes = {
            "mean": (pixels,), "basis": (pixels, dims), "means": (K, dims),
            "axes": (K, dims, rank), "log_values": (K, rank), "log_rest": (K,),
            "log_weights": (K,), "log_outside": (),
        }  # fmt: skip
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(size))

    def log_joint(self, x: Tensor, s: Tensor) -> Tensor:
        """log p(class, x) (B, classes) of x = x_0 + s eps, up to a number the same for all classes.

        x (B, *shape), s (B,).
        """
        return self.log_components(x, s).reshape(len(x), self.classes, -1).logsumexp(2)

    def log_components(self, x: Tensor, s: Tensor) -> Tensor:
        """log p(k, x) (B, classes * components), up to a number the same for all."""
        return self._project(x, s)[0]

    def denoise(self, x: Tensor, s: Tensor) -> Tensor:
        """E[x_0 | x_0 + s eps = x] = sum_k r_k (m_k + C_k (C_k + s^2)^-1 (x - m_k))."""
        each, z, P, off = self._project(x, s)
        r, s2 = each.softmax(1), s.to(z).reshape(-1, 1) ** 2
        rest = self.log_rest.exp() / (self.log_rest.exp() + s2)
        values = self.log_values.exp()
        more = values / (values + s2[:, None]) - rest[:, :, None]
        inside = (r - r * rest) @ self.means + (r * rest).sum(1, keepdim=True) * z
        inside = inside + torch.einsum("bkr,kdr->bd", r[:, :, None] * more * P, self.axes)
        outside = self.log_outside.exp()
        x0 = self.mean + inside @ self.basis.T + outside / (outside + s2) * off
        return x0.reshape(x.shape).to(x.dtype)

    def _project(self, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log p(k, x) (B, K) up to a constant, z = V^T (x - mean), P = U_k^T (z - m_k), and what
        of x - mean lies outside V."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"the mixture is of images {self.shape}; got {tuple(x.shape[1:])}")
        centred = x.flatten(1).to(self.mean.dtype) - self.mean
        z, s2 = centred @ self.basis, s.to(centred).reshape(-1, 1) ** 2
        P = torch.einsum("bd,kdr->bkr", z, self.axes)
        P = P - torch.einsum("kd,kdr->kr", self.means, self.axes)
        square = z.square().sum(1, keepdim=True) - 2 * z @ self.means.T
        square = square + self.means.square().sum(1)
        rest, values = self.log_rest.exp() + s2, self.log_values.exp() + s2[:, None]
        size = (self.dims - self.rank) * rest.log() + values.log().sum(2)
        size = size + square / rest + (P**2 * (1 / values - 1 / rest[:, :, None])).sum(2)
        return self.log_weights - 0.5 * size, z, P, centred - z @ self.basis.T


class MixtureClassifier(Classifier):
    """p(c | x_t) of an `ImageMixture` by Bayes' rule: logits (B, classes) of x_t at t (B,).

    Guided by it, a prior whose own law is the mixture becomes exactly the law of the class. sde:
    that of the prior it guides, {"name": a key of SDES, **its arguments}.
    """

    def __init__(self, shape: Sequence[int], *, sde: dict[str, Any] | None = None, **sizes: int):
        super().__init__()
        self.sde, described = _sde(sde)
        self.config = {"shape": list(shape), "sde": described, **sizes}
        self.mixture = ImageMixture(shape, **sizes)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x, s = _plain(self.sde, x, t)
        with torch.autocast(x.device.type, enabled=False):
            return self.mixture.log_joint(x, s)


class MixtureUNet(nn.Module):
    """x0_hat = w(s) U-Net + (1 - w(s)) mixture, s = sigma(t) / alpha(t); x (B, *shape), t (B,).

    The U-Net sees the mixture's estimate beside x_t: what is left to it is to draw the strokes of
    what the mixture made out. w falls from 1 at s = handover[0] to 0 at handover[1], as
    1 - 3 u^2 + 2 u^3 in u, the position of ln s between them; the U-Net is not asked beyond.
    mixture: the sizes of an `ImageMixture`, which is not trained but fitted beforehand; unet:
    arguments of `UNet`, less channels, hints and sde. The mixture runs in float32 whatever
    autocast says.
    """

    output = "x0"

    def __init__(
        self,
        shape: Sequence[int],
        *,
        mixture: dict[str, int],
        unet: dict[str, Any],
        handover: Sequence[float] = (2.0, 8.0),
        sde: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.sde, described = _sde(sde)
        low, high = handover
        if not 0 < low < high < math.inf:
            raise ValueError(f"handover must be 0 < low < high, two noise levels; got {handover}")
        self.config = {
            "shape": list(shape), "mixture": dict(mixture), "unet": dict(unet),
            "handover": [float(low), float(high)], "sde": described,
        }  # fmt: skip
        self.low, self.high = float(low), float(high)
        self.mixture = ImageMixture(shape, **mixture)
        self.unet = UNet(shape[0], sde=described, hints=shape[0], **unet)

    def share(self, s: Tensor) -> Tensor:
        """w (B,), what of x0_hat is the U-Net's at noise-to-signal s."""
        u = ((s / self.low).log() / math.log(self.high / self.low)).clamp(0, 1)
        return 1 - u**2 * (3 - 2 * u)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        plain, s = _plain(self.sde, x, t)
        with torch.autocast(x.device.type, enabled=False):
            coarse = self.mixture.denoise(plain, s)
        w = self.share(s)
        if not bool((w > 0).any()):
            return coarse
        w = w.to(x).reshape(-1, *[1] * (x.ndim - 1))
        return coarse + w * (self.unet(x, t, coarse) - coarse)


def _plain(sde: Any, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """x_t / alpha, and s (B,)."""
    alpha = torch.as_tensor(sde.alpha(t)).to(x).reshape(-1, *[1] * (x.ndim - 1))
    return x / alpha, torch.as_tensor(sde.ratio(t)).to(x).expand(len(x))


def _sde(sde: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
    described = {"name": "karras", "sigma_max": 80.0} if sde is None else dict(sde)
    arguments = {key: value for key, value in described.items() if key != "name"}
    if described.get("name") not in SDES:
        raise ValueError(f"sde's name must be one of {', '.join(SDES)}; got {described}")
    return SDES[described["name"]](**arguments), described
