"""Training images of the digit prior, with labels for its classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from inverse_score.errors import BadInput

# data = scale u + offset: digits in [0, 1], u in [-1, 1].
RANGE = (0.5, 0.5)


class Digits(Dataset):
    """Image `index` (1, 28, 28) in [0, 1], in an order that `seed` shuffles anew every epoch."""

    def __init__(self, folder: str | Path, length: int = 10_000_000, seed: int = 0):
        self.images, self.labels = load_digits(Path(folder))
        self.length, self.seed = length, seed
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        return self.images[self.position(index)]

    def position(self, index: int) -> int:
        """Which image is the index-th: a permutation an epoch."""
        epoch, place = divmod(int(index), len(self.images))
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self._order = epoch, rng.permutation(len(self.images))
        return int(self._order[1][place])


def load_digits(folder: Path) -> tuple[Tensor, Tensor]:
    """(N, 1, 28, 28) in [0, 1] and labels (N,)."""
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise BadInput(f"{folder} holds no digits; run `inverse-score prepare digits`")
    parts = [np.load(path) for path in files]
    images = torch.from_numpy(np.concatenate([part["image"] for part in parts])).float() / 255
    labels = torch.from_numpy(np.concatenate([part["labels"] for part in parts])).long()
    return images[:, None], labels
