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
    """Image `index` (1, 28, 28) in [0, 1], with its label for a classifier."""

    def __init__(self, folder: str | Path, labels: bool = False):
        self.images, self.labels = load_digits(Path(folder))
        self.labelled = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, int]:
        image = self.images[index]
        return (image, int(self.labels[index])) if self.labelled else image


def load_digits(folder: Path) -> tuple[Tensor, Tensor]:
    """(N, 1, 28, 28) in [0, 1] and labels (N,)."""
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise BadInput(f"{folder} holds no digits; run `inverse-score prepare digits`")
    parts = [np.load(path) for path in files]
    images = torch.from_numpy(np.concatenate([part["image"] for part in parts])).float() / 255
    labels = torch.from_numpy(np.concatenate([part["labels"] for part in parts])).long()
    return images[:, None], labels
