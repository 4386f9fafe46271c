"""Training data: folders of images as datasets, split by file or patient, never by slice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import BadInput
from .io.scan import Scan
from .sources import FORMATS, RANGES, ArrayRow, Image, Slices, list_images
from .training.config import TrainConfig

__all__ = ["FORMATS", "ImageFolder", "from_config", "split"]


@dataclass(frozen=True)
class ImageFolder:
    """Images by [index], (C, H, W) float32 in data units, read when asked for.

    labels, one an image, make an item (image, label).

    resize: (height, width), by antialiased linear interpolation. complaints: files that could not
    be listed. An image that cannot be read raises BadInput with its name.
    """

    images: tuple[Image, ...]
    resize: tuple[int, int] | None = None
    complaints: tuple[str, ...] = ()
    labels: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, int]:
        image = self.images[index]
        values = image.read()
        if self.resize is not None and values.ndim == 3:
            values = resized(values, self.resize)
        image = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        return image if self.labels is None else (image, self.labels[index])

    @property
    def num_groups(self) -> int:
        """Files, or patients where files name them."""
        return len({image.group for image in self.images})

    @property
    def unit(self) -> str:
        """ "picture", "HU" or ""; BadInput if images of several units are mixed."""
        units = {image.unit for image in self.images}
        if len(units) > 1:
            raise BadInput(f"images of several units in one folder: {sorted(units)}")
        return units.pop()

    def __str__(self) -> str:
        return f"{len(self)} images of {self.num_groups} files or patients"


def resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """values (C, H, W) at another size."""
    from skimage.transform import resize

    shape = (values.shape[0], *size)
    return np.asarray(resize(values, shape, order=1, anti_aliasing=True, mode="edge"))


def split(folder: ImageFolder, share: float, seed: int = 0) -> tuple[ImageFolder, ImageFolder]:
    """(training, held-out): whole groups, a share of them held out, at least one if any.

    Groups are ordered by a hash of seed and name, so that adding files moves few of the others
    and no image ever changes side because of the order of a listing.
    """
    names = sorted({image.group for image in folder.images}, key=lambda g: _hash(seed, g))
    count = 0 if share == 0 or len(names) < 2 else max(1, round(share * len(names)))
    held = set(names[: min(count, len(names) - 1)])
    parts: tuple[list[int], list[int]] = ([], [])
    for number, image in enumerate(folder.images):
        parts[image.group in held].append(number)
    return chosen(folder, parts[0]), chosen(folder, parts[1])


def chosen(folder: ImageFolder, numbers: Sequence[int]) -> ImageFolder:
    """Some of a folder's images, with their labels."""
    labels = folder.labels
    return replace(
        folder,
        images=tuple(folder.images[number] for number in numbers),
        labels=None if labels is None else tuple(labels[number] for number in numbers),
    )


def _hash(seed: int, group: str) -> bytes:
    return hashlib.sha256(f"{seed}/{group}".encode()).digest()


def from_config(
    config: TrainConfig, *, kspace_images: Callable[[Scan], Slices] | None = None
) -> tuple[ImageFolder, ImageFolder | None, TrainConfig]:
    """(training images, held-out images or None, config with its data.range filled in).

    An .npz or .npy file is one group to `split`, so rows are split where the path is one file.
    """
    data = config.data
    if data.path is None:
        raise BadInput("data.path is missing: a folder or file of images")

    def listed(path: str) -> ImageFolder:
        found = list_images(
            path, data.format, key=data.key, channels=data.channels, kspace_images=kspace_images
        )
        labels = None if data.labels is None else read_labels(found.images, data.labels)
        return ImageFolder(tuple(found.images), data.resize, tuple(found.complaints), labels)

    folder = listed(data.path)
    if data.held_out_path is not None:
        training, held_out = folder, listed(data.held_out_path)
    else:
        training, held_out = split(_rows_apart(folder, data.path), data.held_out, config.seed)
    if data.range is None:
        rule = RANGES.get("pictures" if folder.unit == "picture" else folder.unit, (1.0, 0.0))
        config = replace(config, data=replace(data, range=rule))
    return training, held_out if len(held_out) else None, config


def _rows_apart(folder: ImageFolder, path: str) -> ImageFolder:
    if not (Path(path).is_file() and Path(path).suffix in (".npz", ".npy")):
        return folder
    return replace(folder, images=tuple(replace(i, group=i.name) for i in folder.images))


def read_labels(images: Sequence[Image], rule: str) -> tuple[int, ...]:
    """Integer labels: of the npz array `rule`, or with "folders" of the pictures' folders."""
    if rule == "folders":
        names = [str(Path(image.name).parent) for image in images]
        known = sorted(set(names))
        if len(known) < 2:
            raise BadInput("data.labels: folders needs one folder a class; all are in one")
        return tuple(known.index(name) for name in names)
    labels = []
    for image in images:
        if not isinstance(image.read, ArrayRow):
            raise BadInput(f"data.labels {rule!r} names an array of an npz; {image.name} is none")
        labels.append(image.read.label(rule))
    return tuple(labels)
