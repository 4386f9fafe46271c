"""The order of training: item number p is the same image, cut and flipped alike, in every run.

Position p counts items from the start of training over all epochs, processes and resumes. Which
image it is and how it is augmented is a pure function of (seed, p), so a run that resumes at
step n goes on with position n * batch_size, and two processes share one sequence.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import BadInput

Augment = Callable[[Tensor, np.random.Generator], Tensor]
_ORDER, _AUGMENT = 1, 2
_PATIENCE = 100


class Items(Dataset):
    """Position -> (image, label, complaint): an image (C, H, W) float32 in the prior's units.

    source: a map-style dataset (len and [index]; each epoch a new permutation), or a callable
    (seed, position) -> image, an endless stream. An image may come with a label, as (image,
    label). crop (h, w), flip and augment(image, rng) are applied in this order. An image that
    cannot be read (BadInput) is replaced by the next one of the permutation, and the complaint
    names it. shuffle False: index p, centred crop, no flip (for held-out images).
    """

    def __init__(
        self,
        source: Any,
        seed: int,
        *,
        range: tuple[float, float] = (1.0, 0.0),
        crop: tuple[int, int] | None = None,
        flip: bool = False,
        augment: Augment | None = None,
        shuffle: bool = True,
    ):
        self.source, self.seed, self.range = source, int(seed), range
        self.crop, self.flip, self.augment, self.shuffle = crop, flip, augment, shuffle
        self.count = len(source) if hasattr(source, "__getitem__") else None
        if self.count is None and not callable(source):
            raise BadInput(
                "a dataset has len() and [index], or is callable as dataset(seed, position); "
                f"got {type(source).__name__}"
            )
        if self.count == 0:
            raise BadInput("the dataset is empty: no image was found to train on")

    def __getitem__(self, position: int) -> tuple[Tensor, int, str]:
        value, complaint = self._read(position)
        image, label = value if isinstance(value, tuple) else (value, -1)
        image = torch.as_tensor(image)
        if not image.is_floating_point():
            raise BadInput(f"an image must be floating point; item {position} is {image.dtype}")
        image = (image.float() - self.range[1]) / self.range[0]
        image = self._vary(image, position)
        if not image.isfinite().all():
            raise BadInput(f"item {position} has values that are NaN or infinite")
        return image, int(label), complaint

    def _read(self, position: int) -> tuple[Any, str]:
        if self.count is None:
            return self.source(self.seed, position), ""
        complaint = ""
        for attempt in range(min(self.count, _PATIENCE)):
            try:
                return self.source[self.index(position + attempt)], complaint
            except (BadInput, OSError) as error:
                complaint = complaint or str(error)
        raise BadInput(f"{_PATIENCE} images in a row cannot be read; the first: {complaint}")

    def index(self, position: int) -> int:
        """Which image of the source comes at this position."""
        epoch, place = divmod(position, self.count)  # type: ignore[type-var]
        return int(_order(self.seed, epoch, self.count)[place]) if self.shuffle else place

    def _vary(self, image: Tensor, position: int) -> Tensor:
        rng = generator(self.seed, position, _AUGMENT)
        if self.crop is not None:
            image = cut(image, self.crop, rng if self.shuffle else None)
        if self.shuffle and self.flip and rng.random() < 0.5:
            image = image.flip(-1)
        if self.shuffle and self.augment is not None:
            image = self.augment(image, rng)
        return image.contiguous()


def cut(image: Tensor, size: Sequence[int], rng: np.random.Generator | None) -> Tensor:
    """A (h, w) part of image (..., H, W), anywhere with rng and in the centre without."""
    room = [have - want for have, want in zip(image.shape[-2:], size, strict=True)]
    if min(room) < 0:
        raise BadInput(
            f"data.crop {tuple(size)} is larger than an image {tuple(image.shape)}; choose a "
            "smaller crop, or data.resize"
        )
    top, left = (r // 2 if rng is None else int(rng.integers(r + 1)) for r in room)
    return image[..., top : top + size[0], left : left + size[1]]


def generator(seed: int, position: int, stream: int) -> np.random.Generator:
    """Random numbers of one position, by Philox; streams do not overlap."""
    key = np.array([seed % (1 << 64), position], dtype=np.uint64)
    counter = np.array([0, 0, stream, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return generator(seed, epoch, _ORDER).permutation(count)


def positions(step: int, batch_size: int, rank: int = 0, world: int = 1) -> range:
    """This process's share of the global batch of a step."""
    share = batch_size // world
    first = step * batch_size + rank * share
    return range(first, first + share)


class _Batches:
    """Batches of positions, from one step on; a sampler for DataLoader."""

    def __init__(self, start: int, stop: int, batch_size: int, rank: int, world: int):
        self.steps, self.batch_size, self.rank, self.world = (
            range(start, stop), batch_size, rank, world,
        )  # fmt: skip

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            yield list(positions(step, self.batch_size, self.rank, self.world))

    def __len__(self) -> int:
        return len(self.steps)


def batches(
    items: Items, start: int, stop: int, batch_size: int, *, rank=0, world=1, workers=0
) -> DataLoader:
    """(images, labels, complaints) of every step from start to stop, in bounded memory."""
    return DataLoader(
        items,
        batch_sampler=_Batches(start, stop, batch_size, rank, world),  # type: ignore[arg-type]
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
    )


def collate(rows: list[tuple[Tensor, int, str]]) -> tuple[Tensor, Tensor, list[str]]:
    """Stack a batch; BadInput if its images are of several shapes."""
    shapes = sorted({tuple(image.shape) for image, _, _ in rows})
    if len(shapes) > 1:
        raise BadInput(
            f"images of one batch must have one shape; got {', '.join(map(str, shapes))}. "
            "data.crop or data.resize makes sizes equal, data.channels the channels"
        )
    images = torch.stack([image for image, _, _ in rows])
    labels = torch.tensor([label for _, label, _ in rows])
    return images, labels, [complaint for _, _, complaint in rows if complaint]
