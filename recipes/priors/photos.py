"""Training images of the photograph prior: colour patches at random scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from inverse_score.errors import BadInput

# data = scale u + offset: pictures in [0, 1], u in [-1, 1].
RANGE = (0.5, 0.5)
_LEAST = 96


class Photos(Dataset):
    """Patch `index` (3, size, size) of an endless set, in [0, 1]; a function of (seed, index).

    A picture is shrunk by a random factor (area average, which also removes traces of JPEG), then
    a patch of it mirrored or turned by right angles. Pictures count by the root of their area.
    """

    def __init__(self, folder: str | Path, size: int = 64, length: int = 100_000, seed: int = 0):
        self.size, self.length, self.seed = size, length, seed
        self.pictures = load_pictures(Path(folder))
        areas = np.sqrt([picture.shape[-1] * picture.shape[-2] for picture in self.pictures])
        self.weights = areas / areas.sum()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        rng = np.random.default_rng([self.seed, int(index)])
        picture = self.pictures[rng.choice(len(self.pictures), p=self.weights)]
        shortest = min(picture.shape[1:])
        window = int(self.size * min(np.exp(rng.uniform(0, np.log(4))), shortest / self.size))
        row = rng.integers(picture.shape[1] - window + 1)
        column = rng.integers(picture.shape[2] - window + 1)
        patch = picture[:, row : row + window, column : column + window].float() / 255
        patch = functional.adaptive_avg_pool2d(patch[None], self.size)[0]
        patch = torch.rot90(patch, int(rng.integers(4)), (1, 2))
        patch = patch.flip(2) if rng.random() < 0.5 else patch
        exposure = float(np.exp(0.2 * rng.standard_normal()))
        return patch**exposure


def load_pictures(folder: Path) -> list[Tensor]:
    """Every picture (3, H, W; bytes) of at least 96 pixels a side in the folder's .npz files."""
    pictures = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            for key in sorted(name for name in file.files if name.startswith("image")):
                picture = torch.from_numpy(file[key]).permute(2, 0, 1).contiguous()
                if min(picture.shape[1:]) >= _LEAST:
                    pictures.append(picture)
    if not pictures:
        raise BadInput(f"{folder} holds no pictures; run `inverse-score prepare photo-patches`")
    return pictures
