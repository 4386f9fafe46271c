"""A prior applied to images too large for memory: patch by patch, blended without seams."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .prior import Network, Prior, Wrapped
from .sde import Time

# One patch along an axis: where it starts, and its weights, which sum to 1 over the patches.
Span = tuple[int, Tensor]


class PatchWise(Wrapped):
    """D(x) = sum_k w_k D(x in patch k), sum_k w_k = 1: images of any size in little memory.

    Patches are size x size (a shorter side is taken whole), as few as overlap by at least
    `overlap` pixels, where w fades as a raised cosine; at the image's border nothing fades. The
    network sees max_patches of each image at a time, and where it is differentiated it runs again
    on the way back, so that activations of no more than these are ever held. Exact for a network
    that looks at pixels alone; otherwise what a pixel takes from beyond its patch is lost, and
    weights are small where that is much. x (B, C, H, W).
    """

    def __init__(self, prior: Prior, size: int, *, overlap: int | None = None, max_patches=1):
        overlap = size // 4 if overlap is None else overlap
        if not (isinstance(size, int) and isinstance(overlap, int) and 0 <= overlap <= size // 2):
            raise ValueError(
                f"size and overlap must be whole pixels with 0 <= overlap <= size / 2; got size "
                f"{size}, overlap {overlap}"
            )
        if size < 1 or max_patches < 1:
            raise ValueError(f"size and max_patches must be >= 1; got {size}, {max_patches}")
        event = (None, None, None) if prior.event_shape is None else prior.event_shape
        if len(event) != 3:
            raise ValueError(f"PatchWise takes priors of events (C, H, W); got {event}")
        if any(n not in (None, size) for n in event[1:]):
            raise ValueError(f"the prior's images are {event[1:]}; got patches of size {size}")
        super().__init__(prior)
        self.event_shape = (event[0], None, None)
        self.size, self.overlap, self.max_patches = size, overlap, max_patches

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        return self._blend(self.inner.denoise, x, t)

    def score(self, x: Tensor, t: Time) -> Tensor:
        # Weights sum to 1, so blended scores are the score of the blended denoiser.
        return self._blend(self.inner.score, x, t)

    def _blend(self, function: Network, x: Tensor, t: Time) -> Tensor:
        self.check_event(x)
        rows, columns = (spans(n, self.size, self.overlap) for n in x.shape[-2:])
        patches = list(itertools.product(rows, columns))
        blended = torch.zeros_like(x)
        for k in range(0, len(patches), self.max_patches):
            group = patches[k : k + self.max_patches]
            seen = torch.cat([_part(x, *patch) for patch in group])
            each = t.repeat(len(group)) if isinstance(t, Tensor) and t.ndim == 1 else t
            if torch.is_grad_enabled() and x.requires_grad:
                done = checkpoint(function, seen, each, use_reentrant=False)
            else:
                done = function(seen, each)
            for patch, part in zip(group, done.split(len(x)), strict=True):
                (_, u), (_, v) = patch
                weight = (u[:, None] * v).to(device=x.device, dtype=x.dtype)
                _part(blended, *patch).add_(weight * part)
        return blended


def in_patches(prior: Prior, size: int | None, overlap: int | None = None) -> Prior:
    """The prior itself where size is None, else `PatchWise` of that size."""
    if size is not None:
        return PatchWise(prior, size, overlap=overlap)
    if overlap is not None:
        raise ValueError(f"overlap is that of patches: give their size too; got overlap {overlap}")
    return prior


def spans(length: int, size: int, overlap: int) -> list[Span]:
    """Evenly spaced patches that cover `length` pixels, with weights that sum to 1 at each."""
    if length <= size:
        return [(0, torch.ones(length))]
    count = math.ceil((length - overlap) / (size - overlap))
    starts = [round(k * (length - size) / (count - 1)) for k in range(count)]
    fade = torch.sin(math.pi / 2 * (torch.arange(overlap) + 0.5) / max(overlap, 1)) ** 2
    total, windows = torch.zeros(length), []
    for start in starts:
        window = torch.ones(size)
        if start > 0:
            window[:overlap] *= fade
        if start + size < length:
            window[size - overlap :] *= fade.flip(0)
        total[start : start + size] += window
        windows.append(window)
    return [(s, w / total[s : s + size]) for s, w in zip(starts, windows, strict=True)]


def _part(x: Tensor, row: Span, column: Span) -> Tensor:
    (top, u), (left, v) = row, column
    return x[..., top : top + len(u), left : left + len(v)]
