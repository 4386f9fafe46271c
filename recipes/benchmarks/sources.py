"""The data of a benchmark: found, checked against its definition, and loaded item by item.

Nothing is computed before the whole folder has been looked at; a missing or partial data set says
what is missing and where it is obtained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inverse_score.errors import BadInput
from inverse_score.io.formats.fastmri import open_fastmri
from inverse_score.io.formats.npy import npy_array, npz_array
from inverse_score.io.scan import Scan

from .definition import FOLDER, Data, Definition


@dataclass(frozen=True)
class Item:
    """One image or volume. key: its name in the results and the seed of its noise and mask.

    load() gives (C, H, W) float32 in data units, complex images as two channels; maps() the coil
    maps (coils, H, W) complex64 or None; scan the raw volume of a "fastmri" item.
    """

    key: str
    load: Callable[[], Tensor]
    maps: Callable[[], Tensor | None] = lambda: None
    scan: Scan | None = None

    @property
    def number(self) -> int:
        """The item as the integer that seeds its random draws, the same on every machine."""
        return int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:8], "little")


def open_items(definition: Definition, folder: Path | None, limit: int | None = None) -> list[Item]:
    """The benchmark's items in their fixed order; BadInput if the data set is not as it must be.

    folder None takes the slices that ship, where the definition has some. limit: only the first so
    many; with a limit fewer items than the definition's count are accepted.
    """
    data = definition.data
    folder = _folder(definition, folder)
    items = _LAYOUTS[data.layout](folder, data)
    if not items:
        raise BadInput(
            f"{folder.name} holds no {_PATTERNS[data.layout]} file for {definition.name}. "
            f"Obtain: {data.obtain}"
        )
    keys = [item.key for item in items]
    if len(set(keys)) != len(keys):
        raise BadInput(f"{folder.name}: two items have one name; keep each file once")
    wanted = limit if limit is not None else data.count
    if wanted is not None and len(items) < wanted:
        raise BadInput(
            f"{definition.name} takes {wanted} items; {folder.name} holds {len(items)}. "
            f"Obtain: {data.obtain}; or run part of it with --limit {len(items)}"
        )
    return items if wanted is None else items[:wanted]


def _folder(definition: Definition, folder: Path | None) -> Path:
    if folder is None:
        if definition.data.shipped is None:
            raise BadInput(f"{definition.name} needs --data DIR. Obtain: {definition.data.obtain}")
        return FOLDER / definition.data.shipped
    if not folder.is_dir():
        raise BadInput(f"--data must be a folder; {folder} is not one")
    return folder


def _slices(folder: Path, data: Data) -> list[Item]:
    items = []
    for path in sorted([*folder.glob("*.npz"), *folder.glob("*.npy")]):
        stack = _stack(path, "images")
        _check_stack(path, stack, data)
        items += [_array_item(path, stack, k) for k in _kept(len(stack), data)]
    return items


def _complex(folder: Path, data: Data) -> list[Item]:
    items = []
    for path in sorted(folder.glob("*.npz")):
        images, maps = npz_array(path, "images"), npz_array(path, "maps")
        _check_stack(path, images, data)
        fits = maps.ndim == 4 and len(maps) == len(images) and maps.shape[2:] == images.shape[1:]
        if not (np.iscomplexobj(images) and np.iscomplexobj(maps) and fits):
            raise BadInput(
                f"{path.name} must hold complex images (N, H, W) and maps (N, coils, H, W); got "
                f"{images.shape} {images.dtype}, {maps.shape} {maps.dtype}"
            )
        for k in _kept(len(images), data):
            item = _array_item(path, images, k)
            items.append(Item(item.key, item.load, _MapLoader(maps, k)))
    return items


def _photos(folder: Path, data: Data) -> list[Item]:
    from skimage.io import imread
    from skimage.util import img_as_float32

    def load(path: Path) -> Tensor:
        try:
            image = img_as_float32(imread(path))
        except (OSError, ValueError, SyntaxError) as error:
            raise BadInput(f"{path.name} cannot be read as an image: {error}") from None
        image = image[..., None] if image.ndim == 2 else image[..., :3]
        return torch.from_numpy(np.moveaxis(image, -1, 0).copy())

    paths = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in (".png", ".jpg", ".jpeg")]
    return [Item(path.name, lambda path=path: load(path)) for path in paths]


def _fastmri(folder: Path, data: Data) -> list[Item]:
    def refuse() -> Tensor:
        raise BadInput("a raw scan has no image to load; the MRI recipe reads its k-space")

    return [
        Item(path.name, refuse, scan=open_fastmri(path)) for path in sorted(folder.glob("*.h5"))
    ]


_LAYOUTS = {"slices": _slices, "complex": _complex, "photos": _photos, "fastmri": _fastmri}
_PATTERNS = {"slices": ".npz or .npy", "complex": ".npz", "photos": "image", "fastmri": ".h5"}


def _stack(path: Path, key: str) -> np.ndarray:
    return npy_array(path) if path.suffix == ".npy" else npz_array(path, key)


def _check_stack(path: Path, stack: np.ndarray, data: Data) -> None:
    height_width = tuple(stack.shape[-2:])
    if stack.ndim not in (3, 4) or height_width != tuple(data.size):
        raise BadInput(
            f"{path.name} must hold images (N, H, W) or (N, C, H, W) of {tuple(data.size)} pixels; "
            f"got {stack.shape}"
        )


def _kept(count: int, data: Data) -> Sequence[int]:
    return range(data.trim_slices, count - data.trim_slices)


def _array_item(path: Path, stack: np.ndarray, k: int) -> Item:
    return Item(f"{path.stem}:{k}", _ArrayLoader(stack, k, f"{path.name}, image {k}"))


@dataclass(frozen=True)
class _ArrayLoader:
    stack: np.ndarray
    k: int
    what: str

    def __call__(self) -> Tensor:
        image = self.stack[self.k]
        if image.dtype == np.uint8:
            image = image.astype(np.float32) / 255
        if not np.isfinite(image).all():
            raise BadInput(f"{self.what} has NaN or infinite values")
        if np.iscomplexobj(image):
            image = np.stack([image.real, image.imag])
        tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
        return tensor[None] if tensor.ndim == 2 else tensor


@dataclass(frozen=True)
class _MapLoader:
    maps: np.ndarray
    k: int

    def __call__(self) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.maps[self.k], dtype=np.complex64))
